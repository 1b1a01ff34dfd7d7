"""Tables of an older Shopfloor in MariaDB, with what a plant put beside them or forbade, are brought up to date."""

import asyncio
from collections.abc import Iterator

import pymysql
import pytest

from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.sinks import mysql as module, mysql_tables
from shopfloor.sinks.sql.tables import SCHEMA
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import MariaDb
from tests.sinks.mysql import Client
from tests.sinks.older_tables import NEW_IN_2, batch, entered, first, probed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    """Names of tables are those of Windows: their case tells nothing."""
    with MariaDb(tmp_path_factory.mktemp("mariadb"), options=["--lower-case-table-names=1"]) as server:
        yield server


@pytest.fixture
def client(server: MariaDb) -> Client:
    return Client(server.port)


@pytest.fixture
async def first_tables(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of version 1."""
    made = mysql_tables.prepare
    with monkeypatch.context() as patched:
        patched.setattr(
            module, "prepare", lambda link, names, server, seconds: made(link, names, server, seconds, first(SCHEMA))
        )
        await entered(client.config())


def version(client: Client) -> str:
    ((said,),) = client.ask("SELECT content FROM shopfloor_meta WHERE item = 'version'")
    return str(said)


async def test_a_prefix_with_capital_letters_where_case_tells_nothing(client: Client) -> None:
    """The server makes small letters of it; so does whoever looks the tables up."""
    one = client.config(prefix="Plant_")
    await probed(one)
    async with one.build() as sink:
        await sink.write(1, batch(1))
    await probed(one)
    async with one.build() as sink:
        assert await sink.held() == 1
    assert client.ask("SELECT state_coverage FROM plant_kpi_latest") == [(0.5,)]
    client.ask("UPDATE Plant_meta SET content = '99' WHERE item = 'version'")
    with pytest.raises(Misconfigured, match="of a newer Shopfloor"):
        await entered(one)


@pytest.mark.usefixtures("first_tables")
async def test_a_transaction_that_has_read_the_table_is_waited_for(client: Client) -> None:
    """For a while: others, who wait behind the change of the table, go on. When it has ended, the sink comes up."""
    reading = pymysql.connect(host="127.0.0.1", port=client.port, user="root", database=client.database)
    with reading:
        reading.query("SELECT * FROM shopfloor_kpi_window")
        entering = asyncio.create_task(entered(client.config(timeout="8 s")))
        waits = "SELECT 1 FROM information_schema.processlist WHERE state LIKE '%%table metadata lock' AND db = %s"
        await until(lambda: bool(client.ask(waits, client.database)) or entering.done(), "the change waits")
        await asyncio.to_thread(client.ask, "UPDATE shopfloor_kpi_window SET good = 1")
        with pytest.raises(Unavailable, match="another transaction has locked rows or a table"):
            await entering
        assert version(client) == "1"
    async with client.config().build() as sink:
        await sink.write(1, batch(1))
    assert client.ask("SELECT state_coverage FROM shopfloor_kpi_latest") == [(0.5,)]
    assert version(client) == str(SCHEMA.version)


@pytest.mark.usefixtures("first_tables")
async def test_a_column_of_the_plants_that_has_a_new_ones_name(client: Client) -> None:
    """It becomes that one if it can hold it; one of another type, or that is generated, is told, by the probe too."""
    client.ask("ALTER TABLE shopfloor_kpi_window ADD State_Coverage text NULL")
    for change, why in (
        ("", "its column state_coverage is text instead of double"),
        ("double AS (1.0) VIRTUAL", "its column state_coverage is a generated one, which takes no values"),
    ):
        if change:
            client.ask("ALTER TABLE shopfloor_kpi_window DROP State_Coverage")
            client.ask(f"ALTER TABLE shopfloor_kpi_window ADD State_Coverage {change}")
        for attempt in (probed, entered):
            with pytest.raises(Misconfigured, match=why):
                await attempt(client.config())
        assert version(client) == "1"
    client.ask("ALTER TABLE shopfloor_kpi_window DROP State_Coverage")
    client.ask("ALTER TABLE shopfloor_kpi_window ADD State_Coverage double NULL")
    async with client.config().build() as sink:
        await sink.write(1, batch(1))
    assert client.ask("SELECT state_coverage FROM shopfloor_kpi_latest") == [(0.5,)]


@pytest.mark.usefixtures("first_tables")
async def test_an_older_table_that_is_gone_is_made_as_it_is_now(client: Client) -> None:
    client.ask("DROP TABLE shopfloor_kpi_window")
    async with client.config().build() as sink:
        await sink.write(1, batch(1))
    assert client.ask("SELECT state_coverage FROM shopfloor_kpi_latest") == [(0.5,)]
    assert version(client) == str(SCHEMA.version)


@pytest.mark.usefixtures("first_tables")
async def test_a_user_who_may_not_change_tables_is_told_what_to_run(client: Client) -> None:
    """By the probe, too. When somebody has run just that, the user goes on."""
    user = f"few_{client.database}"
    client.ask(f"CREATE USER {user}@'%'")
    client.ask(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {client.database}.* TO {user}@'%'")
    few = client.config(dsn=f"mysql://{user}@127.0.0.1:{client.port}/{client.database}")
    why = rf"of version 1, older than this Shopfloor's {SCHEMA.version}.*start it once as a user who may ALTER"
    for attempt in (probed, entered):
        with pytest.raises(Misconfigured, match=why) as said:
            await attempt(few)
    statements = str(said.value).partition("user run: ")[2].split("; ")
    assert all(any(name in statement for statement in statements) for name in (*NEW_IN_2, "kpi_latest"))
    for statement in statements:
        client.ask(statement)
    await probed(few)
    for offset in (1, 2):
        async with few.build() as sink:
            await sink.write(offset, batch(offset))
        await probed(few)
    assert client.ask("SELECT state_coverage FROM shopfloor_kpi_latest") == [(0.5,), (0.5,)]
    assert version(client) == str(SCHEMA.version)
