"""Which samples of an entry a reader wants; what it does not get is tallied, so the ledger balances."""

from collections.abc import Sequence
from typing import Final

from shopfloor.journal import THINNED, Entry, Tally, addressed
from shopfloor.plant import passes
from shopfloor.samples import Batch

DAMAGED: Final = "a journal entry was damaged"


class Selection:
    """The tags that match some patterns, each tag decided once."""

    def __init__(self, reader: str, patterns: Sequence[str]) -> None:
        """Patterns as the plant file writes them, of the reader of this name."""
        self._reader = reader
        self._patterns = patterns
        self._everything = "*" in patterns
        self._wanted: dict[str, bool] = {}

    def take(self, entry: Entry, tallies: list[Tally]) -> Batch | None:
        """What is wanted of the entry, None for nothing; filtered and damaged samples are added to ``tallies``."""
        batch = entry.batch
        if batch is None:
            tallies.append(Tally(entry.offset, entry.source, "dropped", entry.samples, entry.received, DAMAGED))
            return None
        if entry.samples > len(batch):
            gone = entry.samples - len(batch)
            tallies.append(Tally(entry.offset, entry.source, "dropped", gone, entry.received, THINNED))
        if (retried := addressed(entry.source)) is not None:
            reader, source = retried
            if reader != self._reader:
                tallies.append(Tally(entry.offset, entry.source, "filtered", len(batch), entry.received))
                return None
            return batch.called(source)
        if self._everything and not entry.source.startswith("$"):
            return batch if len(batch) else None
        wanted = self._wanted
        for tag in batch.tags:
            if tag not in wanted:
                wanted[tag] = passes(tag, self._patterns)
        indices = [index for index, tag in enumerate(batch.tags) if wanted[tag]]
        if len(indices) < len(batch):
            missing = len(batch) - len(indices)
            tallies.append(Tally(entry.offset, entry.source, "filtered", missing, entry.received))
        return batch.select(indices) if indices else None
