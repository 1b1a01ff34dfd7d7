"""The pauses after trouble: bounded, spread out, and none before the other side wants it."""

import random
from itertools import pairwise
from statistics import fmean

import pytest

from shopfloor.pipeline.backoff import LONGEST_ASKED, Backoff
from shopfloor.pipeline.runner import FIRST_DELAY, LONGEST_DELAY

GATEWAYS = 2000
TRIES = 12


def pauses(seed: int, asked: float = 0.0) -> list[float]:
    """What one component does in an outage."""
    backoff = Backoff(FIRST_DELAY, LONGEST_DELAY, random.Random(seed))
    return [backoff.pause(asked) for _ in range(TRIES)]


def bounds() -> list[float]:
    """By the documented rule."""
    return [min(0.25 * 2**i, 30.0) for i in range(TRIES)]


def test_each_pause_is_anything_up_to_a_bound_that_doubles() -> None:
    """Uniform: a tenth of all gateways in each tenth of the time, at every try."""
    every = [pauses(seed) for seed in range(GATEWAYS)]
    for bound, drawn in zip(bounds(), zip(*every, strict=True), strict=True):
        assert min(drawn) >= 0
        assert max(drawn) <= bound
        assert fmean(drawn) == pytest.approx(bound / 2, rel=0.05)
        tenths = [sum(int(10 * pause / bound) == tenth for pause in drawn) for tenth in range(10)]
        # 200 each, with a standard deviation of 13: five of them never come by chance, and the seeds are given.
        assert all(abs(count - GATEWAYS / 10) < 5 * 13.5 for count in tenths), tenths


def test_many_that_lost_it_at_once_do_not_return_in_step() -> None:
    """A server that comes back after ten minutes is not met by all of them within the same second."""
    at = []
    for seed in range(GATEWAYS):
        backoff, now = Backoff(FIRST_DELAY, LONGEST_DELAY, random.Random(seed)), 0.0
        while now < 600:
            now += backoff.pause()
        at.append(now - 600)
    busiest = max(sum(second <= moment < second + 1 for moment in at) for second in range(30))
    # Who waits a uniform pause of 30 s comes within x of any moment with a density of (30 - x) / 450: 131 in the first.
    assert busiest < 200


def test_the_pauses_of_two_are_not_each_others() -> None:
    """Two processes that start in the same moment have nothing in common."""
    one, other = Backoff(1.0, 30.0), Backoff(1.0, 30.0)
    assert [one.pause() for _ in range(4)] != [other.pause() for _ in range(4)]


def test_who_asks_to_be_left_alone_is_and_not_met_by_all_at_once() -> None:
    """Retry-After: 5 for everybody would else be a wave after five seconds."""
    drawn = sorted(pauses(seed, asked=5.0)[3] for seed in range(GATEWAYS))
    assert drawn[0] >= 5.0
    assert drawn[-1] <= 5.0 + bounds()[3]
    assert all(later - earlier < 0.1 for earlier, later in pairwise(drawn)), "spread over all of it"


@pytest.mark.parametrize(("asked", "least"), [(10.0**9, LONGEST_ASKED), (-5.0, 0.0)])
def test_what_is_asked_for_counts_within_reason(asked: float, least: float) -> None:
    """A date in the year 2100, or one that is over."""
    assert least <= pauses(1, asked)[0] <= least + FIRST_DELAY


def test_after_good_times_it_begins_anew() -> None:
    """The bound is the first again."""
    backoff = Backoff(FIRST_DELAY, LONGEST_DELAY, random.Random(1))
    assert max(backoff.pause() for _ in range(50)) > FIRST_DELAY
    backoff.reset()
    assert backoff.pause() <= FIRST_DELAY
