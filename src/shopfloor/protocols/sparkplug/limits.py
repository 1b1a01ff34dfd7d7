"""How much of a Sparkplug payload is read at most, so that no message can take the memory of the process."""

from typing import Final

LARGEST_PAYLOAD: Final = 16 * 2**20
"""Bytes of a payload that is still read."""
MOST_METRICS: Final = 1_000_000
"""Metrics of a payload, members of a template, rows or cells of a table, properties: more are not read."""
LONGEST_REASON: Final = 300
"""Characters that a fault says of a metric, however long what it quotes."""
DEEPEST: Final = 16
"""Templates in templates, property sets in property sets: deeper ones are not read."""


class Malformed(ValueError):
    """The bytes are no Sparkplug payload, or one beyond the limits."""


def deeper(depth: int) -> int:
    """One level further down; raises ValueError beyond ``DEEPEST``."""
    if depth >= DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    return depth + 1
