"""What kind of a refusal it is, without the values in its words.

Servers quote the row that they refuse, so each refusal would have a reason of its own, and the ledger, which keeps a
sum for each reason, a row for each. The dead letter has every word.
"""

import re
from typing import Final

_VALUES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), instead)
    for pattern, instead in (
        # PostgreSQL's and SQL Server's ways to quote: a value may have any bracket or quote in it
        (r"\b(failing row contains|duplicate key value is|truncated value:) .*?(?=\.$|; |$)", r"\1 …"),
        (r"(?!\(\d{1,5}\))\([^()]*\d[^()]*\)", "(…)"),  # short and alone it is the number of an error
        (r"'[^']*\d[^']*'", "'…'"),
        (r'"[^"]*\d[^"]*"', '"…"'),
        (r"\b(row|line|record|document|item|sample|index|position|offset)( number)? #?\d+\b", r"\1\2 …"),
    )
)


def kind_of(reason: str) -> str:
    """The reason as the ledger has it; of several that are of one kind, one."""
    for pattern, instead in _VALUES:
        reason = pattern.sub(instead, reason)
    return "; ".join(dict.fromkeys(reason.split("; ")))
