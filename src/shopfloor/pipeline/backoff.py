"""How long a component stays away after trouble: one rule for all of them.

Full jitter: a pause is anything from nothing to a bound that doubles. What lost a broker or a database at the same
moment would else return to it at the same moment, and again after it has fallen over from that.
"""

import random
from typing import Final

LONGEST_ASKED: Final = 3600.0
"""The longest that the other side may ask us to stay away: a mistaken date must not silence a component for a year."""


class Backoff:
    """The pauses of one component; all in seconds."""

    def __init__(self, first: float, longest: float, chance: random.Random | None = None) -> None:
        """``first`` and ``longest`` bound the first pause and every one; ``chance`` draws, by default its own."""
        self._first = min(first, longest)
        self._longest = longest
        self._chance = chance or random.Random()  # noqa: S311  # no secret
        self._bound = self._first

    def reset(self) -> None:
        """The trouble is over: the next pause is a first one again."""
        self._bound = self._first

    def pause(self, asked: float = 0.0) -> float:
        """How long to stay away this time; ``asked``: for how long the other side wants to be left alone.

        Nobody comes before that, nor do all come at once when it is over.
        """
        drawn = self._chance.uniform(0.0, self._bound)
        self._bound = min(self._bound * 2, self._longest)
        return min(max(asked, 0.0), LONGEST_ASKED) + drawn
