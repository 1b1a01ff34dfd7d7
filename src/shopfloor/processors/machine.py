"""KPIs of machines and lines: times, units, stops and OEE, live and of every hour, shift and day, with late data."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import lt
from typing import Any, ClassVar, Final, Literal

import msgspec
from pydantic import Field, PrivateAttr, field_validator

from shopfloor.kpi.calendar import Calendar, Window, calendar_of
from shopfloor.kpi.facts import BAD, NEVER, Edit, Known, Rejudged, Role, Touched, pack, unpack
from shopfloor.kpi.figures import Policy
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.spec import Spec
from shopfloor.kpi.states import resolve
from shopfloor.kpi.windows import Windows
from shopfloor.plant.components import Name, ProcessorConfig
from shopfloor.plant.line import machines_of
from shopfloor.plant.machine import Machine as MachineConfig
from shopfloor.plant.model import Plant
from shopfloor.plant.ordercheck import orders_of
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.processors.machine_lines import Told, lines_of, rolled, together
from shopfloor.processors.machine_records import Records
from shopfloor.processors.making import RATIOS, Making, made
from shopfloor.samples import Batch, Quality, Sample, TagInfo, Value
from shopfloor.seams import Processor

TICK: Final = "$clock/tick"
EDIT: Final = "$edit/"
"""Before a machine's id: what a person says about its stops, as JSON."""
UNITS: Final = "/units"
"""Behind a machine's id: what a person says about its units, as JSON."""
WINDOWS: Final = ("hour", "shift", "day")
_MANY: Final = 4
"""Samples of each tag in a batch from which on it is taken by columns."""
_AHEAD: Final = DURATION_UNITS["min"]
"""How far a sample may lie in the future before it is counted as a fault of its clock."""
_ROUNDED: Final = 0.01
"""By how much weights may miss 1: 0.33, 0.33, 0.33."""
_ABSURD: Final = DURATION_UNITS["h"]
"""How far before it is left out."""


class MachineKpiConfig(ProcessorConfig):
    """Works out OEE, times, units and stops of machines and lines: live, and for every hour, shift and day."""

    type: Literal["machine"] = "machine"
    machines: list[Name] | None = Field(
        default=None, description="Of which machines, by their ids; by default of all that have a state or units."
    )
    every: Duration = Field(
        default=2 * DURATION_UNITS["s"], gt=0, description="How often the live figures are given while they change."
    )
    remember: Duration = Field(
        default=3 * DURATION_UNITS["d"],
        ge=DURATION_UNITS["h"],
        description="How far back late data corrects windows that were given already.",
    )
    health: tuple[float, float, float] = Field(
        default=(0.5, 0.25, 0.25),
        description="Weights of OEE, good units and faultless time in the health score.",
    )

    @field_validator("health")
    @classmethod
    def _weights(cls, weights: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(weights) < 0 or abs(sum(weights) - 1) > _ROUNDED:
            msg = "must be three weights that sum to 1, for example [0.5, 0.25, 0.25]"
            raise ValueError(msg)
        return weights

    _plant: Plant | None = PrivateAttr(default=None)

    def place(self, plant: Plant) -> None:
        """Remember the plant: its machines, shifts and time zone."""
        self._plant = plant

    def spec(self, machine: MachineConfig) -> Spec:
        """How a machine is to be read."""
        plant = self._plant
        return Spec.of(machine) if plant is None else Spec.of(machine, orders_of(plant, machine), plant.reasons)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What it is asked for and cannot do."""
        known = {machine.id: machine for machine in self._plant.machines} if self._plant else {}
        for wanted in self.machines or ():
            if wanted not in known:
                yield "machines", f"there is no machine {wanted!r} in `machines`; it has: {', '.join(known) or 'none'}"
            elif not _tells(known[wanted]):
                yield "machines", f"the machine {wanted!r} names no tag; give it `state`, or `good` or `total`"
        yield from self._line_problems()
        if self.machines is None and not self._chosen():
            yield (
                "type",
                "no machine in `machines` names a tag that tells of it; give one `state`, `good` or `total`",
            )

    def _chosen(self) -> list[MachineConfig]:
        machines = self._plant.machines if self._plant is not None else []
        wanted = self.machines
        return [m for m in machines if _tells(m) and (wanted is None or m.id in wanted)]

    def _line_problems(self) -> Iterator[tuple[str, str]]:
        """A line of which some machines are chosen and some are not has no figures."""
        if self._plant is None or self.machines is None:
            return
        chosen = {machine.id for machine in self._chosen()}
        pairs = [(machine.id, machine.line) for machine in self._plant.machines]
        for line in self._plant.lines:
            names = machines_of(line, pairs)
            missing = [name for name in names if name not in chosen]
            if 0 < len(missing) < len(names):
                yield "machines", f"the line {line.id!r} needs {', '.join(missing)}, too; add what is missing"

    def build(self) -> "MachineProcessor":
        """The processor, which knows nothing yet."""
        plant = self._plant
        calendar = calendar_of(plant.plant.timezone, plant.shifts, plant.exceptions) if plant else Calendar("UTC")
        return MachineProcessor(self._chosen(), calendar, self, plant)

    def inputs(self) -> Sequence[str]:
        """The machines' tags, the clock, and which sources are connected."""
        tags = dict.fromkeys(tag for machine in self._chosen() for tag in machine.roles.values())
        return [*tags, TICK, "$source/*/connected", "$source/*/complete", "$edit/*"]

    def outputs(self) -> Sequence[TagInfo]:
        """The tags that it gives for each machine, line and area, and for the site."""
        chosen = {machine.id: machine for machine in self._chosen()}
        names = [line.id for line, _ in lines_of(self._plant, chosen)] if self._plant else []
        names += [name for _, name, _ in together(self._plant, chosen)] if self._plant else []
        found = [TagInfo(f"{name}/kpi/stop", data_type="json", description=_STOP) for name in chosen]
        found += [info for machine in chosen.values() for info in made(machine)]
        return found + [info for name in (*chosen, *names) for info in _given(name)]


def _tells(machine: MachineConfig) -> bool:
    return bool({"state", "good", "total"} & machine.roles.keys())


_STOP: Final = "Each stop, with its reasons"


def _given(machine: str) -> Iterator[TagInfo]:
    title = {"oee": "OEE", "availability": "Availability", "performance": "Performance", "quality": "Quality"}
    for name in RATIOS:
        yield TagInfo(f"{machine}/kpi/{name}", data_type="float", description=f"{title[name]} of the running shift")
    for name, text in (("good", "Good units"), ("scrap", "Scrapped units")):
        yield TagInfo(f"{machine}/kpi/{name}", data_type="float", description=f"{text} of the running shift")
    yield TagInfo(f"{machine}/kpi/live", data_type="json", description="All figures of the running shift")
    for window in WINDOWS:
        for name in RATIOS:
            text = f"{title[name]} of the {window}"
            yield TagInfo(f"{machine}/kpi/{window}/{name}", data_type="float", description=text)
        yield TagInfo(f"{machine}/kpi/{window}", data_type="json", description=f"All figures of the {window}")


class _Watched(Told):
    """A machine of the plant file."""

    def __init__(self, machine: MachineConfig, calendar: Calendar, config: MachineKpiConfig) -> None:
        self.machine = Machine(config.spec(machine))
        windows = Windows(self.machine, calendar, config.remember)
        policy = Policy(machine.minor_stops, config.health)
        super().__init__("machine", machine.id, windows, policy, machine.targets)
        self.making = Making(self.machine, windows, calendar, policy)
        self.unmapped: dict[str, int] = {}
        """State values that no mapping knows, and how often they came."""
        self.ahead = 0
        """Samples from the future."""
        self._explained: set[tuple[type, Known]] = set()
        """State values that came and have a meaning."""

    def strange(self, state: Known) -> bool:
        """Whether no mapping knows a state value."""
        said = type(state), state
        if said in self._explained:
            return False
        if state is not BAD and resolve(state, None, self.machine.spec.states) is None:
            return True
        self._explained.add(said)
        return False

    def standing(self, window: Window, now: int) -> dict[str, Any]:
        """Its state, and how many stops need a reason."""
        state = self.machine.running.state(now).value
        return {"state": state, "unexplained": self.windows.unexplained(window), **self.making.now(now)}

    def doubts(self) -> dict[str, Any]:
        """State values that nobody knows, samples that came too late or from the future."""
        found: dict[str, Any] = {}
        if self.unmapped:
            found["unknown_states"] = dict(sorted(self.unmapped.items())[:20])
        if self.windows.too_late or self.ahead:
            found |= {"too_late": self.windows.too_late, "from_the_future": self.ahead}
        return found

    def touch(self, touched: Touched | None, why: str, now: int) -> None:
        """A fact came: ``touched`` is the time that it may change, ``why`` says what it was."""
        if touched is not None:
            touched = self.machine.rework.reached(touched)
        self.windows.touch(touched, why, now)
        if touched is not None:
            self.making.touch(touched, why)


class StopEdit(msgspec.Struct, frozen=True):
    """What a person says about the stops of a machine between two times, ns UTC."""

    start: int
    end: int | None
    """None: to the end of the stop in which ``start`` lies."""
    reason: str
    """A place in the tree of reasons; "" for what the machine itself says."""
    by: str
    comment: str = ""
    undoes: int = 0
    """Not 0: what was said at this time (of the sample) counts no more; the rest repeats what it was."""


class UnitsEdit(msgspec.Struct, frozen=True):
    """What a person says about units that a machine made between two times, ns UTC: they were judged otherwise."""

    start: int
    end: int
    quantity: float
    into: Literal["good", "scrap"]
    reason: str
    """Why they are scrap, a path as `QUALITY/scratch`; "" of such that are good."""
    by: str
    comment: str = ""


class _Source(msgspec.Struct):
    """What is known of a source's connection."""

    lost: int = 0
    """Since when it has not been there without a gap, ns UTC; 0: it was never lost."""
    silent: bool = False
    """Whether it has given nothing since it connected."""


class MachineProcessor(Processor):
    """Facts come in with every sample; figures go out with the ticks of the clock."""

    heavy: ClassVar[bool] = True

    def __init__(
        self, machines: Sequence[MachineConfig], calendar: Calendar, config: MachineKpiConfig, plant: Plant | None
    ) -> None:
        """Built by ``MachineKpiConfig.build``."""
        self._every = config.every
        self._records = Records(calendar)
        self._watched = {machine.id: _Watched(machine, calendar, config) for machine in machines}
        known = {name: (watched.machine, watched.windows, watched.policy) for name, watched in self._watched.items()}
        self._rolled = rolled(plant, known, calendar, config.remember) if plant is not None else []
        self._roles: dict[str, list[tuple[_Watched, Any]]] = {}
        for watched in self._watched.values():
            for role, tag in watched.machine.spec.roles.items():
                self._roles.setdefault(tag, []).append((watched, role))
        self._sources: dict[str, _Source] = {}
        self._now = 0

    def process(self, batch: Batch) -> list[Sample]:
        """Take the facts in, and give what a tick closes, corrects or changes."""
        found: list[Sample] = []
        if (known := self._sources.get(batch.source)) is not None:
            known.silent = False
        tags = set(batch.tags)
        if len(batch) >= max(_MANY * len(tags), 1) and not any(tag.startswith("$") for tag in tags):
            self._take_columns(batch)
            return found
        why = f"late samples from {batch.source}"
        for tag, time, value, quality in zip(batch.tags, batch.times, batch.values, batch.qualities, strict=True):
            if (roles := self._roles.get(tag)) is not None:
                for watched, role in roles:
                    self._take(watched, role, time, value if quality >= Quality.GOOD else BAD, batch.source, why)
            elif tag == TICK:
                found += self._tick(time)
            elif tag.startswith(EDIT):
                self._edit(tag.removeprefix(EDIT), time, value)
            elif tag.startswith("$source/"):
                _, source, what = tag.split("/")
                self._presence(source, what, time, connected=value is True)
        return found

    def _take_columns(self, batch: Batch) -> None:
        """A batch with many samples of each tag: nothing of it depends on the order of samples of different tags."""
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, tag in enumerate(batch.tags):
            places[tag].append(place)
        good = min(batch.qualities) >= Quality.GOOD
        for tag, at in places.items():
            for watched, role in self._roles.get(tag, ()):
                times = [batch.times[place] for place in at]
                values: list[Known] = [batch.values[place] for place in at]
                if not good:
                    good_ones = (batch.qualities[place] >= Quality.GOOD for place in at)
                    values = [value if ok else BAD for value, ok in zip(values, good_ones, strict=True)]
                self._follow(watched, role, times, values, batch.source)

    def _follow(self, watched: _Watched, role: Role, times: list[int], values: list[Known], source: str) -> None:
        """A tag's samples: at once where they go on from what is known, else one by one."""
        why, now = f"late samples from {source}", self._now or times[0]
        facts, ahead = watched.machine.facts, now + _AHEAD if self._now else NEVER
        if (
            times[0] <= facts.lines[role].newest
            or not watched.windows.follows(times[0], now)
            or times[-1] > ahead - _AHEAD + _ABSURD
            or not all(map(lt, times, islice(times, 1, None)))
            or bytes in map(type, values)
        ):
            for time, value in zip(times, values, strict=True):
                self._take(watched, role, time, value, source, why)
            return
        watched.ahead += len(times) - bisect_right(times, ahead)
        if role == "state":
            for kind, value in set(zip(map(type, values), values, strict=True)):
                if watched.strange(value):
                    times_ = sum(type(other) is kind and other == value for other in values)
                    watched.unmapped[_shown(value)] = watched.unmapped.get(_shown(value), 0) + times_
        watched.touch(facts.follow(role, times, values, source), why, now)

    def _take(self, watched: _Watched, role: Role, time: int, value: Known, source: str, why: str) -> None:
        if self._now and time > self._now + _AHEAD:
            watched.ahead += 1
            if time > self._now + _ABSURD:
                return
        if isinstance(value, bytes):
            value = BAD
        if role == "state" and watched.strange(value):
            watched.unmapped[_shown(value)] = watched.unmapped.get(_shown(value), 0) + 1
        touched = watched.machine.facts.take(role, time, value, source)
        if touched is not None:
            watched.touch(touched, why, self._now or time)

    def _edit(self, machine: str, time: int, value: Value) -> None:
        """Written by the console after it was checked; whatever else stands there changes nothing."""
        about_units = machine.endswith(UNITS)
        watched = self._watched.get(machine.removesuffix(UNITS))
        if watched is None or not isinstance(value, str):
            return
        if about_units:
            self._judge(watched, time, value)
            return
        try:
            edit = msgspec.json.decode(value, type=StopEdit)
        except msgspec.DecodeError:
            return
        facts = watched.machine.facts
        if edit.undoes:
            watched.touch(facts.unsay(edit.undoes), f"{edit.by} took back a reason", self._now)
            return
        touched = facts.edit(Edit(edit.start, NEVER if edit.end is None else edit.end, edit.reason, time))
        watched.touch(touched, f"{edit.by} gave the reason {edit.reason or 'of the machine'}", self._now)

    def _judge(self, watched: _Watched, time: int, value: str) -> None:
        """A person says that units are good, or scrap, after all."""
        try:
            edit = msgspec.json.decode(value, type=UnitsEdit)
        except msgspec.DecodeError:
            return
        if not edit.start < edit.end or not 0 < edit.quantity < float("inf"):
            return
        quantity = int(edit.quantity) if edit.quantity.is_integer() else edit.quantity
        good = edit.into == "good"
        said = Rejudged(edit.start, edit.end, quantity, good, "" if good else edit.reason, time)
        watched.touch(
            watched.machine.facts.rejudge(said), f"{edit.by} says {quantity:g} units are {edit.into}", self._now
        )

    def _presence(self, source: str, what: str, time: int, *, connected: bool) -> None:
        """A source came, was lost, or has said that nothing is missing since."""
        known = self._sources.setdefault(source, _Source())
        if what == "complete":
            self._covered(source, known.lost, time)
        elif connected:
            known.silent = True
        else:
            # Lost again before it gave anything: it is still the first loss that is to be made up for.
            known.lost = known.lost if known.silent and known.lost else time
            known.silent = False
            for watched in self._watched.values():
                touched = watched.machine.facts.lose(source, time)
                watched.touch(touched, f"{source} was away", self._now or time)

    def _covered(self, source: str, since: int, now: int) -> None:
        for watched in self._watched.values() if since else ():
            touched = watched.machine.facts.cover(source, since, now)
            watched.touch(touched, f"{source} had kept what happened", self._now or now)

    def _tick(self, now: int) -> Iterator[Sample]:
        """Ticks only go on: one from a clock that was set back says nothing new."""
        if now <= self._now:
            return
        live = now // self._every != self._now // self._every
        self._now = now
        for watched in self._watched.values():
            yield from self._ticked(watched, now, live=live)
            for stop in watched.windows.stops(now):
                yield self._records.stop(watched.id, stop, now)
            yield from watched.making.tick(now)
        for whole in self._rolled:
            whole.windows.follow([part.windows for part in whole.line.parts], now)
            yield from self._ticked(whole, now, live=live)
        for told in (*self._watched.values(), *self._rolled):
            told.windows.forget(now)

    def _ticked(self, told: Told, now: int, *, live: bool) -> Iterator[Sample]:
        for result in told.windows.tick(now):
            yield from self._records.closed(told, result, now)
        if live and (found := told.windows.live(now)) is not None:
            yield from self._records.live(told, now, *found)

    def snapshot(self) -> bytes:
        """Everything that is known of every machine."""
        return pack(
            {
                "now": self._now,
                "sources": self._sources,
                "machines": {
                    name: {
                        "facts": watched.machine.facts.dump(),
                        "windows": watched.windows.dump(),
                        "making": watched.making.dump(),
                        "said": watched.said,
                        "unmapped": watched.unmapped,
                        "ahead": watched.ahead,
                    }
                    for name, watched in self._watched.items()
                },
                "rolled": {whole.id: {"windows": whole.windows.dump(), "said": whole.said} for whole in self._rolled},
            }
        )

    def restore(self, state: bytes) -> None:
        """Take it up again; of machines that are new nothing is known, of such that are gone nothing is kept."""
        known = unpack(state)
        self._now = known["now"]
        self._sources = msgspec.convert(known["sources"], dict[str, _Source])
        for name, watched in self._watched.items():
            if (found := known["machines"].get(name)) is not None:
                watched.machine.facts.load(found["facts"])
                watched.windows.load(found["windows"])
                if "making" in found:
                    watched.making.load(found["making"])
                watched.said = {key: tuple(said) for key, said in found["said"].items()}
                # What the plant file explains by now is strange no more.
                strange = found["unmapped"].items()
                states = watched.machine.spec.states
                watched.unmapped = {value: times for value, times in strange if resolve(value, None, states) is None}
                watched.ahead = found["ahead"]
        for whole in self._rolled:
            if (found := known.get("rolled", {}).get(whole.id)) is not None:
                whole.windows.load(found["windows"])
                whole.said = {key: tuple(said) for key, said in found["said"].items()}


def _shown(state: Known) -> str:
    return str(state)[:40]
