"""The signal recorder's documents, for a front end that reads them: ``signaldatas`` and ``productionrecords``.

Which fields they have is in docs/signal-recorder.md.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, Final, NamedTuple, Self

from bson import ObjectId
from pydantic import Field, StringConstraints, model_validator
from pymongo import UpdateOne

from shopfloor.kpi.calendar import Calendar
from shopfloor.plant.components import Strict, TagName
from shopfloor.plant.model import Zone
from shopfloor.samples import Batch, Quality, Sample
from shopfloor.sinks.mongodb_documents import MILLISECOND, Document, held, moment
from shopfloor.sinks.offers import Offer

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Id = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Collection = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,99}$")]


class Signal(Strict):
    """A tag whose values go into `signaldatas`."""

    tag: TagName = Field(description="The tag.")
    sensor: Id = Field(description="The `_id` of its document in `sensors`: 24 hexadecimal digits become an ObjectId.")
    machine: Id = Field(description="The `_id` of its machine in `machines`.")


class Hourly(Strict):
    """A tag with the units of each hour, which go into `productionrecords`."""

    tag: TagName = Field(description="A tag that `hourly` of an [edges](edges.md) processor gives.")
    machine: Id = Field(description="The `_id` of the machine in `machines`.")


class Recorder(Strict):
    """The signal recorder's own collections, for the front end that reads them."""

    signals: list[Signal] = Field(default=[], description="What goes into `signaldatas`.")
    production: list[Hourly] = Field(default=[], description="What goes into `productionrecords`.")
    signals_into: Collection = Field(default="signaldatas", description="The collection of the values.")
    production_into: Collection = Field(default="productionrecords", description="The collection of the hours.")
    timezone: Zone | None = Field(default=None, description="IANA time zone of the hours; by default the site's.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.tags:
            raise ValueError("`signals` and `production` are both empty; say which tags go where")
        for what, names in (
            ("the tag", self.tags),
            ("in `production` the machine", [hourly.machine for hourly in self.production]),
        ):
            if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
                raise ValueError(f"{what} {twice} stands there twice; it can have one entry only")
        return self

    @property
    def tags(self) -> list[str]:
        """All that it takes."""
        return [*(signal.tag for signal in self.signals), *(hourly.tag for hourly in self.production)]


class Hour(NamedTuple):
    """What sets an hour's record right, in order, and which sample says so."""

    offer: Offer
    place: int
    """In the journal's entry."""
    updates: Sequence[UpdateOne]


class Shapes:
    """Makes the recorder's documents of samples."""

    def __init__(self, recorder: Recorder, zone: str) -> None:
        """``zone``: of the site."""
        self._calendar = Calendar(recorder.timezone or zone)
        self._signals = {one.tag: (_id(one.sensor), _id(one.machine)) for one in recorder.signals}
        self._production = {one.tag: _id(one.machine) for one in recorder.production}

    def unfit(self, batch: Batch) -> dict[int, str]:
        """Why samples have no place there, by their places in the batch."""
        return {
            i: f"no number of units: {type(batch.values[i]).__name__}"
            for i, tag in enumerate(batch.tags)
            if tag in self._production and type(batch.values[i]) not in (int, float)
        }

    def signal(self, one: Sample, batch: Batch) -> Document | None:
        """A document of ``signaldatas`` without its ``_id``, if it goes there; a bad value is null."""
        if one.tag not in self._signals:
            return None
        sensor, machine = self._signals[one.tag]
        received = moment(batch.received)
        value = float(one.value) if isinstance(one.value, bool) else held(one.value)
        return {
            "sensorId": sensor, "machineId": machine, "value": value if one.quality >= Quality.UNCERTAIN else None,
            "timestamp": moment(one.time), "createdAt": received, "updatedAt": received,
            "quality": one.quality, "nanos": one.time % MILLISECOND, "tag": one.tag,
        }  # fmt: skip

    def hours(self, taken: Iterable[tuple[int, Batch, Offer]]) -> list[Hour]:
        """What sets the records of hours right, in order; the last number of an hour counts."""
        found: dict[tuple[str, int], Hour] = {}
        for _, batch, offer in taken:
            if self._production.keys().isdisjoint(batch.tags):
                continue
            for place, one in zip(offer.places, batch, strict=True):
                if one.tag in self._production:
                    found[one.tag, one.time] = Hour(offer, place, self._hour(one, batch))
        return list(found.values())

    def _hour(self, one: Sample, batch: Batch) -> Sequence[UpdateOne]:
        """The record of the hour that ends with a sample: made, or its units set.

        What a person or the front end has written into it (operator, mould, defective units, status) stays.
        """
        begin = self._begin(one.time)
        machine, start = self._production[one.tag], moment(begin)
        hour = (_EPOCH + timedelta(microseconds=begin // 1000)).astimezone(self._calendar.zone).hour
        of_hour = {"machineId": machine, "startTime": start}
        changed = {"unitsProduced": one.value, "quality": one.quality, "updatedAt": moment(batch.received)}
        made = {
            "_id": _hour_id(machine, begin), "defectiveUnits": 0, "endTime": moment(one.time),
            "createdAt": moment(batch.received),
            "hourlyData": [{"hour": hour, "unitsProduced": one.value, "defectiveUnits": 0, "status": "running"}],
        }  # fmt: skip
        return [
            UpdateOne(of_hour, {"$setOnInsert": made, "$set": changed}, upsert=True),
            UpdateOne(of_hour | {"hourlyData.hour": hour}, {"$set": {"hourlyData.$.unitsProduced": one.value}}),
        ]

    def _begin(self, end: int) -> int:
        """When the hour began that ends then, ns UTC."""
        marks = self._calendar.hours(self._calendar.local(end - 1))
        return marks[bisect_right(marks, end - 1) - 1]


def _id(text: str) -> Any:
    """An id as the front end's references have it."""
    return ObjectId(text) if ObjectId.is_valid(text) else text


def _hour_id(machine: Any, begin: int) -> ObjectId:
    """The ``_id`` of a record: the same one whenever it is made."""
    seconds = (begin // 10**9) & 0xFFFFFFFF
    return ObjectId(seconds.to_bytes(4, "big") + blake2b(f"{machine}\0{begin}".encode(), digest_size=8).digest())
