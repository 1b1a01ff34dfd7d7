"""Real servers for tests: found or skipped, started on a free port, stopped by the test that started them."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from asyncio import to_thread
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NoReturn, Self

import psutil
import pytest

from shopfloor.simulators import databases
from shopfloor.testing.certificates import Identity


def require_program(name: str, how_to_install: str) -> str:
    """The path of a program that the test needs.

    Skips the test when it is not installed, naming it and how to install it; where the environment
    variable CI is "true" the test fails instead: nothing is left untested there.
    """
    path = databases.found(name)
    return missing(f"{name} is not installed", how_to_install) if path is None else path


def missing(what: str, how_to_install: str) -> NoReturn:
    """Skip the test, saying what is missing; fail it where the environment variable CI is "true"."""
    skipped(str(databases.NotInstalled(what, how_to_install)))


def skipped(reason: str) -> NoReturn:
    """Skip the test for this reason; fail it where the environment variable CI is "true"."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def children(word: str) -> list[tuple[psutil.Process, list[str]]]:
    """The processes below this one with that word in their command line, which stands beside each.

    One that ends while it is looked at is none.
    """
    found: list[tuple[psutil.Process, list[str]]] = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            words = child.cmdline()
            if word in words:
                found.append((child, words))
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now, and that ``free_port`` of no other process gives away meanwhile.

    It comes again only after all others of this process, so it also serves for what is not there. Raises OSError
    when no port is left.
    """
    _, ports = _own_ports()
    for port in islice(ports, _BLOCK):
        with suppress(OSError), socket.socket() as probe:
            probe.bind((host, port))
            return port
    raise OSError(f"this process has all its {_BLOCK} ports of {host} in use; something does not close what it opened")


_BLOCK: Final = 200
_BLOCKS: Final = range(12_000, 32_000, _BLOCK)
"""Below what Linux, macOS and Windows give to outgoing connections, above the ports that browsers refuse."""


@cache
def _own_ports() -> tuple[socket.socket, Iterator[int]]:
    """What holds a block of ports for this process, which is its first one, bound; and the others in turn, for ever.

    Tests run side by side, and a server needs a moment to take the port that was found for it: else two of them
    could be given the same.
    """
    for first in _BLOCKS:
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
        else:
            return claim, cycle(range(first + 1, first + _BLOCK))
    raise OSError(f"other processes hold all ports from {_BLOCKS.start} to {_BLOCKS.stop}; end some of them")


def answers(host: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


class ServerProcess:
    """A server as a child process: ready when its port answers, stopped firmly when the block ends.

    Use it with ``with`` (any fixture) or ``async with`` (the event loop runs on meanwhile). A server
    that does not come up in time fails the test and shows its log.
    """

    def __init__(  # keyword-only options of one process
        self,
        command: Sequence[str | Path],
        port: int,
        *,
        host: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        within: float = 120.0,
        ready: Callable[[], bool] | None = None,
    ) -> None:
        """Prepare ``command``; nothing runs yet.

        ``environment`` adds to this process's own, ``folder`` is its working directory, ``within``
        is how many seconds it may take to come up, ``ready`` says so where an answering port is not
        enough.
        """
        self.command = [str(part) for part in command]
        self.host = host
        self.port = port
        self._environment = {**os.environ, **(environment or {})}
        self._folder = folder
        self._within = within
        self._ready = ready or (lambda: answers(host, port))
        self._log: IO[bytes] | None = None
        self._said = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await to_thread(self.stop)

    @property
    def pid(self) -> int:
        """Its process id; raises RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError(f"{self.command[0]} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers; fails the test with its log otherwise."""
        if self._log is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115  # stop() closes it
        self._process = subprocess.Popen(  # noqa: S603  # tests start what tests name
            self.command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env=self._environment, cwd=self._folder,
        )  # fmt: skip
        deadline = time.monotonic() + self._within
        while not self._ready():
            if not self.running or time.monotonic() > deadline:
                ended = f"ended with {self._process.returncode}" if not self.running else "does not answer"
                self.stop()
                pytest.fail(f"{self.command[0]} {ended} after {self._within} s at most; it said:\n{self.log()}")
            time.sleep(0.01)

    def stop(self, within: float = 5.0) -> None:
        """Ask it to end, kill it after ``within`` seconds; no harm when it is gone already."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
        self._said = self.log()
        if self._log is not None:
            self._log.close()
        self._process = self._log = None

    def kill(self) -> None:
        """End it with SIGKILL, as the out-of-memory killer would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait(self, within: float) -> None:
        """Wait until it has ended by itself; raises subprocess.TimeoutExpired after ``within`` seconds."""
        if self._process is not None:
            self._process.wait(within)

    def pause(self) -> None:
        """Freeze it with SIGSTOP: its connections stay open and hear nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """What it printed so far, over all its starts; at most the last 20 kB of each."""
        if self._log is None:
            return self._said
        file = self._log.fileno()
        # pread, because the child writes at the file position that this process shares with it.
        return self._said + os.pread(file, 20_000, max(0, os.fstat(file).st_size - 20_000)).decode(errors="replace")


class Mosquitto(ServerProcess):
    """A real MQTT broker (3.1, 3.1.1 and 5) on a free loopback port, for the time of a test.

    Queues are unbounded: with Mosquitto's defaults it drops messages of fast publishers silently.
    """

    HOW_TO_INSTALL: Final = "apt-get install mosquitto"

    def __init__(  # keyword-only options of one broker
        self,
        folder: Path,
        *,
        users: Mapping[str, str] | None = None,
        identity: Identity | None = None,
        client_authority: Path | None = None,
        access: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Write its configuration into ``folder``, which must exist.

        ``users`` maps names to passwords and forbids anonymous clients. ``identity`` is the server's
        certificate and turns TLS on; with ``client_authority`` (a PEM file) only clients with a
        certificate of that authority come in. ``access`` is an access control list in Mosquitto's
        notation, ``options`` are further configuration lines.
        """
        program = require_program("mosquitto", self.HOW_TO_INSTALL)
        port = free_port()
        lines = [
            *(["user root"] if os.geteuid() == 0 else []),  # else it drops to a user who cannot read the keys
            "log_dest stderr",
            "persistence false",
            "max_inflight_messages 0",
            "max_queued_messages 0",
            f"listener {port} 127.0.0.1",
            f"allow_anonymous {'true' if users is None else 'false'}",
            *options,
        ]
        if users is not None:
            lines.append(f"password_file {_password_file(folder, users)}")
        if identity is not None:
            lines += [f"certfile {identity.certificate}", f"keyfile {identity.key}"]
        if client_authority is not None:
            lines += [f"cafile {client_authority}", "require_certificate true"]
        if access is not None:
            (folder / "access").write_text(access)
            lines.append(f"acl_file {folder / 'access'}")
        configuration = folder / "mosquitto.conf"
        configuration.write_text("\n".join(lines) + "\n")
        super().__init__([program, "-c", configuration], port)


class Postgres(ServerProcess):
    """A real PostgreSQL on a free loopback port, in a folder of its own that goes when it is left.

    The superuser is ``postgres``, by default without a password. It never waits for a disk, since no test cuts the
    power; the transactions and their recovery are PostgreSQL's own.
    """

    HOW_TO_INSTALL: Final = databases.POSTGRES

    def __init__(self, *, identity: Identity | None = None, access: str = "", options: Sequence[str] = ()) -> None:
        """Make a cluster; nothing runs yet.

        ``identity`` is the server's certificate and turns TLS on. ``access`` are lines for pg_hba.conf that stand
        before the one that lets everybody in; ``options`` are further settings, ``name=value``.
        """
        port = free_port()
        # In the system's folder for temporary files: the server's user may not enter a folder of this user's.
        self._home = tempfile.TemporaryDirectory(prefix="shopfloor-postgres-")
        data = Path(self._home.name) / "data"
        try:
            programs = databases.postgres_programs()
            served = databases.postgres_cluster(Path(self._home.name), "-A", "trust")
        except databases.NotInstalled as error:
            skipped(str(error))
        (data / "pg_hba.conf").write_text(f"{access}\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n")
        settings = ["fsync=off", "full_page_writes=off", "max_connections=50", *options]
        if identity is not None:
            for name, file in (("certificate", identity.certificate), ("key", identity.key)):
                target = data / f"server.{name}"
                target.write_bytes(Path(file).read_bytes())
                target.chmod(0o600)
                owner = data.stat()
                os.chown(target, owner.st_uid, owner.st_gid)
            settings += ["ssl=on", "ssl_cert_file=server.certificate", "ssl_key_file=server.key"]
        command = [
            *served, "-p", str(port), "-h", "127.0.0.1", "-k", self._home.name,
            *(part for setting in settings for part in ("-c", setting)),
        ]  # fmt: skip
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        super().__init__(
            command,
            port,
            folder=Path("/"),
            ready=lambda: subprocess.run(ready, check=False).returncode == 0,  # noqa: S603  # a fixed program
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.kill()  # what it holds goes anyway
        super().__exit__(kind, error, trace)
        self._home.cleanup()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await to_thread(self.kill)
        await super().__aexit__(kind, error, trace)
        self._home.cleanup()

    def stop(self, within: float = 20.0) -> None:
        """Shut it down; connections are broken off, transactions under way are rolled back."""
        self._signal(signal.SIGINT, within)
        super().stop(within)

    def kill(self) -> None:
        """End it as a crash would: nothing is written any more, the next start recovers from its log."""
        self._signal(signal.SIGQUIT, 20.0)
        super().kill()

    def _signal(self, number: signal.Signals, within: float) -> None:
        if self.running:
            os.kill(self.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.wait(within)


def _password_file(folder: Path, users: Mapping[str, str]) -> Path:
    program = require_program("mosquitto_passwd", Mosquitto.HOW_TO_INSTALL)
    file = folder / "passwords"
    file.touch()
    for user, password in users.items():
        subprocess.run(  # noqa: S603  # a fixed program with the test's own names
            [program, "-b", file, user, password], check=True, capture_output=True
        )
    return file


class MariaDb(ServerProcess):
    """A real MariaDB on a free loopback port; its data stay in ``folder`` over stops and starts.

    The user ``root`` has all rights and no password. It never waits for a disk, since no test cuts the power; the
    transactions and their recovery are InnoDB's own.
    """

    HOW_TO_INSTALL: Final = databases.MARIADB

    def __init__(self, folder: Path, *, identity: Identity | None = None, options: Sequence[str] = ()) -> None:
        """Make a data directory in ``folder``, which must exist; nothing runs yet.

        ``identity`` is the server's certificate and turns TLS on; ``options`` are further ones of its command line.
        """
        small = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M")
        try:
            served = databases.mariadb_data(folder, *small, login="normal")
        except databases.NotInstalled as error:
            skipped(str(error))
        data, port = folder / "data", free_port()
        tls = [] if identity is None else [f"--ssl-cert={identity.certificate}", f"--ssl-key={identity.key}"]
        command = [
            *served, f"--port={port}", "--bind-address=127.0.0.1",
            "--socket=s", f"--pid-file={data}/pid",  # in the data directory; a full path may be too long for a socket
            "--skip-log-bin", "--skip-name-resolve", "--innodb-flush-method=nosync", "--sync-frm=0",
            "--innodb-doublewrite=0",
            *tls, *options,
        ]  # fmt: skip
        super().__init__(command, port)
