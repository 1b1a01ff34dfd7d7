"""The signal recorder's mappings, sensors and machines as sources, tags and machines of a plant file.

Names and spellings are taken as liberally as they can be told apart. What cannot be mapped is a Finding with the
document's id and field; nothing is left out without one.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec

from shopfloor.importing import pins
from shopfloor.importing.documents import Documents, inner, number
from shopfloor.protocols.s7_values import Unfit
from shopfloor.samples import Misconfigured

PORT: Final = 102
"""S7's own."""
FULL_RAW: Final = 27648
"""What an S7's analogue module gives at the end of its range."""
EVERY: Final = 5.0
"""Seconds between two of the recorder's reads, unless its configuration says otherwise."""
_RATES: Final = (0.001, 86_400.0)
"""Seconds that can stand between two reads."""

_BOOKKEEPING: Final = {"id", "createdat", "updatedat", "v", "isactive", "active", "enabled"}
_PLC: Final = ("plc", "plcip", "plcaddress", "plchost", "ip", "ipaddress", "host")
_SCALED: Final = (
    ("scaledmin", "scaledmax"), ("engmin", "engmax"), ("outputmin", "outputmax"), ("minvalue", "maxvalue"),
    ("rangemin", "rangemax"), ("min", "max"), ("low", "high"),
)  # fmt: skip
_RAW: Final = (("rawmin", "rawmax"), ("inputmin", "inputmax"), ("rawlow", "rawhigh"))
_FACTOR: Final = ("factor", "gain", "multiplier", "scalefactor")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person should know."""

    collection: str
    id: str
    field: str
    text: str
    """What it is, and what to do."""
    lost: bool = True
    """Whether something that was there is not in the plant file because it was not understood."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.collection, self.id, self.field))) + f": {self.text}"


class Plc(NamedTuple):
    """A PLC as it is reached."""

    host: str
    port: int = PORT
    rack: int | None = None
    slot: int | None = None


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """A sensor as a tag of a plant file."""

    tag: str
    pin: pins.Pin
    unit: str = ""
    description: str = ""
    every: float | None = None
    """Seconds, where it is not the source's."""
    scale: tuple[tuple[float, float], tuple[float, float]] | None = None
    """Two raw values, and what they stand for."""
    counts: bool = False
    """Whether each of its rising edges is a unit."""
    sensor: str = ""
    """The _id of its document in ``sensors``."""

    @property
    def units(self) -> str:
        """The tag that counts them."""
        return f"{self.tag}/units"

    @property
    def hourly(self) -> str:
        """The tag with the units of each hour."""
        return f"{self.tag}/hourly"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine of the plant file."""

    id: str
    title: str
    tags: list[Tag]
    document: str = ""
    """The _id of its document in ``machines``."""

    @property
    def good(self) -> str | None:
        """The tag that counts its units, where only one does."""
        found = [tag.units for tag in self.tags if tag.counts]
        return found[0] if len(found) == 1 else None


class FrontEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A sink into the recorder's own collections."""

    dsn: str
    """Of their database, without a password; or a variable of the environment."""
    wants_password: bool
    signals: list[tuple[str, str, str]]
    """A tag, the _id of its sensor, the _id of its machine."""
    production: list[tuple[str, str]]
    """A tag with the units of each hour, the _id of its machine."""


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """All that a plant file is made of."""

    origin: str
    site: str
    every: float
    """Seconds between two reads."""
    machines: list[Machine]
    sources: dict[Plc, list[Tag]]
    findings: list[Finding]
    front_end: FrontEnd | None = None
    """What its front end goes on reading, where that was asked for."""


class _Document:
    """A document whose fields are found by any spelling; remembers which were asked for."""

    def __init__(self, collection: str, content: Mapping[str, Any]) -> None:
        self.collection = collection
        self.id = str(content.get("_id", content.get("id", "without _id")))
        self._names = {_plain(name): name for name in reversed(list(content))}
        self._content = content
        self._seen = set(_BOOKKEEPING)

    def get(self, *names: str) -> Any:
        """The value of the first of these fields that is there, else None."""
        return next((self._content[self._names[name]] for name in self.present(*names)), None)

    def present(self, *names: str) -> list[str]:
        """Which of these fields have a value; they count as seen."""
        self._seen.update(names)
        return [name for name in names if name in self._names and self._content[self._names[name]] not in (None, "")]

    def named(self, *names: str) -> str:
        """The field as the document spells it."""
        return next((self._names[name] for name in names if name in self._names), names[0])

    @property
    def is_active(self) -> bool:
        """Whether it says that it is, or says nothing of it."""
        values = [self._content[self._names[name]] for name in ("isactive", "active", "enabled") if name in self._names]
        return not any(value in (False, 0, "false") for value in values)

    def unseen(self) -> list[str]:
        """Fields with a value that nobody asked for, as the document spells them."""
        return [
            original for name, original in self._names.items()
            if name not in self._seen and self._content[original] not in (None, "", [], {})
        ]  # fmt: skip


def _plain(name: object) -> str:
    return re.sub(r"[\s_-]", "", str(name)).lower()


def imported(documents: Documents, plc: str | None = None) -> Imported:
    """What the documents say, with a Finding for all that they do not. Raises Misconfigured without any tag.

    ``plc`` is the address, ``host`` or ``host:port``, of sensors whose documents name none.
    """
    work = _Work(documents, plc)
    for mapping in work.collection("sensorpinmappings"):
        work.map(mapping)
    return work.finish()


class _Work:
    """One import under way."""

    def __init__(self, documents: Documents, plc: str | None) -> None:
        self._documents = documents
        self._findings: list[Finding] = []
        self._all = {
            name: [_Document(name, content) for content in found] for name, found in documents.collections.items()
        }
        self._default = _plc(plc) if plc else self._configured_plc()
        self._every = self._configured_rate()
        self._machines: dict[str, Machine] = {}
        self._sources: dict[Plc, list[Tag]] = {}
        self._tags: set[str] = set()
        self._mapped: set[str] = set()
        self._taken: set[tuple[str, str]] = set()
        """Mappings and sensors that became tags, by collection and id."""
        for machine in self._all["machines"]:
            self._machine(machine)

    def collection(self, name: str) -> Sequence[_Document]:
        """Its documents."""
        return self._all[name]

    def map(self, mapping: _Document) -> None:
        """A pin and its sensor as a tag of a source."""
        sensor = self._reference(mapping, "sensors", "sensorid", "sensor", "sensorname")
        if sensor is None:
            return
        self._mapped.add(sensor.id)
        inactive = next((one for one in (mapping, sensor) if not one.is_active), None)
        if inactive is not None:
            self._note(inactive, "isActive", f"{_title(sensor)} is not active and is left out")
            mapping.present("pinid", "pin", "pinname", "address")
            return
        machine = self._reference(sensor, "machines", "machineid", "machine", "machinename")
        pin = self._pin(mapping, sensor)
        plc = self._plc(mapping, sensor, machine)
        if machine is None or pin is None or plc is None:
            return
        tag = Tag(
            tag=self._name(sensor, self._machines[machine.id]), pin=pin,
            unit=cleaned(sensor.get("unit", "units", "engineeringunit")), description=self._described(sensor),
            every=self._rate(sensor, mapping), scale=self._scale(sensor, mapping, is_bit=pin.is_bit),
            counts=pin.is_bit and any("cycle" in word for word in self._kinds(sensor, mapping)), sensor=sensor.id,
        )  # fmt: skip
        self._sources.setdefault(plc, []).append(tag)
        self._machines[machine.id].tags.append(tag)
        self._taken |= {(one.collection, one.id) for one in (mapping, sensor)}
        if pin.doubt:
            self._note(mapping, mapping.named("pinid", "pin", "pinname", "address"), pin.doubt)

    def finish(self) -> Imported:
        """All of it, with what was left over."""
        for sensor in self._all["sensors"]:
            if sensor.id not in self._mapped:
                self._note(sensor, "", f"{_title(sensor)} has no pin in sensorpinmappings and is left out")
        self._say_unseen()
        if not self._tags:
            reasons = "\n".join(map(str, self._findings)) or "there are no sensorpinmappings"
            raise Misconfigured(f"nothing could be imported from {self._documents.origin}:\n{reasons}")
        return Imported(
            origin=self._documents.origin, site=_slug(self._documents.name) or "plant", every=self._every,
            machines=list(self._machines.values()), sources=self._sources, findings=self._findings,
        )  # fmt: skip

    # ---- findings

    def _lose(self, document: _Document, field: str, text: str) -> None:
        self._findings.append(Finding(collection=document.collection, id=document.id, field=field, text=text))

    def _note(self, document: _Document, field: str, text: str) -> None:
        found = Finding(collection=document.collection, id=document.id, field=field, text=text, lost=False)
        self._findings.append(found)

    def _say_unseen(self) -> None:
        """One line for each field that a plant file has no place for, however many documents have it."""
        for name, documents in self._all.items():
            counts: Counter[str] = Counter()
            first: dict[str, _Document] = {}
            for document in documents:
                if name != "machines" and (name, document.id) not in self._taken:
                    continue  # it is told already
                for field in document.unseen():
                    counts[field] += 1
                    first.setdefault(field, document)
            for field, count in counts.items():
                self._findings.append(
                    Finding(
                        collection=name, id=first[field].id if count == 1 else f"({count} documents)", field=field,
                        text="a plant file has no place for it; it is left out", lost=False,
                    )
                )  # fmt: skip

    # ---- references and names

    def _reference(self, document: _Document, collection: str, *fields: str) -> _Document | None:
        """The document that a field means by its _id, by its name, or by holding it."""
        field, wanted = document.named(*fields), document.get(*fields)
        if wanted is None:
            self._lose(document, field, f"it names no document of {collection}; set its {field}")
            return None
        held = inner(wanted)
        key = getattr(wanted, "id", wanted) if held is None else held.get("_id", held.get("name"))  # a DBRef has an id
        found = [one for one in self._all[collection] if one.id == str(key)] or [
            one for one in self._all[collection] if _title(one).casefold() == str(key).strip().casefold()
        ]
        if len(found) == 1:
            return found[0]
        if not found:
            text = (
                f"there is no document with the _id or name {cleaned(key)!r} in {collection}; mend it there, or add it"
            )
        else:
            text = f"{len(found)} documents of {collection} are called {cleaned(key)!r}; name one by its _id"
        self._lose(document, field, text)
        return None

    def _machine(self, document: _Document) -> None:
        title = _title(document)
        base = _slug(title) or _slug(document.id) or "machine"
        taken = {machine.id for machine in self._machines.values()}
        self._machines[document.id] = Machine(id=_free(base, taken), title=title, tags=[], document=document.id)

    def _name(self, sensor: _Document, machine: Machine) -> str:
        """A tag's name that is not taken: machine/sensor."""
        name = _free(f"{machine.id}/{_slug(_title(sensor)) or _slug(sensor.id) or 'sensor'}", self._tags)
        self._tags.add(name)
        return name

    def _described(self, sensor: _Document) -> str:
        """Its name as people wrote it, and what they wrote of it."""
        parts = [_title(sensor), cleaned(sensor.get("description"))]
        return ": ".join(dict.fromkeys(filter(None, parts)))

    # ---- where it is read

    def _pin(self, mapping: _Document, sensor: _Document) -> pins.Pin | None:
        signals: list[pins.Signal | None] = [pins.signal(word) for word in self._kinds(sensor, mapping)]
        fields = ("pinid", "pin", "pinname", "address")
        try:
            return pins.pin(mapping.get(*fields), next(filter(None, signals), None))
        except Unfit as error:
            self._lose(mapping, mapping.named(*fields), f"{error} ({_title(sensor)})")
            return None

    def _kinds(self, *documents: _Document) -> list[str]:
        """The words in which they say what kind of signal it is."""
        names = ("sensortype", "signaltype", "iotype", "datatype", "type", "kind")
        return [str(one.get(name)).lower() for one in documents for name in one.present(*names)]

    def _plc(self, *documents: _Document | None) -> Plc | None:
        """The PLC that the mapping, the sensor or the machine names; else the one of the configuration."""
        for document in filter(None, documents):
            for field in document.present(*_PLC):
                try:
                    return _plc(document.get(field), document.get("rack"), document.get("slot"))
                except Misconfigured as error:
                    self._lose(document, document.named(field), str(error))
                    return None
        if self._default is None:
            raise Misconfigured(
                "the documents do not say where the PLC is; give its address: --plc 10.0.3.21, or import the "
                "recorder's config.json, which has it"
            )
        return self._default

    def _configured_plc(self) -> Plc | None:
        found = self._documents.configuration.get("plc")
        return None if found is None else _plc(found)

    def _configured_rate(self) -> float:
        sampling = self._documents.configuration.get("sampling")
        given = (inner(sampling) or {}).get("interval_seconds")
        if given is None:
            return EVERY
        found = _seconds(given)
        if found is None:
            raise Misconfigured(f"sampling: interval_seconds of the configuration is {given!r}; write seconds, like 5")
        return found

    def _rate(self, *documents: _Document) -> float | None:
        names = ("intervalseconds", "samplinginterval", "scaninterval", "interval")
        for document in documents:
            for name in document.present(*names):
                found = _seconds(document.get(name))
                if found is not None:
                    return found if found != self._every else None
                self._lose(
                    document, document.named(name), f"{document.get(name)!r} is no number of seconds; set `rate`"
                )
        return None

    # ---- what raw numbers stand for

    def _scale(self, *documents: _Document, is_bit: bool) -> tuple[tuple[float, float], tuple[float, float]] | None:
        for document in documents:
            given = document.get("scale", "scaling")
            parts = inner(given) or (None if given is None else {"factor": given})
            nested = None if parts is None else _Document(document.collection, parts)
            for one in filter(None, (nested, document)):
                fields = [name for pair in (*_RAW, *_SCALED) for name in one.present(*pair)]
                fields += one.present("raw", "scaled", "offset", *_FACTOR)
                if not fields:
                    continue
                field = document.named("scale", "scaling") if one is nested else document.named(*fields)
                if is_bit:
                    self._note(document, field, "a bit has no scale; it is left out")
                    return None
                return self._straight(document, field, one)
        return None

    def _straight(
        self, document: _Document, field: str, one: _Document
    ) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """The line that the fields describe: two points, or factor and offset."""
        raw, scaled = _pair(one, "raw", _RAW), _pair(one, "scaled", _SCALED)
        factors = one.present("offset", *_FACTOR)
        if raw is None and scaled is None and factors:
            factor: float | None = number(one.get(*_FACTOR)) if one.present(*_FACTOR) else 1.0
            offset: float | None = number(one.get("offset")) if one.present("offset") else 0.0
            if factor and offset is not None:
                return (0, FULL_RAW), (offset, round(offset + factor * FULL_RAW, 9))
        elif raw is None and scaled is not None:
            self._note(
                document, field,
                f"{scaled[0]:g} to {scaled[1]:g} may be limits or a range; if raw 0 to {FULL_RAW} stands for it, add "
                f"`scale: {{raw: [0, {FULL_RAW}], scaled: [{scaled[0]:g}, {scaled[1]:g}]}}`",
            )  # fmt: skip
            return None
        elif raw is not None and scaled is not None and raw[0] != raw[1] and scaled[0] != scaled[1]:
            return raw, scaled
        self._lose(document, field, "is no scale: two raw numbers and what they stand for, or a factor; add `scale`")
        return None


def _pair(one: _Document, listed: str, names: Iterable[tuple[str, str]]) -> tuple[float, float] | None:
    both = one.get(listed)
    candidates = [cast("Sequence[object]", both)] if isinstance(both, list | tuple) else []
    candidates += [(one.get(low), one.get(high)) for low, high in names if one.present(low) or one.present(high)]
    for candidate in candidates:
        numbers = [found for found in map(number, candidate) if found is not None]
        if len(candidate) == len(numbers) == 2:  # noqa: PLR2004  # a pair
            return numbers[0], numbers[1]
    return None


def _seconds(given: object) -> float | None:
    """The time between two reads; None when it is none."""
    found = number(given)
    return found if found is not None and _RATES[0] <= found <= _RATES[1] else None


def _plc(given: object, rack: object = None, slot: object = None) -> Plc:
    """A PLC given as ``host``, ``host:port`` or by parts. Raises Misconfigured."""
    port: object = None
    described = inner(given)
    if described is not None:
        parts = {_plain(name): value for name, value in described.items()}
        rack, slot, port = parts.get("rack", rack), parts.get("slot", slot), parts.get("port")
        given = next((parts[name] for name in ("ip", "host", "address", "ipaddress") if parts.get(name)), None)
    text = str(given or "").strip()
    host, colon, after = text.rpartition(":")
    if colon and ":" not in host:
        text, port = host, after
    if not re.fullmatch(r"[A-Za-z0-9:._-]+", text):
        raise Misconfigured(f"{cleaned(given)!r} is no address of a PLC; write it like 10.0.3.21")
    return Plc(
        text, _between(port, 1, 65535, "port") or PORT, _between(rack, 0, 7, "rack"), _between(slot, 0, 31, "slot")
    )


def _between(value: object, least: int, most: int, what: str) -> int | None:
    if value is None:
        return None
    found = number(value)
    if found is None or found != int(found) or not least <= found <= most:
        raise Misconfigured(f"the PLC's {what} is {cleaned(value)!r}; it is a whole number from {least} to {most}")
    return int(found)


def _title(document: _Document) -> str:
    """What people call it."""
    return cleaned(document.get("name", "title", "label")) or document.id


def cleaned(value: object) -> str:
    """Text on one line that a plant file can hold: nothing unprintable, and no ``${``, which would be a variable."""
    text = "" if value is None else " ".join(str(value).split())
    return "".join(letter for letter in text if letter.isprintable()).replace("${", "$ {").strip()


def _slug(text: str) -> str:
    """A name of a plant file: ``Säge 1`` is ``sage-1``; empty when nothing of it can stand there."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_.]+", "-", plain).strip("-_.")[:60].strip("-_.")


def _free(base: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it when it is taken."""
    used = set(taken)
    numbered: Callable[[int], str] = lambda n: base if n == 1 else f"{base}-{n}"  # noqa: E731  # of one line
    return next(name for name in map(numbered, range(1, len(used) + 2)) if name not in used)
