"""What the writer of a journal is asked to do, and what it says of it."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

from shopfloor.journal import body
from shopfloor.journal.base import Entry
from shopfloor.samples import Batch


class Repair:
    """A wish to salvage the running file: damage was met while reading what ``generation`` opened."""

    __slots__ = ("done", "generation")

    def __init__(self, done: "asyncio.Future[Any]", generation: int) -> None:
        """``done`` gets None once the file is whole again."""
        self.done = done
        self.generation = generation


Fresh = list[tuple[Entry, int]]
"""Entries that have just become durable, each with the bytes of its body."""


class Work:
    """Something for the writer: the batch becomes an entry, then ``apply`` runs, all in one transaction."""

    __slots__ = ("after", "apply", "batch", "body", "done", "failed", "only_awaited")

    def __init__(
        self,
        done: "asyncio.Future[Any] | None",
        batch: Batch | None = None,
        apply: Callable[[sqlite3.Connection], Any] | None = None,
        after: "Work | None" = None,
    ) -> None:
        """``done`` gets the offset of the batch, or without a batch what ``apply`` returns; None: nobody waits.

        When ``after`` failed, this fails too.
        """
        self.done = done
        self.batch = batch
        self.apply = apply
        self.after = after
        self.failed = False
        self.only_awaited = False
        """Whether it is nothing any more once who waits for it was cancelled."""
        self.body: body.Body | None = None

    @property
    def withdrawn(self) -> bool:
        """Whether it is not to be done any more."""
        return self.only_awaited and self.done is not None and self.done.cancelled()
