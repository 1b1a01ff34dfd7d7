"""The MySQL sink when something breaks: nothing is lost, nothing comes twice, and it says what to do."""

import asyncio
import importlib
import json
import multiprocessing
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pymysql
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from shopfloor.pipeline.probe import probe
from shopfloor.plant import PlantError, parse
from shopfloor.plant.components import FromEnvironment
from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Unavailable
from shopfloor.sinks.mysql import MysqlConfig
from shopfloor.sinks.mysql_link import Link
from shopfloor.sinks.mysql_tables import lock_name
from shopfloor.sinks.sql.tables import VERSION
from shopfloor.testing.certificates import Authority
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import MariaDb, free_port
from tests.sinks import sql_victim
from tests.sinks.mysql import NOW, Client

KILLS = int(os.environ.get("SHOPFLOOR_KILLS", "100")) // 20


class Own(MariaDb):
    """A server that these tests may stop and kill; it speaks TLS, and its certificate is for `localhost`."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder / "authority")
        self.authority = authority.certificate
        self.other_authority = Authority(folder / "other").certificate
        super().__init__(folder, identity=authority.issue("localhost"), options=["--max-connections=20"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    with Own(tmp_path_factory.mktemp("mariadb")) as server:
        maker = Client(server.port)
        maker.ask("CREATE USER locked@'%' IDENTIFIED BY 'right'")
        maker.ask("CREATE USER few@'%' WITH MAX_USER_CONNECTIONS 1")
        maker.ask("GRANT ALL ON *.* TO few@'%'")
        maker.ask("CREATE USER reader@'%'")
        maker.ask("GRANT SELECT ON *.* TO reader@'%'")
        maker.ask("CREATE USER usual@'%'")
        maker.ask(
            "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, CREATE VIEW, DROP ON `plant\\_%`.* TO usual@'%'"
        )
        maker.ask("CREATE USER tls@'%' REQUIRE SSL")
        maker.ask("GRANT ALL ON *.* TO tls@'%'")
        yield server


@pytest.fixture
def client(server: Own) -> Client:
    return Client(server.port, "usual")


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


async def entered(one: MysqlConfig) -> None:
    async with one.build():
        pass


# ---- what a person must change -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "password", "kind", "why"),
    [
        ("mysql://locked@127.0.0.1:{port}/{database}", "wrong", Misconfigured, "refuses user or password.*1045"),
        ("mysql://locked@127.0.0.1:{port}/{database}", "right", Misconfigured, "no rights in the database.*1044"),
        ("mysql://nobody@127.0.0.1:{port}/{database}", None, Misconfigured, "refuses user or password"),
        ("mysql://usual@127.0.0.1:{port}/plant_nowhere", None, Misconfigured, r"CREATE DATABASE.*1049"),
        ("mysql://reader@127.0.0.1:{port}/{database}", None, Misconfigured, "lacks rights"),
        ("mysql://tls@127.0.0.1:{port}/{database}", None, Misconfigured, "refuses user or password.*TLS"),
        ("mysql://usual@127.0.0.1:{closed}/{database}", None, Unavailable, r"at 127.0.0.1:\d+: Connection refused"),
        ("mysql://usual@nosuch.invalid/{database}?ssl-mode=DISABLED", None, Unavailable, "nosuch.invalid"),
    ],
)
async def test_a_connection_that_cannot_be_made_says_why(
    dsn: str, password: str | None, kind: type[Exception], why: str, client: Client
) -> None:
    where = dsn.format(port=client.port, closed=free_port(), database=client.database)
    one = client.config(dsn=where, password=password and SecretStr(password))
    with pytest.raises(kind, match=why) as said:
        await entered(one)
    assert "wrong" not in str(said.value)
    with pytest.raises(kind, match=why):  # the probe says the same
        async with one.probe():
            pass


async def test_the_certificate_is_checked_for_its_authority_and_its_name(server: Own, client: Client) -> None:
    dsn = f"mysql://tls@localhost:{server.port}/{client.database}"
    await entered(client.config(dsn=dsn, ca_file=server.authority))
    with pytest.raises(Misconfigured, match="give the authority that signed it in `ca_file`"):
        await entered(client.config(dsn=dsn, ca_file=server.other_authority))
    by_number = dsn.replace("localhost", "127.0.0.1")
    with pytest.raises(Misconfigured, match="write the host in `dsn` as the certificate has it"):
        await entered(client.config(dsn=by_number, ca_file=server.authority))
    await entered(client.config(dsn=by_number + "?ssl-mode=VERIFY_CA", ca_file=server.authority))
    await entered(client.config(dsn=by_number + "?ssl-mode=REQUIRED"))


def test_other_computers_are_verified_unless_the_dsn_says_otherwise(client: Client) -> None:
    def mode(dsn: str) -> str:
        return client.config(dsn=dsn).mode

    assert mode("mysql://u@db.example.com/p") == "VERIFY_IDENTITY"
    assert mode("mysql://u@db.example.com/p?ssl-mode=disabled") == "DISABLED"
    assert mode("mysql://u@127.0.0.1/p") == "DISABLED"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"dsn": "mysql://u:secret@h/p"}, "a password must not stand in the plant file"),
        ({"dsn": "postgresql://u@h/p"}, "is no address"),
        ({"dsn": "mysql://u@h:99999/p"}, "is no address"),
        ({"dsn": "mysql://u@h"}, "names no database"),
        ({"dsn": "mysql://h/p"}, "names no user"),
        ({"dsn": "mysql://u@h/p?ssl-mode=maybe"}, "unknown ssl-mode"),
        ({"dsn": "mysql://u@h/p?sslmode=x"}, "it knows `ssl-mode` only"),
        ({"dsn": "mysql://u@h/p?ssl-mode=disabled", "ca_file": "x"}, "needs TLS"),
        ({"prefix": "1"}, "letters, digits and `_`"),
        ({"certificate_file": "x"}, "belong together"),
        ({"key_password": "${HOME}"}, "needs `key_file`"),
        ({"password": "secret"}, "a secret must not stand in the plant file"),
    ],
)
def test_a_wrong_plant_file_is_told_before_anything_is_connected(fields: dict[str, str], why: str) -> None:
    """And no secret is repeated."""
    text = "".join(f", {key}: {json.dumps(value)}" for key, value in ({"dsn": "mysql://u@h/p"} | fields).items())
    text = f"plant: {{site: test}}\nsinks:\n  - {{name: archive, type: mysql{text}}}\nconsole: null\n"
    with pytest.raises(PlantError, match=why) as said:
        parse(text, "plant.yaml", Path("/nowhere"), {"HOME": "x"})
    assert "secret@" not in str(said.value)


def test_a_dsn_of_the_environment_may_have_a_password(client: Client) -> None:
    one = client.config(dsn=FromEnvironment("mysql://u:h%40sh@127.0.0.1/p"))
    assert one.address().secret == "h@sh"
    assert "h@sh" not in repr(one)


async def test_the_probe_changes_nothing(client: Client, tmp_path: Path) -> None:
    """And a sink at work is not disturbed."""
    text = f"""
        plant: {{site: test}}
        sinks: [{{name: archive, type: mysql, dsn: "mysql://usual@127.0.0.1:{client.port}/{client.database}"}}]
        console: null
    """
    plant = parse(text, "plant.yaml", tmp_path, {})
    assert [(one.result, one.detail) async for one in probe(plant)] == [("ok", "")]
    assert client.ask("SHOW TABLES") == []
    async with plant.sinks[0].build() as sink:
        assert [(one.result, one.detail) async for one in probe(plant)] == [("ok", "")]
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    assert len(client.samples()) == 1
    assert client.ask("SELECT name FROM shopfloor_writer") == [("test/archive",)]


async def test_a_table_of_another_shape_is_left_alone(client: Client) -> None:
    """It is told which column is wrong, by the probe too, and nothing is written."""
    await entered(client.config())
    client.ask("ALTER TABLE shopfloor_history MODIFY time datetime(3) NOT NULL, DROP COLUMN quality")
    why = (
        r"shopfloor_history`? is there with another shape: its column time is datetime\(3\) instead of datetime\(6\); "
        "it has no column quality; rename it, or write another `prefix`"
    )
    with pytest.raises(Misconfigured, match=why):
        await entered(client.config())
    with pytest.raises(Misconfigured, match=why):
        async with client.config().probe():
            pass


async def test_a_table_of_somebody_else_is_told_before_any_is_made(client: Client) -> None:
    client.ask("CREATE TABLE shopfloor_latest (a int)")
    for one in (client.config().probe(), client.config().build()):
        with pytest.raises(
            Misconfigured, match="shopfloor_latest` is there with another shape: it has no column tag_id"
        ):
            async with one:
                pass
    assert client.ask("SHOW TABLES") == [("shopfloor_latest",)]


async def test_a_column_of_the_plants_own_is_welcome_unless_it_wants_a_value(client: Client) -> None:
    await entered(client.config())
    client.ask("ALTER TABLE shopfloor_history ADD shift varchar(9) NULL, ADD line int NOT NULL DEFAULT 7")
    async with client.config().build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    client.ask("ALTER TABLE shopfloor_history ADD wants int NOT NULL")
    with pytest.raises(Misconfigured, match="its own column wants needs a value"):
        await entered(client.config())


async def test_tables_of_a_newer_shopfloor_are_left_alone(client: Client) -> None:
    await entered(client.config())
    client.ask("UPDATE shopfloor_meta SET content = '99' WHERE item = 'version'")
    with pytest.raises(Misconfigured, match="of a newer Shopfloor"):
        await entered(client.config())


async def test_making_the_tables_that_was_interrupted_is_taken_up(client: Client) -> None:
    """MySQL makes them without a transaction: the version is written last, so what is missing is made the next time."""
    await entered(client.config())
    client.ask("DELETE FROM shopfloor_meta")
    client.ask("DROP VIEW shopfloor_health")
    client.ask("DROP TABLE shopfloor_stop_event")
    async with client.config().build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    assert client.ask("SELECT content FROM shopfloor_meta") == [(str(VERSION),)]
    assert client.ask("SELECT COUNT(*) FROM shopfloor_health") == [(0,)]


# ---- what passes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "why"),
    [
        (1021, Unavailable, "disk of the database is full; free room"), (1114, Unavailable, "table is full"),
        (1205, Unavailable, "locked"), (1213, Unavailable, "another transaction"),
        (1040, Unavailable, "max_connections"), (1290, Unavailable, "read-only"), (1053, Unavailable, "shut down"),
        (2006, Unavailable, "was lost"), (1317, Unavailable, "ended the statement"),
        (1153, Misconfigured, "max_allowed_packet"),
    ],
)  # fmt: skip
async def test_an_error_of_the_server_is_said_with_what_to_do(
    code: int, kind: type[Exception], why: str, client: Client
) -> None:
    """Said by the real server, by a trigger that raises it; nothing of the transaction stays."""
    async with client.config().build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
        client.ask(
            "CREATE TRIGGER refuse BEFORE UPDATE ON shopfloor_latest FOR EACH ROW "
            f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'could not'"
        )
        with pytest.raises(kind, match=why):
            await sink.write(2, batch(Sample("a", NOW + 1, 2.0)))
        assert len(client.samples()) == 1
        client.ask("DROP TRIGGER refuse")
        await sink.write(2, batch(Sample("a", NOW + 1, 2.0)))
    assert len(client.samples()) == 2


async def test_too_many_connections_are_waited_for(server: Own, client: Client) -> None:
    dsn = f"mysql://few@127.0.0.1:{server.port}/{client.database}"
    async with client.config(dsn=dsn, name="one").build():
        with pytest.raises(Unavailable, match=r"at a limit|too many connections"):
            await entered(client.config(dsn=dsn, name="two"))
    taken = [pymysql.connect(host="127.0.0.1", port=server.port, user="reader") for _ in range(19)]
    try:
        with suppress(pymysql.MySQLError):  # the server keeps one more for an administrator
            taken.append(pymysql.connect(host="127.0.0.1", port=server.port, user="reader"))
        with pytest.raises(Unavailable, match=r"too many connections; raise max_connections, or close others \(1040"):
            await entered(client.config())
    finally:
        for link in taken:
            link.close()
    await until(lambda: len(client.ask("SHOW PROCESSLIST")) < 5, "the server has seen that they are closed")


async def test_a_read_only_server_is_waited_for(client: Client) -> None:
    async with client.config().build() as sink:
        client.ask("SET GLOBAL read_only = 1")
        try:
            with pytest.raises(Unavailable, match="read-only"):
                await sink.write(1, batch(Sample("a", NOW, 1.0)))
        finally:
            client.ask("SET GLOBAL read_only = 0")
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    assert len(client.samples()) == 1


async def test_somebody_else_s_lock_is_waited_for(client: Client) -> None:
    """The server gives up after half of `timeout`, and says so."""
    async with client.config(timeout="8 s").build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
        other = pymysql.connect(host="127.0.0.1", port=client.port, user="root", database=client.database)
        with other:
            other.query("UPDATE shopfloor_latest SET quality = 0")
            with pytest.raises(Unavailable, match="locked"):
                await sink.write(2, batch(Sample("a", NOW + 1, 2.0)))
        await sink.write(2, batch(Sample("a", NOW + 1, 2.0)))
    assert [sample.value for sample in client.samples()] == [1.0, 2.0]


async def test_another_shopfloor_at_work_under_the_same_name_is_left_alone(client: Client) -> None:
    """One on another computer: the second waits, says who is there, and takes over when that one is gone."""
    one = client.config(timeout="8 s")
    async with one.build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    client.ask("UPDATE shopfloor_writer SET session = 'token elsewhere:17'")
    other = pymysql.connect(host="127.0.0.1", port=client.port, user="root", autocommit=True)
    lock = lock_name(f"{client.database}.shopfloor_ archive")
    with other, other.cursor() as cursor:
        assert cursor.execute("SELECT GET_LOCK(%s, 0)", (lock,))
        with pytest.raises(
            Unavailable, match=r"another Shopfloor \(elsewhere:17\) writes there under the name 'archive'"
        ):
            await entered(one)
    async with one.build() as sink:
        assert await sink.held() == 1


async def test_another_process_of_this_number_is_left_alone(client: Client) -> None:
    """In two containers of one name both are number 1: each would end the other's connection, in turn."""
    one = client.config(timeout="4 s")
    await entered(one)
    ((mine,),) = client.ask("SELECT session FROM shopfloor_writer")
    client.ask("UPDATE shopfloor_writer SET session = %s", re.sub(r" \w{6}\.\w{8}$", " 000000.00000000", mine))
    assert client.ask("SELECT session FROM shopfloor_writer") != [(mine,)]
    other = pymysql.connect(host="127.0.0.1", port=client.port, user="root", autocommit=True)
    with other, other.cursor() as cursor:
        assert cursor.execute("SELECT GET_LOCK(%s, 0)", (lock_name(f"{client.database}.shopfloor_ archive"),))
        with pytest.raises(Unavailable, match="another Shopfloor"):
            await entered(one)
        assert cursor.execute("SELECT 1")  # nobody ended it


async def test_a_remnant_may_go_by_itself_before_it_is_ended(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load the server takes a moment to see that a connection was closed, and then its number is nobody's."""
    first, second = client.config().build(), client.config().build()
    end, ended = Link.end, list[int]()

    def late(self: Link, number: int) -> None:
        client.ask("KILL %s", number)
        while client.ask("SELECT 1 FROM information_schema.processlist WHERE id = %s", number):
            time.sleep(0.01)
        end(self, number)
        ended.append(number)

    monkeypatch.setattr(Link, "end", late)
    async with first:
        await first.write(1, batch(Sample("a", NOW, 1.0)))
        async with second:
            assert await second.held() == 1
    assert len(ended) == 1


async def test_a_connection_that_somebody_ended_is_made_anew(client: Client) -> None:
    sink = client.config().build()
    async with sink:
        (number,) = client.ask("SELECT id FROM information_schema.processlist WHERE db = %s AND user = 'usual'",
                               client.database)[0]  # fmt: skip
        client.ask("KILL %s", number)
        with pytest.raises(Unavailable, match=r"was lost|ended the connection"):
            await asyncio.wait_for(sink.lost(), 30)
    async with sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    assert len(client.samples()) == 1


async def test_a_table_that_is_dropped_is_made_anew(client: Client) -> None:
    """The position lies in another one, so what was delivered is not delivered again."""
    sink = client.config().build()
    async with sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
        client.ask("DROP TABLE shopfloor_history")
        with pytest.raises(Unavailable, match="a table is gone"):
            await sink.write(2, batch(Sample("a", NOW + 1, 2.0)))
    async with sink:
        assert await sink.held() == 1
        await sink.write(2, batch(Sample("a", NOW + 1, 2.0)))
    assert [sample.value for sample in client.samples()] == [2.0]


async def test_a_column_that_is_dropped_under_it_is_told(client: Client) -> None:
    sink = client.config().build()
    async with sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
        client.ask("ALTER TABLE shopfloor_history DROP COLUMN quality")
        with pytest.raises(Unavailable, match="a table was changed"):
            await sink.write(2, batch(Sample("a", NOW + 1, 2.0)))
    with pytest.raises(Misconfigured, match="it has no column quality"):
        await entered(client.config())


async def test_a_small_packet_of_the_server_refuses_long_values_only(client: Client) -> None:
    """Many rows go in parts that fit."""
    client.ask("SET GLOBAL max_allowed_packet = 262144")
    try:
        async with client.config().build() as sink:
            samples = [Sample(f"a/{i}", NOW + i, "y" * 200 if i != 7 else "x" * 200_000) for i in range(2000)]
            with pytest.raises(Rejected, match="longer than 98304 bytes") as refused:
                await sink.write(1, batch(*samples))
            assert refused.value.indices == [7]
            await sink.write(1, batch(*samples).select([i for i in range(2000) if i != 7]))
    finally:
        client.ask("SET GLOBAL max_allowed_packet = 16777216")
    assert len(client.samples()) == 1999


async def test_a_slow_line_is_only_slow(client: Client) -> None:
    async with (
        FaultProxy("127.0.0.1", client.port) as proxy,
        client.config(proxy.port, timeout="20 s").build() as sink,
    ):
        proxy.delay(0.05)
        await sink.write(1, batch(*(Sample("a", NOW + i, float(i)) for i in range(500))))
    assert len(client.samples()) == 500


# ---- the server and the product die ------------------------------------------------------------------------


@pytest.mark.timeout(300)  # a server's starts and recoveries, on a slow machine
async def test_a_server_that_goes_while_transactions_are_under_way_and_comes_back(
    server: Own, client: Client, tmp_path: Path
) -> None:
    """Stopped, killed, its line cut: one line when it goes, one when it is back, and everything is there once."""
    with capture_logs() as logs:
        async with (
            FaultProxy("127.0.0.1", client.port) as proxy,
            Pipeline(sql_victim.plant(tmp_path, client.config(proxy.port, timeout="10 s"))) as pipeline,
        ):
            for end in (server.stop, server.kill):
                await moves(client)
                await asyncio.to_thread(end)
                await until(lambda: pipeline.components()[1].state != "running", "the loss is noticed", 120)
                await asyncio.to_thread(server.start)
            await moves(client)
            proxy.drop()
            await moves(client)
    await everything(tmp_path, client)
    said = [line["event"] for line in logs if line.get("component") == "archive"]
    assert len([line for line in said if "away" in line or "lost" in line]) <= 3, said


@pytest.mark.timeout(300)  # some lives of a whole process, on a slow machine
async def test_shopfloor_that_is_killed_while_it_writes_has_everything_once(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` at random moments: every number that was journalled is in the database, once."""
    monkeypatch.syspath_prepend(Path(__file__).parent)  # by a name that the fork server can import, too
    victim = importlib.import_module("sql_victim")
    chosen = random.Random(5)
    forks = multiprocessing.get_context("forkserver")
    # By names that are installed: the fork server of Python 3.11 does not get our path.
    forks.set_forkserver_preload(["shopfloor.pipeline", "shopfloor.sinks.mysql"])
    for _ in range(KILLS):
        process = forks.Process(target=victim.live, args=(str(tmp_path), client.config()), daemon=True)
        await asyncio.to_thread(process.start)
        await moves(client)
        await asyncio.sleep(chosen.uniform(0.0, 0.1))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.join)
    await everything(tmp_path, client)


async def everything(folder: Path, client: Client) -> None:
    """What was journalled is in the database once: by count, sum and each number."""
    async with Pipeline(sql_victim.plant(folder, client.config(), counts=False)) as pipeline:
        await until(
            lambda: all(c.state == "running" and not c.lag_entries for c in pipeline.components()), "all is there", 120
        )
        rows = await pipeline.ledger()
        assert not [pair for pair in balances(rows) if pair.missing]
        received = sum(row.samples for row in rows if row.source == "numbers" and row.outcome == "received")
    number = "COALESCE(bigint_value, CAST(double_value AS SIGNED), CAST(text_value AS SIGNED))"
    counted = client.ask(f"SELECT COUNT(*), SUM({number}), COUNT(DISTINCT {number}) FROM shopfloor_history")
    assert received > 0
    assert counted == [(received, received * (received - 1) // 2, received)]


def stored(client: Client) -> int:
    """How far the sink has come; -1 while the server or the table is not there."""
    try:
        return int(client.ask("SELECT COALESCE(MAX(position), -1) FROM shopfloor_writer")[0][0])
    except pymysql.MySQLError:
        return -1


async def moves(client: Client) -> None:
    """Wait until something more is stored than now."""
    position = stored(client)
    await until(lambda: stored(client) > position, "the sink goes on", 120)
