"""When a host may ask edge nodes for a rebirth: once for a cause, and never all nodes at the same time.

A rebirth costs a node its data flow for a moment and the host a large message. So a thousand nodes that
are unknown at once are asked one after the other, and a node that gives its birth by itself is not asked.
Times are monotonic nanoseconds; nothing here reads a clock.
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final, NamedTuple

SEQUENCE: Final = "sequence"
"""The one cause that may come again after a birth: each gap is a new one."""

_SECOND: Final = 10**9
_LONGEST_PAUSE: Final = 3600 * _SECOND
_MOST_CAUSES: Final = 1000
"""Causes that are remembered of a node; with more than that the node is hopeless and not asked for new ones."""


class NodeKey(NamedTuple):
    """An edge node: its identity all over the installation."""

    group: str
    node: str


class _Wish:
    """What a host wants of one node."""

    __slots__ = ("answered", "asked", "causes", "due", "pause")

    def __init__(self, pause: int) -> None:
        self.causes: set[str] = set()
        self.answered: set[str] = set()
        self.due: int | None = None
        """When it is to be asked; None while nothing is queued."""
        self.asked: int | None = None
        """When it was asked last."""
        self.pause = pause
        """How long it is left alone after that."""

    def earliest(self, now: int) -> int:
        return now if self.asked is None else max(now, self.asked + self.pause)


class Rebirths:
    """The requests of one host to all its nodes."""

    def __init__(
        self, rate: int, spread: int, pause: int, chance: Callable[[], float], most_nodes: int = 100_000
    ) -> None:
        """A second's worth of requests may go at once, then ``rate`` a second over all nodes.

        ``spread`` (ns) is the longest random delay of a request, ``pause`` (ns) how long a node is left alone
        after one (doubled each time that no birth follows), ``chance`` gives numbers from 0 to below 1,
        ``most_nodes`` bounds the memory for nodes that exist only as topics.
        """
        self._gap = _SECOND // rate
        self._burst = _SECOND - self._gap
        self._spread = spread
        self._pause = pause
        self._chance = chance
        self._most_nodes = most_nodes
        self._wishes: dict[NodeKey, _Wish] = {}
        self._queue: list[tuple[int, int, NodeKey]] = []
        self._numbers = count()
        self._free_at: int | None = None

    def ask(self, node: NodeKey, cause: str, now: int, delay: int = 0) -> bool:
        """Want a rebirth, ``delay`` ns from now at the earliest; False when it is wanted already or was in vain."""
        wish = self._wishes.get(node)
        if wish is None:
            if len(self._wishes) >= self._most_nodes:
                return False
            wish = self._wishes[node] = _Wish(self._pause)
        if cause in wish.answered or len(wish.answered) >= _MOST_CAUSES:
            return False
        if len(wish.causes) < _MOST_CAUSES:
            wish.causes.add(cause)
        if wish.due is not None:
            return False
        wish.due = wish.earliest(now + delay + int(self._chance() * self._spread))
        heapq.heappush(self._queue, (wish.due, next(self._numbers), node))
        return True

    def born(self, node: NodeKey, *, new_session: bool) -> None:
        """The node gave its birth: what was wanted is there, or cannot be had in this session."""
        wish = self._wishes.get(node)
        if wish is None:
            return
        if new_session:
            wish.answered.clear()
        wish.answered |= wish.causes - {SEQUENCE}
        wish.causes.clear()
        wish.due = None
        wish.pause = self._pause

    def forget(self, node: NodeKey) -> None:
        """The node is gone: ask nothing of it, and remember nothing."""
        self._wishes.pop(node, None)

    def take(self, now: int) -> list[NodeKey]:
        """The nodes to be asked now."""
        found: list[NodeKey] = []
        while self._trim() and self._queue[0][0] <= now and (self._free_at is None or self._free_at <= now):
            _, _, node = heapq.heappop(self._queue)
            wish = self._wishes[node]
            wish.due = None
            wish.pause = self._pause if wish.asked is None else min(2 * wish.pause, _LONGEST_PAUSE)
            wish.asked = now
            # Generic cell rate: what was not used within the last second may be used now.
            self._free_at = max(now - self._burst, self._free_at or now - self._burst) + self._gap
            found.append(node)
        return found

    def next(self) -> int | None:
        """When ``take`` will have something to give; None while nothing is wanted."""
        return max(self._queue[0][0], self._free_at or self._queue[0][0]) if self._trim() else None

    def _trim(self) -> bool:
        """Drop what is no longer wanted from the head of the queue; whether something is left."""
        while self._queue:
            due, _, node = self._queue[0]
            wish = self._wishes.get(node)
            if wish is not None and wish.due == due:
                return True
            heapq.heappop(self._queue)
        return False
