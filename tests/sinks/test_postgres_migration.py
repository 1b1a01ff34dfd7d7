"""Tables of an older Shopfloor in PostgreSQL, with what a plant put beside them or forbade, are brought up to date."""

import pytest

from shopfloor.samples import Misconfigured
from shopfloor.sinks import postgres as module, postgres_tables
from shopfloor.sinks.sql.tables import SCHEMA
from shopfloor.testing.programs import Postgres
from tests.sinks.older_tables import NEW_IN_2, batch, entered, first, probed
from tests.sinks.postgres import Client, config


@pytest.fixture
async def first_tables(postgres: Postgres, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of version 1."""
    made = postgres_tables.prepare
    with monkeypatch.context() as patched:
        patched.setattr(module, "prepare", lambda connection, names: made(connection, names, first(SCHEMA)))
        await entered(config(postgres.port, client.schema))


async def version(client: Client) -> str:
    ((said,),) = await client.ask("SELECT content FROM {schema}.meta WHERE item = 'version'")
    return str(said)


@pytest.fixture
async def reader(client: Client) -> str:
    """A role of the plant's that reads."""
    name = f"reader_{client.schema}"
    await client.ask(f"CREATE ROLE {name}")
    return name


@pytest.mark.usefixtures("first_tables")
async def test_the_plants_own_views_and_grants_on_ours_stay(postgres: Postgres, client: Client, reader: str) -> None:
    """A view of its own on one of ours is neither in the way nor gone, and who may read one of ours still may."""
    await client.ask("CREATE VIEW {schema}.mine AS SELECT machine, good FROM {schema}.kpi_latest")
    await client.ask(f"GRANT SELECT ON {{schema}}.kpi_latest, {{schema}}.scrap TO {reader}")
    async with config(postgres.port, client.schema).build() as sink:
        await sink.write(1, batch(1))
    assert await version(client) == str(SCHEMA.version)
    assert await client.ask("SELECT machine, good FROM {schema}.mine") == [("m", 7.0)]
    assert await client.ask("SELECT state_coverage FROM {schema}.kpi_latest") == [(0.5,)]
    for view in ("kpi_latest", "scrap"):
        assert await client.ask("SELECT has_table_privilege(%s, %s, 'SELECT')", reader, f"{client.schema}.{view}") == [
            (True,)
        ]


@pytest.mark.usefixtures("first_tables")
async def test_a_view_that_must_be_dropped_keeps_its_grants(postgres: Postgres, client: Client, reader: str) -> None:
    """Somebody has renamed a column of it: it and those made of it are made anew, with grants on columns and to all."""
    await client.ask("ALTER VIEW {schema}.kpi_latest RENAME COLUMN oee TO effectiveness")
    await client.ask(f"GRANT SELECT ON {{schema}}.kpi_latest TO {reader} WITH GRANT OPTION")
    await client.ask(f"GRANT SELECT (machine, effectiveness) ON {{schema}}.kpi_latest TO {reader}")
    await client.ask(f"GRANT SELECT (machine, good) ON {{schema}}.quality TO {reader}")
    await client.ask("GRANT SELECT ON {schema}.production TO PUBLIC")
    await entered(config(postgres.port, client.schema))
    assert await client.ask("SELECT oee, state_coverage FROM {schema}.kpi_latest") == []
    may = "SELECT has_table_privilege(%s, %s, %s)"
    assert await client.ask(may, reader, f"{client.schema}.kpi_latest", "SELECT WITH GRANT OPTION") == [(True,)]
    assert await client.ask(may, reader, f"{client.schema}.production", "SELECT") == [(True,)]
    assert await client.ask(may, reader, f"{client.schema}.quality", "SELECT") == [(False,)]
    column = "SELECT has_column_privilege(%s, %s, %s, 'SELECT')"
    assert await client.ask(column, reader, f"{client.schema}.quality", "good") == [(True,)]
    assert await client.ask(column, reader, f"{client.schema}.quality", "scrap") == [(False,)]


@pytest.mark.usefixtures("first_tables")
async def test_a_view_of_the_plants_that_is_in_the_way_is_named(postgres: Postgres, client: Client) -> None:
    """Only where ours must be dropped; nothing is changed, and without that view it goes on."""
    await client.ask("ALTER VIEW {schema}.kpi_latest RENAME COLUMN oee TO effectiveness")
    await client.ask("CREATE VIEW {schema}.mine AS SELECT machine FROM {schema}.production")
    why = rf"production.*must be made anew.*view {client.schema}\.mine depends on.*DROP VIEW"
    for attempt in (probed, entered):
        with pytest.raises(Misconfigured, match=why):
            await attempt(config(postgres.port, client.schema))
    assert await version(client) == "1"
    await client.ask("DROP VIEW {schema}.mine")
    await entered(config(postgres.port, client.schema))
    assert await version(client) == str(SCHEMA.version)


@pytest.mark.usefixtures("first_tables")
async def test_a_column_of_the_plants_that_has_a_new_ones_name(postgres: Postgres, client: Client) -> None:
    """It becomes that one if it can hold it; one of another type, or that is generated, is told."""
    again = "ALTER TABLE {schema}.kpi_window DROP COLUMN state_coverage, ADD COLUMN state_coverage "
    await client.ask("ALTER TABLE {schema}.kpi_window ADD COLUMN state_coverage text")
    with pytest.raises(Misconfigured, match="its column state_coverage is text instead of double precision"):
        await entered(config(postgres.port, client.schema))
    await client.ask(again + "double precision GENERATED ALWAYS AS (1.0) STORED")
    with pytest.raises(Misconfigured, match="its column state_coverage is a generated one, which takes no values"):
        await entered(config(postgres.port, client.schema))
    assert await version(client) == "1"
    await client.ask(again + "double precision")
    async with config(postgres.port, client.schema).build() as sink:
        await sink.write(1, batch(1))
    assert await client.ask("SELECT state_coverage FROM {schema}.kpi_latest") == [(0.5,)]
    assert await version(client) == str(SCHEMA.version)


@pytest.mark.usefixtures("first_tables")
async def test_an_older_table_that_is_gone_is_made_as_it_is_now(postgres: Postgres, client: Client) -> None:
    await client.ask("DROP TABLE {schema}.kpi_window CASCADE")
    async with config(postgres.port, client.schema).build() as sink:
        await sink.write(1, batch(1))
    assert await client.ask("SELECT state_coverage FROM {schema}.kpi_latest") == [(0.5,)]
    assert await version(client) == str(SCHEMA.version)


@pytest.mark.usefixtures("first_tables")
async def test_a_user_who_may_not_change_tables_is_told_who_may_and_what_to_run(
    postgres: Postgres, client: Client
) -> None:
    """By the probe, too. When the owner has run just that, the user goes on."""
    user = f"few_{client.schema}"
    await client.ask(f"CREATE ROLE {user} LOGIN")
    await client.ask(f"GRANT USAGE ON SCHEMA {{schema}} TO {user}")
    await client.ask(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {{schema}} TO {user}")
    few = config(postgres.port, client.schema, dsn=f"postgresql://{user}@127.0.0.1:{postgres.port}/postgres")
    why = (
        rf"of version 1, older than this Shopfloor's {SCHEMA.version}, and this user may not change them; start it "
        "once as postgres, or have that user run: "
    )
    for attempt in (probed, entered):
        with pytest.raises(Misconfigured, match=why) as said:
            await attempt(few)
    statements = str(said.value).partition("user run: ")[2].split("; ")
    assert all(any(name in statement for statement in statements) for name in (*NEW_IN_2, "kpi_latest"))
    for statement in statements:
        await client.ask(statement)
    await probed(few)
    async with few.build() as sink:
        await sink.write(1, batch(1))
    assert await client.ask("SELECT state_coverage FROM {schema}.kpi_latest") == [(0.5,)]
    assert await version(client) == str(SCHEMA.version)
