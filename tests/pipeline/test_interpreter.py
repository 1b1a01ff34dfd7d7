"""What Python is told for the time that a plant runs."""

import gc
import sys

from shopfloor.interpreter import prepared


def test_what_is_there_after_the_start_is_out_of_the_collectors_sight() -> None:
    """Until the end: then all of it is as it was, and what is not used any more can go."""
    frozen, interval = gc.get_freeze_count(), sys.getswitchinterval()
    kept = [[number] for number in range(1000)]
    with prepared():
        assert gc.get_freeze_count() >= frozen + len(kept)
        assert sys.getswitchinterval() < interval
        seen = gc.get_objects()
        assert not any(one is kept for one in seen)
    assert gc.get_freeze_count() == 0
    assert sys.getswitchinterval() == interval
