"""What a journal promises to those who write and read it (docs/specs/journal.md, docs/specs/ledger.md)."""

from collections.abc import Awaitable, Sequence
from typing import Final, Literal, Protocol

import msgspec

from shopfloor.samples import Batch, Sample

WhenFull = Literal["refuse", "oldest", "thin"]
"""What happens above `keep`: sources wait; the oldest entries go; measurements become fewer, then the oldest go."""
ReaderOutcome = Literal["delivered", "filtered", "deduplicated", "rejected", "dropped"]

OVER_KEEP: Final = "the journal was over `keep`"
AT_ONCE: Final = 20_000
"""Samples that a sink reads at once."""
READS_UNDER_WAY: Final = 6
"""Reads of a sink behind its position that it may have delivered, at most: commits under way and what it is at."""
THINNED: Final = f"{OVER_KEEP}: of old measurements the smallest and the largest are kept"

SHOWN: Final = 10
"""Samples of a dead letter that are listed."""
LONGEST: Final = 1000
"""Characters or bytes of a value that are listed; text that is cut ends with …"""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One batch in the journal; ``batch`` is None when the entry is damaged."""

    offset: int
    batch: Batch | None
    source: str
    samples: int
    """How many it was given; ``batch`` has fewer when it was thinned (``when_full: thin``)."""
    received: int


class Tally(msgspec.Struct, frozen=True, gc=False):
    """What became of some samples of one entry at one reader."""

    offset: int
    source: str
    outcome: ReaderOutcome
    samples: int
    received: int
    """Time of reception of the entry, ns UTC."""
    reason: str = ""


class DeadLetter(msgspec.Struct, frozen=True):
    """Samples that a reader will never take."""

    id: int
    reader: str
    offset: int
    time: int
    reason: str
    count: int
    """How many samples."""
    samples: Sequence[Sample]
    """The first of them, at most ``SHOWN`` and with ``LONGEST`` of a value: all together may not fit into memory."""
    source: str = ""


class LedgerRow(msgspec.Struct, frozen=True):
    """A sum of the ledger. ``outcome`` is a reader's outcome, or received, base, waiting, lost before us."""

    source: str
    reader: str
    outcome: str
    samples: int
    reason: str = ""
    first: int = 0
    last: int = 0


class JournalState(msgspec.Struct, frozen=True):
    """How full the journal is."""

    entries: int
    samples: int
    """Waiting for the slowest reader or for trimming."""
    size: int
    """Bytes in use."""
    keep: int
    oldest: int | None
    """Time of reception of the oldest entry, ns UTC."""
    full: bool
    """Whether sources are held back (``when_full: refuse``)."""
    damaged: int
    """Damaged entries met since the start."""
    thinned: int = 0
    """Measurements that were taken out since the start (``when_full: thin``)."""
    dropped: int = 0
    """Samples that some reader did not get, since the start, because the oldest entries were dropped to make room."""
    salvaged: str = ""
    """What was done when the file was damaged, else ""."""


class Reader(Protocol):
    """A named reader: a sink, a processor or the historian."""

    name: str
    position: int
    """The last offset that was committed."""
    state: bytes

    async def read(self, most_samples: int = 100_000) -> list[Entry]:
        """The next entries, in order, at least one; waits for it. Goes on behind what it gave last."""
        ...

    def rewind(self, position: int | None = None) -> None:
        """Read again from behind ``position``, by default the last commit."""
        ...

    def commit(
        self,
        offset: int,
        tallies: Sequence[Tally] = (),
        *,
        state: bytes | None = None,
        output: Batch | None = None,
        dead: Sequence[tuple[int, str, Batch]] = (),
    ) -> Awaitable[None]:
        """Everything up to ``offset`` is done: one transaction for position, state, output, tally, dead letters.

        The commit is under way when this returns; await the result to know that it is on disk.
        ``dead`` gives (offset, reason, the refused samples).
        """
        ...

    def lag(self) -> tuple[int, int]:
        """Entries not committed yet, and the time of reception of the oldest of them in ns UTC (0: none or unknown)."""
        ...

    def dropped(self) -> int:
        """Samples that it did not get, since the start, because the oldest entries were dropped to make room."""
        ...


class Journal(Protocol):
    """The durable record."""

    @property
    def head(self) -> int:
        """The highest offset that any entry has had, or was passed over."""
        ...

    def append(self, batch: Batch, *, only_awaited: bool = False) -> Awaitable[int]:
        """Make the batch durable, its ``checkpoint`` with it; await the result for its offset.

        Waits while the journal is full. With ``only_awaited`` it is not stored when who waits for it is cancelled
        before its turn comes: of a source that will give it again, it would be there twice. Raises Unavailable when
        the disk refuses, ValueError for a batch that cannot be stored.
        """
        ...

    async def reader(self, name: str) -> Reader:
        """The reader of this name; a new one starts at the oldest entry."""
        ...

    async def forget(self, name: str) -> bool:
        """Take a reader away for good; False when there was none."""
        ...

    def lag(self, position: int) -> tuple[int, int]:
        """Entries behind a position, and the time of reception of the oldest of them in ns UTC (0: none or unknown)."""
        ...

    async def checkpoint(self, source: str) -> bytes | None:
        """The last durable checkpoint of a source."""
        ...

    async def newest(self) -> int | None:
        """When the newest entry was received that is known of, trimmed ones included; ns UTC, None: there is none."""
        ...

    async def ledger(self) -> list[LedgerRow]:
        """Every sum of the ledger."""
        ...

    async def dead_letters(self, limit: int = 1000) -> list[DeadLetter]:
        """The newest refused samples, newest first; of each letter the first ``SHOWN``."""
        ...

    async def retry(self, ids: Sequence[int]) -> list[int]:
        """Journal these dead letters once more, each for the reader alone that refused it; the ids that there were.

        The letter goes in the transaction that makes the entry durable: it is offered again once.
        """
        ...

    async def drop(self, ids: Sequence[int]) -> int:
        """Throw these dead letters away; how many there were."""
        ...

    async def state(self) -> JournalState:
        """How full it is."""
        ...

    async def close(self) -> None:
        """Write what is waiting and close; idempotent."""
        ...
