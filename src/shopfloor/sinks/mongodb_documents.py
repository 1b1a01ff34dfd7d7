"""Samples and machines' figures as documents of MongoDB (docs/connectors/mongodb.md has the fields).

Its dates end at the millisecond, so ``nanos`` beside one holds the nanoseconds below it (0 to 999,999), and nothing is
rounded. An ``_id`` is made of what the journal knows of a sample, so a sample that is written again is the same one.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from bson import Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo import ReplaceOne

from shopfloor.samples import INT_MAX, INT_MIN, Batch, Sample, Value
from shopfloor.sinks.offers import Offer
from shopfloor.sinks.sql.facts import facts
from shopfloor.sinks.sql.tables import CYCLE_TIME, KPI_WINDOW, LOSS, SCRAP, SHARE, STOP, STOP_REASON, TABLES, Table
from shopfloor.sinks.text import is_unicode

Document = dict[str, Any]

LONGEST: Final = 16 * 2**20 - 64 * 2**10
"""Bytes of one value: a document has 16 MiB at most."""
LONGEST_IN_TIME_SERIES: Final = 4 * 2**20 - 64 * 2**10
"""A document of a time series collection has 4 MiB at most."""
MILLISECOND: Final = 10**6
_SECOND: Final = 10**9
_INT64_MAX: Final = 2**63 - 1
_NOT_COMPARED: Final = frozenset({"place", "received", "createdAt", "updatedAt"})
"""Fields that may differ although it is the same sample: Shopfloor was asked for other tags meanwhile."""
_INSIDE: Final[Mapping[str, tuple[Table, str]]] = {
    LOSS.name: (KPI_WINDOW, "losses"),
    SCRAP.name: (KPI_WINDOW, "scraps"),
    SHARE.name: (KPI_WINDOW, "shares"),
    CYCLE_TIME.name: (KPI_WINDOW, "cycle_times"),
    STOP_REASON.name: (STOP, "reasons"),
}
"""Tables whose rows are a list inside a document of another one."""
FIGURES: Final = [table for table in TABLES if table.replaces and table.name not in _INSIDE]
"""The tables of machines' figures that are collections here, a row a document."""


class Stored(NamedTuple):
    """A sample on its way: its document, and which sample it is."""

    document: Document
    offer: Offer
    place: int
    """In the journal's entry."""


Shape = Callable[[Sample, Batch], Document | None]
"""Makes the document of a sample, without its ``_id``; None for one that has no document."""


def moment(time: int) -> DatetimeMS:
    """A time in ns UTC as a date of BSON, cut to the millisecond."""
    return DatetimeMS(time // MILLISECOND)


def held(value: Value) -> Any:
    """A value as BSON holds it without loss; what is beyond int64 as a decimal of 34 digits."""
    if type(value) is int and value > _INT64_MAX:
        return Decimal128(str(value))
    return value


def sample(one: Sample, batch: Batch) -> Document:
    """The document of a sample in ``samples``."""
    document: Document = {
        "tag": one.tag, "time": moment(one.time), "nanos": one.time % MILLISECOND, "value": held(one.value),
        "quality": one.quality, "source": batch.source, "received": moment(batch.received),
    }  # fmt: skip
    if one.status:
        document["status"] = one.status
    if one.server_time:
        document["server_time"] = moment(one.server_time)
        document["server_nanos"] = one.server_time % MILLISECOND
    return document


def unfit(batch: Batch, longest: int) -> Mapping[int, str]:
    """Why no MongoDB can hold samples, by their places in the batch; ``longest``: bytes of a value."""
    found: dict[int, str] = {}
    wrong = {tag for tag in set(batch.tags) if not is_unicode(tag)}
    if wrong:
        found.update((i, "a tag's name is not valid Unicode") for i, tag in enumerate(batch.tags) if tag in wrong)
    if isinstance(batch.values, list | tuple):
        for i, value in enumerate(batch.values):
            if isinstance(value, int | str | bytes) and (reason := _unfit(value, longest)):
                found.setdefault(i, reason)
    return found


def _unfit(value: int | str | bytes, longest: int) -> str:
    if isinstance(value, int):
        return "" if INT_MIN <= value <= INT_MAX else "the number is beyond 64 bits"
    if isinstance(value, str):
        if not is_unicode(value):
            return "the text is not valid Unicode"
        value = value if value.isascii() else value.encode()
    return f"the value is longer than {longest} bytes" if len(value) > longest else ""


def stored(writer: str, offset: int, batch: Batch, offer: Offer, shape: Shape) -> Iterator[Stored]:
    """The documents of those samples of a batch that are neither held nor refused yet.

    ``writer`` tells this Shopfloor's samples from another one's.
    """
    stem = blake2b(f"{writer}\0{offset}\0".encode("utf-8", "surrogatepass"), digest_size=8)
    entry = Int64(offset)
    for place, one in zip(offer.places, batch, strict=True):
        if place in offer.held or place in offer.refused or (shaped := shape(one, batch)) is None:
            continue
        name = stem.copy()
        name.update(f"{one.tag}\0{one.time}\0{offer.numbers[place]}".encode())
        seconds = (one.time // _SECOND) & 0xFFFFFFFF
        document: Document = {"_id": ObjectId(seconds.to_bytes(4, "big") + name.digest())} | shaped
        document["entry"], document["place"] = entry, place
        yield Stored(document, offer, place)


def same(document: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether what the database has under an ``_id`` is this sample."""
    return all(name in _NOT_COMPARED or _equal(value, found.get(name)) for name, value in document.items())


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def newer(document: Document) -> ReplaceOne[Document]:
    """Put a sample into ``latest`` unless that has a newer one of its tag: then the upsert fails as a doubled key."""
    rest = {name: value for name, value in document.items() if name not in ("_id", "tag")}
    time, nanos = document["time"], document["nanos"]
    older = {"$or": [{"time": {"$lt": time}}, {"time": time, "nanos": {"$lte": nanos}}]}
    return ReplaceOne({"_id": document["tag"], **older}, rest, upsert=True)


def figures(entries: Iterable[tuple[int, Batch]]) -> dict[str, list[ReplaceOne[Document]]]:
    """What the records of machines put into which collection, each in the place of what it corrects."""
    documents: dict[tuple[str, str], Document] = {}
    inside: list[tuple[tuple[str, str], str, list[Document]]] = []
    for fact in facts(entries):
        table, field = _INSIDE.get(fact.table.name, (fact.table, ""))
        key = (table.name, json.dumps(fact.key, default=_text, ensure_ascii=False))
        names = fact.table.names
        rows = [_row(zip(names, row, strict=True), fact.table.replaces if field else ()) for row in fact.rows]
        if field:
            inside.append((key, field, rows))
        elif rows:
            documents[key] = {"_id": key[1], **rows[0]}
    for key, field, rows in inside:
        documents[key][field] = rows
    found: dict[str, list[ReplaceOne[Document]]] = {}
    for (collection, name), document in documents.items():
        found.setdefault(collection, []).append(ReplaceOne({"_id": name}, document, upsert=True))
    return found


def _row(fields: Iterable[tuple[str, Any]], without: Sequence[str]) -> Document:
    document: Document = {}
    for name, value in fields:
        if name in without:
            continue
        if isinstance(value, datetime):
            document[name] = value
            if micros := value.microsecond % 1000:
                document[f"{name}_micros"] = micros
        else:
            document[name] = value.isoformat() if isinstance(value, date) else held(value)
    return document


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a key of {type(value)}")
