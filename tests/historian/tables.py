"""What every historian in a database of the plant's promises: tests to inherit, and a rig for the sink's contract."""

import asyncio
import importlib
import math
import multiprocessing
import os
import random
import signal
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from hypothesis import given, settings, strategies as st

from shopfloor.console import create_app
from shopfloor.historian.base import AGGREGATES, Aggregate
from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from shopfloor.pipeline.probe import probe
from shopfloor.plant import HistorianConfig, JournalConfig, Plant, Site
from shopfloor.samples import Batch, Misconfigured, Quality, Sample, Unavailable, Value
from shopfloor.sinks.sql.historian import TableHistorian
from shopfloor.testing.clocks import SECOND, instant
from shopfloor.testing.contracts import until
from shopfloor.testing.contracts.sink import SinkContract, SinkRig
from shopfloor.testing.contracts.values import EVERY_VALUE, same_samples
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.historian.plain import bucket, near
from tests.historian.test_aggregates import BEGIN, FINITE, MS, NOW, QUALITIES, _run, scale
from tests.pipeline.hands import BEGIN as PLANT_BEGIN, HandConfig, Machine
from tests.sinks import sql_victim

EVER = (-(2**63), 2**63 - 1)
HOUR = 3600 * SECOND
DAY = 24 * HOUR
KILLS = int(os.environ.get("SHOPFLOOR_KILLS", "60")) // 20
VALUES: st.SearchStrategy[Value] = st.one_of(
    FINITE, FINITE, st.sampled_from([None, "text", b"bytes", float("nan"), -0.0])
)
SAMPLES = st.lists(
    st.builds(
        lambda at, value, quality: Sample("m/x", BEGIN + at * 250 * MS + at % 3, value, quality),
        st.integers(0, 80), VALUES, QUALITIES,
    ),
    max_size=30,
).map(lambda samples: sorted(samples, key=lambda s: s.time))  # fmt: skip


async def everything(historian: TableHistorian) -> list[Sample]:
    return [sample for tag in await historian.tags() for _, sample in await historian.records(tag, *EVER)]


def running(pipeline: Pipeline) -> bool:
    return all(component.state == "running" for component in pipeline.components())


async def shown(client: httpx.AsyncClient, value: Value) -> bool:
    """Whether the console shows this as the newest value of the press."""
    tags = (await client.get("/api/tags?match=press-1/PV")).json()["tags"]
    return [tag["value"] for tag in tags] == [value]


class Rig(SinkRig):
    """The other side is the server, behind a cable that can be pulled."""

    def __init__(self, historian: TableHistorian, proxy: FaultProxy, unfit: tuple[Batch, set[int]]) -> None:
        super().__init__(historian)
        self.historian = historian
        self.proxy = proxy
        self.unfit = unfit

    async def content(self) -> Sequence[Sample]:
        return await everything(self.historian)

    async def lose(self) -> None:
        self.proxy.reset()

    async def restore(self) -> None:
        self.proxy.heal()

    async def freeze(self) -> bool:
        self.proxy.black_hole()
        return True

    def rejected(self) -> tuple[Batch, set[int]] | None:
        return self.unfit


class HistorianTests(SinkContract, ABC):
    """Inherit it, and give it a server; each test has tables of its own."""

    exactly_once: ClassVar[bool] = True
    port: int
    """The server's."""
    silence: ClassVar[str] = "5 s"
    """`timeout` where nobody answers: short, but long enough for a machine that hangs for a while to connect."""
    pause: ClassVar[float] = 0.002
    """Seconds between batches of a plant that is killed, where this server is slow."""
    connects: ClassVar[int] = 1
    """How often a new connection knocks."""
    unfit: ClassVar[Sequence[Value]] = ()
    """Values that this database cannot hold."""

    @abstractmethod
    def config(self, port: int, **options: object) -> HistorianConfig:
        """A historian in this test's own tables, by this port."""

    def store(self, port: int | None = None, **options: object) -> TableHistorian:
        historian = self.config(port or self.port, **options).build()
        assert isinstance(historian, TableHistorian)
        return historian

    def rig(self, folder: Path) -> AbstractAsyncContextManager[SinkRig]:
        del folder  # the server has its own
        return self._rig()

    @asynccontextmanager
    async def _rig(self) -> AsyncIterator[SinkRig]:
        values: list[Value] = [1.0, *self.unfit, 2]
        batch = Batch.of("press", NOW, [Sample("a/x", NOW + i, value) for i, value in enumerate(values)])
        async with FaultProxy("127.0.0.1", self.port) as proxy:
            timeout = "5 s" if self.hasty else "30 s"
            yield Rig(self.store(proxy.port, timeout=timeout), proxy, (batch, set(range(1, len(values) - 1))))

    test_every_value_survives = None  # type: ignore[assignment]  # each would make its tables: another test has them all

    # -- what is asked ---------------------------------------------------------------------------

    @pytest.mark.parametrize("function", AGGREGATES)
    async def test_aggregates_equal_the_plain_recomputation(self, function: Aggregate) -> None:
        """Also when the first half of the samples comes last, and several come at one instant."""
        numbers = count()
        async with self.store() as historian:

            @settings(max_examples=12)
            @given(SAMPLES, st.integers(0, 60), st.integers(1, 60), st.sampled_from([1, 3, 7]))
            async def same(samples: list[Sample], skip: int, length: int, seconds: int) -> None:
                number = next(numbers)
                tag = f"m/{number}"
                named = [Sample(tag, s.time, s.value, s.quality) for s in samples]
                half = next((i for i, s in enumerate(named) if i >= len(named) // 2 and s.time != named[i - 1].time), 0)
                await historian.write(2 * number, Batch.of("line", NOW, named[half:]))
                await historian.write(2 * number + 1, Batch.of("line", NOW, named[:half]))
                start, end = BEGIN + skip * 333 * MS, BEGIN + (skip + length) * 333 * MS
                found = await historian.aggregate(tag, start, end, seconds * SECOND, function)
                whole = seconds * SECOND
                midnight = BEGIN // (24 * HOUR) * 24 * HOUR
                expected = [
                    (begin, result)
                    for begin in range(midnight + (start - midnight) // whole * whole, end, whole)
                    if (result := bucket(function, named, begin,
                                         begin if function == "interpolated" else max(begin, start),
                                         min(begin + whole, end)))
                ]  # fmt: skip
                expected = expected if named else []
                assert found.times.tolist() == [begin for begin, _ in expected]
                assert found.qualities.tolist() == [quality for _, (_, quality) in expected]
                for value, (_, (exact, _)) in zip(found.values, expected, strict=True):
                    assert near(value, exact, scale(named)), (value, exact)

            await _run(same)

    async def test_infinities_are_numbers_and_nan_is_none(self) -> None:
        values = [float("inf"), 1.0, float("nan")]
        async with self.store() as historian:
            await historian.write(1, Batch("s", NOW, ["m/x"] * 3, [BEGIN, BEGIN + 1, BEGIN + 2], values))
            for function, expected in (("max", math.inf), ("min", 1.0), ("avg", math.inf), ("count", 3)):
                found = await historian.aggregate("m/x", BEGIN, BEGIN + SECOND, SECOND, function)  # type: ignore[arg-type]
                assert list(found.values) == [expected]
            found = await historian.aggregate("m/x", BEGIN + SECOND, BEGIN + 2 * SECOND, SECOND, "interpolated")
            assert list(found.values) == [None]
            await historian.write(2, Batch("s", NOW, ["m/x"], [BEGIN + 3 * SECOND], [-math.inf]))
            found = await historian.aggregate("m/x", BEGIN + 3 * SECOND, BEGIN + 4 * SECOND, SECOND, "interpolated")
            assert list(found.values) == [-math.inf]

    async def test_late_samples_stand_where_their_times_are(self) -> None:
        """Of one time in the order in which they came, over batches, and inside a batch of several types."""
        async with self.store() as historian:
            late: list[Value] = [1.5, "one", True, None, 2**64 - 1, 7]
            samples = [Sample("m/x", BEGIN + 999, value) for value in late]
            await historian.write(1, Batch("s", NOW, ["m/x"] * 2, [BEGIN + 2000, BEGIN + 1001], [3.0, 2.0]))
            await historian.write(2, Batch.of("s", NOW, samples))
            await historian.write(3, Batch("s", NOW, ["m/x"] * 2, [BEGIN + 999, BEGIN], [8.0, 0.0]))
            found = await historian.history("m/x", *EVER)
            assert found.times.tolist() == [BEGIN, *[BEGIN + 999] * 7, BEGIN + 1001, BEGIN + 2000]
            assert list(found.values) == [0.0, *late, 8.0, 2.0, 3.0]
            assert [type(value) for value in found.values[1:7]] == [type(value) for value in late]
            for start, end, expected in ((999, 1001, [*late, 8.0]), (1000, 1001, []), (1, 1002, [*late, 8.0, 2.0])):
                found = await historian.history("m/x", BEGIN + start, BEGIN + end)
                assert list(found.values) == expected

    async def test_every_value_comes_back_to_the_bit(self) -> None:
        """By history, by latest, and with status and server time; NaN keeps its bits."""
        odd = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_DEAD_BEEF))[0]
        values: dict[str, Value] = {name: v for name, v in EVERY_VALUE.items() if name in self.keeps} | {"odd": odd}
        samples = [Sample(f"m/{name}", BEGIN + 7, v, 200, 17, BEGIN + 9) for name, v in sorted(values.items())]
        async with self.store() as historian:
            await historian.write(1, Batch.of("s", NOW, samples))
            assert same_samples(await everything(historian), samples)
            assert same_samples(await historian.latest(), samples)
            for sample in samples:
                found = await historian.history(sample.tag, BEGIN, NOW)
                one = Sample(sample.tag, found.times[0], found.values[0], found.qualities[0], 17, BEGIN + 9)
                assert same_samples([one], [sample])
            bits = struct.pack("<d", (await historian.latest(["m/odd"]))[0].value)
            assert bits == struct.pack("<d", odd)

    async def test_history_is_cut_at_its_limit_and_says_so(self) -> None:
        """Also where many samples lie within one microsecond, whose order is that of their nanoseconds."""
        async with self.store() as historian:
            times = [BEGIN + i for i in reversed(range(9))] + [BEGIN + 5000]
            await historian.write(1, Batch("s", NOW, ["m/x"] * 10, times, [*reversed(range(9)), 9]))
            for start, limit, expected, cut in ((1, 3, [1, 2, 3], True), (0, 9, list(range(9)), True),
                                                (2, 8, list(range(2, 10)), False), (8, 1, [8], True)):  # fmt: skip
                found = await historian.history("m/x", BEGIN + start, NOW, limit)
                assert (list(found.values), found.truncated) == (expected, cut)
            assert not (await historian.history("m/none", 0, NOW)).times
            assert not (await historian.history("m/x", NOW, NOW)).times
            assert not (await historian.aggregate("m/none", BEGIN, NOW, HOUR, "count")).times
            assert await historian.latest(["m/none"]) == []
            with pytest.raises(ValueError, match="at least 1"):
                await historian.history("m/x", 0, 1, limit=0)
            with pytest.raises(ValueError, match="one of avg"):
                await historian.aggregate("m/x", 0, 1, SECOND, "median")  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="time zone"):
                await historian.aggregate("m/none", 0, 10, SECOND, "avg", "Mars/Olympus")

    async def test_a_long_series_is_summed_up_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Memory is bounded by the rows held at once; the result does not show where the parts met."""
        monkeypatch.setattr("shopfloor.sinks.sql.asking.SURE", 0)
        async with self.store() as historian:
            times = [BEGIN + i * 100 * MS for i in range(2000)]
            await historian.write(1, Batch("s", NOW, ["m/x"] * 2000, times, [float(i % 17) for i in range(2000)]))
            for function in AGGREGATES:
                asked = partial(historian.aggregate, "m/x", BEGIN, BEGIN + 200 * SECOND, 3 * SECOND, function)
                whole = await asked()
                with monkeypatch.context() as patch:
                    patch.setattr("shopfloor.historian.asking.HELD_ROWS", 300)
                    parts = await asked()
                assert len(whole.times) == 67
                assert (parts.times, list(parts.values), parts.qualities) == (
                    whole.times, list(whole.values), whole.qualities,
                )  # fmt: skip

    async def test_a_day_of_daylight_saving_has_its_own_length(self) -> None:
        midnight = instant("2026-03-29T00:00:00+01:00")
        async with self.store() as historian:
            times = [midnight + i * HOUR for i in range(-24, 48)]
            await historian.write(1, Batch("s", NOW, ["m/x"] * 72, times, [float(i) for i in range(72)]))
            end = midnight + 23 * HOUR
            found = await historian.aggregate("m/x", midnight, end, 24 * HOUR, "count", "Europe/Berlin")
            assert (found.times.tolist(), list(found.values)) == ([midnight], [23])

    async def test_the_newest_outlives_keep(self) -> None:
        """A set-point of last year is still known, and in force; the rest of the old goes, in small steps."""
        async with self.store(keep="1 h") as historian:
            times = [BEGIN + i * 60 * SECOND + 1 for i in range(180)]
            await historian.write(1, Batch("s", NOW, ["m/x"] * 180, times, [float(i) for i in range(180)]))
            await historian.write(2, Batch("s", NOW, ["m/set"] * 2, [BEGIN, BEGIN + 1], [1, 2]))
            now = times[-1]
            await historian.maintain(now)
            assert (await historian.history("m/x", *EVER)).times.tolist() == [t for t in times if t >= now - HOUR]
            assert [(s.tag, s.value) for s in await historian.latest()] == [("m/set", 2), ("m/x", 179.0)]
            found = await historian.aggregate("m/set", now - HOUR, now, HOUR, "twa")
            assert set(found.values) == {2.0}
            size = await historian.size()
            assert (size.rows, size.oldest) == (61, (now - HOUR) // 1000 * 1000)
            assert size.size > 0
            await historian.maintain(now)
            assert (await historian.size()).rows == 61

    async def test_old_rows_go_in_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A step is bounded, also where many rows have one microsecond more than fits; all of them go in the end."""
        async with self.store(keep="1 h") as historian:
            monkeypatch.setattr(type(historian), "group", 100)
            times = [BEGIN + i // 2 * 1000 for i in range(900)]
            await historian.write(1, Batch("s", NOW, ["m/x"] * 900, times, [1.0] * 900))
            assert await historian._caring(lambda link: link.drop(1, BEGIN + HOUR, 100)) == 100
            assert await historian._caring(lambda link: link.drop(1, BEGIN + 100_000, 100)) == 100
            assert (await historian.size()).rows == 700
            await historian.maintain(NOW)
            assert (await historian.size()).rows == 0
            assert [s.value for s in await historian.latest()] == [1.0]

    async def test_questions_do_not_wait_for_writing(self) -> None:
        """Nor for each other; many at once are answered by a few connections."""
        async with self.store() as historian:
            await historian.write(1, Batch("s", NOW, ["m/x"] * 50, range(BEGIN, BEGIN + 50), [1.0] * 50))
            asked = [historian.history("m/x", *EVER) for _ in range(30)]
            found, _ = await asyncio.gather(
                asyncio.gather(*asked),
                historian.write(2, Batch("s", NOW, ["m/y"] * 50, range(BEGIN, BEGIN + 50), [1.0] * 50)),
            )
            assert all(len(series.times) == 50 for series in found)

    # -- when something is wrong -----------------------------------------------------------------

    async def test_a_connection_that_rested_long_is_not_trusted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A firewall may have forgotten it; whoever asks then shall not wait for a timeout."""
        async with FaultProxy("127.0.0.1", self.port) as proxy, self.store(proxy.port) as historian:
            for fresh, more in ((600.0, 1), (600.0, 0), (-1.0, 1)):
                monkeypatch.setattr("shopfloor.sinks.sql.questions.FRESH", fresh)
                before = proxy.accepted
                assert await historian.latest() == []
                assert proxy.accepted == before + more * self.connects

    async def test_a_question_to_a_server_that_is_away_says_so_and_the_next_is_answered(self) -> None:
        async with FaultProxy("127.0.0.1", self.port) as proxy, self.store(proxy.port) as historian:
            await historian.write(1, Batch("s", NOW, ["m/x"], [BEGIN], [1.0]))
            assert len(await historian.latest()) == 1
            proxy.reset()
            with pytest.raises(Unavailable):
                await historian.latest()
            proxy.heal()
            assert len(await historian.latest()) == 1

    async def test_a_question_that_nobody_answers_ends(self) -> None:
        """Where nothing comes and nothing closes, and where whoever asked is gone."""
        async with self.store():
            pass  # its tables are there
        async with (
            FaultProxy("127.0.0.1", self.port) as proxy,
            self.store(proxy.port, timeout=self.silence) as historian,
        ):
            assert await historian.latest() == []
            proxy.black_hole()
            with pytest.raises(Unavailable):
                await historian.latest()
            asking = asyncio.create_task(historian.latest())
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            proxy.heal()

    async def test_leaving_ends_questions_under_way(self) -> None:
        async with FaultProxy("127.0.0.1", self.port) as proxy:
            historian = self.store(proxy.port, timeout="20 s")
            async with historian:
                assert await historian.latest() == []
                proxy.black_hole()
                asking = [asyncio.create_task(historian.latest()) for _ in range(6)]
                await asyncio.sleep(0)
            done = await asyncio.gather(*asking, return_exceptions=True)
            assert all(isinstance(one, Unavailable) for one in done)
            proxy.heal()
        with pytest.raises(Unavailable):
            await historian.latest()

    async def test_the_console_while_the_database_is_away_and_when_it_is_back(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It shows live values all the time, says what is away, and has the whole past again by itself."""
        machine = Machine()
        async with FaultProxy("127.0.0.1", self.port) as proxy:
            plant = Plant(
                plant=Site(site="test"),
                sources=[HandConfig(name="plc", machine=machine)],
                historian=self.config(proxy.port),
                journal=JournalConfig(path=tmp_path / "journal.db"),
            )
            async with Pipeline(plant) as pipeline, self._asking(pipeline, tmp_path) as client:

                async def values() -> list[Value]:
                    answer = await client.get("/api/history?tag=press-1/PV&from=0&to=now&time=ns")
                    found: list[Value] = answer.json()["values"] if answer.status_code == 200 else []
                    return found

                async def holds(*expected: Value) -> bool:
                    return await values() == list(expected)

                machine.give(1.0, 2.0, 6.0)
                await until(lambda: holds(1.0, 2.0, 6.0), "the console shows the past")
                begin = PLANT_BEGIN // DAY * DAY
                trend = f"/api/history?tag=press-1/PV&from={begin}&to={begin + DAY}&every=1 d&time=ns"
                assert (await client.get(trend)).json()["values"] == [3.0]
                proxy.reset()
                machine.give(7.0)
                await until(lambda: not running(pipeline), "the loss is noticed")
                refused = await client.get("/api/history?tag=press-1/PV&from=0&to=now")
                assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
                await until(lambda: shown(client, 7.0), "live values are shown")
                kept = (await client.get("/api/components")).json()
                (store,) = [one for one in kept["components"] if one["kind"] == "historian"]
                assert store["state"] in ("waiting", "starting")
                assert store["last_error"]
                proxy.heal()
                await until(lambda: holds(1.0, 2.0, 6.0, 7.0), "nothing is lost")
                assert running(pipeline)
                assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]
        assert "Traceback" not in caplog.text

    @asynccontextmanager
    async def _asking(self, pipeline: Pipeline, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
        """Who asks the console of the pipeline."""
        transport = httpx.ASGITransport(create_app(pipeline, folder=folder / "app"))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            yield client

    @pytest.mark.timeout(300)  # some lives of a whole process, on a slow machine
    async def test_kill_9_of_shopfloor_while_it_writes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Killed at random moments: every number that was journalled is there once, and what is newest is right."""
        monkeypatch.syspath_prepend(Path(sql_victim.__file__).parent)  # by a name that the fork server can import, too
        victim = importlib.import_module("sql_victim")
        config, chosen = self.config(self.port), random.Random(7)
        forks = multiprocessing.get_context("forkserver")
        # By names that are installed: the fork server of Python 3.11 does not get our path.
        forks.set_forkserver_preload(["shopfloor.pipeline", type(config).__module__])
        position = -1
        for _ in range(KILLS):
            process = forks.Process(target=victim.live, args=(str(tmp_path), config, self.pause), daemon=True)
            await asyncio.to_thread(process.start)
            before = position
            while position <= before:
                await asyncio.sleep(0.01)
                position = await asyncio.to_thread(self.position)
            await asyncio.sleep(chosen.uniform(0.0, 0.1))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.join)
        async with Pipeline(sql_victim.plant(tmp_path, config, counts=False)) as pipeline:
            await until(
                lambda: all(c.state == "running" and not c.lag_entries for c in pipeline.components()), "all", 120
            )
            received = sum(
                row.samples for row in await pipeline.ledger() if row.source == "numbers" and row.outcome == "received"
            )
            store = pipeline.historian
            assert store is not None
            found = [(await store.history(f"m/{i}", *EVER, 10**7)).values for i in range(3)]
            assert sorted(int(str(v).partition(".")[0]) for values in found for v in values) == list(range(received))
            newest = {sample.tag: sample.value for sample in await store.latest([f"m/{i}" for i in range(3)])}
            assert newest == {f"m/{i}": values[-1] for i, values in enumerate(found)}

    @abstractmethod
    def position(self) -> int:
        """How far the database says that this test's historian has come; -1 before its tables are there."""

    # -- whose tables they are -------------------------------------------------------------------

    @abstractmethod
    def sink(self, **options: object) -> Callable[[], AbstractAsyncContextManager[object]]:
        """What builds a sink, named ``archive``, into the same tables."""

    async def test_a_sink_and_a_historian_refuse_each_others_tables(self) -> None:
        """Whoever comes second says so, and nothing is changed; by its name a sink's history is taken over."""
        async with self.sink()():
            pass
        with pytest.raises(Misconfigured, match="'archive' writes into these tables"):
            async with self.store():
                pass
        async with self.store(writer="archive") as historian:
            await historian.write(1, Batch("s", NOW, ["m/x"], [BEGIN], [1.0]))
            with pytest.raises(Misconfigured, match="those of the historian 'archive'"):
                async with self.sink(writer="other")():
                    pass
        probed = self.config(self.port).probe()
        assert probed is not None
        with pytest.raises(Misconfigured, match="'archive' writes into these tables"):
            async with probed:
                pass
        async with self.sink()():  # by the same name it is theirs again
            pass
        async with self.store(writer="archive") as historian:
            assert await historian.held() == 1
            assert [s.value for s in await historian.latest()] == [1.0]

    async def test_probe_says_what_is_wrong_and_changes_nothing(self) -> None:
        async def said(config: HistorianConfig) -> tuple[str, str]:
            ((one),) = [probed async for probed in probe(Plant(plant=Site(site="test"), historian=config))]
            assert one.name == "historian"
            return one.result, one.detail

        assert await said(self.config(self.port)) == ("ok", "")
        assert self.position() == -1
        assert (await said(self.config(free_port())))[0] == "away"
        none = self.config(self.port, dsn=self.nowhere())
        result, detail = await said(none)
        assert result == "misconfigured"
        assert "there is no such database" in detail

    @abstractmethod
    def nowhere(self) -> str:
        """A DSN of this server that names a database which is not there."""

    async def test_a_new_historian_goes_on_where_the_last_one_was(self) -> None:
        async with self.store() as historian:
            await historian.write(5, Batch("s", NOW, ["m/x"], [BEGIN], [1.0], [Quality.BAD]))
        async with self.store() as historian:
            assert await historian.held() == 5
            await historian.write(5, Batch("s", NOW, ["m/x"], [BEGIN], [1.0]))
            assert [(s.tag, s.quality) for s in await everything(historian)] == [("m/x", Quality.BAD)]
