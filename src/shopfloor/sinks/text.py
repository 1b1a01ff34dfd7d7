"""What all that write text have to know: times as ISO 8601, and what can be written as UTF-8."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = 10**9


def iso(time: int, digits: int = 9) -> str:
    """``2026-01-05T06:00:00.123456789Z`` of ns UTC, cut off after so many digits of a second (3, 6 or 9)."""
    seconds, rest = divmod(time, _SECOND)
    return f"{_second(seconds)}.{rest:09}"[: 20 + digits] + "Z"


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: a lone half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(4096)
def _second(seconds: int) -> str:
    """A second since 1970 as ISO 8601 without a zone."""
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
