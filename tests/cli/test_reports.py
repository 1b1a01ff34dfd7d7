"""What the command line prints of what it knows."""

from shopfloor import reports
from shopfloor.journal import LedgerRow
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


def test_a_ledger_without_readers_says_what_came_and_that_nobody_takes_it() -> None:
    rows = [LedgerRow("$source", "", "received", 7), LedgerRow("cmm", "", "received", 2)]
    shown = reports.ledger(rows)
    assert shown.splitlines()[:2] == [
        "cmm: 2 samples received", "Nobody takes them: give the plant file a `historian` or `sinks`.",
    ]  # fmt: skip
    assert reports.ledger(rows[:1]).startswith("Nothing has been received yet.")


def test_the_ledger_says_a_reason_once_for_all_of_its_time() -> None:
    rows = [
        LedgerRow("plc", "", "received", 10),
        LedgerRow("plc", "mes", "delivered", 6),
        LedgerRow("plc", "mes", "rejected", 2, "not known here", 3_600 * 10**9, 3_601 * 10**9),
        LedgerRow("plc", "mes", "rejected", 1, "too long", 10**9, 10**9),
        LedgerRow("plc", "mes", "rejected", 1, "not known here", 7_200 * 10**9, 7_201 * 10**9),
    ]
    lines = [line for line in reports.ledger(rows).splitlines() if line.startswith("mes: ")]
    assert [line.partition(" (")[0] for line in lines] == [
        "mes: 3 samples of plc rejected: not known here", "mes: 1 sample of plc rejected: too long",
    ]  # fmt: skip
    assert "01:00:00" in lines[0]
    assert "02:00:01" in lines[0]
