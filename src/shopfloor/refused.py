"""``shopfloor dead-letters``: of a running plant over its console, of a stopped one in its journal."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import click
import msgspec

from shopfloor import plant as plants, remote
from shopfloor.console.dead import letter_json
from shopfloor.journal import SqliteJournal
from shopfloor.reports import table
from shopfloor.samples import Misconfigured, Unavailable

MOST: Final = 10_000
SHOWN: Final = 60
"""Characters of a value that are shown."""

Result = TypeVar("Result")


def letters(url: str, plant: Path | None, reader: str | None = None) -> list[dict[str, Any]]:
    """What sinks refused, newest first, in the form of docs/api.md. Raises Unavailable, Misconfigured."""
    if plant is None:
        try:
            found = remote.dead_letters(url)
        except Unavailable as error:
            raise Unavailable(f"{error} Of a plant that is stopped give the plant file: --plant plant.yaml") from error
    else:
        found = [letter_json(letter) for letter in _in_journal(plant, lambda journal: journal.dead_letters(MOST))]
    return [letter for letter in found if reader in (None, letter["reader"])]


def decide(action: Literal["retry", "drop"], url: str, plant: Path | None, ids: Sequence[int]) -> None:
    """Do it, and say what was done."""
    if plant is None:
        count = remote.decide(url, action, ids) if ids else 0
    elif action == "retry":
        count = len(_in_journal(plant, lambda journal: journal.retry(ids)))
    else:
        count = _in_journal(plant, lambda journal: journal.drop(ids))
    many = f"{count:,} dead letter{'' if count == 1 else 's'}"
    offered = "will be offered again when the plant starts" if plant else "offered again; what is refused comes back"
    click.echo(f"{many} {offered if action == 'retry' else 'thrown away'}.")
    if count < len(ids):
        click.echo(f"{len(ids) - count:,} were gone already, or their sink is not in the plant file any more.")


def show(found: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """A line a letter."""
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    elif not found:
        click.echo("There are none: every sink has taken all that it was offered.")
    else:
        click.echo(
            table(("id", "refused at (UTC)", "sink", "source", "samples", "the first of them", "why"), _rows(found))
        )
        click.echo("\nMend the cause, then: shopfloor dead-letters retry ID... (or drop ID...)")


def _rows(found: Sequence[dict[str, Any]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for letter in found:
        at = datetime.fromtimestamp(letter["time"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        first = letter["samples"][0] if letter["samples"] else {"tag": "", "value": ""}
        value = msgspec.json.encode(first["value"]).decode()
        shown = f"{first['tag']} = {value[:SHOWN]}{'…' if len(value) > SHOWN else ''}"
        rows.append((letter["id"], at, letter["reader"], letter["source"], letter["count"], shown, letter["reason"]))
    return rows


def _in_journal(plant: Path, work: Callable[[SqliteJournal], Awaitable[Result]]) -> Result:
    path = plants.load(plant).journal.path

    async def worked() -> Result:
        if not await asyncio.to_thread(path.exists):
            raise Misconfigured(f"there is no journal {path}; has this plant ever run?")
        journal = await SqliteJournal.open(path)
        try:
            return await work(journal)
        finally:
            await journal.close()

    return asyncio.run(worked())
