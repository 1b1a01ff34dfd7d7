"""A press that writes files, whatever happens to who reads them; what it wrote is known."""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from shopfloor.samples import Sample, Value

ROWS: Final = 8
"""Rows in a file."""
EVERY: Final = 0.2
"""Seconds between two files, of our time."""
MOST_UNREAD: Final = 100
"""Files that may lie there before it waits: a busy computer would else never come to the end of them."""
MS: Final = 10**6
COLUMNS: Final = ("state", "good", "scrap", "cycle", "temperature", "serial")
_RUNNING, _IDLE, _STOPPED, _ABORTED = 6, 4, 2, 9
"""PackML's numbers."""


class Press:
    """Makes, stands, breaks down; one file in ten comes late."""

    def __init__(self, folder: Path, clock: Callable[[], int], chosen: random.Random) -> None:
        """``clock`` gives the plant's time, ns UTC."""
        self.written: list[Sample] = []
        self._folder = folder
        self._clock = clock
        self._chosen = chosen
        self._state = _RUNNING
        self._good = self._scrap = self._number = 0
        self._cycle = False
        self._last = 0
        self._late: list[tuple[int, list[str]]] = []
        folder.mkdir()

    async def run(self) -> None:
        """Write a file now and then, until cancelled; then what is late."""
        try:
            while True:
                await asyncio.sleep(EVERY)
                if sum(1 for _ in self._folder.glob("*.csv")) < MOST_UNREAD:
                    self._work()
        finally:
            for _, rows in self._late:
                self._write(rows)

    def _work(self) -> None:
        now = self._clock() // MS
        step = max((now - self._last) // ROWS, 1) if self._last else 1
        rows = [self._row(now - step * (ROWS - 1 - i)) for i in range(ROWS)]
        self._last = now
        if self._chosen.random() < 0.1:
            self._late.append((self._number + self._chosen.randint(2, 60), rows))
        else:
            self._write(rows)
        for due in [one for one in self._late if one[0] <= self._number]:
            self._late.remove(due)
            self._write(due[1])

    def _row(self, at: int) -> str:
        chosen = self._chosen
        if chosen.random() < 0.05:
            self._state = chosen.choice((_RUNNING, _RUNNING, _IDLE, _STOPPED, _ABORTED))
        if self._state == _RUNNING:
            self._cycle = not self._cycle
            self._good += chosen.randint(0, 9)
            self._scrap += chosen.random() < 0.1
        temperature = round(20 + chosen.gauss(0, 1), 3)
        values: Sequence[Value] = (self._state, self._good, self._scrap, self._cycle, temperature, f"Ü{self._good:06}")
        self.written += [Sample(f"press/{c}", at * MS, v) for c, v in zip(COLUMNS, values, strict=True)]
        when = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
        return ",".join([when, *(str(value).lower() if value is self._cycle else str(value) for value in values)])

    def _write(self, rows: list[str]) -> None:
        """As a whole: under a hidden name, then renamed."""
        self._number += 1
        path = self._folder / f"{self._number:08}.csv"
        hidden = path.with_name(f".{path.name}")
        hidden.write_text("\n".join([",".join(("time", *COLUMNS)), *rows, ""]), "utf-8")
        hidden.rename(path)
