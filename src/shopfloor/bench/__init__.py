"""Measured figures: one module a bench, each with ``run(thorough) -> list[Result]``.

``shopfloor bench NAME [--json]`` prints them. Ratios are to a limit or a peer measured in the same run,
interleaved; servers and publishers run in processes of their own.
"""

import msgspec


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One figure: the median of ``runs``."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    """``value`` divided by the figure of ``ratio_to``, measured in the same run."""
    ratio_to: str | None = None
    min: float | None = None
    max: float | None = None
    runs: int = 1
