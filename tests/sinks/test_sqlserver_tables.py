"""What the SQL Server sink makes of machines' figures, and of its tables, with a real server where one is named."""

import asyncio
import importlib
import json
import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from shopfloor.samples import Batch, Misconfigured, Sample
from shopfloor.sinks import sqlserver as module, sqlserver_tables
from shopfloor.sinks.sql import tables
from shopfloor.sinks.sqlserver_tables import SCHEMA, VIEWS
from shopfloor.testing.contracts import until
from tests.processors.test_machine import at, batches, built, day
from tests.sinks import sql_victim
from tests.sinks.older_tables import first
from tests.sinks.sqlserver import NOW, Client, micros, server

KILLS = int(os.environ.get("SHOPFLOOR_KILLS", "100")) // 20


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client(server())
    yield client
    client.drop()


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


async def entered(client: Client) -> None:
    async with client.config().build():
        pass


async def given(client: Client) -> list[Sample]:
    """A day of a press, worked out by the processor, then a correction; written in a few groups."""
    processor = built()
    fed = batches(list(day()), every=600)
    late = Batch.of(
        "plc", at("15:00"), [Sample("press-1/state", at("10:00"), 9), Sample("press-1/state", at("10:20"), 6)]
    )
    fed += [late, Batch.of("$clock", at("15:10"), [Sample("$clock/tick", at("15:10"), at("15:10"))])]
    said: list[Sample] = []
    entries: list[tuple[int, Batch]] = []
    for offset, one in enumerate(fed, 1):
        if made := processor.process(one):
            entries.append((offset, Batch.of("oee", one.received, made)))
            said += made
    async with client.config().build() as sink:
        for start in range(0, len(entries), 20):
            await sink.write_many(entries[start : start + 20])
    return said


async def test_every_figure_of_every_window_is_in_its_column(client: Client) -> None:
    """Compared with the records that came: all revisions, and the last one of each in the view."""
    said = await given(client)
    windows = [(s.tag.rpartition("/")[2], s.time, json.loads(str(s.value))) for s in said
               if s.tag in {"press-1/kpi/hour", "press-1/kpi/shift", "press-1/kpi/day"}]  # fmt: skip
    assert any(record["revision"] for _, _, record in windows), "the day has a correction"
    columns = [name for name in tables.KPI_WINDOW.names if name not in {"machine", "record", "entry", "starts", "ends"}]
    asked = f"SELECT starts, {', '.join(columns)} FROM shopfloor.kpi_window"
    stored = {
        (row[1], micros(row[0]) * 1000, row[2]): dict(zip(columns, row[1:], strict=True)) for row in client.ask(asked)
    }
    assert len(stored) == len({(period, time, record["revision"]) for period, time, record in windows})
    for period, time, record in windows:
        found = stored[period, time, record["revision"]]
        assert found["production_day"].isoformat() == record["day"]
        assert (found["shift_name"], found["formula"]) == (record["shift"], record["formula"])
        for name in (
            "oee", "availability", "performance", "quality", "health", "mttr", "good", "scrap", "incidents",
            "state_coverage", "uncounted_seconds",
        ):  # fmt: skip
            assert found[name] == record[name], name
        for name, duration in record["seconds"].items():
            assert found[f"{name}_seconds"] == duration, name
    last = {(period, time): record["revision"] for period, time, record in windows}
    newest = client.ask("SELECT period, starts, revision FROM shopfloor.kpi_latest")
    assert {(period, micros(starts) * 1000): revision for period, starts, revision in newest} == last
    shift(client)


def shift(client: Client) -> None:
    """8 h less a break: faults of 30 min and, told late, 20; a minor stop of 2 min; every 50th unit is scrap."""
    assert client.ask(
        "SELECT incidents, minor_stops, error_seconds, mttr FROM shopfloor.downtime WHERE period = 'shift'"
    ) == [(2, 1, 50 * 60, 25 * 60)]
    assert ("machine", "machine/hydraulics", 1, 1800.0) in client.ask(
        "SELECT category, reason, stops, seconds FROM shopfloor.downtime_reason WHERE period = 'shift'"
    )
    ((good, scrap, produced, quality),) = client.ask(
        "SELECT good, scrap, produced, quality FROM shopfloor.oee_rollup WHERE period = 'shift'"
    )
    assert (produced, scrap) == (good + scrap, produced // 50)
    assert quality == good / produced
    assert client.ask("SELECT SUM(units) FROM shopfloor.quality_event WHERE reason = 'QUALITY/scratch'") == [(scrap,)]
    assert client.ask("SELECT SUM(good), SUM(scrap) FROM shopfloor.production") == [(good, scrap)]
    stops = client.ask("SELECT reason, kind, seconds FROM shopfloor.downtime_event ORDER BY starts, part")
    assert ("machine/hydraulics", "unplanned_stop", 1800.0) in stops
    assert client.ask("SELECT state FROM shopfloor.machine_now") == [("idle",)]
    for view in VIEWS:
        client.ask(f"SELECT COUNT(*) FROM shopfloor.{view.name}")


async def test_the_views_of_samples_and_cycles(client: Client) -> None:
    said = '{"end": "2026-01-05T06:00:09Z", "class": "normal", "seconds": 9.5, "ideal_seconds": 9, "good": 1}'
    async with client.config().build() as sink:
        await sink.write(1, batch(
            Sample("a", NOW, 1.5), Sample("a", NOW + 1, True), Sample("a", NOW + 2, "x"), Sample("a", NOW + 3, b"\xff"),
            Sample("a", NOW + 4, 2**64 - 1), Sample("a", NOW + 5, None), Sample("m/kpi/cycle", NOW, said),
        ))  # fmt: skip
    of_bytes = "ÿ" if client.babelfish else "FF"  # Babelfish does not know how SQL Server writes them
    events = client.ask("SELECT place, type, value FROM shopfloor.raw_event WHERE tag = 'a' ORDER BY entry, place")
    assert events[1:] == [
        (1, "boolean", "true"), (2, "text", "x"), (3, "bytes", of_bytes),
        (4, "integer", str(2**64 - 1)), (5, "null", None),
    ]  # fmt: skip
    assert client.ask("SELECT nanos, value FROM shopfloor.metric_history ORDER BY nanos")[:2] == [
        (789, 1.5),
        (790, 1.0),
    ]
    assert client.ask("SELECT machine, seconds, lost_seconds, good FROM shopfloor.production_cycle") == [
        ("m", 9.5, 0.5, 1.0)
    ]


async def test_a_fact_twice_counts_once(client: Client) -> None:
    """What a processor that began anew gives again takes the place of what it gave."""
    said = '{"end": "2026-01-05T07:00:00Z", "day": "2026-01-05", "scrap_by_reason": {"a/b": 3}, "scrap": 3, "good": 7}'
    other = said.replace('"scrap": 3', '"scrap": 4').replace('"a/b": 3', '"a/c": 4, "a/c ": 0')
    async with client.config().build() as sink:
        for offset, text in enumerate([said, said, other], 1):
            await sink.write(offset, batch(Sample("m/kpi/hour", NOW, text)))
    assert client.ask("SELECT reason, units FROM shopfloor.scrap ORDER BY units") == [("a/c\u00a0", 0.0), ("a/c", 4.0)]
    assert client.ask("SELECT COUNT(*) FROM shopfloor.history") == [(3,)]


# ---- tables that are there already ---------------------------------------------------------------------------


async def test_the_probe_leaves_nothing_behind(client: Client) -> None:
    async with client.config().probe():
        pass
    assert client.ask("SELECT COUNT(*) FROM sys.schemas WHERE name = 'shopfloor'") == [(0,)]


async def test_tables_of_another_shape_or_version_are_left_alone(client: Client) -> None:
    """It is told which column is wrong, by the probe too; columns of the plant's own are welcome."""
    await entered(client)
    client.ask("ALTER TABLE shopfloor.history ADD shift varchar(9) NULL")
    client.ask("ALTER TABLE shopfloor.history ADD line int NOT NULL DEFAULT 7")
    async with client.config().build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    client.ask("UPDATE shopfloor.meta SET content = '99' WHERE item = 'version'")
    with pytest.raises(Misconfigured, match="of a newer Shopfloor"):
        await entered(client)
    client.ask("UPDATE shopfloor.meta SET content = '1' WHERE item = 'version'")
    client.ask("CREATE TABLE shopfloor.b_stop_event (machine int NOT NULL, own int NOT NULL)")
    with pytest.raises(
        Misconfigured, match=r"b_stop_event\] is there with another shape: its column machine is int .*rename it"
    ):
        async with client.config(prefix="b_").probe():
            pass


SHELF = tables.Table("shelf", "A new table.", [tables.Column("id", tables.Kind.SERIAL)], key=["id"])
AREA = tables.Column("area", tables.Kind.NAME, null=True)
NEXT = tables.Schema(
    tables.VERSION + 1,
    [*(table if table.name != "tag" else table._replace(columns=[*table.columns, AREA]) for table in SCHEMA.tables),
     SHELF],
    [*tables.SCHEMA.changes, [tables.AddTable(SHELF), tables.AddColumn("tag", AREA), tables.AddIndex("tag", ["area"])]],
)  # fmt: skip
"""What the next version of the tables could be."""


async def test_older_tables_are_brought_up_to_date(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version adds what it needs and keeps every row; an older one then leaves the tables alone."""
    made = sqlserver_tables.prepare
    with monkeypatch.context() as patched:
        patched.setattr(module, "prepare", lambda link, names, seconds: made(link, names, seconds, first(SCHEMA)))
        async with client.config().build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1.0)))
    with monkeypatch.context() as patched:
        patched.setattr(module, "prepare", lambda link, names, seconds: made(link, names, seconds, NEXT))
        async with client.config().build() as sink:
            await sink.write(2, batch(Sample("b", NOW + 2, 2.0)))
    assert client.ask("SELECT content FROM shopfloor.meta") == [(str(NEXT.version),)]
    assert client.ask("SELECT name, area FROM shopfloor.tag ORDER BY id") == [("a", None), ("b", None)]
    assert client.ask("SELECT COUNT(*) FROM shopfloor.shelf") == [(0,)]
    assert [s.value for s in client.samples()] == [1.0, 2.0]
    assert client.ask("SELECT state_coverage, uncounted_seconds FROM shopfloor.kpi_window") == []
    with pytest.raises(
        Misconfigured, match=rf"newer Shopfloor \(version {NEXT.version}, this one knows {tables.VERSION}\)"
    ):
        await entered(client)


# ---- kill -9 -------------------------------------------------------------------------------------------------


async def test_killed_again_and_again_every_sample_is_there_once(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time in the middle of something: by count, sum and each number; slowly, as Babelfish is no fast server."""
    monkeypatch.syspath_prepend(Path(__file__).parent)  # by a name that the fork server can import, too
    victim = importlib.import_module("sql_victim")
    chosen = random.Random(5)
    forks = multiprocessing.get_context("forkserver")
    # By names that are installed: the fork server of Python 3.11 does not get our path.
    forks.set_forkserver_preload(["shopfloor.pipeline", "shopfloor.sinks.sqlserver"])
    for _ in range(KILLS):
        process = forks.Process(target=victim.live, args=(str(tmp_path), client.config(), 0.2), daemon=True)
        await asyncio.to_thread(process.start)
        await moves(client)
        await asyncio.sleep(chosen.uniform(0.0, 0.1))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.join)
    async with Pipeline(sql_victim.plant(tmp_path, client.config(), counts=False)) as pipeline:
        await until(
            lambda: all(c.state == "running" and not c.lag_entries for c in pipeline.components()), "all is there", 120
        )
        rows = await pipeline.ledger()
        assert not [pair for pair in balances(rows) if pair.missing]
        received = sum(row.samples for row in rows if row.source == "numbers" and row.outcome == "received")
    number = "COALESCE(bigint_value, CAST(double_value AS bigint), CAST(text_value AS bigint))"
    counted = client.ask(f"SELECT COUNT(*), SUM({number}), COUNT(DISTINCT {number}) FROM shopfloor.history")
    assert received > 0
    assert counted == [(received, received * (received - 1) // 2, received)]


async def moves(client: Client) -> None:
    """Wait until something more is stored than now."""
    position = client.position()
    await until(lambda: client.position() > position, "the sink goes on", 120)
