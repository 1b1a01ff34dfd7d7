"""What the MySQL sink makes of machines' figures, and how it makes and migrates its tables, in a real MariaDB."""

import json
from collections.abc import Iterator

import pytest

from shopfloor.samples import Batch, Misconfigured, Sample
from shopfloor.sinks import mysql as module, mysql_tables
from shopfloor.sinks.sql import tables
from shopfloor.sinks.sql.views import VIEWS
from shopfloor.testing.programs import MariaDb
from tests.processors.test_machine import at, batches, built, day
from tests.sinks.mysql import NOW, Client
from tests.sinks.older_tables import first


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    with MariaDb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def client(server: MariaDb) -> Client:
    return Client(server.port)


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


async def given(client: Client) -> list[Sample]:
    """A day of a press, worked out by the processor, then a correction; written as the pipeline would."""
    processor = built()
    fed = batches(list(day()), every=600)
    late = Batch.of(
        "plc", at("15:00"), [Sample("press-1/state", at("10:00"), 9), Sample("press-1/state", at("10:20"), 6)]
    )
    fed += [late, Batch.of("$clock", at("15:10"), [Sample("$clock/tick", at("15:10"), at("15:10"))])]
    said: list[Sample] = []
    async with client.config().build() as sink:
        for offset, one in enumerate(fed, 1):
            if made := processor.process(one):
                await sink.write(offset, Batch.of("oee", one.received, made))
                said += made
    return said


async def test_every_figure_of_every_window_is_in_its_column(client: Client) -> None:
    """Compared with the records that came: all revisions, and the last one of each in the view."""
    said = await given(client)
    windows = [(s.tag.rpartition("/")[2], s.time, json.loads(str(s.value))) for s in said
               if s.tag in {"press-1/kpi/hour", "press-1/kpi/shift", "press-1/kpi/day"}]  # fmt: skip
    assert any(record["revision"] for _, _, record in windows), "the day has a correction"
    columns = [name for name in tables.KPI_WINDOW.names if name not in {"machine", "record", "entry", "starts", "ends"}]
    seconds = "TIMESTAMPDIFF(SECOND, '1970-01-01', starts)"
    asked = f"SELECT {seconds}, {', '.join(columns)} FROM shopfloor_kpi_window"
    stored = {(row[1], row[0], row[2]): dict(zip(columns, row[1:], strict=True)) for row in client.ask(asked)}
    assert len(stored) == len({(period, time, record["revision"]) for period, time, record in windows})
    for period, time, record in windows:
        found = stored[period, time // 10**9, record["revision"]]
        assert found["production_day"].isoformat() == record["day"]
        assert (found["shift_name"], found["formula"]) == (record["shift"], record["formula"])
        for name in (
            "oee", "availability", "performance", "quality", "health", "mttr", "good", "scrap", "incidents",
            "state_coverage", "uncounted_seconds",
        ):  # fmt: skip
            assert found[name] == record[name], name
        for name, duration in record["seconds"].items():
            assert found[f"{name}_seconds"] == duration, name
    last = {(period, time // 10**9): record["revision"] for period, time, record in windows}
    newest = client.ask(f"SELECT period, {seconds}, revision FROM shopfloor_kpi_latest")
    assert {(period, time): revision for period, time, revision in newest} == last


async def test_the_views_of_a_shift_say_what_one_would_count_by_hand(client: Client) -> None:
    """8 h less a break: faults of 30 min and, told late, 20; a minor stop of 2 min; every 50th unit is scrap."""
    await given(client)
    assert client.ask(
        "SELECT incidents, minor_stops, error_seconds, mttr FROM shopfloor_downtime WHERE period = 'shift'"
    ) == [(2, 1, 50 * 60, 25 * 60)]
    assert ("machine", "machine/hydraulics", 1, 1800.0) in client.ask(
        "SELECT category, reason, stops, seconds FROM shopfloor_downtime_reason WHERE period = 'shift'"
    )
    ((good, scrap, produced, quality),) = client.ask(
        "SELECT good, scrap, produced, quality FROM shopfloor_quality WHERE period = 'shift'"
    )
    assert (produced, scrap) == (good + scrap, produced // 50)
    assert quality == good / produced
    assert client.ask("SELECT reason, category, units, share_of_scrap FROM shopfloor_scrap WHERE period = 'shift'") == [
        ("QUALITY/scratch", "QUALITY", scrap, 1.0)
    ]
    assert client.ask("SELECT SUM(good), SUM(scrap) FROM shopfloor_production") == [(good, scrap)]
    stops = client.ask("SELECT reason, kind, seconds FROM shopfloor_downtime_event ORDER BY starts, part")
    assert ("machine/hydraulics", "unplanned_stop", 1800.0) in stops
    assert client.ask("SELECT state FROM shopfloor_machine_now") == [("idle",)]
    for view in VIEWS:
        client.ask(f"SELECT * FROM shopfloor_{view.name}")


async def test_a_fact_twice_counts_once(client: Client) -> None:
    """What a processor that began anew gives again takes the place of what it gave."""
    said = '{"end": "2026-01-05T07:00:00Z", "day": "2026-01-05", "scrap_by_reason": {"a/b": 3}, "scrap": 3, "good": 7}'
    other = said.replace('"scrap": 3', '"scrap": 4').replace('"a/b": 3', '"a/c": 4')
    async with client.config().build() as sink:
        for offset, text in enumerate([said, said, other], 1):
            await sink.write(offset, batch(Sample("m/kpi/hour", NOW, text)))
    assert client.ask("SELECT reason, units FROM shopfloor_scrap") == [("a/c", 4.0)]
    assert client.ask("SELECT COUNT(*) FROM shopfloor_history") == [(3,)]


SHELF = tables.Table("shelf", "A new table.", [tables.Column("id", tables.Kind.SERIAL)], key=["id"])
AREA = tables.Column("area", tables.Kind.NAME, null=True)
NEXT = tables.Schema(
    tables.VERSION + 1,
    [*(table if table is not tables.TAG else table._replace(columns=[*table.columns, AREA]) for table in tables.TABLES),
     SHELF],
    [*tables.SCHEMA.changes, [tables.AddTable(SHELF), tables.AddColumn("tag", AREA), tables.AddIndex("tag", ["area"])]],
)  # fmt: skip
"""What the next version of the tables could be."""


async def test_older_tables_are_brought_up_to_date_and_newer_left_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new version adds what it needs and keeps every row, also when it was interrupted half-way before."""
    made = mysql_tables.prepare
    with monkeypatch.context() as patched:
        patched.setattr(
            module,
            "prepare",
            lambda link, names, server, seconds: made(link, names, server, seconds, first(tables.SCHEMA)),
        )
        async with client.config().build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1.0)))
    client.ask("ALTER TABLE shopfloor_tag ADD area varchar(255) COLLATE utf8mb4_nopad_bin NULL")  # as far as it came
    with monkeypatch.context() as patched:
        patched.setattr(
            module, "prepare", lambda link, names, server, seconds: made(link, names, server, seconds, NEXT)
        )
        for offset in (2, 3):
            async with client.config().build() as sink:
                await sink.write(offset, batch(Sample("b", NOW + offset, 2.0)))
    assert client.ask("SELECT content FROM shopfloor_meta") == [(str(NEXT.version),)]
    assert client.ask("SELECT name, area FROM shopfloor_tag ORDER BY id") == [("a", None), ("b", None)]
    assert client.ask("SELECT COUNT(*) FROM shopfloor_shelf") == [(0,)]
    assert len(client.ask("SHOW INDEX FROM shopfloor_tag WHERE Key_name = 'shopfloor_tag_area'")) == 1
    assert [s.value for s in client.samples()] == [1.0, 2.0, 2.0]
    assert client.ask("SELECT state_coverage, uncounted_seconds FROM shopfloor_kpi_window") == []
    with pytest.raises(
        Misconfigured, match=rf"newer Shopfloor \(version {NEXT.version}, this one knows {tables.VERSION}\)"
    ):
        async with client.config().build():
            pass
