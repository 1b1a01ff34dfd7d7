"""What hosts command an edge node: into the command path, and told back only after a real write."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from shopfloor.protocols.sparkplug.edge import EdgeNode
from shopfloor.protocols.sparkplug.model import Payload
from shopfloor.protocols.sparkplug.orders import orders
from shopfloor.samples import Answer, Misconfigured, Unavailable, Value
from shopfloor.seams import Inbox

ECHO_AFTER: Final = 1.0
"""Seconds that the written value has to come back as a sample of its source."""

Echo = Callable[[EdgeNode, str, Value], Awaitable[None]]


class HostCommands:
    """Puts NCMD and DCMD into the inbox; a host learns what became of them by data.

    Mostly that is the sample which the source reads back. Where the tag had the value already there is none,
    so the node says the value again. What was refused or failed is said by nothing: Sparkplug has no word for it.
    """

    def __init__(self, inbox: Inbox, echo: Echo) -> None:
        """``echo`` publishes a value of a tag."""
        self._inbox = inbox
        self._echo = echo
        self._waiting: set[asyncio.Task[None]] = set()

    def take(self, node: EdgeNode, device: str, payload: Payload) -> None:
        """Take a command to this device; empty: to the node itself."""
        for request, problem in orders(node, device, payload):
            answered = _Answered(self, node, request.tag)
            if problem:
                self._inbox.refuse(request, "The command cannot be carried out", problem, answered)
            else:
                self._inbox.put(request, answered)

    async def leave(self) -> None:
        """The connection ends: let go what hosts hold, forget what was to be echoed."""
        self._inbox.lost()
        waiting, self._waiting = self._waiting, set()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    def await_echo(self, node: EdgeNode, tag: str, value: Value, before: int | None) -> None:
        """Say the value in a while, unless a sample later than ``before`` was told until then."""
        task = asyncio.create_task(self._say(node, tag, value, before), name=f"sparkplug: echo of {tag}")
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _say(self, node: EdgeNode, tag: str, value: Value, before: int | None) -> None:
        await asyncio.sleep(ECHO_AFTER)
        if node.told(tag) == before:
            with suppress(Unavailable, Misconfigured):  # the sink finds that out as well
                await self._echo(node, tag, value)


class _Answered:
    """Hears what became of one command."""

    def __init__(self, commands: HostCommands, node: EdgeNode, tag: str) -> None:
        self._commands = commands
        self._node = node
        self._before = node.told(tag)

    def __call__(self, answer: Answer) -> None:
        """A press is answered twice: what it did, and what its end did."""
        if answer.done and answer.event != "refused":
            self._commands.await_echo(self._node, answer.tag, answer.value, self._before)
            self._before = self._node.told(answer.tag)
