"""The text of an imported plant file, with what a person should know as comments at its head."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from shopfloor.importing.front_end import PASSWORD
from shopfloor.importing.recorder import PORT, FrontEnd, Imported, Machine, Plc, Tag

SMALL: Final = 200
"""Tags up to which the small historian is taken."""
_ADVICE: Final = (
    "# Nothing is written into the recorder's database. Where its front end is to go on reading there,",
    "# `shopfloor import … --front-end` makes a sink for it.",
)


def text(found: Imported) -> str:
    """The plant file: JSON strings are YAML strings."""
    lines = [
        f"# Imported from {_line(found.origin)}",
        *_comments(found),
        f"plant: {{site: {_text(found.site)}, timezone: UTC}}  # the time zone of the site, e.g. Europe/Berlin",
        *(["machines:"] if found.machines else []),
        *map(_machine, found.machines),
        "sources:",
        *(line for number, (plc, tags) in enumerate(found.sources.items(), 1)
          for line in _source(_name(number, len(found.sources)), plc, tags, found)),
        *_counting([tag for machine in found.machines for tag in machine.tags if tag.counts]),
        *(_ADVICE if found.front_end is None else _sink(found.front_end)),
        f"historian: {{type: {'sqlite' if sum(map(len, found.sources.values())) <= SMALL else 'duckdb'}}}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _comments(found: Imported) -> Iterator[str]:
    for title, lost in (("Could not be imported; mend it there or write it here", True), ("Please look at", False)):
        some = [finding for finding in found.findings if finding.lost == lost]
        if some:
            yield f"# {title}:"
            yield from (f"# - {_line(str(finding))}" for finding in some)


def _line(text: str) -> str:
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _machine(machine: Machine) -> str:
    title = f", title: {_text(machine.title)}" if machine.title != machine.id else ""
    good = f", good: {_text(machine.good)}" if machine.good else ""
    show = f", show: [{', '.join(_text(tag.tag) for tag in machine.tags)}]" if machine.tags else ""
    return f"  - {{id: {_text(machine.id)}{title}{good}{show}}}"


def _counting(tags: Sequence[Tag]) -> Iterator[str]:
    """The processor that counts units and says them hour by hour, as the recorder did."""
    if tags:
        yield "processors:"
        yield "  - name: units"
        yield "    type: edges"
        yield "    tags:"
    for tag in tags:
        names = f"from: {_text(tag.tag)}, to: {_text(tag.units)}, hourly: {_text(tag.hourly)}"
        yield f"      - {{{names}, unit: pcs}}"


def _sink(front_end: FrontEnd) -> Iterator[str]:
    """What the front end goes on reading."""
    yield "sinks:"
    yield "  # Writes into the database that the front end reads; stop the recorder first, or values are there twice."
    yield "  - name: front-end"
    yield "    type: mongodb"
    yield f"    dsn: {_text(front_end.dsn)}"
    if front_end.wants_password:
        yield f"    password: ${{{PASSWORD}}}"
    yield "    recorder:"
    for title, lines in (
        ("signals", [("tag", "sensor", "machine"), *front_end.signals]),
        ("production", [("tag", "machine"), *front_end.production]),
    ):
        keys, *entries = lines
        if entries:
            yield f"      {title}:"
        for entry in entries:
            inside = (f"{key}: {_text(value)}" for key, value in zip(keys, entry, strict=True))
            yield f"        - {{{', '.join(inside)}}}"


def _name(number: int, count: int) -> str:
    return "plc" if count == 1 else f"plc-{number}"


def _source(name: str, plc: Plc, tags: list[Tag], found: Imported) -> Iterator[str]:
    yield f"  - name: {name}"
    yield "    type: s7"
    yield f"    host: {_text(plc.host)}"
    if plc.port != PORT:
        yield f"    port: {plc.port}"
    if plc.rack is not None:
        yield f"    rack: {plc.rack}"
    if plc.slot is not None:
        yield f"    slot: {plc.slot}"
    yield f"    rate: {_seconds(found.every)}"
    if found.front_end is not None:
        yield f"    heartbeat: {_seconds(found.every)}  # a document at each read, as the recorder wrote"
    yield "    tags:"
    yield from map(_tag, tags)


def _tag(tag: Tag) -> str:
    fields = {"tag": tag.tag, "address": tag.pin.address, "type": tag.pin.type}
    fields |= {"unit": tag.unit, "description": tag.description}
    inside = [f"{key}: {_text(value)}" for key, value in fields.items() if value]
    if tag.scale is not None:
        inside.append(f"scale: {{raw: {_pair(tag.scale[0])}, scaled: {_pair(tag.scale[1])}}}")
    if tag.every is not None:
        inside.append(f"rate: {_seconds(tag.every)}")
    return f"      - {{{', '.join(inside)}}}"


def _pair(numbers: tuple[float, float]) -> str:
    return f"[{', '.join(_number(number) for number in numbers)}]"


def _number(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def _seconds(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{_number(seconds)} s" if seconds == int(seconds) else f"{max(1, round(milliseconds))} ms"
