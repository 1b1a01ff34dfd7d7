"""The order of a node's messages: they count from 0 to 255, and one that comes too early waits for those before."""

from collections.abc import Callable
from typing import Final

from shopfloor.protocols.sparkplug.exchange import Arrival, Event, Moment, Step
from shopfloor.protocols.sparkplug.nodes import COUNT, Node

_WINDOW: Final = 64
"""Messages that may be ahead of, or behind, the one that is due and still be the same order."""


class Order:
    """Gives the messages of nodes in their order."""

    def __init__(
        self,
        reorder: int,
        take: Callable[[Node, Arrival, Moment, Step], None],
        broken: Callable[[Node, Moment, Step], object],
        set_timer: Callable[[int, Node], None],
    ) -> None:
        """``reorder`` (ns) is how long a gap may stay open; 0 takes every message as it comes.

        ``take`` gets each message when it is its turn, ``broken`` is told that the order cannot be trusted,
        ``set_timer`` gets the monotonic time at which ``skip`` is to be called.
        """
        self._reorder = reorder
        self._take = take
        self._broken = broken
        self._set_timer = set_timer

    def arrived(self, node: Node, arrival: Arrival, now: Moment, step: Step) -> None:
        """Take a message of a node that is there when it is its turn."""
        seq = arrival.payload.seq
        if seq is None or not 0 <= seq < COUNT:
            node.tell_once("fault", f"its {arrival.verb} has no sequence number from 0 to 255", step)
            self._take(node, arrival, now, step)
            return
        ahead = (seq - node.due) % COUNT
        if ahead == 0:
            self._take(node, arrival, now, step)
            node.due = (seq + 1) % COUNT
            self.follow(node, now, step)
        elif ahead <= _WINDOW and self._reorder > 0:
            if seq in node.early:
                node.tell_once("fault", f"the sequence number {seq} came twice", step)
                self._take(node, arrival, now, step)
                return
            node.early[seq] = arrival
            if node.deadline is None:
                node.deadline = now.monotonic + self._reorder
                self._set_timer(node.deadline, node)
        elif ahead >= COUNT - _WINDOW:
            # Late, or twice: what it says is true, but the order is no longer to be trusted.
            self._take(node, arrival, now, step)
            self._broken(node, now, step)
        else:
            self.drain(node, now, step)
            step.lost += (seq - node.due) % COUNT
            text = f"the sequence jumped from {node.due} to {seq}"
            step.events.append(Event("gap", node.where, text))
            self._take(node, arrival, now, step)
            node.due = (seq + 1) % COUNT
            self._broken(node, now, step)

    def follow(self, node: Node, now: Moment, step: Step) -> None:
        """Take what waited for the message that just came."""
        while node.early and (arrival := node.early.pop(node.due, None)) is not None:
            self._take(node, arrival, now, step)
            node.due = (node.due + 1) % COUNT
        if not node.early:
            node.deadline = None
        elif node.deadline is not None and node.deadline <= now.monotonic:
            self._set_timer(now.monotonic, node)

    def skip(self, node: Node, now: Moment, step: Step) -> None:
        """Count what did not come as lost and go on behind it."""
        while node.early:
            nearest = min(node.early, key=lambda seq: (seq - node.due) % COUNT)
            missing = (nearest - node.due) % COUNT
            step.lost += missing
            if missing:
                text = f"{missing} message(s) from sequence number {node.due} on did not come"
                step.events.append(Event("gap", node.where, text))
            node.due = nearest
            self.follow(node, now, step)
        node.deadline = None

    def drain(self, node: Node, now: Moment, step: Step) -> None:
        """Nothing more comes before what waits: take it."""
        if node.early:
            self.skip(node, now, step)
