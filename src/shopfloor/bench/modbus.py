"""How many values of a Modbus device become durable, beside pymodbus's own client that reads the same registers."""

import asyncio
import struct
from typing import Final

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from shopfloor.bench import Result
from shopfloor.bench.polled import TAGS, Meter, Polled, Values, ready
from shopfloor.sources.modbus import ModbusConfig
from shopfloor.testing.programs import free_port

_DEVICE: Final = 1
_REGISTERS: Final = 2 * TAGS
_MOST: Final = 124
"""Registers of one request: what the protocol allows, of whole floats."""
_AS_WORDS: Final = struct.Struct(f">{_REGISTERS}H")


async def _serve(values: Values) -> None:
    """Pymodbus's own server, whose holding registers are others each time they are read from the first."""

    async def read(
        function: int, first: int, address: int, count: int, registers: list[int], new: list[int] | list[bool] | None
    ) -> ExcCodes | None:
        del function, count, new
        if address == 0:
            registers[-first : _REGISTERS - first] = _AS_WORDS.unpack(values.change())
        return None

    data = [SimData(0, count=_REGISTERS, values=0, datatype=DataType.REGISTERS)]
    port = free_port()
    server = ModbusTcpServer(SimDevice(_DEVICE, data, action=read), address=("127.0.0.1", port))
    await server.listen()
    ready(port)
    await asyncio.Event().wait()


def _config(port: int) -> ModbusConfig:
    tags = [{"tag": f"bench/{n}", "address": f"holding {2 * n}", "type": "float32"} for n in range(TAGS)]
    return ModbusConfig.model_validate({
        "name": "bench", "host": "127.0.0.1", "port": port, "rate": "1 ms", "tags": tags
    })  # fmt: skip


def _pymodbus(port: int, meter: Meter, decoded: bool) -> None:  # noqa: FBT001  # as ``Polled`` calls it
    asyncio.run(_read(port, meter, decoded=decoded))


async def _read(port: int, meter: Meter, *, decoded: bool) -> None:
    """The library's own client reads the same registers, and makes floats of them where that is asked for."""
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()
    values = TAGS
    while meter.count(values):
        values = 0
        for first in range(0, _REGISTERS, _MOST):
            answer = await client.read_holding_registers(first, count=min(_MOST, _REGISTERS - first), device_id=_DEVICE)
            if decoded:
                found = client.convert_from_registers(answer.registers, client.DATATYPE.FLOAT32)
                values += len(found) if isinstance(found, list) else 1
            else:
                values += len(answer.registers) // 2
    client.close()


_POLLED: Final = Polled(
    "shopfloor.bench.modbus",
    _serve,
    _config,
    _pymodbus,
    "pymodbus's client with its convert_from_registers, nothing stored",
)


def run(thorough: bool) -> list[Result]:  # noqa: FBT001  # the signature of every bench
    """Values a second to durable, beside the bare client, and what they cost."""
    return _POLLED.run(thorough=thorough)


if __name__ == "__main__":
    _POLLED.main()
