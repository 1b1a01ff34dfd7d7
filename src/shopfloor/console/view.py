"""What the console sees of a running plant, and how that reads as JSON (docs/api.md)."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, Final, Protocol

import msgspec

from shopfloor.commands import Commands, Permission, Role, to_json
from shopfloor.commands.roles import suffices
from shopfloor.historian.base import Historian
from shopfloor.journal import DeadLetter, JournalState, LedgerRow
from shopfloor.pipeline.live import Live
from shopfloor.pipeline.status import ComponentStatus
from shopfloor.plant import Machine, Plant, Reason
from shopfloor.samples import Quality, Sample, TagInfo

VERSION: Final = version("shopfloor")

CUT: Final = 1_000
"""Characters or bytes of one value where many tags are listed."""

SLICE: Final = 250
"""Rows that are made in one go: some 2 ms of the event loop that the pipeline shares."""

Json = dict[str, Any]


class Runtime(Protocol):
    """The running plant; the pipeline is one."""

    @property
    def plant(self) -> Plant:
        """The plant file that runs."""
        ...

    @property
    def live(self) -> Live:
        """The newest sample of every tag."""
        ...

    @property
    def historian(self) -> Historian | None:
        """The long-term store while it is connected."""
        ...

    @property
    def commands(self) -> Commands:
        """The way by which values get to machines."""
        ...

    @property
    def started(self) -> int:
        """When the process began to run the plant, ns UTC."""
        ...

    def components(self) -> Sequence[ComponentStatus]:
        """Every source, processor, sink and the historian as it stands."""
        ...

    async def ledger(self) -> Sequence[LedgerRow]:
        """Every sum of the loss ledger."""
        ...

    async def journal_state(self) -> JournalState:
        """How full the journal is."""
        ...

    async def dead_letters(self, limit: int = 1000) -> Sequence[DeadLetter]:
        """The newest samples that sinks refused, newest first."""
        ...

    async def retry_dead_letters(self, ids: Sequence[int]) -> Sequence[int]:
        """Offer them again to the sink that refused them; the ids that there were."""
        ...

    async def drop_dead_letters(self, ids: Sequence[int]) -> int:
        """Throw them away; how many letters there were."""
        ...

    async def edit_stops(self, machine: str, edit: str) -> int:
        """Journal what a person says of a machine's stops; its time, ns UTC. Unavailable when the disk refuses."""
        ...

    async def restart(self, name: str) -> None:
        """Restart a component now; KeyError when there is none of this name."""
        ...

    async def pause(self, name: str) -> None:
        """Stop a component until ``resume``; KeyError when there is none of this name."""
        ...

    async def resume(self, name: str) -> None:
        """Go on after ``pause``; KeyError when there is none of this name."""
        ...


class Catalogue:
    """The tags that the plant file declares and who gives them."""

    def __init__(self, plant: Plant) -> None:
        self._declared: dict[str, tuple[TagInfo, str]] = {}
        self.reasons: Sequence[Reason] = plant.reasons
        """The tree of reasons for stops."""
        undeclared: list[str] = []
        for source in plant.sources:
            declared = source.declared()
            if declared is None:
                undeclared.append(source.name)
            for info in declared or ():
                self._declared.setdefault(info.tag, (info, source.name))
        self._rest = undeclared[0] if len(undeclared) == 1 else ""
        """Who gives what nobody declares, where only one can."""
        for processor in plant.processors:
            for info in processor.outputs():
                self._declared.setdefault(info.tag, (info, processor.name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __contains__(self, tag: str) -> bool:
        return tag in self._declared

    def info(self, tag: str) -> TagInfo:
        """What is declared of it; only its name where nothing is."""
        return self._declared[tag][0] if tag in self._declared else TagInfo(tag)

    def source(self, tag: str) -> str:
        """The component that gives it, "" where only the other side knows."""
        return self._declared[tag][1] if tag in self._declared else ""

    def giver(self, tag: str) -> str:
        """As ``source``; of what nobody declares the one source that only the other side knows the tags of."""
        return self.source(tag) or self._rest


class View:
    """The plant as one person may see it."""

    def __init__(self, runtime: Runtime, catalogue: Catalogue, now: Callable[[], int]) -> None:
        self.runtime = runtime
        self.catalogue = catalogue
        self.now = now

    def known(self) -> list[str]:
        """Every tag, declared or seen, sorted; Shopfloor's own ``$…`` tags are left out."""
        seen = (sample.tag for sample in self.runtime.live.samples())
        return sorted({*self.catalogue, *(tag for tag in seen if not tag.startswith("$"))})

    def row(self, tag: str, role: Role, cut: int | None = CUT) -> Json:
        """One tag as a row of a table."""
        info, sample = self.catalogue.info(tag), self.runtime.live.get(tag)
        permission = self.runtime.commands.permission(tag)
        return {
            "tag": tag,
            "source": self.catalogue.source(tag),
            "unit": info.unit,
            "description": info.description,
            "data_type": info.data_type,
            **reading(sample, cut),
            "writable": permission is not None and suffices(role, permission.role),
        }

    async def rows(self, tags: Iterable[str], role: Role) -> list[Json]:
        """Rows of many tags; others get their turn in between."""
        rows: list[Json] = []
        for count, tag in enumerate(tags, 1):
            rows.append(self.row(tag, role))
            if count % SLICE == 0:
                await asyncio.sleep(0)
        return rows

    def detail(self, tag: str, role: Role) -> Json:
        """All that is known of a tag."""
        sample = self.runtime.live.get(tag)
        permission = self.runtime.commands.permission(tag)
        return {
            **self.row(tag, role, cut=None),
            "address": self.catalogue.info(tag).address,
            "time_ns": None if sample is None else str(sample.time),
            "status": 0 if sample is None else sample.status,
            "server_time": None if sample is None else moment(sample.server_time),
            "command": None if permission is None else permission_json(permission, role),
        }

    def machine(self, machine: Machine, role: Role) -> Json:
        """A machine with its tags and what may be written to it."""
        tags = machine_tags(machine)
        own = set(tags)
        prefix = f"{machine.id}/"
        return {
            "id": machine.id,
            "title": machine.title,
            "line": machine.line,
            "ideal_cycle": None if machine.ideal_cycle is None else milliseconds(machine.ideal_cycle),
            "state": machine.state,
            "good": machine.good,
            "scrap": machine.scrap,
            "tags": tags,
            "targets": machine.targets.wanted,
            "commands": [
                permission_json(permission, role)
                for permission in self.runtime.commands.permissions
                if permission.tag in own or permission.tag.startswith(prefix)
            ],
        }


def machine_tags(machine: Machine) -> list[str]:
    """State, good, scrap, then what its page shows; each once."""
    named = (machine.state, machine.good, machine.scrap, *machine.show)
    return list(dict.fromkeys(tag for tag in named if tag is not None))


def reading(sample: Sample | None, cut: int | None) -> Json:
    """Value, time and quality; a tag without a sample waits for initial data."""
    if sample is None:
        return {"value": None, "time": None, "quality": int(Quality.WAITING_FOR_INITIAL_DATA)}
    return {
        "value": to_json(sample.value, cut),
        "time": milliseconds(sample.time),
        "quality": sample.quality,
    }


def permission_json(permission: Permission, role: Role) -> Json:
    """What may be written, and whether this role may."""
    return {
        "tag": permission.tag,
        "role": permission.role,
        "range": permission.range,
        "momentary": permission.momentary,
        "lease": milliseconds(permission.lease),
        "expires": milliseconds(permission.expires),
        "allowed": suffices(role, permission.role),
        "held_by": permission.held_by,
    }


def component_json(status: ComponentStatus) -> Json:
    """A component as it stands."""
    fields = msgspec.structs.asdict(status)
    return fields | {"since": milliseconds(status.since), "last_error_at": moment(status.last_error_at)}


def journal_json(state: JournalState) -> Json:
    """The journal as it stands."""
    return msgspec.structs.asdict(state) | {"oldest": moment(state.oldest or 0)}


def ledger_json(row: LedgerRow) -> Json:
    """One sum of the ledger."""
    return msgspec.structs.asdict(row) | {"first": moment(row.first), "last": moment(row.last)}


def milliseconds(nanoseconds: int) -> int | float:
    """Nanoseconds as milliseconds: an integer where that is exact."""
    whole, rest = divmod(nanoseconds, 1_000_000)
    return nanoseconds / 1e6 if rest else whole


def moment(nanoseconds: int) -> int | float | None:
    """A time as milliseconds, None where 0 stands for "there is none"."""
    return milliseconds(nanoseconds) if nanoseconds else None
