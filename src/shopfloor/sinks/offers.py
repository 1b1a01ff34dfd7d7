"""What became of each sample of a journal entry while the pipeline offers it, again without what was refused.

After Rejected the pipeline offers the rest of the batch, so a sample's place in the batch changes. Here it keeps the
place that it has in the journal: keys that are made of it stay the same, also over a restart, and what the other
side holds already is not sent again.
"""

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

    def refuse(self) -> None:
        """Raise Rejected for those of the batch that are refused for the same reason, if there are any."""
        reason = next((self.refused[place] for place in self.places if place in self.refused), None)
        if reason is None:
            return
        indices = [i for i, place in enumerate(self.places) if self.refused.get(place) == reason]
        self.places = [place for place in self.places if self.refused.get(place) != reason]
        raise Rejected(reason, indices)


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
