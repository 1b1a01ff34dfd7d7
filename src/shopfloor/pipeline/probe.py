"""Tries every connection of a plant file once and says in words how it went; nothing is written or stored."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Literal

import msgspec

from shopfloor.plant import Plant, SinkConfig, SourceConfig
from shopfloor.samples import Misconfigured, Unavailable

PATIENCE: Final = 15.0
"""Seconds for one connection."""


class Probed(msgspec.Struct, frozen=True):
    """How one connection went."""

    name: str
    type: str
    result: Literal["ok", "away", "misconfigured", "failed"]
    detail: str = ""


async def probe(plant: Plant) -> AsyncIterator[Probed]:
    """Connect every source and sink, one after the other, and leave again."""
    tried: list[SourceConfig | SinkConfig] = [*plant.sources, *plant.sinks]
    for config in tried:
        try:
            async with asyncio.timeout(PATIENCE), config.probe():
                pass
        except Unavailable as error:
            yield Probed(config.name, config.type, "away", str(error))
        except TimeoutError:
            yield Probed(config.name, config.type, "away", f"no answer within {PATIENCE:.0f} s; is a firewall between?")
        except Misconfigured as error:
            yield Probed(config.name, config.type, "misconfigured", str(error))
        except Exception as error:  # noqa: BLE001  # a bug in one connector must not hide the others' results
            yield Probed(config.name, config.type, "failed", f"a bug: {type(error).__name__}: {error}")
        else:
            yield Probed(config.name, config.type, "ok")
