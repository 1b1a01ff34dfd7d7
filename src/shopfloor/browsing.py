"""Lists what a source offers, as lines that can be put into the plant file."""

import asyncio
import json
from pathlib import Path

import click

from shopfloor.plant import Plant, tag_pattern
from shopfloor.samples import Misconfigured, TagInfo


async def browse(plant: Plant, name: str, pattern: str, output: Path | None) -> None:
    """Write the lines of everything that matches. Raises Misconfigured and Unavailable."""
    config = next((source for source in plant.sources if source.name == name), None)
    if config is None:
        known = ", ".join(source.name for source in plant.sources) or "none"
        raise Misconfigured(f"the plant file has no source {name!r}; it has: {known}")
    matches = tag_pattern(pattern).fullmatch
    async with config.build() as source:
        found = [info async for info in source.browse() if matches(info.tag) or matches(info.address)]
    text = fragment(found, config.address_key)
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            await asyncio.to_thread(output.write_text, text, encoding="utf-8")
        except OSError as error:
            raise Misconfigured(f"{output} cannot be written: {error.strerror}") from error
        click.echo(f"{len(found)} tags written to {output}")


def fragment(found: list[TagInfo], address_key: str) -> str:
    """The plant-file lines of these tags, indented for below ``- name: …``; JSON strings are YAML strings."""
    lines = ["    tags:"] if found else ["    # nothing was found"]
    for info in found:
        fields = {"tag": info.tag, address_key: info.address, "unit": info.unit}
        inside = ", ".join(f"{key}: {json.dumps(text, ensure_ascii=False)}" for key, text in fields.items() if text)
        notes = " ".join(filter(None, (info.data_type, "writable" if info.writable else "")))
        lines.append(f"      - {{{inside}}}" + (f"  # {notes}" if notes else ""))
    return "\n".join(lines) + "\n"
