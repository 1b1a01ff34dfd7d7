"""What the SQL Server sink asks of its client, mssql-python, with types; all of it blocks and raises ``Refused``.

The client is loaded with the first connection: it brings Microsoft's ODBC driver, which needs libraries of the system.
"""

import importlib
import os
import re
import socket
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from time import monotonic, sleep
from typing import Any, Final, TypeVar

import psutil

from shopfloor.samples import Misconfigured
from shopfloor.sinks.sqlserver_errors import NOT_LOADED, Refused

T = TypeVar("T")
Row = tuple[Any, ...]
Size = tuple[int, int, int]
"""How a parameter is sent: its SQL type of ODBC, its length or precision, its decimal digits."""

_connecting: Final[defaultdict[str, Lock]] = defaultdict(Lock)
"""To one port (or named instance) one connection at a time is made: so the socket that is new belongs to it."""
_TRIES: Final = 20
_STEP: Final = 0.1
"""Seconds after which whoever waits for that looks whether it is still wanted."""
_RECORD: Final = re.compile(r"\((-?\d+)\)")


class Link:
    """One connection; a transaction is begun with the first statement."""

    def __init__(self, text: str, seconds: float, server: str, port: int = 0) -> None:
        """Nothing is opened yet. ``text`` is the connection string, ``seconds`` how long an answer may take.

        ``port`` is 0 for a named instance: the client asks the server for it.
        """
        self._text = text
        self._seconds = seconds
        self._server = server
        self._port = port
        self._driver: Any = None
        self._cursor: Any = None
        self._before: set[tuple[int, int]] | None = None
        """While it is being made: the sockets that were there before."""
        self._gone = False
        """Whether it was cut."""
        self.began: float | None = None
        """Since when the client works on something, by the monotonic clock; None: it does not."""
        self.lever: socket.socket | None = None
        """A second handle of the connection's socket, by which it is broken from outside; None where the system does
        not tell."""

    @property
    def open(self) -> bool:
        """Whether it was connected and not closed here."""
        return self._driver is not None

    def log_in(self) -> None:
        """Connect. Raises Refused, and Misconfigured when the client cannot be loaded."""
        client = _client()
        seconds = max(1, round(self._seconds))
        with self._turn(seconds):
            self._before = before = _sockets(self._port)
            try:
                self._driver = self._said(lambda: client.connect(self._text, timeout=seconds))
                self.lever = self._handle(before)
            finally:
                self._before = None
        self._driver.timeout = seconds  # then it asks the server to give the statement up
        self._cursor = self._said(self._driver.cursor)

    @contextmanager
    def _turn(self, seconds: float) -> Generator[None]:
        """Be the only one who connects to this server. Raises Refused when others take too long, or it was cut."""
        turn, end = _connecting[str(self._port or self._server)], monotonic() + seconds
        while not turn.acquire(timeout=_STEP):
            if self._gone or monotonic() > end:
                raise Refused(0, "Timeout expired", "timeout: other connections to it are still being made")
        try:
            if self._gone:
                raise Refused(0, "Timeout expired", "timeout: nobody waits for it any more")
            yield
        finally:
            turn.release()

    def _handle(self, before: set[tuple[int, int]]) -> socket.socket | None:
        """A second handle of the new socket; whoever looks if the server answers may have one more for a moment."""
        for _ in range(_TRIES):
            if len(_sockets(self._port) - before) <= 1:
                break
            sleep(_STEP / 10)
        return _second_handle(_sockets(self._port) - before)

    def autocommit(self) -> None:
        """From now on each statement is a transaction of its own."""
        self._said(lambda: self._driver.setautocommit(True))

    def close(self) -> None:
        """Say goodbye."""
        driver, self._driver = self._driver, None
        if driver is not None:
            self._said(driver.close)
        if self.lever is not None:
            self.lever.close()

    def cut(self) -> None:
        """Break the connection, from any thread: whoever waits for an answer learns that there is none.

        To be called again while somebody waits on: of a connection that is being made the socket may not be known yet.
        """
        self._gone = True
        before = self._before
        if self.lever is None and before is not None:  # it is being made
            made = _second_handle(_sockets(self._port) - before)
            if made is not None:
                with made:
                    _shut(made)
        elif self.lever is not None:
            _shut(self.lever)

    def execute(self, statement: str) -> None:
        """Run a statement without parameters."""
        self._said(lambda: self._cursor.execute(statement))
        self._said(self._drained)

    def change(self, statement: str, values: Sequence[object], sizes: Sequence[Size] = ()) -> int:
        """Run a statement that gives no rows; returns how many it changed.

        Never for several rows at once: when one row of an array of parameters ends the transaction, the client has the
        rows behind it carried out all the same, each in a transaction of its own.
        """
        if sizes:
            self._cursor.setinputsizes(list(sizes))
        # of executemany, unlike execute, the client tells the server's number for an error
        self._said(lambda: self._cursor.executemany(statement, [tuple(values)]))
        return int(self._cursor.rowcount)

    def rows(self, statement: str, values: Sequence[object] = (), sizes: Sequence[Size] = ()) -> list[Row]:
        """What a SELECT gives."""
        if sizes:
            self._cursor.setinputsizes(list(sizes))
        self._said(lambda: self._cursor.execute(statement, *values))
        while not self._cursor.description and self._said(self._cursor.nextset):
            pass
        found = [tuple(row) for row in self._said(self._cursor.fetchall)]
        self._said(self._drained)
        return found

    def batches(self, statement: str, values: Sequence[object], sizes: Sequence[Size], most: int) -> Iterator[Any]:
        """What a SELECT gives, as Arrow record batches of ``most`` rows; all of them are to be taken."""
        if sizes:
            self._cursor.setinputsizes(list(sizes))
        self._said(lambda: self._cursor.execute(statement, *values))
        while True:
            batch = self._said(lambda: self._cursor.arrow_batch(most))
            yield batch
            if batch.num_rows < most:
                break
        self._said(self._drained)

    def _drained(self) -> None:
        """Take what else a statement gives: an error behind its first result is an error."""
        while self._cursor.nextset():
            pass

    def value(self, statement: str, values: Sequence[object] = ()) -> Any:
        """The first column of the first row; None: there is no row."""
        found = self.rows(statement, values)
        return found[0][0] if found else None

    def commit(self) -> None:
        """Make the transaction durable."""
        self._said(self._driver.commit)

    def roll_back(self) -> None:
        """Forget the transaction."""
        self._said(self._driver.rollback)

    def _said(self, work: Callable[[], T]) -> T:
        """What ``work`` gives; the client's errors as Refused, which is of this process's own."""
        client = _client()
        self.began = monotonic()
        try:
            return work()
        except (client.Error, RuntimeError) as error:  # RuntimeError: what it cannot read
            raise Refused(
                _number(getattr(self._cursor, "messages", None) or ()),
                _line(getattr(error, "driver_error", "")),
                _line(getattr(error, "ddbc_error", "") or error),
            ) from error
        finally:
            self.began = None


def _client() -> Any:
    """The client, loaded. Raises Misconfigured when it, or a library of the system that it needs, is not there."""
    try:
        client = importlib.import_module("mssql_python")
    except (ImportError, OSError, RuntimeError) as error:
        raise Misconfigured(f"{NOT_LOADED} ({_line(error)})") from error
    if not _settled:
        # A connection that is given back keeps locks and settings until it is used again, so there are no pools.
        client.pooling(enabled=False)
        _settled.append(True)
    return client


_settled: Final[list[bool]] = []


def _number(messages: Iterable[tuple[str, str]]) -> int:
    """The server's number in what the client collected."""
    found = (_RECORD.search(record) for record, _ in messages)
    return next((int(one[1]) for one in found if one is not None and int(one[1]) > 0), 0)


def _line(said: object) -> str:
    """Its words on one line, without the names of the driver's layers."""
    return " ".join(re.sub(r"\[(Microsoft|ODBC Driver[^]]*|SQL Server)\]", "", str(said)).split())


def _sockets(port: int) -> set[tuple[int, int]]:
    """This process's TCP sockets to this port (0: any), by file descriptor and own port: a descriptor is used again.

    None where the system does not tell.
    """
    with suppress(psutil.Error, OSError):
        found = psutil.Process(os.getpid()).net_connections("tcp")
        return {(one.fd, one.laddr.port) for one in found if one.fd >= 0 and one.raddr and port in (0, one.raddr.port)}
    return set()


def _shut(lever: socket.socket) -> None:
    with suppress(OSError):
        lever.shutdown(socket.SHUT_RDWR)


def _second_handle(new: set[tuple[int, int]]) -> socket.socket | None:
    """A handle of the one new socket; None when it cannot be told which one it is."""
    if len(new) != 1:
        return None
    with suppress(OSError):
        return socket.socket(fileno=os.dup(new.pop()[0]))
    return None
