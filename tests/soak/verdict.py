"""What must be there, beside what is there."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from shopfloor.samples import Sample
from tests.soak.destinations import Promise

SHOWN: Final = 3
Key = tuple[int, str, int]
"""Time, type and value written so that all differ that do, quality."""


class Verdict(NamedTuple):
    """How one place keeps its promise."""

    wrong: list[str]
    again: int


def differences(
    where: str, promise: Promise, expected: Sequence[Sample], held: Sequence[Sample], *,
    unit: int = 1, quality: bool = True, sort: bool = False,
) -> Verdict:  # fmt: skip
    """What is lost, doubled, invented or out of order; times count in ``unit`` ns.

    ``sort``: the place gives its samples in the order of their times.
    """
    due, there = _by_tag(expected, unit, quality=quality), _by_tag(held, unit, quality=quality)
    wrong: list[str] = []
    again = 0
    for tag in sorted(due.keys() | there.keys()):
        ours, theirs = due.get(tag, []), there.get(tag, [])
        if sort:
            key = _time if promise == "once" else None  # of those that come again the order at one time is nobody's
            ours, theirs = sorted(ours, key=key), sorted(theirs, key=key)
        if promise == "latest":
            ours, theirs = sorted(_latest(ours, theirs)), sorted(theirs)
        if promise == "last":
            ours, theirs = ours[-1:], list(dict.fromkeys(theirs))
        if promise == "again":
            again += len(theirs) - len(ours)
            ours, theirs = list(dict.fromkeys(ours)), list(dict.fromkeys(theirs))
        if ours == theirs:
            continue
        lost, more = Counter(ours) - Counter(theirs), Counter(theirs) - Counter(ours)
        for what, found in (("lost", lost), ("too many", more)):
            if found:
                wrong.append(f"{where}: {tag}: {found.total()} of {len(ours)} {what}: {list(found)[:SHOWN]}")
        if not lost and not more:
            at = next(i for i, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
            wrong.append(f"{where}: {tag}: out of order at {at}: {ours[at : at + SHOWN]} is {theirs[at : at + SHOWN]}")
    return Verdict(wrong, max(again, 0))


def _by_tag(samples: Sequence[Sample], unit: int, *, quality: bool) -> Mapping[str, list[Key]]:
    found: dict[str, list[Key]] = defaultdict(list)
    for one in samples:
        said = f"{type(one.value).__name__} {one.value!r}"
        found[one.tag].append((one.time // unit, said, one.quality if quality else 0))
    return found


def _time(key: Key) -> int:
    return key[0]


def _latest(ours: Sequence[Key], theirs: Sequence[Key]) -> list[Key]:
    """Of each time the last one; of one entry's that came at one time all may be there, also when they are the same.

    One that has no value any more is not asked for: InfluxDB keeps a field that the later point does not have.
    """
    given: dict[int, list[Key]] = defaultdict(list)
    for key in ours:
        given[key[0]].append(key)
    there = Counter(theirs)
    due = [
        keys[-1] for keys in given.values()
        if there[keys[-1]] or len(set(keys)) == 1 or not keys[-1][1].startswith("NoneType")
    ]  # fmt: skip
    rest = there - Counter(due)
    room = {time: len(keys) - 1 for time, keys in given.items()}
    for key in sorted(rest.elements()):
        if room.get(key[0], 0) and key in given[key[0]]:
            room[key[0]] -= 1
            due.append(key)
    return due
