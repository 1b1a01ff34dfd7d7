"""Report by exception: what counts as a change."""

import math

from shopfloor.samples import Value


def changed(before: Value, after: Value, deadband: float | None = None) -> bool:
    """Whether a value differs from the one reported last.

    ``deadband`` is absolute: a number must move by more than it. Another type is a change (1, 1.0 and true are
    three values), NaN after NaN is none.
    """
    if type(before) is not type(after):
        return True
    if isinstance(after, float) and isinstance(before, float) and math.isnan(after) and math.isnan(before):
        return False
    if deadband is not None and isinstance(after, int | float) and isinstance(before, int | float):
        return not abs(after - before) <= deadband  # also when one of them is NaN
    return before != after
