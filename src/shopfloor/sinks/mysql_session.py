"""A connection to MySQL or MariaDB that an event loop can use and cut: PyMySQL in a thread of its own.

PyMySQL and LOAD DATA were measured against the other drivers; docs/connectors/mysql-sink.md has the figures.
"""

import asyncio
import math
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol, TypeVar

import pymysql

from shopfloor.samples import Unavailable
from shopfloor.sinks.mysql_errors import meaning, tls_trouble
from shopfloor.sinks.mysql_link import Link

T = TypeVar("T")

_SHORTEST_IDLE: Final = 10
_SQL_MODE: Final = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"


class Address(Protocol):
    """Where the server is and who asks."""

    @property
    def host(self) -> str: ...  # noqa: D102
    @property
    def port(self) -> int: ...  # noqa: D102
    @property
    def user(self) -> str: ...  # noqa: D102
    @property
    def secret(self) -> str: ...  # noqa: D102
    @property
    def database(self) -> str: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102  # how long an answer may take
    @property
    def idle(self) -> float: ...  # noqa: D102  # how long nothing may come before the server ends the session
    @property
    def tls_context(self) -> ssl.SSLContext | None: ...  # noqa: D102


class Session:
    """One connection; everything that is asked of it runs one after the other in its thread.

    A task that is cancelled while it waits for an answer breaks the connection: nothing stays behind.
    """

    def __init__(self, link: Link, lever: socket.socket, threads: ThreadPoolExecutor) -> None:
        """Made by ``connect``. ``lever`` is a second handle of the socket, by which it is broken from outside."""
        self.link = link
        self._lever = lever
        self._threads = threads
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, which may use the connection as PyMySQL allows.

        Raises what it raises; errors of PyMySQL as Unavailable or Misconfigured, in words. A transaction is over then.
        """
        async with self._turn:
            return await self._in_thread(lambda: self._translated(work))

    async def ping(self) -> None:
        """Raise Unavailable when the server does not answer."""
        await self.run(self.link.ping)

    async def close(self) -> None:
        """Say goodbye if the server is there, and free everything."""
        try:
            if self.link.open:
                await self._in_thread(lambda: _goodbye(self.link))
        finally:
            self._lever.close()
            self._threads.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._break()
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # seen; the cancellation is what the caller hears of
            raise

    def _break(self) -> None:
        with suppress(OSError):
            self._lever.shutdown(socket.SHUT_RDWR)

    def _translated(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except pymysql.MySQLError as error:
            self._roll_back()
            raise meaning(error) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self.link.open:
            with suppress(pymysql.MySQLError, OSError):
                self.link.roll_back()


async def connect(address: Address) -> Session:
    """Log in and set what the session needs; raises Unavailable or Misconfigured in words."""
    try:
        async with asyncio.timeout(address.seconds):
            reached = await _reach(address.host, address.port)
    except TimeoutError as error:
        raise Unavailable(
            f"{_place(address)} does not answer within {address.seconds:g} s; is a firewall between?"
        ) from error
    lever = reached.dup()
    threads = ThreadPoolExecutor(1, thread_name_prefix="mysql")
    link = Link(address.host, address.user, address.secret, address.database, address.seconds, address.tls_context)
    session = Session(link, lever, threads)
    try:
        await session.run(lambda: _log_in(link, reached, address))
    except BaseException:
        reached.close()
        await session.close()
        raise
    return session


def _log_in(link: Link, reached: socket.socket, address: Address) -> None:
    try:
        link.log_in(reached)
        for statement, values in _settings(address):
            link.execute(statement, values)
    except ssl.SSLError as error:
        raise tls_trouble(error) from error
    except pymysql.OperationalError as error:
        cause = getattr(error, "original_exception", None) or error.__context__
        if isinstance(cause, ssl.SSLError):
            raise tls_trouble(cause) from error
        raise


def _settings(address: Address) -> Sequence[tuple[str, Sequence[object]]]:
    # What a connection that died on the way held locked must become free: the server learns nothing of its end.
    idle = max(_SHORTEST_IDLE, math.ceil(address.idle))
    # While a change of a table waits for somebody's transaction, everybody else who wants the table waits behind it.
    locks = max(1, math.ceil(address.seconds / 2))
    return (
        ("SET SESSION sql_mode = %s", (_SQL_MODE,)),
        ("SET SESSION time_zone = '+00:00'", ()),
        ("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", ()),
        ("SET SESSION innodb_lock_wait_timeout = %s, lock_wait_timeout = %s", (locks, locks)),  # of rows, of tables
        ("SET SESSION wait_timeout = %s, net_read_timeout = %s, net_write_timeout = %s", (idle, idle, idle)),
    )


async def _reach(host: str, port: int) -> socket.socket:
    """A connected socket; the addresses of the name are tried in order."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"the name {host} is not known ({error}); check it, and the name server") from error
    failed: OSError | None = None
    for family, kind, protocol, _, target in found:
        reached = socket.socket(family, kind, protocol)
        try:
            reached.setblocking(False)
            await loop.sock_connect(reached, target)
        except OSError as error:
            reached.close()
            failed = error
        except BaseException:
            reached.close()
            raise
        else:
            reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reached.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return reached
    # asyncio puts its own words before the reason of an error that has a number.
    why = os.strerror(failed.errno) if failed is not None and failed.errno else failed
    raise Unavailable(
        f"nobody answers at {host}:{port}: {why}; does the server run, and are host and port in `dsn` right?"
    )


def _place(address: Address) -> str:
    return f"{address.host}:{address.port}"


def _goodbye(link: Link) -> None:
    with suppress(pymysql.MySQLError, OSError):
        link.close()
