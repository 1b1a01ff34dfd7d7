"""The signal recorder's own collections, for a front end that is there: `signaldatas` and `productionrecords`."""

import asyncio
import json
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from time import time_ns
from typing import Any, Final

import pytest
from bson import ObjectId

from shopfloor import plant
from shopfloor.protocols.s7_address import Area, parse
from shopfloor.samples import Batch, Rejected, Sample, Value
from shopfloor.simulators.s7_server import Memory, S7Server
from shopfloor.sinks.mongodb import MongoDbConfig
from shopfloor.testing.clocks import instant
from shopfloor.testing.programs import ServerProcess, free_port
from tests.pipeline.hands import until
from tests.sinks.mongo import Mongo

HOUR: Final = 3600 * 10**9
MACHINE, SENSOR, CYCLE = (ObjectId(f"65f0000000000000000000{i:02}") for i in range(3))
NUMBERS = count()

PLANT = """
    plant: {site: bremen, timezone: Europe/Berlin}
    sources:
      - name: plc
        type: s7
        host: 127.0.0.1
        port: %(port)s
        rate: 20 ms
        tags: [{tag: press-1/cycle, address: I0.1}, {tag: press-1/power, address: IW64}]
    processors:
      - {name: units, type: edges, tags: [{from: press-1/cycle, to: press-1/units, hourly: press-1/hourly}]}
    sinks:
      - name: front-end
        type: mongodb
        dsn: %(dsn)s
        timeout: 2 s
        keep_alive: 500 ms
        recorder:
          signals:
            - {tag: press-1/power, sensor: 65f000000000000000000001, machine: 65f000000000000000000000}
            - {tag: press-1/cycle, sensor: 65f000000000000000000002, machine: 65f000000000000000000000}
          production:
            - {tag: press-1/hourly, machine: 65f000000000000000000000}
    journal: {path: journal.db}
    console: null
"""


@pytest.fixture(scope="module")
def mongo() -> Iterator[Mongo]:
    with Mongo() as server:
        yield server


@pytest.fixture
def sink(mongo: Mongo) -> MongoDbConfig:
    """A plant's sink into a database that nobody has used yet."""
    text = PLANT % {"port": 102, "dsn": f"{mongo.url}/iot{next(NUMBERS)}"}
    text = text.replace("timeout: 2 s", "timeout: 30 s")  # nobody tries again here
    (config,) = plant.parse(text, "plant.yaml", Path(), {}).sinks
    assert isinstance(config, MongoDbConfig)
    assert config.tags == ["press-1/power", "press-1/cycle", "press-1/hourly"]
    return config


def hourly(end: str, units: Value, quality: int = 192) -> Sample:
    return Sample("press-1/hourly", instant(end), units, quality)


def batch(*samples: Sample, received: str = "2026-01-05T07:00:01Z") -> Batch:
    return Batch.of("units", instant(received), samples)


async def test_a_value_is_as_the_front_end_reads_it(mongo: Mongo, sink: MongoDbConfig) -> None:
    """References are ObjectIds, a switch is 1 or 0; what was never measured is no number."""
    now = instant("2026-01-05T06:00:00Z") + 123_456_789
    given = [
        Sample("press-1/power", now, 812),
        Sample("press-1/cycle", now, True),
        Sample("press-1/power", now + 1, 0, 24),
    ]
    async with sink.build() as built:
        await built.write(1, Batch.of("plc", now + 10**9, given))
        await built.write(1, Batch.of("plc", now + 10**9, given))
    power, cycle, bad = sorted(mongo.found(sink.database, "signaldatas"), key=lambda one: one["place"])
    at = now // 10**6
    assert isinstance(power.pop("_id"), ObjectId)
    for name in ("timestamp", "createdAt", "updatedAt"):
        power[name] = int(power[name])
    assert power == {
        "sensorId": SENSOR, "machineId": MACHINE, "value": 812, "timestamp": at, "createdAt": at + 1000,
        "updatedAt": at + 1000, "quality": 192, "nanos": 456_789, "tag": "press-1/power", "entry": 1, "place": 0,
    }  # fmt: skip
    assert (cycle["sensorId"], cycle["value"], type(cycle["value"])) == (CYCLE, 1.0, float)
    assert (bad["value"], bad["quality"]) == (None, 24)


async def test_an_hour_is_one_record_and_a_correction_sets_it_right(mongo: Mongo, sink: MongoDbConfig) -> None:
    """What people wrote into it stays; told twice, and by a process that was started anew, it is still one."""
    for again in range(2):
        async with sink.build() as built:
            await built.write(1, batch(hourly("2026-01-05T07:00:00Z", 41, 64)))
            if not again:
                (record,) = mongo.found(sink.database, "productionrecords")
                assert (record["machineId"], int(record["startTime"]) * 10**6) == (
                    MACHINE,
                    instant("2026-01-05T06:00:00Z"),
                )
                assert int(record["endTime"]) - int(record["startTime"]) == 3_600_000
                assert (record["unitsProduced"], record["defectiveUnits"], record["quality"]) == (41, 0, 64)
                assert record["hourlyData"] == [
                    {"hour": 7, "unitsProduced": 41, "defectiveUnits": 0, "status": "running"}
                ]
                mongo.change(sink.database, "productionrecords", {"defectiveUnits": 3, "operatorId": SENSOR})
            await built.write_many(
                [(2, batch(hourly("2026-01-05T07:00:00Z", 43))), (3, batch(hourly("2026-01-05T08:00:00Z", 5)))]
            )
    first, second = sorted(mongo.found(sink.database, "productionrecords"), key=lambda one: int(one["startTime"]))
    assert (first["unitsProduced"], first["hourlyData"][0]["unitsProduced"], first["quality"]) == (43, 43, 192)
    assert (first["defectiveUnits"], first["operatorId"]) == (3, SENSOR)
    assert (second["unitsProduced"], second["hourlyData"][0]["hour"]) == (5, 8)


async def test_a_record_that_the_recorder_made_is_gone_on_with(mongo: Mongo, sink: MongoDbConfig) -> None:
    """On the day of the change the old daemon has written the hour already."""
    start = instant("2026-01-05T06:00:00Z") // 10**6
    made = {"_id": ObjectId(), "machineId": MACHINE, "unitsProduced": 7, "startTime": mongo.date(start)}
    mongo.put(sink.database, "productionrecords", made | {"hourlyData": [{"hour": 7, "unitsProduced": 7}]})
    async with sink.build() as built:
        await built.write(1, batch(hourly("2026-01-05T07:00:00Z", 9)))
    (record,) = mongo.found(sink.database, "productionrecords")
    assert (record["_id"], record["unitsProduced"], record["hourlyData"][0]["unitsProduced"]) == (made["_id"], 9, 9)


async def test_the_hour_that_comes_twice_in_autumn_is_two_records(mongo: Mongo, sink: MongoDbConfig) -> None:
    ends = ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"]
    async with sink.build() as built:
        await built.write(1, batch(*(hourly(end, i) for i, end in enumerate(ends))))
    records = sorted(mongo.found(sink.database, "productionrecords"), key=lambda one: int(one["startTime"]))
    assert [one["hourlyData"][0]["hour"] for one in records] == [1, 2, 2]
    assert [int(one["endTime"]) - int(one["startTime"]) for one in records] == [3_600_000] * 3


async def test_what_is_no_number_of_units_is_refused(mongo: Mongo, sink: MongoDbConfig) -> None:
    async with sink.build() as built:
        with pytest.raises(Rejected, match="no number of units: str") as refused:
            await built.write(1, batch(hourly("2026-01-05T07:00:00Z", "many"), hourly("2026-01-05T08:00:00Z", 1)))
        assert refused.value.indices == [0]
        assert not mongo.found(sink.database, "productionrecords")


# ---- the whole way ---------------------------------------------------------------------------------------


class Recorder:
    """A PLC, Shopfloor in a process of its own, and a clock that the test sets."""

    def __init__(self, folder: Path, text: str, memory: Memory) -> None:
        self.folder, self.memory = folder, memory
        self.beside = instant("2026-01-05T06:10:00Z") - time_ns()
        (folder / "plant.yaml").write_text(text)
        self.set()
        victim = Path(__file__).with_name("recorder_victim.py")
        self.process = ServerProcess([sys.executable, victim, folder], 0, ready=(folder / "known.json").is_file)
        self.made: Counter[int] = Counter()
        """Units by the start of their hour."""

    def set(self) -> None:
        with (self.folder / "clock").open("r+b" if (self.folder / "clock").exists() else "wb") as file:
            file.write(struct.pack("<q", self.beside))

    @property
    def hour(self) -> int:
        return (time_ns() + self.beside) // HOUR * HOUR

    def known(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "known.json").read_text())
        return found

    async def sees(self, *, on: bool) -> None:
        self.memory.put(parse("I0.1"), on)
        await until(lambda: self.known()["tags"].get("press-1/cycle", [0, None, 0])[1:] == [on, 192], f"it sees {on}")

    async def make(self, units: int) -> None:
        for _ in range(units):
            await self.sees(on=True)
            await self.sees(on=False)
        self.made[self.hour] += units

    async def hour_passes(self) -> None:
        """Set the clock on; the next sample tells the hour."""
        over = self.hour + HOUR
        self.beside += HOUR
        self.set()
        await self.make(1)
        await until(lambda: self.known()["tags"].get("press-1/hourly", [0])[0] >= over, "the hour is told")

    async def killed(self) -> None:
        await asyncio.to_thread(self.process.kill)
        (self.folder / "known.json").unlink()
        await asyncio.to_thread(self.process.start)

    def delivered(self) -> bool:
        return bool(self.known()["states"]["front-end"] == ["running", 0])


@pytest.mark.timeout(600)
async def test_each_hour_is_right_whatever_is_killed(tmp_path: Path) -> None:
    """PLC → edges → MongoDB, with the database killed and back and Shopfloor killed: each unit once, in its hour."""
    async with AsyncExitStack() as end:
        server = await end.enter_async_context(Mongo(tmp_path))
        memory, port = Memory({(Area.INPUTS, 0): 128}), free_port()
        memory.put(parse("IW64"), 812)
        await end.enter_async_context(S7Server(memory, "127.0.0.1", port))
        recorder = Recorder(tmp_path, PLANT % {"port": port, "dsn": f"{server.url}/iot"}, memory)
        await end.enter_async_context(recorder.process)
        await recorder.sees(on=False)
        await recorder.make(3)
        await recorder.killed()
        await recorder.sees(on=False)
        await recorder.make(2)
        await recorder.hour_passes()
        await recorder.make(4)
        await asyncio.to_thread(server.kill)
        await recorder.make(1)
        await recorder.hour_passes()
        await recorder.make(2)
        await recorder.killed()  # while the database is away
        await recorder.sees(on=False)
        await recorder.make(1)
        await asyncio.to_thread(server.start)
        await recorder.make(3)
        await recorder.hour_passes()
        await until(recorder.delivered, "everything is delivered")
        records = await asyncio.to_thread(server.found, "iot", "productionrecords")
        signals = await asyncio.to_thread(server.found, "iot", "signaldatas", tag="press-1/cycle")
    running = recorder.made.popitem()
    assert running[1] == 1, "the hour that is not over has no record yet"
    assert {int(one["startTime"]) * 10**6: one["unitsProduced"] for one in records} == dict(recorder.made)
    assert list(recorder.made.values()) == [5, 6, 7]
    assert len(records) == 3
    assert [one["hourlyData"][0]["hour"] for one in sorted(records, key=lambda one: int(one["startTime"]))] == [7, 8, 9]
    rising = [one for one in signals if one["value"] == 1.0]
    assert len(rising) == len({(one["timestamp"], one["nanos"]) for one in rising}) == 19, "each value once"
    assert all(one["sensorId"] == CYCLE for one in signals)
