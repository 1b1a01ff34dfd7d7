"""The InfluxDB sink against a real InfluxDB 1, VictoriaMetrics, and a scripted server for what these do not do."""

import asyncio
import json
import math
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from itertools import count
from pathlib import Path

import pytest
from pydantic import ValidationError

from shopfloor import plant
from shopfloor.pipeline import runner
from shopfloor.pipeline.probe import probe
from shopfloor.plant.components import FromEnvironment
from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Unavailable, Value
from shopfloor.sinks.influxdb import InfluxDbConfig
from shopfloor.testing.clocks import instant
from shopfloor.testing.contracts import SinkContract, SinkRig
from shopfloor.testing.contracts.values import EVERY_VALUE
from shopfloor.testing.faults import FaultProxy
from tests.pipeline.hands import Bench, state, until
from tests.sinks.influx import Influxd, VictoriaMetrics
from tests.sinks.killing import fill, kill_and_finish
from tests.sinks.scripted import Asked, Said, Scripted

NOW = instant("2026-01-05T06:00:00Z") + 123_456_789
TOKEN = FromEnvironment("t0ken")
V2 = {"version": 2, "org": "plant", "bucket": "floor", "token": TOKEN}
V3: Mapping[str, object] = {"version": 3, "database": "floor", "token": TOKEN}
NUMBERS = count()


def config(url: str, **options: object) -> InfluxDbConfig:
    return InfluxDbConfig.model_validate({"name": "tsdb", "type": "influxdb", "url": url, **options})


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


@pytest.fixture(scope="module")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with Influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture
def database() -> str:
    """The name of one that nobody has used yet; the sink makes it."""
    return f"floor{next(NUMBERS)}"


class InfluxRig(SinkRig):
    def __init__(self, proxy: FaultProxy, server: Influxd, database: str) -> None:
        self.connected = config(f"http://127.0.0.1:{proxy.port}", version=1, database=database).build()
        super().__init__(self.connected)
        self.proxy = proxy
        self.server = server
        self.database = database

    async def content(self) -> Sequence[Sample]:
        return self.server.samples(self.database)

    async def lose(self) -> None:
        self.proxy.reset()

    async def restore(self) -> None:
        self.connected._seconds = 10
        self.proxy.heal()

    async def freeze(self) -> bool:
        self.connected._seconds = 0.5  # else the test waits long for what never answers
        self.proxy.black_hole()
        return True

    def rejected(self) -> tuple[Batch, set[int]] | None:
        samples = [
            Sample("a/x", NOW, 1.0),
            Sample("a/y", NOW, math.nan),
            Sample("a/z", NOW, 2),
            Sample("a/y", NOW, 3.0),
        ]
        return batch(*samples), {1}


class TestInfluxDb(SinkContract):
    exactly_once = True
    keeps = frozenset(EVERY_VALUE) - {"uint64 highest", "not a number", "infinity", "negative infinity"}

    @pytest.fixture(autouse=True)
    def _server(self, influxd: Influxd, database: str) -> None:
        self.server, self.database = influxd, database

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:
        del folder
        async with FaultProxy("127.0.0.1", self.server.port) as proxy:
            yield InfluxRig(proxy, self.server, self.database)


# ---- what is written -------------------------------------------------------------------------------------

PLANT = """
    plant: {site: bremen}
    machines: [{id: press-1, line: stamping}]
    sources:
      - {name: plc, type: modbus, host: 127.0.0.1, tags: [{tag: "press-1/PV", address: "30001", unit: "m³/h"}]}
    sinks:
      - {name: tsdb, type: influxdb, version: 1, url: "%s", database: %s%s}
    journal: {path: journal.db}
    console: null
"""


def described(url: str, database: str, more: str = "") -> InfluxDbConfig:
    sink = plant.parse(PLANT % (url, database, more), "plant.yaml", Path()).sinks[0]
    assert isinstance(sink, InfluxDbConfig)
    return sink


def lines(sink: InfluxDbConfig, *samples: Sample) -> list[str]:
    offered = batch(*samples)
    built = sink.build()
    return [line.decode() for _, line in built._written(offered, built._offers.take(1, offered))]


def test_a_line_says_what_is_known() -> None:
    samples = [Sample("press-1/PV", NOW, 41.5), Sample("lonely", NOW, None, 24, 0x80310000)]
    assert lines(described("http://localhost:8086", "floor"), *samples) == [
        "shopfloor,machine=press-1,source=press,tag=press-1/PV,unit=m³/h value=41.5,quality=192i 1767592800123456789",
        "shopfloor,machine=lonely,source=press,tag=lonely quality=24i,status=2150694912i 1767592800123456789",
    ]
    more = ', measurement: "{line} {signal}", tag_set: [site, line, signal], labels: {Area: "cold, dry"}, fields: one'
    (line,) = lines(described("http://localhost:8086", "floor", more), Sample("press-1/PV", NOW, b"\xff"))
    series, fields = line.split(" value=")
    assert series == r"stamping\ PV,Area=cold\,\ dry,line=stamping,signal=PV,site=bremen,tag=press-1/PV"
    assert fields == '"/w==",encoding="base64",quality=192i 1767592800123456789'


def test_integers_above_63_bits_are_for_servers_that_have_them() -> None:
    assert " value_int=18446744073709551615u," in lines(config("http://h", **V2), Sample("a", NOW, 2**64 - 1))[0]


async def test_every_name_that_can_be_written_comes_back(influxd: Influxd, database: str) -> None:
    """Names and texts of all characters that mean something to line protocol; what it cannot say is refused."""
    chosen = random.Random(3)
    names = {"".join(chosen.choices("ab ,=\\\"/#\n\t'é🏭", k=chosen.randint(1, 6))) for _ in range(400)}
    samples = [Sample(f"x{name}", NOW, name) for name in sorted(names)]
    refused = {i for i, sample in enumerate(samples) if re.search(r"\n|\\$|\\[ ,=]", sample.tag)}
    assert 20 < len(refused) < len(samples) / 2
    offered = batch(*samples)
    left = set(range(len(samples)))
    async with config(influxd.url, version=1, database=database, tag_set=[]).build() as sink:
        while left & refused:
            with pytest.raises(Rejected, match="no way to write the name") as rejected:
                await sink.write(1, offered.select(sorted(left)))
            left -= {sorted(left)[i] for i in rejected.value.indices or ()}
        await sink.write(1, offered.select(sorted(left)))
    assert sorted(influxd.samples(database), key=lambda s: s.tag) == [samples[i] for i in sorted(left)]
    assert left == set(range(len(samples))) - refused


async def test_values_of_one_tag_and_time_are_told_apart_by_their_order(influxd: Influxd, database: str) -> None:
    """Written again they are the same; one that is refused does not move the others."""
    offered = batch(*(Sample("a", NOW, value) for value in (1.0, math.inf, 3.0, 2.0)), Sample("b", NOW, 5.0))
    for _ in range(2):
        async with config(influxd.url, version=1, database=database).build() as sink:
            with pytest.raises(Rejected):
                await sink.write(1, offered)
            await sink.write(1, offered.select([0, 2, 3, 4]))
    rows = [(row["tag"], row.get("repeat"), row["value"]) for row in influxd.rows(database)]
    assert sorted(rows, key=str) == [("a", "2", 3), ("a", "3", 2), ("a", None, 1), ("b", None, 5)]


async def test_a_type_that_a_field_has_not_is_quarantined_and_nothing_else(influxd: Influxd, database: str) -> None:
    """With one field for all, InfluxDB takes only the type that came first; it does not say which lines it dropped."""
    values: list[Value] = [1.0, "text", 2.0, True, 3.0]
    offered = batch(*(Sample("a", NOW + i, value) for i, value in enumerate(values)))
    async with config(influxd.url, version=1, database=database, fields="one").build() as sink:
        await sink.write_many([(1, batch(Sample("a", NOW - 1, 0.0)))])
        with pytest.raises(Rejected):
            await sink.write_many([(2, offered), (3, batch(Sample("a", NOW + 9, 9.0)))])
        with pytest.raises(Rejected, match="field type conflict") as no:
            await sink.write(2, offered)
        assert no.value.indices == [1, 3]
        for reason, kind in zip(no.value.why(len(values)), ("string", "boolean"), strict=True):
            assert f"is type {kind}, already exists as type float" in reason
        await sink.write(2, offered.select([0, 2, 4]))
    assert [row["value"] for row in influxd.rows(database)] == [0, 1, 2, 3, 9]


async def test_victoria_metrics_takes_version_2(tmp_path: Path) -> None:
    async with VictoriaMetrics(tmp_path) as server:
        async with config(server.url, **V2).build() as sink:
            await sink.write_many([(i, batch(Sample("press-1/PV", NOW + i * 10**9, i / 2))) for i in range(100)])
        found: list[float] = []

        def arrived() -> bool:
            found[:] = [value for one in server.series('shopfloor_value{tag="press-1/PV"}') for value in one["values"]]
            return len(found) == 100

        await until(arrived, "all of them can be read")
        assert sorted(found) == [i / 2 for i in range(100)]


# ---- what is answered ------------------------------------------------------------------------------------


def refusing(status: int, word: bytes) -> Callable[[Asked], Said]:
    """A server that refuses every request in which a word stands."""
    said = b'{"code":"unprocessable entity","message":"field type conflict"}'
    return lambda asked: Said(status, said) if word in asked.body else Said()


@pytest.mark.parametrize(
    ("body", "enters"),
    [
        (b'{"code":"invalid","message":"writing requires points"}', True),
        (b"nothing to write", True),
        (b"<html><h1>400 Bad Request</h1></html>", False),
        (b'["no"]', False),
    ],
)
async def test_a_server_that_knows_no_such_request_is_not_taken_for_one_without_lines(
    *, body: bytes, enters: bool
) -> None:
    """Else all that is written would be refused by a server that is none of line protocol."""
    async with Scripted(lambda _: Said(400, body)) as server:
        if enters:
            async with config(server.url, **V2).build():
                return
        with pytest.raises(Misconfigured, match=r"answers 400.*is it an InfluxDB"):
            await config(server.url, **V2).build().__aenter__()


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_version_2_refuses_whole_requests(status: int) -> None:
    async with Scripted(refusing(status, b"tag=bad")) as server, config(server.url, **V2).build() as sink:
        offered = batch(*(Sample("bad" if i in (5, 11) else "good", NOW + i, i) for i in range(16)))
        with pytest.raises(Rejected, match=rf"^field type conflict \({status}\)$") as rejected:
            await sink.write(1, offered)
        assert rejected.value.indices == [5, 11]
        taken = {line for asked in server.posts() if b"tag=bad" not in asked.body for line in asked.body.split(b"\n")}
        assert len(taken) == 14
        asked = server.posts()[0]
        assert asked.path == "/api/v2/write?org=plant&bucket=floor&precision=ns"
        assert asked.headers["authorization"] == "Token t0ken"
        assert asked.headers["content-encoding"] == "gzip"


async def test_version_3_names_the_lines(tmp_path: Path) -> None:
    del tmp_path
    said = {"error": "partial write of line protocol occurred", "data": [
        {"original_line": "…", "line_number": 2, "error_message": "invalid column type, expected f64, got string"},
        {"original_line": "…", "line_number": 4, "error_message": "invalid column type, expected f64, got bool"},
    ]}  # fmt: skip
    async with Scripted(lambda _: Said(400, json.dumps(said).encode())) as server:
        async with config(server.url, **V3).build() as sink:
            with pytest.raises(Rejected, match="got string") as rejected:
                await sink.write(1, batch(*(Sample("a", NOW + i, i) for i in range(5))))
            assert [*rejected.value.why(5).values()] == [[1], [3]], "each for its reason"
        (asked,) = server.posts()
        assert asked.path == "/api/v3/write_lp?db=floor&precision=nanosecond&accept_partial=true"
        assert asked.headers["authorization"] == "Bearer t0ken"


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, Misconfigured, r"does not let us write: unauthorized access \(401\); correct `token`"),
        (403, Misconfigured, "or allow it to write"),
        (404, Misconfigured, "create it, or correct `org` and `bucket`"),
        (405, Misconfigured, "is it an InfluxDB of this `version`"),
        (308, Misconfigured, "`url`"),
        (429, Unavailable, "takes nothing now: unauthorized access"),
        (503, Unavailable, "takes nothing now"),
        (500, Unavailable, "takes nothing now"),
    ],
)
async def test_what_answers_mean(status: int, error: type[Exception], words: str) -> None:
    said = Said(status, b'{"code":"x","message":"unauthorized access"}', {"Retry-After": "17"})
    async with (
        Scripted(lambda asked: said if asked.body else Said()) as server,
        config(server.url, **V2).build() as sink,
    ):
        with pytest.raises(error, match=words) as raised:
            await sink.write(1, batch(Sample("a", NOW, 1)))
        assert getattr(raised.value, "after", 17) == 17
    async with Scripted(lambda _: said) as server:
        with pytest.raises(error, match=words):
            await config(server.url, **V2).build().__aenter__()


async def test_a_server_that_takes_too_long() -> None:
    async def slow(asked: Asked) -> Said:
        if asked.body:
            await asyncio.sleep(60)
        return Said()

    async with Scripted(slow) as server, config(server.url, **V2).build() as sink:
        sink._seconds = 0.3  # of the write only: entering may take its time
        with pytest.raises(Unavailable, match=r"does not answer within 0\.3 s"):
            await sink.write(1, batch(Sample("a", NOW, 1)))


async def test_who_may_write(tmp_path: Path) -> None:
    async with Influxd(tmp_path, auth=True) as server:
        admin = {"u": "root", "p": "r"}
        server.query("CREATE USER root WITH PASSWORD 'r' WITH ALL PRIVILEGES")
        for query in ("CREATE DATABASE floor", "CREATE USER edge WITH PASSWORD 'e'", "GRANT WRITE ON floor TO edge",
                      "CREATE USER guest WITH PASSWORD 'g'"):  # fmt: skip
            server.query(query, **admin)

        def user(name: str, password: str) -> InfluxDbConfig:
            return config(
                server.url, version=1, database="floor", username=name, password=FromEnvironment(password)
            )  # fmt: skip

        async with user("edge", "e").build() as sink:  # may write, but make no database
            await sink.write(1, batch(Sample("a", NOW, 1.5)))
        rows = server.query('SELECT "value" FROM shopfloor', db="floor", **admin)[0]["values"]
        assert rows == [[NOW, 1.5]]
        for name in ("edge", "root"):  # only an administrator could make the database that is not there
            missing = user(name, name[0]).model_copy(update={"database": "other"})
            with pytest.raises(Misconfigured, match="other") if name == "edge" else nullcontext():
                async with missing.probe():
                    pass
        assert server.query("SHOW DATABASES", **admin)[0]["values"] == [["floor"]]
        for refused in (user("edge", "wrong"), user("guest", "g"), config(server.url, version=1, database="floor")):
            with pytest.raises(Misconfigured, match=r"does not let us write: .*correct `username` and `password`"):
                async with refused.build() as sink:
                    await sink.write(1, batch(Sample("a", NOW, 1.5)))


# ---- in a plant ------------------------------------------------------------------------------------------


async def test_a_probe_makes_no_database(influxd: Influxd, database: str) -> None:
    made = config(influxd.url, version=1, database=database)
    sinks = [made, made.model_copy(update={"create": False}), config("http://127.0.0.1:1", **V2)]
    site = plant.parse("plant: {site: bremen}", "plant.yaml", Path())
    would, there, away = [one async for one in probe(site.model_copy(update={"sinks": sinks}))]
    assert (would.result, there.result, away.result) == ("ok", "misconfigured", "away"), "the first one makes it"
    assert f'database not found: "{database}"' in there.detail
    assert "create it, or correct `database`" in there.detail
    assert [database] not in influxd.query("SHOW DATABASES")[0].get("values", [])


KILLED = """
    plant: {site: bremen}
    sinks:
      - {name: tsdb, type: influxdb, version: 1, url: "%s", database: %s, batch: 20}
    journal: {path: journal.db}
    console: null
"""


async def test_killed_while_it_delivers_each_sample_is_there_once(
    influxd: Influxd, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = await fill(tmp_path, "tsdb", 40, 25)
    influxd.query(f'CREATE DATABASE "{database}"')

    await kill_and_finish(tmp_path, KILLED % (influxd.url, database), "tsdb", influxd.writes, monkeypatch)
    assert sorted(influxd.samples(database), key=lambda s: s.time) == filled


async def test_a_server_that_is_killed_and_comes_back_has_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(runner, "LONGEST_DELAY", 0.05)
    bench = Bench(tmp_path)
    async with Influxd(tmp_path) as server:
        async with bench.running(sinks=[config(server.url, version=1, database="floor")]) as pipeline:
            bench.machine.give(*range(20))
            await until(lambda: pipeline.components()[1].samples == 20, "all before")
            server.kill()
            bench.machine.give(*range(20, 40))
            await until(lambda: state(pipeline, "tsdb") == "waiting", "the loss")
            server.start()
            await until(lambda: pipeline.components()[1].samples == 40, "the rest")
        assert [sample.value for sample in server.samples("floor")] == list(range(40))
    said = capsys.readouterr().out
    assert (said.count("sink tsdb is away"), said.count("sink tsdb is back")) == (1, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "version 2 needs `org`"),
        ({"version": 1}, "version 1 needs `database`"),
        ({**V2, "database": "x"}, "`database` is not for version 2"),
        ({**V3, "version": "4"}, "'1', '2' or '3'"),
        ({**V3, "measurement": "{value}"}, "only {tag}, {machine}, .* can stand in braces"),
        ({**V3, "measurement": "#x"}, "begins with no `#`"),
        ({**V3, "labels": {"tag": "x"}}, "lines have that tag already"),
        ({**V3, "labels": {"a b": "x"}}, "must be letters, digits"),
        ({**V3, "token": "clear"}, "must not stand in the plant file"),
        ({"version": 1, "database": "x", "username": "u"}, "belong together"),
        ({**V2, "url": "influx:8086"}, "is no address of a server"),
    ],
)
def test_what_is_wrong_in_the_plant_file_is_said(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(**{"url": "http://h:8086", **options})  # type: ignore[arg-type]
