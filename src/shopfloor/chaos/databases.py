"""Real databases of the experiment's own: started empty, killed in the middle of a transaction, asked what they hold.

Each serves its data as it would in a plant, synced to the disk, from a temporary folder, on a port of the loopback
interface, for one user with a password that nobody else knows. What is installed on this computer is where it comes
from; what runs there already is not touched.
"""

import asyncio
import contextlib
import secrets
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import psutil
import psycopg
import pymysql

from shopfloor.samples import Unavailable
from shopfloor.simulators import databases
from shopfloor.simulators.network import claimed

_STARTS_WITHIN: Final = 60.0
_ENDS_WITHIN: Final = 20.0
_LOOK_EVERY: Final = 0.2
"""MariaDB says the same of its transactions again when it is asked twice within a tenth of a second."""
_COMES_WITHIN: Final = 90.0
"""Seconds in which a sink has to begin a transaction: it may be about to come back."""
_HELD: Final = 3.0
"""Seconds after which the position is let go for a moment: a sink that was away takes it over before it writes."""
_TRIES: Final = 30
_TIMEOUT: Final = 4
"""Of the sinks, seconds."""
_WAITS: Final = 1.5
"""Seconds for which a sink's transaction certainly waits for a lock: the shorter of what the two sinks allow the server
(four fifths, a half of the timeout), less what a server's answer about it may be old."""

Rows = Sequence[tuple[Any, ...]]


class Sample(NamedTuple):
    """What makes a sample that one: its tag and the time of the measurement, ms UTC."""

    tag: str
    time: int


class Open(NamedTuple):
    """A transaction of the sink that was seen to be open, with everything written but its end."""

    session: int
    """As the server counts them."""
    until: float
    """It waits at least as long, monotonic."""

    @property
    def sure(self) -> bool:
        """Whether it is open still."""
        return time.monotonic() < self.until


class Database(ABC):
    """One server, and a sink that delivers to it."""

    name: ClassVar[str]
    """Also of the sink, and its type."""
    title: ClassVar[str]
    _held: ClassVar[str]
    """A question: tag, ms UTC and number of the samples from a time on, ms UTC."""
    _position: ClassVar[str]
    """A question that locks the writer's position: what moves it last of all in each transaction has to wait."""
    _waiting: ClassVar[str]
    """A question: the sessions whose transaction has written something and waits for a lock of a session, by number."""
    _mine: ClassVar[str]
    """A question: the number of the session that asks."""
    _end: ClassVar[str]
    """A statement that ends a session, by number."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made yet; the log goes into ``folder``."""
        self._claim = claimed()
        self.port: int = self._claim.getsockname()[1]
        self.password = secrets.token_urlsafe(16)
        self._log = folder / f"{self.name}.log"
        # in the system's folder for temporary files: where root asks, another user must be able to enter it
        self._home = tempfile.TemporaryDirectory(prefix=f"shopfloor-{self.name}-", ignore_cleanup_errors=True)
        self._command: Sequence[str | Path] = ()
        self._process: Process | None = None

    @classmethod
    @abstractmethod
    def demand(cls) -> None:
        """Raise databases.NotInstalled when it is not installed here."""

    @abstractmethod
    def _make(self, home: Path) -> Sequence[str | Path]:
        """Make empty data; the command that serves them. Raises Misconfigured."""

    @abstractmethod
    def lines(self, port: int) -> str:
        """The sink in the plant file, which finds the database at ``port``."""

    @abstractmethod
    def _connect(self) -> Any:
        """A connection that commits by itself, of the driver's own."""

    @property
    def variable(self) -> str:
        """In the environment of Shopfloor: where the sink finds the password."""
        return f"CHAOS_{self.name.upper()}_PASSWORD"

    @classmethod
    def missing(cls) -> str:
        """Why it cannot take part; empty when it can."""
        try:
            cls.demand()
        except databases.NotInstalled as error:
            return str(error)
        return ""

    # --- its processes

    async def start(self) -> None:
        """Start it on its data and wait until it answers. Raises Unavailable, Misconfigured."""
        if not self._command:
            making = asyncio.ensure_future(asyncio.to_thread(self._make, Path(self._home.name)))
            try:
                self._command = await asyncio.shield(making)
            finally:
                await asyncio.wait({making})  # before its folder goes
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=DEVNULL, stdout=log, stderr=STDOUT, cwd="/", start_new_session=True
            )
        deadline = time.monotonic() + _STARTS_WITHIN
        while True:
            with contextlib.suppress(Unavailable):
                await self._ask("SELECT 1")
                return
            if self._process.returncode is not None or time.monotonic() > deadline:
                said = self._log.read_text("utf-8", "replace").splitlines()
                raise Unavailable("\n".join([f"{self.title} did not start; it said:", *said[-10:]]))
            await asyncio.sleep(_LOOK_EVERY)

    def halt(self) -> None:
        """Halt all its processes; the first one first, so that it starts no other."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End all its processes as the out-of-memory killer ends one."""
        if self._process is None:
            return
        self.halt()
        family = self._family()
        self._signal(signal.SIGKILL)
        await self._process.wait()
        while any(map(_lives, family)):  # noqa: ASYNC110  # they are no children of ours
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End it, and take its data away."""
        try:
            self.go_on()
            if self._process is not None and self._process.returncode is None:
                self._process.send_signal(signal.SIGQUIT)  # at once, and leaving nothing in the system's memory
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), _ENDS_WITHIN)
            await self.kill()
        finally:
            self._claim.close()
            await asyncio.to_thread(self._home.cleanup)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _family(self) -> Sequence[psutil.Process]:
        """The server and what it has started, for PostgreSQL a process for each connection."""
        if self._process is None or self._process.returncode is not None:
            return ()
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            return first, *first.children(recursive=True)
        return ()

    # --- what it holds

    async def held(self, since: int) -> Counter[Sample]:
        """How often it holds each sample of this time (ms UTC) and later. Raises Unavailable when it is away."""
        rows = await self._ask(self._held, since)
        return Counter({Sample(tag, int(at)): number for tag, at, number in rows})

    async def _ask(self, statement: str, *values: object) -> Rows:
        return await asyncio.to_thread(self._answer, statement, values)

    def _answer(self, statement: str, values: Sequence[object]) -> Rows:
        with self._session() as cursor:
            cursor.execute(statement, values)
            rows: Rows = cursor.fetchall()
            return rows

    @contextmanager
    def _session(self) -> Generator[Any]:
        try:
            with contextlib.closing(self._connect()) as link, link.cursor() as cursor:
                yield cursor
        except (psycopg.Error, pymysql.MySQLError, OSError) as error:
            raise Unavailable(f"{self.title} does not answer: {error}") from error

    # --- in the middle of a transaction

    async def kill_in_transaction(self) -> str:
        """``kill`` it while a transaction of the sink is open, with all samples written; says what was seen."""
        for _ in range(_TRIES):
            async with self.in_transaction() as seen:
                self.halt()  # from here on nothing happens in it: what is open now stays open
                if seen.sure:
                    await self.kill()
                    return f"{self.title}: killed while session {seen.session} had a transaction open"
                self.go_on()
        raise self._too_slow()

    async def end_session(self) -> str:
        """Let the server end the sink's session, as an administrator does, while its transaction is open."""
        for _ in range(_TRIES):
            async with self.in_transaction() as seen:
                await self._ask(self._end, seen.session)
                if seen.sure:
                    return f"{self.title}: session {seen.session} ended while its transaction was open"
        raise self._too_slow()

    def _too_slow(self) -> Unavailable:
        return Unavailable(f"this computer is too slow to catch {self.title} in the middle of a transaction")

    @asynccontextmanager
    async def in_transaction(self) -> AsyncGenerator[Open]:
        """Hold the sink's transaction before its end, the position, and give what the server says about it.

        A session of our own locks the position's row. The sink has then written its samples and waits for that lock,
        which PostgreSQL shows in pg_stat_activity and pg_blocking_pids, MariaDB in information_schema.innodb_trx. It
        began to wait after we had last asked and not seen it, so it is known how long it certainly waits on. A sink
        that was away waits for the lock with nothing written, and would do so for ever if it were never let go.
        Raises Unavailable when no transaction comes.
        """
        lock = await asyncio.to_thread(self._connect)
        try:
            (holder,), *_ = await asyncio.to_thread(_asked, lock, self._mine)
            before = time.monotonic()
            deadline, release = before + _COMES_WITHIN, before + _HELD
            await asyncio.to_thread(_asked, lock, "BEGIN", self._position)
            while True:
                asking = time.monotonic()
                if rows := await self._ask(self._waiting, holder):
                    break
                if asking > deadline:
                    raise Unavailable(f"the sink {self.name} began no transaction for {_COMES_WITHIN:g} s")
                before = asking
                if asking > release:
                    await asyncio.to_thread(_asked, lock, "ROLLBACK")
                    await asyncio.sleep(_LOOK_EVERY)
                    before, release = (now := time.monotonic()), now + _HELD
                    await asyncio.to_thread(_asked, lock, "BEGIN", self._position)
                await asyncio.sleep(_LOOK_EVERY)
            yield Open(rows[0][0], before + _WAITS)
        finally:
            with contextlib.suppress(psycopg.Error, pymysql.MySQLError, OSError):
                await asyncio.to_thread(lock.close)  # which ends what it has begun, unless the server is gone


class PostgreSql(Database):
    """PostgreSQL."""

    name = "postgres"
    title = "PostgreSQL"
    _held = """
        SELECT t.name, (extract(epoch FROM h.time) * 1000)::bigint, count(*)
        FROM shopfloor.history h JOIN shopfloor.tag t ON t.id = h.tag_id
        WHERE h.time >= to_timestamp(%s / 1000.0) GROUP BY 1, 2"""
    _position = "SELECT position FROM shopfloor.writer FOR UPDATE"
    _waiting = """
        SELECT pid FROM pg_stat_activity
        WHERE backend_xid IS NOT NULL AND wait_event_type = 'Lock' AND %s = ANY (pg_blocking_pids(pid))"""
    _mine = "SELECT pg_backend_pid()"
    _end = "SELECT pg_terminate_backend(%s)"

    @classmethod
    def demand(cls) -> None:
        """Raise databases.NotInstalled when it is not installed here."""
        databases.postgres_programs()

    def _make(self, home: Path) -> Sequence[str | Path]:
        said = home / "password"
        said.write_text(self.password)
        said.chmod(0o644)  # nobody but the server's user enters its folder
        served = databases.postgres_cluster(home, "-A", "scram-sha-256", f"--pwfile={said}")
        return [*served, "-p", str(self.port), "-h", "127.0.0.1", "-c", "unix_socket_directories="]

    def lines(self, port: int) -> str:
        """The sink in the plant file, which finds the database at ``port``."""
        return _SINK.format(
            name=self.name, variable=self.variable, dsn=f"postgresql://postgres@127.0.0.1:{port}/postgres"
        )

    def _connect(self) -> Any:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", password=self.password,
            autocommit=True, connect_timeout=5, options="-c statement_timeout=20s",
        )  # fmt: skip


class MariaDb(Database):
    """MariaDB."""

    name = "mysql"
    title = "MariaDB"
    _held = """
        SELECT t.name, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', h.time) DIV 1000, COUNT(*)
        FROM shopfloor_history h JOIN shopfloor_tag t ON t.id = h.tag_id
        WHERE h.time >= '1970-01-01' + INTERVAL %s * 1000 MICROSECOND GROUP BY 1, 2"""
    _position = "SELECT position FROM shopfloor_writer FOR UPDATE"
    _waiting = """
        SELECT trx_mysql_thread_id FROM information_schema.innodb_trx
        WHERE trx_state = 'LOCK WAIT' AND trx_rows_modified > 0 AND trx_mysql_thread_id <> %s"""
    _mine = "SELECT CONNECTION_ID()"
    _end = "KILL %s"

    @classmethod
    def demand(cls) -> None:
        """Raise databases.NotInstalled when it is not installed here."""
        databases.program("mariadb-install-db", databases.MARIADB)
        databases.program("mariadbd", databases.MARIADB)

    def _make(self, home: Path) -> Sequence[str | Path]:
        first = home / "first.sql"
        users = (f"'chaos'@'{host}'" for host in ("localhost", "127.0.0.1"))
        made = (
            f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{self.password}';\nGRANT ALL ON *.* TO {user};\n"
            for user in users
        )
        first.write_text("".join(["CREATE DATABASE IF NOT EXISTS chaos;\n", *made]))
        first.chmod(0o644)  # nobody but the server's user enters its folder
        small = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M")
        served = databases.mariadb_data(home, *small, login="socket", user="mysql")
        return [
            *served, f"--port={self.port}", "--bind-address=127.0.0.1", f"--init-file={first}",
            "--socket=s", f"--pid-file={home}/pid",  # in the data directory; a full path may be too long for a socket
            "--skip-log-bin", "--skip-name-resolve",
        ]  # fmt: skip

    def lines(self, port: int) -> str:
        """The sink in the plant file, which finds the database at ``port``."""
        return _SINK.format(name=self.name, variable=self.variable, dsn=f"mysql://chaos@127.0.0.1:{port}/chaos")

    def _connect(self) -> Any:
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="chaos", database="chaos", password=self.password,
            autocommit=True, charset="utf8mb4", connect_timeout=5, read_timeout=20,
        )  # fmt: skip


KINDS: Final[Sequence[type[Database]]] = (PostgreSql, MariaDb)
_SINK: Final = f"""
  - name: {{name}}
    type: {{name}}
    dsn: "{{dsn}}"
    password: ${{{{{{variable}}}}}}
    timeout: {_TIMEOUT} s
"""


def _asked(link: Any, *statements: str) -> Rows:
    """What the last of these gives."""
    with link.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        rows: Rows = cursor.fetchall() if cursor.description else ()
        return rows


def _lives(process: psutil.Process) -> bool:
    """Whether it has not ended; a zombie has, though nobody has asked how."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
