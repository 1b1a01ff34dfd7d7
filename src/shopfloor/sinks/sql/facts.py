"""The records of machines as rows: windows, stops, products, orders, cycles, what runs (docs/connectors/machine.md).

They come as JSON text in samples of ``MACHINE/kpi/hour`` … and are in ``HISTORY`` as they came; here they become
columns. What is no such record (another tag of that name) is no fact, and stays a sample like others. A fact takes the
place of those with the same ``Table.replaces``, so the same one twice, and a corrected one, count once.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from shopfloor.samples import Batch
from shopfloor.sinks.sql.tables import (
    CYCLE,
    CYCLE_TIME,
    KPI_WINDOW,
    LONGEST_NAME,
    LOSS,
    MACHINE_NOW,
    RUN,
    SCRAP,
    SHARE,
    STOP,
    STOP_REASON,
    Table,
)

_INT32: Final = 2**31 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KPI: Final = "/kpi/"
_PERIODS: Final = frozenset({"hour", "shift", "day"})

Row = tuple[Any, ...]


class Fact(NamedTuple):
    """All rows that a record is in one table.

    ``key`` are the values of ``table.replaces``, a row those of all columns. Times are aware datetimes (UTC), to the
    microsecond.
    """

    table: Table
    key: Row
    rows: Sequence[Row]


class _Loss(msgspec.Struct):
    count: int = 0
    seconds: float = 0.0


class _Share(msgspec.Struct):
    oee: float | None = None
    availability: float | None = None
    performance: float | None = None
    quality: float | None = None
    good: float | None = None
    scrap: float | None = None
    ideal_seconds: float | None = None
    seconds: dict[str, float] = msgspec.field(default_factory=dict[str, float])


class _Cycles(msgspec.Struct):
    count: int = 0
    mean: float | None = None
    shortest: float | None = None
    median: float | None = None
    p95: float | None = None
    longest: float | None = None
    loss: float | None = None
    gain: float | None = None
    interrupted: int = 0
    several: int = 0


class _Unit(msgspec.Struct):
    """Of what a record is; that of a machine says ``machine``."""

    line: str | None = None
    area: str | None = None
    site: str | None = None

    @property
    def level(self) -> str:
        """Its level in the hierarchy of ISA-95."""
        return next((name for name in ("line", "area", "site") if getattr(self, name) is not None), "machine")


class _Record(_Unit, kw_only=True):
    """What of a window's record has columns; all of it is kept beside them as it came."""

    end: datetime
    day: date
    shift: str = ""
    formula: str = ""
    oee: float | None = None
    availability: float | None = None
    performance: float | None = None
    quality: float | None = None
    oee_low: float | None = None
    oee_high: float | None = None
    nee: float | None = None
    teep: float | None = None
    mtbf: float | None = None
    mttr: float | None = None
    scrap_rate: float | None = None
    error_rate: float | None = None
    health: float | None = None
    coverage: float | None = None
    state_coverage: float | None = None
    uncounted_seconds: float | None = None
    planned_seconds: float | None = None
    actual_seconds: float | None = None
    ideal_seconds: float | None = None
    seconds: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    good: float | None = None
    scrap: float | None = None
    outside: float | None = None
    minor_stops: int | None = None
    incidents: int | None = None
    why: str | None = None
    revision: Annotated[int, msgspec.Meta(ge=0, le=_INT32)] = 0
    losses: dict[str, _Loss] = msgspec.field(default_factory=dict[str, _Loss])
    scrap_by_reason: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    products: dict[str, _Share] = msgspec.field(default_factory=dict[str, _Share])
    orders: dict[str, _Share] = msgspec.field(default_factory=dict[str, _Share])
    cycles: _Cycles | None = None


class _Live(_Unit, kw_only=True):
    """What of the running shift's record has columns."""

    start: datetime
    state: str | None = None
    shift: str = ""
    oee: float | None = None
    availability: float | None = None
    performance: float | None = None
    quality: float | None = None
    good: float | None = None
    scrap: float | None = None
    health: float | None = None


class _Run(msgspec.Struct):
    """What of the record of a product or an order has columns."""

    end: datetime
    day: date
    product: str = ""
    order: str | None = None
    planned_quantity: float | None = None
    due: datetime | None = None
    oee: float | None = None
    availability: float | None = None
    performance: float | None = None
    quality: float | None = None
    good: float | None = None
    scrap: float | None = None
    revision: Annotated[int, msgspec.Meta(ge=0, le=_INT32)] = 0
    withdrawn: bool = False


class _Cycle(msgspec.Struct):
    """A cycle's record."""

    end: datetime
    start: datetime | None = None
    kind: str | None = msgspec.field(name="class", default=None)
    seconds: float | None = None
    ideal_seconds: float | None = None
    units: float | None = None
    good: float | None = None
    scrap: float | None = None
    product: str | None = None
    order: str | None = None
    withdrawn: bool = False


class _Part(msgspec.Struct):
    reason: str
    start: datetime
    seconds: float


class _Stop(msgspec.Struct):
    """A stop's record."""

    end: datetime | None = None
    kind: str | None = msgspec.field(name="class", default=None)
    state: str | None = None
    withdrawn: bool = False
    reasons: list[_Part] = msgspec.field(default_factory=list[_Part])


_FIGURES: Final = KPI_WINDOW.names[KPI_WINDOW.names.index("oee") : KPI_WINDOW.names.index("not_scheduled_seconds")]
_CLASSES: Final = [
    name.removesuffix("_seconds")
    for name in KPI_WINDOW.names[KPI_WINDOW.names.index("not_scheduled_seconds") : KPI_WINDOW.names.index("good")]
]
_COUNTS: Final = KPI_WINDOW.names[KPI_WINDOW.names.index("good") : KPI_WINDOW.names.index("formula")]
_OF_SHARE: Final = SHARE.names[SHARE.names.index("oee") : SHARE.names.index("production_seconds")]
_OF_RUN: Final = RUN.names[RUN.names.index("oee") : RUN.names.index("revision")]
_RUNNING: Final = MACHINE_NOW.names[MACHINE_NOW.names.index("oee") : MACHINE_NOW.names.index("entry")]

_record: Final = msgspec.json.Decoder(_Record).decode
_live: Final = msgspec.json.Decoder(_Live).decode
_stopped: Final = msgspec.json.Decoder(_Stop).decode
_made: Final = msgspec.json.Decoder(_Run).decode
_cycled: Final = msgspec.json.Decoder(_Cycle).decode


def facts(entries: Iterable[tuple[int, Batch]]) -> list[Fact]:
    """The facts in these entries, the last one of each key, in the order of tables and keys.

    So two writers lock rows in the same order.
    """
    found: dict[tuple[str, Row], Fact] = {}
    for offset, batch in entries:
        for i, tag in enumerate(batch.tags):
            if _KPI not in tag:
                continue
            machine, _, what = tag.rpartition(_KPI)
            make = _MAKERS.get(what)
            value = batch.values[i]
            if make is None or not isinstance(value, str) or not value.startswith("{"):
                continue
            try:
                made = make(machine, what, batch.times[i], offset, value)
            except (msgspec.MsgspecError, UnicodeEncodeError, OverflowError):
                continue  # a tag of somebody else's, in that name
            found.update(((fact.table.name, fact.key), fact) for fact in made)
    return [found[key] for key in sorted(found, key=lambda key: (key[0], *map(str, key[1])))]


def _window(machine: str, period: str, time: int, entry: int, text: str) -> list[Fact]:
    record = _record(text)
    key = (_name(machine), period, moment(time), record.revision)
    row = (
        *key,
        record.level,
        _utc(record.end),
        record.day,
        _name(record.shift),
        *(getattr(record, name) for name in _FIGURES),
        *(record.seconds.get(name) for name in _CLASSES),
        *(getattr(record, name) for name in _COUNTS),
        _name(record.formula),
        None if record.why is None else _text(record.why),
        entry,
        text,
        record.uncounted_seconds,
        record.state_coverage,
    )
    losses = _joined({reason: (loss.count, loss.seconds) for reason, loss in record.losses.items()})
    scraps = _joined({reason: (units,) for reason, units in record.scrap_by_reason.items()})
    return [
        Fact(KPI_WINDOW, key, [row]),
        Fact(LOSS, key, [(*key, reason, _category(reason), *sums) for reason, sums in losses.items()]),
        Fact(SCRAP, key, [(*key, reason, _category(reason), *sums) for reason, sums in scraps.items()]),
        Fact(SHARE, key, [*_shares(key, "product", record.products), *_shares(key, "order", record.orders)]),
        Fact(CYCLE_TIME, key, [] if record.cycles is None else [(*key, *msgspec.structs.astuple(record.cycles))]),
    ]


def _shares(key: Row, kind: str, shares: Mapping[str, _Share]) -> Iterator[Row]:
    for name, share in {_name(name): share for name, share in shares.items()}.items():
        figures = [getattr(share, figure) for figure in _OF_SHARE]
        yield (*key, kind, name, *figures, share.seconds.get("production"))


def _running(machine: str, _: str, time: int, entry: int, text: str) -> list[Fact]:
    record = _live(text)
    machine = _name(machine)
    state = _named(record.state)
    figures = [getattr(record, name) for name in _RUNNING]
    row = (machine, record.level, moment(time), state, _utc(record.start), _name(record.shift), *figures, entry, text)
    return [Fact(MACHINE_NOW, (machine,), [row])]


def _run(machine: str, kind: str, time: int, entry: int, text: str) -> list[Fact]:
    record = _made(text)
    key = (_name(machine), kind, moment(time))
    due = None if record.due is None else _utc(record.due)
    row = (
        *key, _utc(record.end), record.day, _name(record.product), _named(record.order), record.planned_quantity, due,
        *(getattr(record, name) for name in _OF_RUN), record.revision, record.withdrawn, entry, text,
    )  # fmt: skip
    return [Fact(RUN, key, [row])]


def _cycle(machine: str, _: str, time: int, entry: int, text: str) -> list[Fact]:
    record = _cycled(text)
    key = (_name(machine), moment(time), time % 1000)
    row = (
        *key, None if record.start is None else _utc(record.start), _named(record.kind), record.seconds,
        record.ideal_seconds, record.units, record.good, record.scrap, _named(record.product), _named(record.order),
        record.withdrawn, entry,
    )  # fmt: skip
    return [Fact(CYCLE, key, [row])]


def _stop(machine: str, _: str, time: int, entry: int, text: str) -> list[Fact]:
    record = _stopped(text)
    key = (_name(machine), moment(time))
    end = None if record.end is None else _utc(record.end)
    kind, state = _named(record.kind), _named(record.state)
    parts = [
        (*key, number, _name(part.reason), _category(_name(part.reason)), _utc(part.start), part.seconds)
        for number, part in enumerate(record.reasons)
    ]
    return [
        Fact(STOP, key, [(*key, end, kind, state, record.withdrawn, entry, text)]),
        Fact(STOP_REASON, key, parts),
    ]


_MAKERS: Final[Mapping[str, Callable[[str, str, int, int, str], list[Fact]]]] = {
    **dict.fromkeys(_PERIODS, _window),
    "live": _running,
    "stop": _stop,
    "product": _run,
    "order": _run,
    "cycle": _cycle,
}


def moment(time: int) -> datetime:
    """A time in ns UTC as a datetime, cut to the microsecond."""
    return _EPOCH + timedelta(microseconds=time // 1000)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _category(reason: str) -> str:
    return reason.partition("/")[0]


def _joined(by_reason: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """By the reason as it is stored; what then is the same adds up."""
    found: dict[str, tuple[float, ...]] = {}
    for reason, sums in by_reason.items():
        name = _name(reason)
        was = found.get(name)
        found[name] = sums if was is None else tuple(map(sum, zip(was, sums, strict=True)))
    return found


def _text(text: str) -> str:
    """Text that every database holds."""
    return text.replace("\x00", "\ufffd")


def _named(text: str | None) -> str | None:
    return None if text is None else _name(text)


def _name(text: str) -> str:
    """Text that can be a key: a longer one is cut and told from others by a hash."""
    text = _text(text)
    if len(text) <= LONGEST_NAME:
        return text
    return f"{text[: LONGEST_NAME - 17]}…{hashlib.sha256(text.encode()).hexdigest()[:16]}"
