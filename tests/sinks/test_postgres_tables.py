"""What the PostgreSQL sink stores: every sample as it was, figures of machines as rows and views, tables by version."""

import json
import random

import pytest

from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Value
from shopfloor.sinks import postgres as module, postgres_tables
from shopfloor.sinks.sql import tables
from shopfloor.sinks.sql.tables import SCHEMA, AddColumn, AddIndex, AddTable, Column, Kind, Schema, Table
from shopfloor.sinks.sql.views import VIEWS
from shopfloor.testing.contracts.values import EVERY_VALUE, same
from shopfloor.testing.programs import Postgres
from tests.processors.test_machine import PLANT, at, batches, built, day
from tests.sinks.older_tables import first
from tests.sinks.postgres import NOW, Client, config

STOPS_OF_MORE = "ALTER TABLE {schema}.history ADD CHECK (double_value IS NULL OR double_value < 100)"


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


async def test_samples_of_all_kinds_in_one_batch_come_back_as_they_were(postgres: Postgres, client: Client) -> None:
    """With status codes, server times, times before 1970 and after 2200, in the order of the journal."""
    chance = random.Random(11)
    kept: list[Value] = [value for name, value in EVERY_VALUE.items() if name not in {"text", "long text"}]
    kept += ["Grüße 🏭 \t\n\\", *(chance.uniform(-9, 9) for _ in range(20))]
    written: list[Sample] = []
    async with config(postgres.port, client.schema).build() as sink:
        for offset in range(1, 6):
            found = [
                Sample(
                    f"m{chance.randrange(4)}/x", chance.choice([NOW + i, -1 - i, -(2**63) + i, 2**63 - 1 - i]),
                    chance.choice(kept), chance.choice([0, 192, 255]), chance.choice([0, 0x80310000, 2**32 - 1]),
                    chance.choice([0, NOW, -5]),
                )
                for i in range(300)
            ]  # fmt: skip
            written += found
            await sink.write(offset, Batch.of("line", NOW, found))
    stored = await client.samples()
    assert len(stored) == len(written)
    for one, other in zip(stored, written, strict=True):
        assert same(one.value, other.value)
        assert (one.tag, one.time, one.quality) == (other.tag, other.time, other.quality)
        assert (one.status, one.server_time) == (other.status, other.server_time)


async def test_the_latest_is_the_newest_by_its_own_time(postgres: Postgres, client: Client) -> None:
    """A late sample does not take its place, one of the same time does; its type may be another."""
    asked = "SELECT tag, number, text_value, quality FROM {schema}.current_sample ORDER BY tag"
    async with config(postgres.port, client.schema).build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1), Sample("a", NOW + 1, 2.5), Sample("b", NOW, True, 0)))
        assert await client.ask(asked) == [("a", 2.5, None, 192), ("b", 1.0, None, 0)]
        await sink.write(2, batch(Sample("a", NOW, 7), Sample("b", NOW, "x")))
        assert await client.ask(asked) == [("a", 2.5, None, 192), ("b", None, "x", 192)]
        await sink.write(3, batch(Sample("a", NOW + 2, None)))
        assert await client.ask(asked) == [("a", None, None, 192), ("b", None, "x", 192)]


# ---- figures of machines -----------------------------------------------------------------------------------


async def given(postgres: Postgres, client: Client) -> list[Sample]:
    """A day of a press, worked out by the processor, then a correction; written as the pipeline would."""
    processor = built()
    fed = batches(list(day()), every=600)
    late = Batch.of(
        "plc", at("15:00"), [Sample("press-1/state", at("10:00"), 9), Sample("press-1/state", at("10:20"), 6)]
    )
    fed += [late, Batch.of("$clock", at("15:10"), [Sample("$clock/tick", at("15:10"), at("15:10"))])]
    said: list[Sample] = []
    async with config(postgres.port, client.schema).build() as sink:
        for offset, one in enumerate(fed, 1):
            if made := processor.process(one):
                await sink.write(offset, Batch.of("oee", one.received, made))
                said += made
    return said


async def test_every_figure_of_every_window_is_in_its_column(postgres: Postgres, client: Client) -> None:
    """Compared with the records that came: all revisions, and the last one of each in the view."""
    said = await given(postgres, client)
    windows = [(s.tag.rpartition("/")[2], s.time, json.loads(str(s.value))) for s in said
               if s.tag in {"press-1/kpi/hour", "press-1/kpi/shift", "press-1/kpi/day"}]  # fmt: skip
    assert any(record["revision"] for _, _, record in windows), "the day has a correction"
    columns = [name for name in tables.KPI_WINDOW.names if name not in {"machine", "record", "entry", "starts", "ends"}]
    asked = f"SELECT machine, extract(epoch FROM starts)::bigint, {', '.join(columns)} FROM {{schema}}.kpi_window"
    stored = {(row[2], row[1], row[3]): dict(zip(columns, row[2:], strict=True)) for row in await client.ask(asked)}
    assert len(stored) == len({(p, t, r["revision"]) for p, t, r in windows})
    for period, time, record in windows:
        found = stored[period, time // 10**9, record["revision"]]
        assert found["production_day"].isoformat() == record["day"]
        assert (found["shift_name"], found["formula"]) == (record["shift"], record["formula"])
        for name in (
            "oee", "availability", "performance", "quality", "health", "mttr", "good", "scrap", "incidents",
            "state_coverage", "uncounted_seconds",
        ):  # fmt: skip
            assert found[name] == record[name], name
        for name, seconds in record["seconds"].items():
            assert found[f"{name}_seconds"] == seconds, name
    last: dict[tuple[str, int], int] = {}
    for period, time, record in windows:
        last[period, time] = record["revision"]
    newest = await client.ask(
        "SELECT period, extract(epoch FROM starts)::bigint * 1000000000, revision FROM {schema}.kpi_latest"
    )
    assert {(period, time): revision for period, time, revision in newest} == last


async def test_the_views_of_a_shift_say_what_one_would_count_by_hand(postgres: Postgres, client: Client) -> None:
    """8 h less a break: faults of 30 min and, told late, 20; a minor stop of 2 min; every 50th unit is scrap."""
    await given(postgres, client)
    ((incidents, minor, error, mttr),) = await client.ask(
        "SELECT incidents, minor_stops, error_seconds, mttr FROM {schema}.downtime WHERE period = 'shift'"
    )
    assert (incidents, minor, error, mttr) == (2, 1, 50 * 60, 25 * 60)
    reasons = await client.ask(
        "SELECT category, reason, stops, seconds FROM {schema}.downtime_reason "
        "WHERE period = 'shift' ORDER BY seconds DESC"
    )
    assert ("machine", "machine/hydraulics", 1, 1800.0) in reasons
    ((good, scrap, produced, quality),) = await client.ask(
        "SELECT good, scrap, produced, quality FROM {schema}.quality WHERE period = 'shift'"
    )
    assert (produced, scrap) == (good + scrap, produced // 50)
    assert quality == good / produced
    ((reason, category, units, share),) = await client.ask(
        "SELECT reason, category, units, share_of_scrap FROM {schema}.scrap WHERE period = 'shift'"
    )
    assert (reason, category, units, share) == ("QUALITY/scratch", "QUALITY", scrap, 1.0)
    hours = await client.ask("SELECT sum(good), sum(scrap), count(*) FROM {schema}.production")
    assert hours[0][:2] == (good, scrap)
    stops = await client.ask("SELECT reason, kind, seconds FROM {schema}.downtime_event ORDER BY starts, part")
    assert ("machine/hydraulics", "unplanned_stop", 1800.0) in stops
    assert await client.ask("SELECT state FROM {schema}.machine_now") == [("idle",)]
    states = await client.ask(
        "SELECT production_seconds, unplanned_stop_seconds FROM {schema}.machine_state WHERE period = 'shift'"
    )
    assert states[0][1] == 50 * 60
    for view in VIEWS:
        await client.ask(f"SELECT * FROM {{schema}}.{view.name}")


MADE = PLANT.replace(
    "    ideal_cycle: 10 s",
    "    ideal_cycle: 10 s\n    order: press-1/order\n    cycles: each\n    line: stamping",
).replace(
    "sources:",
    "lines:\n  - {id: stamping}\norders:\n  - {id: '4711', product: A17, quantity: 800}\nsources:",
).replace("tags:\n", 'tags:\n      - {tag: press-1/order, node: "ns=2;s=o"}\n')  # fmt: skip


async def test_lines_orders_products_and_cycles(postgres: Postgres, client: Client) -> None:
    """The shares sum to their window, the cycles to its count; lines are told from machines."""
    processor = built(MADE)
    orders = [(at("06:00"), Sample("press-1/order", at("06:00"), "4711")),
              (at("10:00"), Sample("press-1/order", at("10:00"), "4712"))]  # fmt: skip
    async with config(postgres.port, client.schema).build() as sink:
        for offset, one in enumerate(batches([*orders, *day()], every=600), 1):
            if made := processor.process(one):
                await sink.write(offset, Batch.of("oee", one.received, made))
    assert await client.ask("SELECT DISTINCT machine, level FROM {schema}.kpi_latest ORDER BY 1") == [
        ("press-1", "machine"), ("stamping", "line"), ("test", "site"),
    ]  # fmt: skip
    asked = (
        "SELECT count(*), bool_and(abs(w.good - s.good) < 0.5) FROM {schema}.kpi_window w JOIN (SELECT machine, "
        "period, starts, revision, kind, sum(good) AS good FROM {schema}.kpi_share GROUP BY 1, 2, 3, 4, 5) s "
        "USING (machine, period, starts, revision)"
    )
    ((windows, same_sums),) = await client.ask(asked)
    assert windows >= 16
    assert same_sums
    assert await client.ask(
        "SELECT order_id, product, planned_quantity, beyond_plan = good - 800 FROM {schema}.production_order"
    ) == [("4711", "A17", 800.0, True)]
    ((cycles, seconds),) = await client.ask("SELECT count(*), sum(seconds) FROM {schema}.cycle WHERE NOT withdrawn")
    ((counted,),) = await client.ask(
        "SELECT sum(cycles + interrupted + several) FROM {schema}.cycle_time "
        "WHERE period = 'hour' AND level = 'machine'"
    )
    assert cycles > 2000
    assert seconds > 0
    assert counted == cycles
    assert ("A17",) in await client.ask("SELECT product FROM {schema}.product WHERE period = 'shift'")


async def test_a_fact_twice_counts_once(postgres: Postgres, client: Client) -> None:
    """What a processor that began anew gives again takes the place of what it gave."""
    said = '{"end": "2026-01-05T07:00:00Z", "day": "2026-01-05", "scrap_by_reason": {"a/b": 3}, "scrap": 3, "good": 7}'
    other = said.replace('"scrap": 3', '"scrap": 4').replace('"a/b": 3', '"a/c": 4')
    async with config(postgres.port, client.schema).build() as sink:
        for offset, text in enumerate([said, said, other], 1):
            await sink.write(offset, batch(Sample("m/kpi/hour", NOW, text)))
    assert await client.ask("SELECT reason, units FROM {schema}.scrap") == [("a/c", 4.0)]
    assert await client.ask("SELECT count(*) FROM {schema}.history") == [(3,)]


# ---- what the server refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{17}, {0, 1, 2, 63}, set(range(64))])
async def test_a_row_that_a_constraint_refuses_is_found(bad: set[int], postgres: Postgres, client: Client) -> None:
    """The rest is stored, the refused are named with the server's own words."""
    samples = [Sample("a/x", NOW + i, 500.0 if i in bad else 1.0) for i in range(64)]
    async with config(postgres.port, client.schema).build() as sink:
        await client.ask(STOPS_OF_MORE)
        with pytest.raises(Rejected, match="history_double_value_check") as rejected:
            await sink.write(1, batch(*samples))
        assert set(rejected.value.indices or ()) == bad
        assert await client.samples() == []
        await sink.write(1, batch(*(sample for i, sample in enumerate(samples) if i not in bad)))
        assert [s.value for s in await client.samples()] == [1.0] * (64 - len(bad))


async def test_of_several_batches_the_pipeline_is_asked_to_offer_each_alone(postgres: Postgres, client: Client) -> None:
    async with config(postgres.port, client.schema).build() as sink:
        await client.ask(STOPS_OF_MORE)
        entries = [(i, batch(Sample("a", NOW + i, 500.0 if i == 2 else 1.0))) for i in (1, 2, 3)]
        with pytest.raises(Rejected):
            await sink.write_many(entries)
        assert await client.samples() == []
        assert await sink.held() == -1


async def test_rows_that_only_together_are_refused(postgres: Postgres, client: Client) -> None:
    """A constraint over several rows: the later ones go, so that it comes to an end."""
    samples = [Sample("a/x", NOW, float(i)) for i in range(4)]
    async with config(postgres.port, client.schema).build() as sink:
        await client.ask("CREATE UNIQUE INDEX ON {schema}.history (tag_id, time, nanos)")
        while True:  # as the pipeline does
            try:
                await sink.write(1, batch(*samples))
                break
            except Rejected as rejected:
                samples = [s for i, s in enumerate(samples) if i not in set(rejected.indices or ())]
        assert [s.value for s in await client.samples()] == [0.0]


# ---- tables ------------------------------------------------------------------------------------------------


async def test_the_tables_are_made_once_and_left_alone(postgres: Postgres, client: Client) -> None:
    """A role that may only read and write rows is enough when they are there."""
    await client.ask("DROP ROLE IF EXISTS clerk")
    await client.ask("CREATE ROLE clerk LOGIN")
    dsn = f"postgresql://clerk@127.0.0.1:{postgres.port}/postgres"
    with pytest.raises(Misconfigured, match="lacks rights; GRANT CREATE ON DATABASE postgres TO clerk"):
        async with config(postgres.port, client.schema, dsn=dsn).build():
            pass
    await client.ask("CREATE SCHEMA {schema}")
    for right in ("USAGE", "CREATE"):  # the statement that is missing, one after the other
        with pytest.raises(Misconfigured, match=f'GRANT {right} ON SCHEMA "{client.schema}" TO clerk'):
            async with config(postgres.port, client.schema, dsn=dsn).probe():
                pass
        await client.ask(f"GRANT {right} ON SCHEMA {{schema}} TO clerk")
    async with config(postgres.port, client.schema, dsn=dsn).probe():
        pass
    await client.ask("REVOKE ALL ON SCHEMA {schema} FROM clerk")
    async with config(postgres.port, client.schema).build():
        pass
    await client.ask("GRANT USAGE ON SCHEMA {schema} TO clerk")
    with pytest.raises(
        Misconfigured, match=r"may not SELECT in .*; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"
    ):
        async with config(postgres.port, client.schema, dsn=dsn).build():
            pass
    await client.ask("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO clerk")
    async with config(postgres.port, client.schema, dsn=dsn).build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    assert len(await client.samples()) == 1


async def test_where_timescaledb_is_history_becomes_a_hypertable(postgres: Postgres, client: Client) -> None:
    """The extension itself cannot be had here: a stand-in notes what it is asked for."""
    await client.ask("DROP DATABASE IF EXISTS scaled")
    await client.ask("CREATE DATABASE scaled")
    there = Client(postgres.port, "plant", dbname="scaled", options="-c allow_system_table_mods=on")
    await there.ask("CREATE SCHEMA scale")
    await there.ask(
        "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion) "
        "VALUES (99999, 'timescaledb', 10, 'scale'::regnamespace, false, '2')"
    )
    await there.ask("CREATE TABLE scale.asked (what regclass, by name)")
    await there.ask(
        "CREATE FUNCTION scale.create_hypertable(regclass, name) RETURNS void LANGUAGE sql AS "
        "'INSERT INTO scale.asked VALUES ($1, $2)'"
    )
    dsn = f"postgresql://postgres@127.0.0.1:{postgres.port}/scaled"
    async with config(postgres.port, "plant", dsn=dsn).build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    assert await there.ask("SELECT what::text, by FROM scale.asked") == [("plant.history", "time")]
    assert len(await there.samples()) == 1


async def test_a_prefix_stands_before_every_name(postgres: Postgres, client: Client) -> None:
    async with config(postgres.port, client.schema, prefix="sf_").build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    assert await client.ask("SELECT tag, number FROM {schema}.sf_sample") == [("a", 1.0)]
    names = await client.ask(
        "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'v')",
        client.schema,
    )
    assert {name.partition("_")[0] for (name,) in names} == {"sf"}


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ("CREATE TABLE {schema}.history (time text)", "history.*another shape: it has no column tag_id"),
        (
            "CREATE TABLE {schema}.meta (item text, content integer)",
            "meta.*its column content is integer instead of text",
        ),
        ("CREATE TABLE {schema}.tag (id integer, name text, area text NOT NULL)", "its own column area needs a value"),
        ("CREATE VIEW {schema}.latest AS SELECT 1 AS tag_id", "latest.*another shape"),
    ],
)
async def test_a_table_of_somebody_else_is_not_touched(
    there: str, why: str, postgres: Postgres, client: Client
) -> None:
    await client.ask("CREATE SCHEMA {schema}")
    await client.ask(there)
    with pytest.raises(Misconfigured, match=why) as said:
        async with config(postgres.port, client.schema).build():
            pass
    assert "write another `schema_name` or `prefix`" in str(said.value)
    tables_there = await client.ask(
        "SELECT count(*) FROM pg_class WHERE relnamespace = %s::regnamespace", client.schema
    )
    assert tables_there == [(1,)]


AREA = Column("area", Kind.NAME, null=True)
NEXT = SCHEMA._replace(
    version=SCHEMA.version + 1,
    tables=[
        *(table._replace(columns=[*table.columns, AREA]) if table.name == "tag" else table for table in SCHEMA.tables),
        Table("shelf", "", [Column("id", Kind.INT32), Column("what", Kind.JSON)], key=["id"]),
    ],
    changes=[
        *SCHEMA.changes,
        [
            AddColumn("tag", AREA),
            AddTable(Table("shelf", "", [Column("id", Kind.INT32), Column("what", Kind.JSON)], key=["id"])),
            AddIndex("tag", ["area"]),
        ],
    ],
)  # fmt: skip
"""What the next version of the tables could be."""


def of_version(monkeypatch: pytest.MonkeyPatch, schema: Schema) -> None:
    """Let the sink be of that version."""
    made = postgres_tables.prepare
    monkeypatch.setattr(module, "prepare", lambda connection, names: made(connection, names, schema))


async def test_older_tables_are_brought_up_to_date_and_newer_left_alone(
    postgres: Postgres, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new version adds what it needs and keeps every row; the old one then says that it is too old."""
    with monkeypatch.context() as patched:
        of_version(patched, first(SCHEMA))
        async with config(postgres.port, client.schema).build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1.0)))
    with monkeypatch.context() as patched:
        of_version(patched, NEXT)
        async with config(postgres.port, client.schema).build() as sink:
            await sink.write(2, batch(Sample("b", NOW, 2.0)))
        assert await client.ask("SELECT content FROM {schema}.meta WHERE item = 'version'") == [(str(NEXT.version),)]
        assert await client.ask("SELECT name, area FROM {schema}.tag ORDER BY id") == [("a", None), ("b", None)]
        assert await client.ask("SELECT count(*) FROM {schema}.shelf") == [(0,)]
        assert await client.ask("SELECT state_coverage, uncounted_seconds FROM {schema}.kpi_window") == []
        assert [s.value for s in await client.samples()] == [1.0, 2.0]
    with pytest.raises(
        Misconfigured, match=rf"newer Shopfloor \(version {NEXT.version}, this one knows {SCHEMA.version}\)"
    ):
        async with config(postgres.port, client.schema).build():
            pass


async def test_a_migration_that_fails_leaves_everything_as_it_was(
    postgres: Postgres, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with config(postgres.port, client.schema).build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    await client.ask("CREATE TABLE {schema}.shelf (id text)")
    of_version(monkeypatch, NEXT)
    with pytest.raises(Misconfigured, match=r"shelf.*another shape"):
        async with config(postgres.port, client.schema).build():
            pass
    columns = await client.ask(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", f"{client.schema}.tag"
    )
    assert columns == [("id",), ("name",)]
    assert await client.ask("SELECT content FROM {schema}.meta") == [(str(SCHEMA.version),)]


async def test_the_position_is_that_of_plant_and_sink_unless_said_otherwise(postgres: Postgres, client: Client) -> None:
    """Two sinks in one schema each have their own, and share the names of the tags."""
    first, second = config(postgres.port, client.schema), config(postgres.port, client.schema, writer="other")
    async with first.build() as one, second.build() as two:
        await one.write(10, batch(Sample("a", NOW, 1.0)))
        await two.write(3, batch(Sample("a", NOW, 2.0), Sample("b", NOW, 3.0)))
        await one.write(11, batch(Sample("b", NOW, 4.0)))
        assert (await one.held(), await two.held()) == (11, 3)
    assert await client.ask("SELECT name, position FROM {schema}.writer ORDER BY name") == [
        ("archive", 11),
        ("other", 3),
    ]
    assert await client.ask("SELECT name FROM {schema}.tag ORDER BY name") == [("a",), ("b",)]
