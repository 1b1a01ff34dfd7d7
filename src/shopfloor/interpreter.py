"""What Python itself is told so that it does not hold up what is new: one place, since it concerns the whole process.

Python's collector looks through all objects now and then and holds all threads meanwhile. So what stays is taken out of
its sight ("frozen"). It knows only one such set: who lets go of a part opens the whole of it, and closes it again here.
"""

import gc
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

_SWITCH: Final = 0.001
"""Seconds after which a thread that works must let another one go on. Python's usual 5 ms are paid at each step of a
batch's way to the disk when a sink's thread works meanwhile."""


class _Collector:
    """Python's collector, of which there is one, for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._making = 0
        self._was_on = True
        self._holders = 0

    def off(self) -> None:
        """Until as many ``on``."""
        with self._lock:
            if not self._making:
                self._was_on = gc.isenabled()
                gc.disable()
            self._making += 1

    def on(self) -> None:
        with self._lock:
            self._making -= 1
            if not self._making and self._was_on:
                gc.enable()

    def hold(self) -> None:
        """Take what is there now out of sight, until as many ``let_go``."""
        with self._lock:
            gc.freeze()
            self._holders += 1

    def let_go(self, *, unused: bool) -> None:
        """``unused``: a part is not used any more; it is collected before the rest is taken out of sight again."""
        with self._lock:
            self._holders -= 1
            if self._holders and not unused:
                return
            gc.unfreeze()
            if self._holders:
                gc.collect()
                gc.freeze()


_collector: Final = _Collector()


@contextmanager
def prepared() -> Generator[None]:
    """Enter it when everything is loaded and running; that takes a tenth of a second.

    What is there stays anyway: so it is out of the collector's sight until the end.
    """
    before = sys.getswitchinterval()
    gc.collect()
    _collector.hold()
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        _collector.let_go(unused=False)


@contextmanager
def settling() -> Generator[None]:
    """What is made in the block stays for long: it is not looked at meanwhile, nor afterwards until ``released``.

    A block that raises has nothing to release.
    """
    _collector.off()
    try:
        yield
    finally:
        _collector.on()
    _collector.hold()


def released() -> None:
    """What was made in one block of ``settling`` is not used any more.

    Where other things are to stay out of sight, one collection is made here, of all objects, and holds all threads.
    """
    _collector.let_go(unused=True)
