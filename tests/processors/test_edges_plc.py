"""Units counted from a digital input of a PLC behind a real S7 server, over a lost connection."""

from contextlib import AsyncExitStack
from pathlib import Path

from shopfloor import plant
from shopfloor.pipeline import Pipeline
from shopfloor.protocols.s7_address import Area, parse
from shopfloor.simulators.s7_server import Memory, S7Server
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port

PLANT = """
plant: {{site: bremen}}
sources:
  - {{name: plc, type: s7, host: 127.0.0.1, port: {port}, rate: 20 ms, tags: [{{tag: press-1/cycle, address: I0.1}}]}}
processors:
  - name: units
    type: edges
    tags: [{{from: press-1/cycle, to: press-1/units, hourly: press-1/hourly}}]
console: null
"""
CYCLE = parse("I0.1")


async def test_every_rising_edge_of_an_input_is_a_unit_and_a_reconnect_is_none(tmp_path: Path) -> None:
    """The input changes as soon as the last change is seen, so nothing depends on how fast this machine is."""
    memory, port = Memory({(Area.INPUTS, 0): 8}), free_port()
    described = plant.parse(PLANT.format(port=port), "plant.yaml", tmp_path, {})
    async with AsyncExitStack() as end:
        server = await end.enter_async_context(AsyncExitStack())
        await server.enter_async_context(S7Server(memory, "127.0.0.1", port))
        pipeline = await end.enter_async_context(Pipeline(described))

        def now(tag: str) -> object:
            sample = pipeline.live.get(tag)
            return sample.value if sample is not None and sample.good else None

        async def seen(*, on: bool, units: int) -> None:
            memory.put(CYCLE, on)
            await until(lambda: now("press-1/cycle") is on, f"the input is seen {on}", 60)
            await until(lambda: now("press-1/units") == units, f"{units} units are counted", 60)

        await seen(on=False, units=0)
        for i in range(10):
            await seen(on=True, units=i + 1)
            await seen(on=False, units=i + 1)
        await server.aclose()
        await until(lambda: now("press-1/cycle") is None, "the PLC is away", 60)
        memory.put(CYCLE, True)
        await server.enter_async_context(S7Server(memory, "127.0.0.1", port))
        await seen(on=True, units=10)  # what became of it meanwhile nobody knows
        await seen(on=False, units=10)
        await seen(on=True, units=11)
