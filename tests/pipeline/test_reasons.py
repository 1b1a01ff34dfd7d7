"""The ledger's reason of a refusal has no values in it, else each refused row would be a row of the ledger."""

import pytest

from shopfloor.pipeline.reasons import kind_of


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            'violates check constraint "c" Failing row contains (7, 2026-11-21 10:00:00.123+00, it\'s (so), 81.25).',
            'violates check constraint "c" Failing row contains ….',
        ),
        ("doubled Key (tag, time)=(7, 2026-11-21) already exists.", "doubled Key (tag, time)=(…) already exists."),
        (
            "Duplicate entry '7-81.25' for key 'sample.PRIMARY' (1062)",
            "Duplicate entry '…' for key 'sample.PRIMARY' (1062)",
        ),
        ("Data too long for column 'text' at row 12 (1406)", "Data too long for column 'text' at row … (1406)"),
        (
            "Cannot insert duplicate key in object 'dbo.sample'. The duplicate key value is (7, 2026-11-21 (x)).",
            "Cannot insert duplicate key in object 'dbo.sample'. The duplicate key value is ….",
        ),
        ("unable to parse 'line value=1 17': bad timestamp (400)", "unable to parse '…': bad timestamp (400)"),
        ('value "99999" is out of range; value "99998" is out of range', 'value "…" is out of range'),
        ("more than the 1000 bytes of `message_size`", "more than the 1000 bytes of `message_size`"),
    ],
)
def test_values_are_left_out_and_what_is_wrong_stays(said: str, kind: str) -> None:
    assert kind_of(said) == kind
