"""What facts have come since somebody looked last: spans of time, few however many facts there were."""

from collections.abc import Mapping
from typing import Any

from shopfloor.kpi.facts import NEVER, Touched


class News:
    """The time that new facts touch, and what they were."""

    def __init__(self) -> None:
        """Nothing is new."""
        self._late: list[tuple[Touched, str]] = []
        self._since = NEVER
        self._why = ""

    def add(self, touched: Touched, why: str) -> None:
        """A fact came that may change this time; ``why`` says what it was."""
        if touched.end == NEVER:
            if touched.start < self._since:
                self._since, self._why = touched.start, why
            return
        if self._late:
            last, what = self._late[-1]
            if what == why and touched.start <= last.end and touched.end >= last.start:
                self._late[-1] = Touched(min(last.start, touched.start), max(last.end, touched.end)), why
                return
        self._late.append((touched, why))

    def take(self) -> list[tuple[Touched, str]]:
        """What came; nothing is new any more."""
        found = self._late
        if self._since != NEVER:
            found.append((Touched(self._since, NEVER), self._why))
        self._late, self._since = [], NEVER
        return found

    def dump(self) -> dict[str, Any]:
        """Everything, for ``load``."""
        return {"late": self._late, "since": self._since, "why": self._why}

    def load(self, known: Mapping[str, Any]) -> None:
        """What ``dump`` gave."""
        self._late = [(Touched(*touched), why) for touched, why in known["late"]]
        self._since, self._why = known["since"], known["why"]
