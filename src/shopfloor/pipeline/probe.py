"""Tries every connection of a plant file once and says in words how it went; nothing is written or stored."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal

import msgspec

from shopfloor.plant import HistorianConfig, Plant, SinkConfig, SourceConfig
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.seams import Connection, Source

PATIENCE: Final = 15.0
"""Seconds for one connection, and again for looking at what it offers."""
_TOLD: Final = 20
"""What cannot be acquired is told of so many tags or files."""


class Probed(msgspec.Struct, frozen=True):
    """How one connection went."""

    name: str
    type: str
    result: Literal["ok", "incomplete", "away", "misconfigured", "failed"]
    """``incomplete``: the other side is there, but some of what is wanted of it cannot be had."""
    detail: str = ""
    """What to change; where it is incomplete a line for each."""


async def probe(plant: Plant) -> AsyncIterator[Probed]:
    """Connect every source, sink and historian, one after the other, look at what could be had, and leave again."""
    tried: list[SourceConfig | SinkConfig | HistorianConfig] = [*plant.sources, *plant.sinks]
    if plant.historian is not None:
        tried.append(plant.historian)
    for config in tried:
        troubles: Sequence[str] = ()
        try:
            there = config.probe()
            if there is None:
                continue
            async with asyncio.timeout(PATIENCE) as patience, there as connection:
                patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
                troubles = await _troubles(connection)
        except Unavailable as error:
            yield Probed(config.name, config.type, "away", str(error))
        except TimeoutError:
            yield Probed(config.name, config.type, "away", f"no answer within {PATIENCE:.0f} s; is a firewall between?")
        except Misconfigured as error:
            yield Probed(config.name, config.type, "misconfigured", str(error))
        except Exception as error:  # noqa: BLE001  # a bug in one connector must not hide the others' results
            yield Probed(config.name, config.type, "failed", f"a bug: {type(error).__name__}: {error}")
        else:
            yield Probed(config.name, config.type, "incomplete" if troubles else "ok", "\n".join(troubles))


async def _troubles(connection: Connection) -> Sequence[str]:
    """What cannot be acquired, as far as a person reads."""
    if not isinstance(connection, Source):
        return []
    found = [trouble async for trouble in connection.examine()]
    more = [f"and {len(found) - _TOLD} more"] if len(found) > _TOLD else []
    return [*found[:_TOLD], *more]
