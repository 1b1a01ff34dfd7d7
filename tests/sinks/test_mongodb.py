"""The MongoDB sink against mongo-java-server, which stores. What that cannot answer: test_mongodb_answers.py."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pydantic import ValidationError

from shopfloor.pipeline import runner
from shopfloor.pipeline.probe import probe
from shopfloor.plant import parse
from shopfloor.plant.components import FromEnvironment
from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Unavailable
from shopfloor.sinks.mongodb import MongoDbConfig
from shopfloor.testing.clocks import instant
from shopfloor.testing.contracts import SinkContract, SinkRig
from shopfloor.testing.faults import FaultProxy
from tests.pipeline.hands import Bench, state, until
from tests.sinks.killing import fill, kill_and_finish
from tests.sinks.mongo import Mongo

NOW = instant("2026-01-05T06:00:00Z") + 123_456_789
NUMBERS = count()


def config(dsn: str, **options: object) -> MongoDbConfig:
    return MongoDbConfig.model_validate({"name": "archive", "type": "mongodb", "dsn": dsn, **options})


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


@pytest.fixture(scope="module")
def mongo() -> Iterator[Mongo]:
    with Mongo() as server:
        yield server


@pytest.fixture
def database() -> str:
    """The name of one that nobody has used yet."""
    return f"plant{next(NUMBERS)}"


class MongoRig(SinkRig):
    def __init__(self, proxy: FaultProxy, server: Mongo, database: str, timeout: str) -> None:
        where = f"mongodb://127.0.0.1:{proxy.port}/{database}"
        super().__init__(config(where, timeout=timeout, keep_alive="500 ms").build())
        self.proxy, self.server, self.database = proxy, server, database

    async def content(self) -> Sequence[Sample]:
        return await asyncio.to_thread(self.server.samples, self.database)

    async def lose(self) -> None:
        self.proxy.reset()

    async def restore(self) -> None:
        self.proxy.heal()

    async def freeze(self) -> bool:
        self.proxy.black_hole()
        return True

    def rejected(self) -> tuple[Batch, set[int]] | None:
        return batch(Sample("a/x", NOW, 1.0), Sample("a/y", NOW, "\ud800"), Sample("a/z", NOW, 2)), {1}


class TestMongoDb(SinkContract):
    exactly_once = True

    @pytest.fixture(autouse=True)
    def _server(self, mongo: Mongo, database: str) -> None:
        self.server, self.database = mongo, database

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:
        del folder
        async with FaultProxy("127.0.0.1", self.server.port) as proxy:
            yield MongoRig(proxy, self.server, self.database, "4 s" if self.hasty else "30 s")


# ---- what is written -------------------------------------------------------------------------------------


async def test_a_document_says_what_is_known(mongo: Mongo, database: str) -> None:
    """The documented fields, the nanoseconds beside the date."""
    given = Sample("press-1/PV", NOW, 41.5, 64, 0x80310000, NOW + 10**9 + 1)
    async with config(f"{mongo.url}/{database}").build() as sink:
        await sink.write(7, batch(given))
    (found,) = mongo.found(database, "samples")
    milliseconds = NOW // 10**6
    assert isinstance(found.pop("_id"), ObjectId)
    assert {name: int(value) if name.endswith(("time", "received")) else value for name, value in found.items()} == {
        "tag": "press-1/PV", "time": milliseconds, "nanos": 456_789, "value": 41.5, "quality": 64, "source": "press",
        "received": milliseconds, "status": 0x80310000, "server_time": milliseconds + 1000, "server_nanos": 456_790,
        "entry": 7, "place": 0,
    }  # fmt: skip
    (latest,) = mongo.found(database, "latest")
    assert (latest["_id"], latest["value"], latest["nanos"], latest["entry"]) == ("press-1/PV", 41.5, 456_789, 7)


async def test_written_again_by_another_process_it_counts_once(mongo: Mongo, database: str) -> None:
    """Two values of one tag and time are two, by their order; nothing that comes again is another one."""
    offered = batch(*(Sample("a", NOW, value) for value in (1.0, math.nan, -0.0, True)), Sample("b", NOW, 5))
    for _ in range(2):  # each has a memory of its own
        async with config(f"{mongo.url}/{database}").build() as sink:
            await sink.write(1, offered)
    assert [str(one.value) for one in mongo.samples(database) if one.tag == "a"] == ["1.0", "nan", "-0.0", "True"]
    async with config(f"{mongo.url}/{database}", writer="another").build() as sink:
        await sink.write(1, offered)
    assert len(mongo.samples(database)) == 10


async def test_part_of_an_entry_that_is_there_is_completed(mongo: Mongo, database: str) -> None:
    """A process that was killed between two commands leaves some; the tags asked for may be others meanwhile."""
    whole = batch(*(Sample(f"a/{i % 7}", NOW + i, float(i)) for i in range(2500)))
    part = whole.select([i for i in range(2500) if i % 3])
    async with config(f"{mongo.url}/{database}").build() as sink:
        await sink.write(4, part)
    async with config(f"{mongo.url}/{database}").build() as sink:
        await sink.write_many([(4, whole), (5, batch(Sample("b", NOW, 1)))])
    assert len(mongo.samples(database)) == 2501
    assert sorted(one.time for one in mongo.samples(database) if one.tag != "b") == list(whole.times)


async def test_another_document_with_its_id_is_no_loss_in_silence(mongo: Mongo, database: str) -> None:
    """What stands under the _id is compared: a stranger's document makes a dead letter, the others are held."""
    async with config(f"{mongo.url}/{database}").build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    (found,) = mongo.found(database, "samples")
    other = f"{database}other"
    mongo.put(other, "samples", found | {"value": 2.0})
    async with config(f"{mongo.url}/{other}").build() as sink:
        with pytest.raises(Rejected, match="duplicate key") as refused:
            await sink.write(1, batch(Sample("a", NOW, 1.0), Sample("b", NOW, 2.0)))
        assert refused.value.indices == [0]
        await sink.write(1, batch(Sample("b", NOW, 2.0)))
    assert [one.tag for one in mongo.samples(other)] == ["a", "b"]


async def test_what_no_document_can_hold_is_refused_and_nothing_else(mongo: Mongo, database: str) -> None:
    offered = batch(Sample("a", NOW, "x" * 17 * 2**20), Sample("b", NOW, b"y" * 15 * 2**20), Sample("c\udc00", NOW, 1))
    async with config(f"{mongo.url}/{database}").build() as sink:
        with pytest.raises(Rejected, match="longer than") as refused:
            await sink.write(1, offered)
        assert list(refused.value.indices or ()) == [0, 2]
        assert "a tag's name is not valid Unicode" in str(refused.value.why(3))
        await sink.write(1, offered.select([1]))
    assert [(one.tag, len(one.value)) for one in mongo.samples(database)] == [("b", 15 * 2**20)]  # type: ignore[arg-type]


async def test_latest_has_the_newest_of_each_tag(mongo: Mongo, database: str) -> None:
    """By the samples' own time; what comes late, or again after a restart, does not take its place."""

    def newest() -> list[object]:
        return [(one["_id"], one["value"]) for one in sorted(mongo.found(database, "latest"), key=lambda d: d["_id"])]

    for again in range(2):
        async with config(f"{mongo.url}/{database}").build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1), Sample("b", NOW, 1), Sample("a", NOW + 1, 2)))
            assert newest() == ([("a", 2), ("b", 1)] if not again else [("a", 4), ("b", 1)])
            await sink.write_many([(2, batch(Sample("a", NOW + 1, 3))), (3, batch(Sample("a", NOW - 1, 9)))])
            assert newest()[0] == ("a", 3 if not again else 4)
            await sink.write(4, batch(Sample("a", NOW + 10**6, 4)))
            await sink.write(5, batch(Sample("a", NOW + 9, 5)))
            assert newest() == [("a", 4), ("b", 1)]


HOUR = {
    "end": "2026-01-05T07:00:00Z", "day": "2026-01-05", "oee": 0.5, "good": 10, "seconds": {"production": 1800.0},
    "losses": {"mech/belt.1": {"count": 2, "seconds": 60.5}}, "formula": "iso", "revision": 0,
}  # fmt: skip


async def test_figures_are_documents_and_a_correction_takes_its_place(mongo: Mongo, database: str) -> None:
    def record(**more: object) -> Sample:
        return Sample("press-1/kpi/hour", NOW // 10**9 * 10**9, json.dumps(HOUR | more))

    stop = {"class": "unplanned", "reasons": [{"reason": "mech/belt", "start": "2026-01-05T06:00:00Z", "seconds": 5}]}
    async with config(f"{mongo.url}/{database}").build() as sink:
        await sink.write(1, batch(record(), Sample("press-1/kpi/stop", NOW, json.dumps(stop))))
        await sink.write(2, batch(record(good=11)))  # the same window, as a replay would say it
        await sink.write(3, batch(record(good=12, revision=1)))
    first, second = sorted(mongo.found(database, "kpi_window"), key=lambda one: int(one["revision"]))
    assert first["_id"] == '["press-1", "hour", "2026-01-05T06:00:00+00:00", 0]'
    assert (first["good"], first["oee"], first["production_seconds"]) == (11, 0.5, 1800.0)
    assert (first["production_day"], int(first["starts"])) == ("2026-01-05", NOW // 10**9 * 1000)
    assert first["losses"] == [{"reason": "mech/belt.1", "category": "mech", "stops": 2, "seconds": 60.5}]
    assert (second["good"], second["revision"]) == (12, 1)
    (stopped,) = mongo.found(database, "stop_event")
    assert [part["seconds"] for part in stopped["reasons"]] == [5]
    assert (stopped["kind"], stopped["starts_micros"]) == ("unplanned", 456)
    assert len(mongo.samples(database)) == 4, "as they came they are samples, too"


async def test_a_time_series_collection_that_is_ordinary_is_said(mongo: Mongo, database: str) -> None:
    """The peer makes an ordinary one of it, so that is what is there the second time."""
    async with config(f"{mongo.url}/{database}", time_series=True).build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    with pytest.raises(Misconfigured, match="is there as an ordinary collection; write `time_series: false`"):
        async with config(f"{mongo.url}/{database}", time_series=True).build():
            pytest.fail("it was entered")


# ---- in a plant ------------------------------------------------------------------------------------------


async def test_a_probe_makes_nothing(mongo: Mongo, database: str) -> None:
    away = config("mongodb://127.0.0.1:1/plant", timeout="300 ms")
    site = parse("plant: {site: bremen}", "plant.yaml", Path())
    plant = site.model_copy(update={"sinks": [config(f"{mongo.url}/{database}"), away]})
    there, gone = [one async for one in probe(plant)]
    assert (there.result, gone.result) == ("ok", "away")
    assert "no server that takes writes was found" in gone.detail
    assert "samples" not in mongo.collections(database)


async def test_a_server_that_is_killed_and_comes_back_has_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped, and killed: one line when it goes, one when it is back, each sample once and in order."""
    monkeypatch.setattr(runner, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(runner, "LONGEST_DELAY", 0.05)
    bench = Bench(tmp_path)
    async with Mongo(tmp_path) as server:
        sink = config(f"{server.url}/plant", timeout="5 s", keep_alive="500 ms")
        async with bench.running(sinks=[sink]) as pipeline:
            for times, leave in enumerate((server.kill, server.stop)):
                bench.machine.give(*range(40 * times, 40 * times + 20))
                await until(lambda wanted=40 * times + 20: pipeline.components()[1].samples == wanted, "all before")  # type: ignore[misc]
                await asyncio.to_thread(leave)
                bench.machine.give(*range(40 * times + 20, 40 * times + 40))
                await until(lambda: state(pipeline, "archive") == "waiting", "the loss")
                await asyncio.to_thread(server.start)
                await until(lambda wanted=40 * times + 40: pipeline.components()[1].samples == wanted, "the rest")  # type: ignore[misc]
        assert [sample.value for sample in server.samples("plant")] == list(range(80))
    said = capsys.readouterr().out
    assert (said.count("sink archive is away"), said.count("sink archive is back")) == (2, 2)


KILLED = """
    plant: {site: bremen}
    sinks:
      - {name: archive, type: mongodb, dsn: "%s/%s"}
    journal: {path: journal.db}
    console: null
"""


async def test_killed_while_it_delivers_each_sample_is_there_once(
    mongo: Mongo, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = await fill(tmp_path, "archive", 100, 100)
    await kill_and_finish(
        tmp_path, KILLED % (mongo.url, database), "archive",
        lambda: mongo.count(database, "samples"), monkeypatch, most=2000,
    )  # fmt: skip
    assert sorted(mongo.samples(database), key=lambda one: one.time) == filled


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dsn": "postgres://h/db"}, "is no address; write mongodb://"),
        ({"dsn": "mongodb://h:99999/db"}, "is no address"),
        ({"dsn": "mongodb://h"}, "names no database"),
        ({"dsn": "mongodb://h/db.samples"}, "names a collection"),
        ({"dsn": "mongodb://h/db?w=0"}, "nobody would know what is stored"),
        ({"dsn": "mongodb://h/db?replicaset=a&bogus=1"}, "Unknown option: bogus"),
        ({"dsn": "mongodb://u:secret@h/db"}, "must not stand in the plant file"),
        ({"dsn": "mongodb://h/db?tls=false", "ca_file": "x.pem"}, "need TLS"),
        ({"dsn": "mongodb://h/db", "password": FromEnvironment("p")}, "needs a user"),
        ({"dsn": "mongodb://h/db", "key_password": FromEnvironment("p")}, "needs `certificate_file`"),
        ({"dsn": "mongodb://h/db", "prefix": "a b"}, "must be letters, digits"),
        ({"dsn": "mongodb://h/db", "recorder": {}}, "both empty"),
        (
            {"dsn": "mongodb://h/db", "recorder": {"signals": [{"tag": "a", "sensor": "1", "machine": "2"}] * 2}},
            "twice",
        ),
    ],
)
def test_what_is_wrong_in_the_plant_file_is_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(**options)


def test_other_computers_are_spoken_to_by_tls() -> None:
    """Unless the plant file says otherwise; a name is not asked for to know that."""
    assert not config("mongodb://localhost,127.0.0.1:27018/db").tls
    assert config("mongodb://localhost,db2.example/db?replicaSet=a").tls
    assert not config("mongodb://db.example/db?tls=false").tls
    assert config("mongodb+srv://cluster.example/db?srvMaxHosts=2").tls
    assert config(FromEnvironment("mongodb://u:secret@db.example/db")).tls


async def test_a_slow_line_costs_time_only(mongo: Mongo, database: str) -> None:
    async with FaultProxy("127.0.0.1", mongo.port) as proxy:
        proxy.delay(0.05)
        async with config(f"mongodb://127.0.0.1:{proxy.port}/{database}").build() as sink:
            await sink.write_many(
                [(i, batch(*(Sample("a", NOW + 100 * i + k, k) for k in range(100)))) for i in range(9)]
            )
    assert len(mongo.samples(database)) == 900


async def test_without_a_connection_it_says_so() -> None:
    with pytest.raises(Unavailable, match="not connected"):
        await config("mongodb://localhost/db").build().write(1, batch(Sample("a", NOW, 1)))
