"""What no single section of a plant file can see: names used twice, tags that nothing gives, circles."""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from shopfloor.plant.calendar import format_clock, overlap
from shopfloor.plant.components import ProcessorConfig, SourceConfig, passes
from shopfloor.plant.linecheck import check_lines
from shopfloor.plant.model import Plant
from shopfloor.plant.ordercheck import check_orders
from shopfloor.plant.reader import Place, Reader
from shopfloor.plant.shiftcheck import check_exceptions
from shopfloor.plant.wording import meant


def crosscheck(reader: Reader, plant: Plant) -> None:
    """Complain about everything that the sections of a valid plant say against each other."""
    _names(reader, plant)
    _machines(reader, plant)
    check_lines(reader, plant)
    _shifts(reader, plant)
    check_exceptions(reader, plant)
    check_orders(reader, plant)
    _allowed(reader, plant)
    _circles(reader, plant)
    declared = _declared(reader, plant)
    if all(source.declared() is not None for source in plant.sources):  # else some tags only the other side knows
        for place, tag in _named(plant):
            if tag not in declared:
                reader.complain(place, f"no source gives the tag {tag!r}{meant(tag, declared)}")
        _inputs(reader, plant, declared)


def _names(reader: Reader, plant: Plant) -> None:
    seen: dict[str, Place] = {"historian": ("historian",)} if plant.historian else {}
    for kind, configs in (("sources", plant.sources), ("processors", plant.processors), ("sinks", plant.sinks)):
        for i, config in enumerate(configs):
            if config.name in seen:
                line = reader.line(seen[config.name])
                reader.complain((kind, i, "name"), f"the name {config.name!r} is taken in line {line}; choose another")
            seen.setdefault(config.name, (kind, i, "name"))


def _machines(reader: Reader, plant: Plant) -> None:
    seen: dict[str, Place] = {}
    for i, machine in enumerate(plant.machines):
        place = ("machines", i, "id")
        if machine.id in seen:
            line = reader.line(seen[machine.id])
            reader.complain(place, f"the id {machine.id!r} is taken in line {line}; choose another")
        seen.setdefault(machine.id, place)
    _reasons(reader, plant)


def _reasons(reader: Reader, plant: Plant) -> None:
    """Where the plant file has a tree of reasons, machines name only what is in it."""
    known = {reason.id for reason in plant.reasons}
    seen: set[str] = set()
    for i, reason in enumerate(plant.reasons):
        if reason.id in seen:
            reader.complain(("reasons", i, "id"), f"the reason {reason.id!r} stands in the list twice; keep one")
        seen.add(reason.id)
    for i, machine in enumerate(plant.machines):
        for code, path in machine.reasons.items() if known else ():
            if path not in known:
                text = f"there is no reason {path!r} in `reasons`{meant(path, known)}"
                reader.complain(("machines", i, "reasons", code), text)


def _shifts(reader: Reader, plant: Plant) -> None:
    for i, shift in enumerate(plant.shifts):
        for j, earlier in enumerate(plant.shifts[:i]):
            if both := overlap(earlier.spans, shift.spans):
                when = f"from {format_clock(both.start)} to {format_clock(both.end)}"
                line = reader.line(("shifts", j))
                reader.complain(("shifts", i), f"runs {when}, as does {earlier.name!r} in line {line}; change one")
    if not plant.shifts and any(exception.shifts for exception in plant.exceptions):
        text = "gives shifts to single days, but there is no weekly pattern; list the usual `shifts`, too"
        reader.complain(("exceptions",), text)


def _allowed(reader: Reader, plant: Plant) -> None:
    seen: dict[str, Place] = {}
    for i, allow in enumerate(plant.commands.allow):
        place = ("commands", "allow", i, "tag")
        if allow.tag in seen:
            reader.complain(place, f"{allow.tag!r} is allowed in line {reader.line(seen[allow.tag])} already; keep one")
        seen.setdefault(allow.tag, place)
    for i, sink in enumerate(plant.sinks):
        if sink.commanded() is not None and not plant.commands.allow:
            text = "takes commands, but `commands.allow` names no tag that may be written; list them there"
            reader.complain(("sinks", i, "commands"), text)


def _declared(reader: Reader, plant: Plant) -> dict[str, str]:
    """Every declared tag and the component that gives it."""
    givers: list[tuple[str, int, SourceConfig | ProcessorConfig]] = [
        *(("sources", i, c) for i, c in enumerate(plant.sources)),
        *(("processors", i, c) for i, c in enumerate(plant.processors)),
    ]
    declared: dict[str, str] = {}
    for kind, i, config in givers:
        infos = config.declared() if isinstance(config, SourceConfig) else config.outputs()
        for j, info in enumerate(infos or ()):
            if info.tag in declared:
                place = (kind, i, "tags", j) if kind == "sources" else (kind, i)
                giver = declared[info.tag]
                reader.complain(place, f"the tag {info.tag!r} is given by {giver!r} already; rename one")
            declared.setdefault(info.tag, config.name)
    return declared


def _named(plant: Plant) -> Iterator[tuple[Place, str]]:
    """Every tag that a section names in full, and where."""
    for i, machine in enumerate(plant.machines):
        yield from ((("machines", i, role), tag) for role, tag in machine.roles.items())
        yield from ((("machines", i, "show", j), tag) for j, tag in enumerate(machine.show))
    for i, allow in enumerate(plant.commands.allow):
        yield ("commands", "allow", i, "tag"), allow.tag
    for i, sink in enumerate(plant.sinks):
        exact = ((j, tag) for j, tag in enumerate(sink.tags) if "*" not in tag and not tag.startswith("$"))
        yield from ((("sinks", i, "tags", j), tag) for j, tag in exact)


def _inputs(reader: Reader, plant: Plant, declared: dict[str, str]) -> None:
    for i, processor in enumerate(plant.processors):
        for pattern in processor.inputs():
            known = any(passes(tag, [pattern]) for tag in declared) if "*" in pattern else pattern in declared
            if not known and not pattern.startswith("$"):
                text = f"no source gives the tag {pattern!r}{meant(pattern, declared)}"
                reader.complain(("processors", i), text)


def _circles(reader: Reader, plant: Plant) -> None:
    """Processors that feed each other in a circle would never come to rest."""
    places = {processor.name: i for i, processor in enumerate(plant.processors)}
    givers = {info.tag: processor.name for processor in plant.processors for info in processor.outputs()}
    feeders = {processor.name: set(_feeders(processor, givers)) for processor in plant.processors}
    while True:
        try:
            TopologicalSorter(feeders).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1]  # each feeds the next; the first stands at the end again
            last = max(circle, key=places.__getitem__)
            text = f"feeds itself in a circle: {' → '.join(circle)}; take one input away"
            reader.complain(("processors", places[last]), text)
            feeders[last] = set()  # look for further circles
        else:
            return


def _feeders(processor: ProcessorConfig, givers: dict[str, str]) -> Iterator[str]:
    """The processors whose output it reads."""
    for pattern in processor.inputs():
        if "*" in pattern:
            yield from (name for tag, name in givers.items() if passes(tag, [pattern]))
        elif pattern in givers:
            yield givers[pattern]
