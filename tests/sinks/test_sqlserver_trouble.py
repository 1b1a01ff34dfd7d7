"""The SQL Server sink's real client against a scripted server: what goes wrong is said in words, and nothing hangs."""

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from shopfloor.plant import PlantError, parse
from shopfloor.plant.components import FromEnvironment
from shopfloor.samples import Misconfigured, Rejected, Unavailable
from shopfloor.sinks.sqlserver import SqlServerConfig
from shopfloor.sinks.sqlserver_errors import Refused
from shopfloor.sinks.sqlserver_session import Session, connect
from shopfloor.testing.certificates import Authority
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port
from tests.sinks.tds import Cut, Said, Silence, TdsServer


def config(port: int, **options: object) -> SqlServerConfig:
    fields: dict[str, object] = {
        "name": "archive", "type": "sqlserver", "timeout": "10 s", "keep_alive": "0.2 s",
        "dsn": f"mssql://press@127.0.0.1:{port}/plant", "password": SecretStr("se;cr}et"),
    }  # fmt: skip
    return SqlServerConfig.model_validate(fields | options)


async def entered(one: SqlServerConfig) -> None:
    async with one.build():
        pass


@pytest.fixture
async def server() -> AsyncIterator[TdsServer]:
    async with TdsServer() as server:
        yield server


@pytest.fixture
async def session(server: TdsServer) -> AsyncIterator[Session]:
    session = await connect(config(server.port).address())
    yield session
    await session.close()


# ---- what a person must change -----------------------------------------------------------------------------


async def test_what_the_client_says_of_us(server: TdsServer) -> None:
    """The password arrives as it is, whatever characters it has."""
    session = await connect(config(server.port).address())
    await session.close()
    (login,) = server.logins
    assert (login.user, login.password, login.database, login.encrypted) == ("press", "se;cr}et", "plant", False)
    assert {"SET XACT_ABORT ON", "SET LOCK_TIMEOUT 5000", "commit"} <= set(server.heard)


@pytest.mark.parametrize(
    ("said", "kind", "why"),
    [
        (Said(18456, "Login failed for user 'press'.", 14), Misconfigured, "refuses user or password.*Login failed"),
        (Said(4060, 'Cannot open database "plant" requested by the login. The login failed.', 11), Misconfigured,
         "there is no such database.*CREATE USER"),
        (Said(18488, "Login failed for user 'press'.  Reason: The password of the account must be changed.", 14),
         Misconfigured, "refuses user or password|must be changed"),
        (Said(916, 'The server principal "press" is not able to access the database "plant" under the current security '
              "context.", 14), Misconfigured, "CREATE USER"),
        (Said(17142, "SQL Server service has been paused. The service is paused.", 14), Unavailable, "shut down"),
        (Said(40613, "Database 'plant' on server 's' is not currently available.", 17), Unavailable, "tried again"),
    ],
)  # fmt: skip
async def test_a_login_that_is_refused_says_why(said: Said, kind: type[Exception], why: str) -> None:
    async with TdsServer(login=said) as server:
        with pytest.raises(kind, match=why) as heard:
            await entered(config(server.port))
        assert "se;cr" not in str(heard.value)
        with pytest.raises(kind, match=why):  # the probe says the same
            async with config(server.port).probe():
                pass


async def test_where_nobody_answers() -> None:
    with pytest.raises(Unavailable, match=r"nobody answers at 127\.0\.0\.1"):
        await entered(config(free_port()))
    with pytest.raises(Unavailable, match=r"nosuch\.invalid"):
        await entered(config(1, dsn="mssql://u@nosuch.invalid/plant?encrypt=no"))


async def test_who_takes_the_call_and_says_nothing_is_waited_for_as_long_as_said() -> None:
    async with TdsServer(first=False) as server:
        with pytest.raises(Unavailable, match="does not answer in time"):
            await entered(config(server.port, timeout="1 s"))


async def test_the_certificate_is_checked_by_default_and_may_be_pinned(tmp_path: Path) -> None:
    """Nobody of our own made up is trusted by the system; its own certificate, given as a file, is."""
    identity = Authority(tmp_path).issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # so the handshake has an end that both see in the same packet
    context.load_cert_chain(identity.certificate, identity.key)
    async with TdsServer(tls=context) as server:
        dsn = f"mssql://press@127.0.0.1:{server.port}/plant?encrypt=yes"
        with pytest.raises(Misconfigured, match=r"certificate is not accepted.*server_certificate_file"):
            await entered(config(server.port, dsn=dsn))
        assert not server.logins
        await (await connect(config(server.port, dsn=f"{dsn}&trust_server_certificate=yes").address())).close()
        assert [login.encrypted for login in server.logins] == [True]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    context.set_alpn_protocols(["tds/8.0"])
    async with TdsServer(tls=context, strict=True) as server:
        pinned = config(server.port, server_certificate_file=identity.certificate)
        await (await connect(pinned.address())).close()
        assert [login.encrypted for login in server.logins] == [True]
        other = config(
            server.port, server_certificate_file=Authority(tmp_path / "other").issue("127.0.0.1").certificate
        )
        with pytest.raises(Misconfigured, match="certificate is not accepted"):
            await entered(other)
    async with TdsServer() as server:
        with pytest.raises(Misconfigured, match=r"turn TLS on there, or say `\?encrypt=no`"):
            await entered(config(server.port, dsn=f"mssql://press@127.0.0.1:{server.port}/plant?encrypt=yes"))


def test_other_computers_are_verified_unless_the_dsn_says_otherwise() -> None:
    def text(dsn: str, **options: object) -> str:
        return config(1, dsn=dsn, **options).address().text

    assert "Encrypt=yes" in text("mssql://u@db.example.com/p")
    assert "TrustServerCertificate" not in text("mssql://u@db.example.com/p")
    assert "Encrypt=no" in text("mssql://u@db.example.com/p?encrypt=no")
    assert "Encrypt=no" in text("mssql://u@127.0.0.1/p")
    assert "Encrypt=strict" in text("mssql://u@127.0.0.1/p", server_certificate_file="x.pem")
    assert "Server={tcp:db\\LINE2}" in text("mssql://u@db/p?instance=LINE2")
    assert "Trusted_Connection=yes" in text("mssql://db.example.com/p", password=None)
    assert "PWD={se;cr}}et}" in text("mssql://u@db.example.com/p")
    assert "PWD={h@sh}" in text(FromEnvironment("mssql://u:h%40sh@db.example.com/p"), password=None)
    assert "h@sh" not in repr(config(1, dsn=FromEnvironment("mssql://u:h%40sh@h/p")))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"dsn": "mssql://u:secret@h/p"}, "a password must not stand in the plant file"),
        ({"dsn": "mysql://u@h/p"}, "is no address"),
        ({"dsn": "mssql://u@h:99999/p"}, "is no address"),
        ({"dsn": "mssql://u@h"}, "names no database"),
        ({"dsn": "mssql://u@h/p?encrypt=maybe"}, "unknown encrypt"),
        ({"dsn": "mssql://u@h/p?sslmode=x"}, "it knows `encrypt`, `host_in_certificate`, `instance`"),
        ({"dsn": "mssql://u@h:1433/p?instance=x"}, "a port and an instance"),
        ({"dsn": "mssql://u@h/p?encrypt=yes", "server_certificate_file": "x"}, "needs `encrypt=strict`"),
        ({"dsn": "mssql://h/p", "password": "${HOME}"}, "needs a user"),
        ({"server_certificate_file": "x.pem"}, "there is no file"),
        ({"schema_name": "a b"}, "letters, digits and `_`"),
        ({"password": "secret"}, "a secret must not stand in the plant file"),
    ],
)
def test_a_wrong_plant_file_is_told_before_anything_is_connected(fields: dict[str, str], why: str) -> None:
    """And no secret is repeated."""
    text = "".join(f", {key}: {json.dumps(value)}" for key, value in ({"dsn": "mssql://u@h/p"} | fields).items())
    text = f"plant: {{site: test}}\nsinks:\n  - {{name: archive, type: sqlserver{text}}}\nconsole: null\n"
    with pytest.raises(PlantError, match=why) as said:
        parse(text, "plant.yaml", Path("/nowhere"), {"HOME": "x"})
    assert "secret@" not in str(said.value)


async def test_a_client_that_cannot_be_loaded_is_said_in_one_sentence(
    server: TdsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mssql_python", None)
    with pytest.raises(Misconfigured, match=r"client for SQL Server cannot be loaded; install .*libltdl7"):
        async with config(server.port).probe():
            pass


# ---- what passes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kind", "why"),
    [
        (Said(1205, "Transaction (Process ID 52) was deadlocked on lock resources", 13), Unavailable, "in the way"),
        (Said(1222, "Lock request time out period exceeded."), Unavailable, "locked rows or a table"),
        (Said(9002, "The transaction log for database 'plant' is full due to 'LOG_BACKUP'.", 17), Unavailable,
         "transaction log is full; back it up"),
        (Said(1105, "Could not allocate space for object 'shopfloor.history' in database 'plant'", 17), Unavailable,
         "make room there"),
        (Said(3906, 'Failed to update database "plant" because the database is read-only.'), Unavailable, "read-only"),
        (Said(229, "The INSERT permission was denied on the object 'history'", 14), Misconfigured, "lacks rights"),
        (Said(262, "CREATE TABLE permission denied in database 'plant'.", 14), Misconfigured, "lacks rights"),
        (Said(208, "Invalid object name 'shopfloor.history'."), Unavailable, "a table is gone"),
        (Said(207, "Invalid column name 'quality'."), Unavailable, "was changed meanwhile"),
        (Said(2714, "There is already an object named 'history' in the database."), Misconfigured, "may not see"),
        (Said(2627, "Violation of PRIMARY KEY constraint 'x'.", 14), Rejected, "the database refuses it"),
        (Said(547, "The INSERT statement conflicted with the CHECK constraint"), Rejected, "the database refuses it"),
        (Said(50001, "nothing is above 100"), Rejected, "nothing is above 100"),
        (Said(701, "There is insufficient system memory in resource pool 'default'", 17), Unavailable, "out of memory"),
        (Said(6005, "SHUTDOWN is in progress.", 14), Unavailable, "shut down"),
        (Cut(), Unavailable, "was lost"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("statement", ["INSERT INTO history VALUES (?)", "INSERT INTO history SELECT * FROM new"])
async def test_an_error_of_the_server_is_said_with_what_to_do(
    server: TdsServer, session: Session, said: Said | Cut, kind: type[Exception], why: str, statement: str
) -> None:
    """With the server's number where the client tells it, else by its words; the transaction is over."""
    parameters = "?" in statement
    if isinstance(said, Said) and not parameters and said.number > 50_000:
        pytest.skip("of a statement without parameters the client keeps the number, and a trigger may say anything")
    server.rules.append(("history", said))
    link = session.link
    with pytest.raises(kind, match=why):
        await session.run(lambda: link.change(statement, (1,)) if parameters else link.execute(statement))
    if isinstance(said, Said) and said.number != 1205:  # after that one the client knows that the server did it
        assert server.heard[-1] == "roll back"


async def test_a_statement_that_takes_too_long_is_called_off(server: TdsServer) -> None:
    server.rules.append(("slow", Silence()))
    opened: list[Session] = []

    async def connected() -> bool:  # for which a busy machine may need longer
        with suppress(Unavailable):
            opened.append(await connect(config(server.port, timeout="1 s").address()))
        return bool(opened)

    await until(connected, "it is connected")
    (session,) = opened
    with pytest.raises(Unavailable, match="no answer in time"):
        await session.run(lambda: session.link.execute("slow"))
    assert "attention" in server.heard
    await session.close()


async def test_leaving_does_not_wait_for_an_answer_that_never_comes(server: TdsServer) -> None:
    """A task that is cancelled breaks the connection from outside; its thread comes back."""
    server.rules.append(("slow", Silence()))
    session = await connect(config(server.port, timeout="300 s").address())
    running = asyncio.create_task(session.run(lambda: session.link.execute("slow")))
    async with asyncio.timeout(60):
        while "slow" not in server.heard:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await session.close()


async def test_no_number_and_no_known_words_is_tried_again(server: TdsServer, session: Session) -> None:
    server.rules.append(("odd", Said(99, "something new")))
    with pytest.raises(Unavailable, match="cannot do it now: something new"):
        await session.run(lambda: session.link.execute("odd"))
    with pytest.raises(Refused) as refused:
        await asyncio.to_thread(lambda: session.link.change("odd ?", (1,)))
    assert refused.value.number == 99
