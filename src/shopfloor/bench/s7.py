"""How many values of an S7 become durable, beside python-snap7's own client that reads the same block."""

import asyncio
from typing import Final

from snap7.client import Client
from snap7.util import get_real

from shopfloor.bench import Result
from shopfloor.bench.polled import TAGS, Meter, Polled, Values, ready
from shopfloor.protocols.s7_address import Area
from shopfloor.simulators.s7_server import Memory, S7Server
from shopfloor.sources.s7 import S7Config
from shopfloor.testing.programs import free_port

_SIZE: Final = 4 * TAGS


class _Restless(S7Server):
    """Its DB1 holds other REALs each time it is read from its beginning."""

    values: Values

    def _span(self, size: int, count: int, db: int, area: int, address: int) -> tuple[int, bytearray, int]:
        code, data, begin = super()._span(size, count, db, area, address)
        if address == 0:
            data[:] = self.values.change()
        return code, data, begin


async def _serve(values: Values) -> None:
    port = free_port()
    server = _Restless(Memory({(Area.DB, 1): _SIZE}), "127.0.0.1", port)
    server.values = values
    async with server:
        ready(port)
        await asyncio.Event().wait()


def _config(port: int) -> S7Config:
    tags = [{"tag": f"bench/{n}", "address": f"DB1,REAL{4 * n}"} for n in range(TAGS)]
    return S7Config.model_validate({"name": "bench", "host": "127.0.0.1", "port": port, "rate": "1 ms", "tags": tags})


def _snap7(port: int, meter: Meter, decoded: bool) -> None:  # noqa: FBT001  # as ``Polled`` calls it
    """The library's own client reads the same block, and takes its values out of it where that is asked for."""
    client = Client()
    client.connect("127.0.0.1", 0, 1, port)
    values = TAGS
    while meter.count(values):
        data = client.db_read(1, 0, _SIZE)
        values = len([get_real(data, at) for at in range(0, len(data), 4)]) if decoded else len(data) // 4
    client.disconnect()


_POLLED: Final = Polled(
    "shopfloor.bench.s7", _serve, _config, _snap7,
    "python-snap7's client with its get_real, nothing stored", "python-snap7's client, bytes only",
)  # fmt: skip


def run(thorough: bool) -> list[Result]:  # noqa: FBT001  # the signature of every bench
    """Values a second to durable, beside the bare client, and what they cost."""
    return _POLLED.run(thorough=thorough)


if __name__ == "__main__":
    _POLLED.main()
