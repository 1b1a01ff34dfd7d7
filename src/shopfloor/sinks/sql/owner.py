"""Whose the tables are: any number of sinks may write into them, or one historian alone.

A historian answers from what is there and drops what is too old. Samples of somebody else among them would stand twice
in its answers, and it would drop what is not its own. So it writes its name into META, and each side refuses the other.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from shopfloor.plant.model import Plant
from shopfloor.samples import Misconfigured
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.link import Link
from shopfloor.sinks.sql.tables import META

OWNER: Final = "historian"
"""The item of META that has the name of the historian whose tables these are."""


def settled(owner: str | None, writers: Sequence[str], me: str, elsewhere: str, *, historian: bool) -> None:
    """Raise Misconfigured when ``me`` may not write here.

    ``owner`` is the historian whose tables these are, ``writers`` are the names of all who have a position here;
    ``elsewhere`` are the options by which to have other tables.
    """
    if not historian:
        if owner not in (None, me):
            raise Misconfigured(
                f"these tables are those of the historian {owner!r}, which keeps every sample: leave this sink out, or "
                f"write another {elsewhere}"
            )
        return
    others = sorted({name for name in (*writers, owner) if name not in (None, me)})
    if others:
        raise Misconfigured(
            f"{others[0]!r} writes into these tables, too, and a historian needs its own: write another {elsewhere}; "
            f"or, to go on with what {others[0]!r} has written, leave that one out and write `writer: {others[0]}`"
        )


def owner_of(link: Link, names: ddl.Names) -> str | None:
    """The historian whose tables these are, as META has it; None: there is none."""
    text = f"SELECT content FROM {names.full(META.name)} WHERE item = {names.dialect.mark}"  # noqa: S608  # own text
    owner: str | None = link.value(text, (OWNER,))
    return owner


def mark(link: Link, names: ddl.Names, owner: str | None) -> None:
    """Have META say whose tables these are, which it did not; part of a transaction."""
    meta, place = names.full(META.name), names.dialect.mark
    link.change(f"DELETE FROM {meta} WHERE item = {place}", (OWNER,))  # noqa: S608  # own text
    if owner is not None:
        link.change(f"INSERT INTO {meta} (item, content) VALUES ({place}, {place})", (OWNER, owner))  # noqa: S608  # own text


def same_tables(plant: Plant | None, tables: tuple[str, ...], elsewhere: str) -> Iterator[tuple[str, str]]:
    """Complain about a sink of the same plant file whose ``tables`` are a historian's, by what the file says."""
    for sink in plant.sinks if plant is not None else ():
        if getattr(sink, "tables", None) == tables:
            text = (
                f"the sink {sink.name!r} writes into the same tables; the historian keeps every sample there, so leave "
                f"the sink out, or give one of them another {elsewhere}"
            )
            yield "dsn", text
