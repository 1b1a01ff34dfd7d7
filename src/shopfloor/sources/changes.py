"""Report by exception: what counts as a change."""

from shopfloor.samples import Value


def changed(before: Value, after: Value, deadband: float | None = None) -> bool:
    """Whether a value differs from the one reported last.

    ``deadband`` is absolute: a number must move by more than it. Another type is a change (1, 1.0 and true are
    three values), NaN after NaN is none.
    """
    if type(before) is not type(after):
        return True
    if before == after:
        return False
    if deadband is not None and isinstance(after, int | float) and isinstance(before, int | float):
        return not (_both_nan(before, after) or abs(after - before) <= deadband)  # also when one of them is NaN
    return not _both_nan(before, after)


def _both_nan(before: Value, after: Value) -> bool:
    return before != before and after != after  # noqa: PLR0124  # only NaN is unlike itself; of any type at once
