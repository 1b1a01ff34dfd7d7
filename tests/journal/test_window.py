"""The newest entries in memory: as many as their bound has room for, objects counted."""

import tracemalloc

import pytest

from shopfloor.journal import Entry, window
from shopfloor.samples import Batch

BEGIN = 1_767_592_800_000_000_000


@pytest.mark.parametrize("samples", [1, 100])
def test_it_takes_no_more_memory_than_its_bound(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    """Also with samples that come alone, which are some 46 bytes in the file, and many times that as objects."""
    monkeypatch.setattr(window, "WINDOW_BYTES", 2**20)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        held = window.Window()
        for number in range(5000):
            at = BEGIN + number
            batch = Batch("plc", at, ["plc/x"] * samples, [at] * samples, [number * 1.5] * samples)
            held.add(Entry(at, batch, "plc", samples, at), 32 + 14 * samples)
        size = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 2**19 < size < 1.5 * 2**20
