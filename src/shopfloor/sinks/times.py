"""Times as text: ISO 8601, UTC."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = 10**9


def iso(time: int, digits: int = 9) -> str:
    """``2026-01-05T06:00:00.123456789Z`` of ns UTC, cut off after so many digits of a second (3, 6 or 9)."""
    seconds, rest = divmod(time, _SECOND)
    return f"{_second(seconds)}.{rest:09}"[: 20 + digits] + "Z"


@lru_cache(4096)
def _second(seconds: int) -> str:
    """A second since 1970 as ISO 8601 without a zone."""
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
