"""Which samples of a batch a database refuses, where it does not say."""

from collections.abc import Callable, Sequence

from shopfloor.samples import Rejected


def culprits(refusal: Callable[[Sequence[int]], str | None], size: int, reason: str) -> Rejected:
    """The samples that are refused, found by trying halves.

    ``refusal`` tries these places of the batch, keeps nothing, and says why they are refused (None: they are taken);
    ``reason`` is why the whole batch was.
    """
    found: list[int] = []
    reasons: dict[str, None] = {}
    waiting: list[tuple[Sequence[int], str]] = [(range(size), reason)]
    while waiting:
        places, why = waiting.pop()
        if len(places) == 1:
            found.append(places[0])
            reasons.setdefault(why)
            continue
        middle = len(places) // 2
        halves = [(half, refusal(half)) for half in (places[:middle], places[middle:])]
        bad = [(half, again) for half, again in halves if again is not None]
        # each half alone is taken, both together are not: the later one has to go
        waiting += bad or [([place], why) for place in places[middle:]]
    return Rejected("; ".join(list(reasons)[:3]), sorted(found))
