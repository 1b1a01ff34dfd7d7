"""What the command line prints of what it knows."""

from shopfloor import reports
from shopfloor.pipeline import ComponentStatus


def test_an_error_that_is_over_is_not_shown_and_a_present_one_in_full() -> None:
    long = "nothing listens on 127.0.0.1:4840; is the OPC UA server started, is the port right?"
    shown = reports.components(
        [
            ComponentStatus("press", "source", "opcua", "running", 0, required=True, last_error="was away"),
            ComponentStatus("oven", "source", "opcua", "waiting", 0, required=True, last_error=long),
        ]
    )
    assert "was away" not in shown
    assert long in shown
