"""What became of each sample of a journal entry while the pipeline offers it, again without what was refused.

After Rejected the pipeline offers the rest of the batch, so a sample's place in the batch changes. Here it keeps the
place that it has in the journal: keys that are made of it stay the same, also over a restart, and what the other
side holds already is not sent again.
"""

from collections import Counter, deque
from typing import Any

from shopfloor.samples import Batch, Rejected


class Offer:
    """One entry: what of it is held, and what is refused and why, by the place in the entry."""

    def __init__(self, size: int) -> None:
        """``size``: how many samples the whole entry has."""
        self.size = size
        self.places: list[int] = list(range(size))
        """The place in the entry of each sample of the batch that is offered now."""
        self.held: set[int] = set()
        self.refused: dict[int, str] = {}
        self.numbers: dict[int, int] = {}
        """What the sink counted when it saw the whole entry, by the place in it."""
        self.requests: deque[Any] | None = None
        """What is still to be sent of the entry, in order, as the sink cut it; None: it is not cut yet.

        A request whose answer was lost stays the first one, so it is sent again as it was.
        """

    def number(self, batch: Batch) -> None:
        """Tell values of one tag and time in an entry apart by their order; asked when the whole entry is offered."""
        if not self.numbers and len(set(zip(batch.tags, batch.times, strict=True))) == len(batch):
            self.numbers = dict.fromkeys(self.places, 0)
        if not self.numbers:
            times: Counter[tuple[str, int]] = Counter()
            for place, tag, time in zip(self.places, batch.tags, batch.times, strict=True):
                self.numbers[place] = times[tag, time]
                times[tag, time] += 1

    def refuse(self) -> None:
        """Raise Rejected for those of the batch that are refused, each for its reason, if there are any."""
        reasons = {i: self.refused[place] for i, place in enumerate(self.places) if place in self.refused}
        if reasons:
            self.places = [place for place in self.places if place not in self.refused]
            raise Rejected.each(reasons)


class Offers:
    """The entries that are offered now."""

    def __init__(self) -> None:
        """None yet."""
        self._offers: dict[int, Offer] = {}

    def begin(self, offset: int) -> None:
        """Forget what lies before this offset: the pipeline has moved on."""
        for earlier in [known for known in self._offers if known < offset]:
            del self._offers[earlier]

    def take(self, offset: int, batch: Batch) -> Offer:
        """What is known of the entry that this batch is of; a batch of another size is the whole entry, anew."""
        offer = self._offers.get(offset)
        if offer is None or len(batch) > offer.size:
            offer = self._offers[offset] = Offer(len(batch))
        elif len(batch) != len(offer.places):
            offer.places = list(range(offer.size))
            if len(batch) != offer.size:
                offer = self._offers[offset] = Offer(len(batch))
        return offer
