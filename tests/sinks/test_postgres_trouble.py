"""The PostgreSQL sink when something breaks: nothing is lost, nothing comes twice, and it says what to do."""

import asyncio
import importlib
import json
import logging
import multiprocessing
import os
import random
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from shopfloor.journal import balances
from shopfloor.logs import QUIET
from shopfloor.pipeline import Pipeline
from shopfloor.pipeline.probe import probe
from shopfloor.plant import PlantError, parse
from shopfloor.plant.components import FromEnvironment
from shopfloor.samples import Batch, Misconfigured, Sample, Unavailable
from shopfloor.sinks import postgres_copy
from shopfloor.sinks.postgres import PostgresConfig
from shopfloor.sinks.postgres_tables import key
from shopfloor.sinks.sql.process import is_remnant
from shopfloor.sinks.sql.rows import Block
from shopfloor.testing.certificates import Authority
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Postgres, free_port
from tests.sinks import sql_victim
from tests.sinks.postgres import NOW, Client, config

KILLS = int(os.environ.get("SHOPFLOOR_KILLS", "100")) // 20


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that these tests may stop and kill; it speaks TLS, and asks some for passwords."""
    access = """
        hostssl all tls 127.0.0.1/32 trust
        host all tls 127.0.0.1/32 reject
        host all locked 127.0.0.1/32 scram-sha-256
    """
    authority = Authority(tmp_path_factory.mktemp("authority"))
    with Postgres(identity=authority.server(), access=access) as server:
        server.authority = authority.certificate  # type: ignore[attr-defined]
        yield server


@pytest.fixture(scope="module")
def roles(own: Postgres) -> None:
    """Users that may not everything."""
    made = psycopg.connect(host="127.0.0.1", port=own.port, user="postgres", dbname="postgres", autocommit=True)
    made.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    made.execute("CREATE ROLE tls LOGIN SUPERUSER")
    made.execute("CREATE ROLE standby LOGIN SUPERUSER")
    made.execute("ALTER ROLE standby SET default_transaction_read_only = on")
    made.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 0")
    made.close()


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


async def entered(one: PostgresConfig) -> None:
    async with one.build():
        pass


# ---- what a person must change -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "password", "kind", "why"),
    [
        ("postgresql://locked@127.0.0.1:{port}/postgres", None, Misconfigured, "wants a password; write `password:"),
        ("postgresql://locked@127.0.0.1:{port}/postgres", "wrong", Misconfigured, "refuses user or password"),
        ("postgresql://nobody@127.0.0.1:{port}/postgres", None, Misconfigured, "there is no such user; create it"),
        ("postgresql://postgres@127.0.0.1:{port}/nowhere", None, Misconfigured, "no such database; create it"),
        ("postgresql://tls@127.0.0.1:{port}/postgres?sslmode=disable", None, Misconfigured, "pg_hba.conf"),
        ("postgresql://tls@127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert=system", None, Misconfigured,
         "not trusted; give the authority that signed it in `ca_file`"),
        ("postgresql://postgres@127.0.0.1:{closed}/postgres", None, Unavailable, "Connection refused; is"),
        ("postgresql://postgres@nosuch.invalid/postgres?sslmode=disable", None, Unavailable, "nosuch.invalid"),
        ("postgresql://few@127.0.0.1:{port}/postgres", None, Unavailable, "too many connections; raise"),
        ("postgresql://standby@127.0.0.1:{port}/postgres", None, Unavailable, r"read-only \(a standby\?\); name"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("roles")
async def test_a_connection_that_cannot_be_made_says_why(
    dsn: str, password: str | None, kind: type[Exception], why: str, own: Postgres
) -> None:
    closed = free_port()
    one = config(own.port, dsn=dsn.format(port=own.port, closed=closed), password=password and SecretStr(password))
    with pytest.raises(kind, match=why) as said:
        await entered(one)
    assert "wrong" not in str(said.value)
    with pytest.raises(kind, match=why):  # the probe says the same
        async with one.probe():
            pass


@pytest.mark.usefixtures("roles")
async def test_right_passwords_and_certificates_are_let_in(own: Postgres) -> None:
    """By the name in the certificate, which is verified unless the DSN says otherwise."""
    authority: Path = own.authority  # type: ignore[attr-defined]
    dsn = f"postgresql://tls@127.0.0.1:{own.port}/postgres?sslmode=verify-full"
    await entered(config(own.port, "tls", dsn=dsn, ca_file=authority))
    with pytest.raises(Misconfigured, match="another name"):
        await entered(
            config(
                own.port,
                "tls",
                dsn=dsn.replace("127.0.0.1", "other.example") + "&hostaddr=127.0.0.1",
                ca_file=authority,
            )
        )
    dsn = f"postgresql://locked@127.0.0.1:{own.port}/postgres"
    with pytest.raises(Misconfigured, match="lacks rights"):  # let in, but without rights
        await entered(config(own.port, "locked", dsn=dsn, password=SecretStr("right")))


def test_other_computers_are_verified_unless_the_dsn_says_otherwise() -> None:
    def mode(dsn: str) -> object:
        return config(1, dsn=dsn).parameters().get("sslmode")

    assert mode("postgresql://u@db.example.com/p") == "verify-full"
    assert mode("postgresql://u@db.example.com/p?sslmode=disable") == "disable"
    assert mode("postgresql://u@127.0.0.1/p") is None
    assert mode("postgresql:///p?host=/run/postgresql") is None
    assert config(1, dsn="postgresql://u@h/p").parameters()["sslrootcert"] == "system"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"dsn": "postgresql://u:secret@h/p"}, "a password must not stand in the plant file"),
        ({"dsn": "mysql//x"}, "is no address"),
        ({"dsn": "postgresql://u@h"}, "names no database"),
        ({"schema_name": "a b"}, "letters, digits and `_`"),
        ({"prefix": "1"}, "letters, digits and `_`"),
        ({"certificate_file": "x"}, "belong together"),
        ({"password": "secret"}, "a secret must not stand in the plant file"),
    ],
)
def test_a_wrong_plant_file_is_told_before_anything_is_connected(fields: dict[str, str], why: str) -> None:
    """And no secret is repeated."""
    text = "".join(f", {key}: {json.dumps(value)}" for key, value in ({"dsn": "postgresql://u@h/p"} | fields).items())
    text = f"plant: {{site: test}}\nsinks:\n  - {{name: archive, type: postgres{text}}}\nconsole: null\n"
    with pytest.raises(PlantError, match=why) as said:
        parse(text, "plant.yaml", Path("/nowhere"), {})
    assert "secret@" not in str(said.value)


def test_a_dsn_of_the_environment_may_have_a_password() -> None:
    one = config(1, dsn=FromEnvironment("postgresql://u:secret@h/p"))
    assert one.parameters()["password"] == "secret"
    assert "secret" not in repr(one)


async def test_the_probe_leaves_nothing_behind(own: Postgres, tmp_path: Path) -> None:
    """It makes the tables in a transaction that it rolls back; a sink at work is not disturbed."""
    text = f"""
        plant: {{site: test}}
        sinks: [{{name: archive, type: postgres, dsn: "postgresql://postgres@127.0.0.1:{own.port}/postgres",
                 schema_name: probed}}]
        console: null
    """
    plant = parse(text, "plant.yaml", tmp_path, {})
    client = Client(own.port, "probed")
    assert [(one.result, one.detail) async for one in probe(plant)] == [("ok", "")]
    assert await client.ask("SELECT 1 FROM pg_namespace WHERE nspname = 'probed'") == []
    async with plant.sinks[0].build() as sink:
        assert [one.result async for one in probe(plant)] == ["ok"]
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    assert len(await client.samples()) == 1
    assert await client.ask("SELECT name FROM {schema}.writer") == [("test/archive",)]


# ---- what passes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "why"),
    [("53100", "the disk of the database is full; free room there"), ("53200", "out of memory"),
     ("40001", "another transaction"), ("40P01", "another transaction"), ("53300", "too many connections"),
     ("57P01", "shut down"), ("25006", "read-only"), ("58030", "cannot do it now")],
)  # fmt: skip
async def test_a_state_that_passes_is_waited_for(state: str, why: str, postgres: Postgres, client: Client) -> None:
    """Said by the real server, by a trigger that raises it; nothing of the transaction stays."""
    async with config(postgres.port, client.schema).build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
        await client.ask(
            "CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$BEGIN RAISE 'could not' USING ERRCODE = '{state}'; END$$"
        )
        await client.ask("CREATE TRIGGER refuse BEFORE INSERT ON {schema}.latest EXECUTE FUNCTION {schema}.refuse()")
        with pytest.raises(Unavailable, match=why):
            await sink.write(2, batch(Sample("a", NOW, 2.0)))
    await client.ask("DROP TRIGGER refuse ON {schema}.latest")
    async with config(postgres.port, client.schema).build() as sink:
        assert await sink.held() == 1
        await sink.write(2, batch(Sample("a", NOW, 2.0)))
    assert [s.value for s in await client.samples()] == [1.0, 2.0]


async def test_a_server_that_acknowledges_early_is_not_believed(postgres: Postgres, client: Client) -> None:
    """With synchronous_commit off a commit may be lost after it was confirmed: the sink's own wait for the disk."""
    await client.ask("DROP ROLE IF EXISTS lazy")
    await client.ask("CREATE ROLE lazy LOGIN SUPERUSER")
    await client.ask("ALTER ROLE lazy SET synchronous_commit = off")
    dsn = f"postgresql://lazy@127.0.0.1:{postgres.port}/postgres"
    async with config(postgres.port, client.schema, dsn=dsn).build() as sink:
        assert sink._session is not None
        found = await sink._session.run(lambda connection: connection.execute("SHOW synchronous_commit"))
        assert await found.fetchone() == ("local",)


async def test_an_ended_connection_is_said(postgres: Postgres, client: Client) -> None:
    """The administrator's pg_terminate_backend, as a restart of the server does it."""
    async with config(postgres.port, client.schema).build() as sink:
        await client.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'shopfloor archive%%'"
        )
        with pytest.raises(Unavailable, match=r"shut down|lost"):
            await sink.write(1, batch(Sample("a", NOW, 1.0)))


async def test_a_locked_table_is_said_as_that(postgres: Postgres, client: Client) -> None:
    """Not as a network that is gone; the sink goes on when the lock does."""
    async with config(postgres.port, client.schema).build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    holding = Client(postgres.port, client.schema)
    locked, release = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(holding.hold("LOCK TABLE {schema}.history IN ACCESS EXCLUSIVE MODE", locked, release))
    await asyncio.wait_for(locked.wait(), 30)
    with pytest.raises(Unavailable, match=r"somebody has locked a table|has not answered"):
        async with config(postgres.port, client.schema, timeout="8 s").build() as sink:
            await sink.write(2, batch(Sample("a", NOW, 2.0)))
    release.set()
    await task
    async with config(postgres.port, client.schema).build() as sink:
        await sink.write(2, batch(Sample("a", NOW, 2.0)))
    assert len(await client.samples()) == 2


@pytest.mark.parametrize(
    ("change", "then"),
    [
        ("DROP TABLE {schema}.latest CASCADE", None),
        ("DROP TABLE {schema}.history CASCADE", None),
        ("DROP SCHEMA {schema} CASCADE", None),
        ("ALTER TABLE {schema}.history RENAME COLUMN place TO position", "it has no column place"),
        ("ALTER TABLE {schema}.history ALTER COLUMN double_value TYPE real", "real instead of double precision"),
        ("ALTER TABLE {schema}.history ADD COLUMN area text NOT NULL DEFAULT ''", "-"),
        ("ALTER TABLE {schema}.history ADD COLUMN area serial", "-"),
        ("ALTER TABLE {schema}.history ALTER COLUMN text_value SET NOT NULL", "must allow NULL"),
    ],
)
async def test_tables_that_are_changed_under_it(
    change: str, then: str | None, postgres: Postgres, client: Client
) -> None:
    """What is gone is made anew; what has another shape is said; what only has more is written to."""
    tables = {"history", "latest"}
    async with config(postgres.port, client.schema).build() as sink:
        await client.ask("DROP VIEW IF EXISTS {schema}.sample, {schema}.current_sample")
        await client.ask(change)
        if then == "-":
            await sink.write(1, batch(Sample("a", NOW, 1.0)))
        else:
            with pytest.raises(Unavailable, match="examined again"):
                await sink.write(1, batch(Sample("a", NOW, 1.0)))
    if then not in (None, "-"):
        with pytest.raises(Misconfigured, match=then):
            await entered(config(postgres.port, client.schema))
        return
    async with config(postgres.port, client.schema).build() as sink:
        await sink.write(2, batch(Sample("b", NOW, 2.0)))
        rows = await client.ask("SELECT tag FROM {schema}.sample WHERE tag = 'b'") if then is None else [("b",)]
        assert rows == [("b",)]
    for table in tables:
        assert await client.ask(f"SELECT count(*) > 0 FROM {{schema}}.{table}") == [(True,)]


async def test_two_of_the_same_name_do_not_write_at_once(postgres: Postgres, client: Client) -> None:
    """The second is told who is there; when the first has left it takes over."""
    one = config(postgres.port, client.schema)
    stranger = Client(postgres.port, client.schema)
    taken, release = asyncio.Event(), asyncio.Event()
    async with one.build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
        holder = await client.ask(
            "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'shopfloor%%'"
        )
        assert any(str(os.getpid()) in name for (name,) in holder)
    lock = "SELECT pg_advisory_lock({})"
    number = key(client.schema, "", "archive")
    task = asyncio.create_task(stranger.hold(lock.format(number), taken, release, name="shopfloor archive elsewhere:7"))
    await asyncio.wait_for(taken.wait(), 30)
    with pytest.raises(Unavailable, match=r"another Shopfloor \(shopfloor archive elsewhere:7.*another `writer`"):
        await entered(one)
    release.set()
    await task
    async with one.build() as sink:
        assert await sink.held() == 1


async def test_another_process_of_this_number_is_left_alone(postgres: Postgres, client: Client) -> None:
    """In two containers of one name both are number 1: each would end the other's connection, in turn."""
    await entered(config(postgres.port, client.schema))
    name = config(postgres.port, client.schema).parameters()["application_name"]
    twin = re.sub(r" \w{6}\.\w{8}$", " 000000.00000000", name)
    assert twin != name
    taken, release = asyncio.Event(), asyncio.Event()
    lock = f"SELECT pg_advisory_lock({key(client.schema, '', 'archive')})"
    task = asyncio.create_task(Client(postgres.port, client.schema).hold(lock, taken, release, name=twin))
    await asyncio.wait_for(taken.wait(), 30)
    for _ in range(2):
        with pytest.raises(Unavailable, match="another Shopfloor"):
            await entered(config(postgres.port, client.schema))
    assert await client.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", twin) == [(1,)]
    release.set()
    await task
    await entered(config(postgres.port, client.schema))


async def test_what_another_computer_left_behind_ends_by_itself(postgres: Postgres, client: Client) -> None:
    """The server itself ends a session of which nothing comes for three times `timeout` or `keep_alive`."""
    async with config(postgres.port, client.schema, timeout="15 s", keep_alive="20 s").build() as sink:
        assert sink._session is not None
        found = await sink._session.run(lambda connection: connection.execute("SHOW idle_session_timeout"))
        assert await found.fetchone() == ("1min",)


def test_who_is_connected_fits_into_what_the_server_keeps() -> None:
    name = config(1, writer="Straße/" * 10).parameters()["application_name"]
    assert name.isascii()
    assert len(name) <= 63
    assert is_remnant(name)


async def test_a_remnant_of_this_process_is_ended(postgres: Postgres, client: Client) -> None:
    """A cable was pulled: the server still knows the old connection, which held its locks."""
    async with FaultProxy("127.0.0.1", postgres.port) as proxy:
        cut = config(proxy.port, client.schema, timeout="8 s").build()
        async with cut:
            await cut.write(1, batch(Sample("a", NOW, 1.0)))
            proxy.black_hole()
            with pytest.raises(Unavailable, match="has not answered for 8 s"):
                await cut.write(2, batch(Sample("a", NOW, 2.0)))
            async with config(postgres.port, client.schema).build() as sink:
                await sink.write(2, batch(Sample("a", NOW, 2.0)))
    assert [s.value for s in await client.samples()] == [1.0, 2.0]


async def test_a_line_cut_in_the_midst_of_a_copy_is_not_said_twice(
    postgres: Postgres, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the pipeline, for whoever runs Shopfloor; by no library beside it."""
    async with FaultProxy("127.0.0.1", postgres.port) as proxy:
        encoded = postgres_copy.encoded

        def cut(block: Block) -> Iterator[bytes]:
            yield from encoded(block)
            proxy.drop()
            for _ in range(1000):  # until it is noticed
                yield from encoded(block)

        async with config(proxy.port, client.schema).build() as sink:
            monkeypatch.setattr(postgres_copy, "encoded", cut)
            with pytest.raises(Unavailable):
                await sink.write(1, batch(*(Sample("a", NOW + i, float(i)) for i in range(3000))))
            monkeypatch.undo()
    assert not await client.samples()
    libraries = {record.name.partition(".")[0] for record in caplog.records if record.levelno >= logging.WARNING}
    assert libraries <= {*QUIET}


async def test_a_slow_line_is_no_dead_one(postgres: Postgres, client: Client) -> None:
    """As long as the server gives signs of life: here each answer takes a good part of the patience."""
    async with (
        FaultProxy("127.0.0.1", postgres.port) as proxy,
        config(proxy.port, client.schema, timeout="5 s").build() as sink,
    ):
        proxy.delay(0.3)
        await sink.write(1, batch(*(Sample("a", NOW + i, float(i)) for i in range(3000))))
    assert len(await client.samples()) == 3000


# ---- whole plants ------------------------------------------------------------------------------------------


@asynccontextmanager
async def counting(folder: Path, port: int, schema: str) -> AsyncIterator[Pipeline]:
    """A plant that counts; at the end all that it journalled is delivered, by a plant that counts no more."""
    async with Pipeline(sql_victim.plant(folder, config(port, schema))) as pipeline:
        yield pipeline


async def everything(folder: Path, own: Postgres, client: Client) -> None:
    """What was journalled is in the database once: by count, sum and each number."""
    async with Pipeline(sql_victim.plant(folder, config(own.port, client.schema), counts=False)) as pipeline:
        await until(
            lambda: all(c.state == "running" and not c.lag_entries for c in pipeline.components()), "all is there", 60
        )
        rows = await pipeline.ledger()
        assert not [pair for pair in balances(rows) if pair.missing]
        received = sum(row.samples for row in rows if row.source == "numbers" and row.outcome == "received")
    ((count, total, different),) = await client.ask(
        "SELECT count(*), sum(coalesce(bigint_value, double_value::bigint, text_value::bigint)), "
        "count(DISTINCT coalesce(bigint_value, double_value::bigint, text_value::bigint)) FROM {schema}.history"
    )
    assert received > 0
    assert (count, total, different) == (received, received * (received - 1) // 2, received)


async def stored(client: Client) -> int:
    ((count,),) = await client.ask("SELECT coalesce(max(position), -1) FROM {schema}.writer")
    return int(count)


async def moves(client: Client) -> None:
    """Wait until something more is stored than now."""

    async def beyond(position: int) -> bool:
        try:
            return await stored(client) > position
        except psycopg.Error:  # the server is starting, the table is not made yet
            return False

    position = -1
    with suppress(psycopg.Error):
        position = await stored(client)
    await until(lambda: beyond(position), "the sink goes on", 60)


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_server_that_goes_and_comes_back(way: str, own: Postgres, tmp_path: Path) -> None:
    """Stopped, or killed while transactions are under way: one line when it goes, one when it is back."""
    client = Client(own.port, f"server_{way}")
    with capture_logs() as logs:
        async with counting(tmp_path, own.port, client.schema) as pipeline:
            for _ in range(3):
                await moves(client)
                await asyncio.to_thread(own.stop if way == "stop" else own.kill)
                await until(lambda: pipeline.components()[1].state != "running", "the loss is noticed", 60)
                await asyncio.to_thread(own.start)
            await moves(client)
    await everything(tmp_path, own, client)
    said = [line["event"] for line in logs if line.get("component") == "archive"]
    assert said == ["sink archive is away, it will be tried again", "sink archive is back"] * 3


async def test_a_cut_line_while_transactions_are_under_way(own: Postgres, tmp_path: Path) -> None:
    client = Client(own.port, "cut")
    async with FaultProxy("127.0.0.1", own.port) as proxy, counting(tmp_path, proxy.port, client.schema):
        for _ in range(3):
            await moves(client)
            proxy.drop()
        await moves(client)
    await everything(tmp_path, own, client)


@pytest.mark.timeout(300)
async def test_kill_9_of_shopfloor_while_it_writes(
    own: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at random moments: every number that was journalled is in the database, once."""
    monkeypatch.syspath_prepend(Path(__file__).parent)  # by a name that the fork server can import, too
    victim = importlib.import_module("sql_victim")
    client = Client(own.port, "killed")
    chosen = random.Random(5)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["sql_victim"])
    for _ in range(KILLS):
        process = forks.Process(target=victim.live, args=(str(tmp_path), config(own.port, client.schema)), daemon=True)
        await asyncio.to_thread(process.start)
        await moves(client)
        await asyncio.sleep(chosen.uniform(0.0, 0.1))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.join)
    await everything(tmp_path, own, client)
