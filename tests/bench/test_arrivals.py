"""The account of a load finds what was lost, doubled and out of order, and nothing else."""

import numpy as np
import pytest

from shopfloor.bench.arrivals import MOST_SAMPLES, Account

MS = 10**6
START = 1_790_000_000_000 * MS


def time_of(turn: int, device: int) -> int:
    return START + (turn * 100 + device) * MS


def said(devices: int = 2, metrics: int = 3, turns: int = 2) -> Account:
    account = Account(devices, metrics, turns)
    for turn in range(turns):
        for device in range(devices):
            account.said(device, turn, time_of(turn, device), time_of(turn, device) + 500)
    return account


def arrive(account: Account, *samples: tuple[int, int], after: int = 1000 * MS) -> None:
    """Samples (turn, tag) arrive together."""
    tags = np.array([tag for _, tag in samples], np.uint32)
    times = np.array([time_of(turn, tag // 3) for turn, tag in samples], np.int64)
    account.arrive(tags, times, START + after)


EVERYTHING = [(turn, tag) for turn in range(2) for tag in range(6)]


def test_all_that_arrives_once_and_in_order_is_a_success() -> None:
    account = said()
    arrive(account, *EVERYTHING[:7])
    arrive(account, *EVERYTHING[7:])
    found = account.outcome()
    assert (found.sent, found.arrived_once, found.lost, found.doubled, found.out_of_order) == (12, 12, 0, 0, 0)
    assert found.success == 1


def test_what_does_not_arrive_is_lost() -> None:
    account = said()
    arrive(account, *EVERYTHING[:-2])
    found = account.outcome()
    assert (found.arrived_once, found.lost) == (10, 2)
    assert account.arrived == 10


def test_what_arrives_twice_is_doubled_in_one_batch_or_two() -> None:
    account = said()
    arrive(account, *EVERYTHING, (1, 5))
    arrive(account, (1, 4))
    found = account.outcome()
    assert (found.arrived_once, found.lost, found.doubled) == (10, 0, 2)
    assert account.arrived == 12


def test_what_a_birth_tells_once_more_is_not_doubled_unless_it_comes_a_third_time() -> None:
    account = said()
    account.retold(1, 1)
    arrive(account, *EVERYTHING, (1, 3), (1, 4), (1, 5))
    assert account.outcome().doubled == 0
    arrive(account, (1, 3))
    assert account.outcome().doubled == 1


@pytest.mark.parametrize("size", [1, 2, 6], ids="in batches of {}".format)
def test_what_comes_after_a_newer_one_of_its_tag_is_out_of_order(size: int) -> None:
    account = said(turns=3)
    order = [(0, 0), (2, 0), (1, 0), (0, 1), (1, 1), (2, 1)]
    for at in range(0, 6, size):
        arrive(account, *order[at : at + size])
    assert account.outcome().out_of_order == 1


def test_what_nobody_said_does_not_count() -> None:
    account = said()
    account.arrive(np.array([0, 99], np.uint32), np.array([START + 7 * MS, time_of(0, 0)], np.int64), START)
    account.arrive(np.array([0], np.uint32), np.array([time_of(0, 0) + 1], np.int64), START)
    assert account.arrived == 0
    assert account.outcome().doubled == 0


def test_latency_runs_from_the_network_to_the_arrival_of_each_sample() -> None:
    account = said(devices=1, metrics=3, turns=2)
    arrive(account, (0, 0), (0, 1), after=50 * MS + 500)
    arrive(account, (0, 2), (1, 0), (1, 1), (1, 2), after=300 * MS + 500)
    latency = account.outcome().latency
    assert latency is not None
    assert (latency.p50, latency.max) == (200.0, 300.0)


def test_more_than_can_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="more than"):
        Account(MOST_SAMPLES, 2, 1)
