"""What the MySQL sink asks of its driver, PyMySQL, with types; all of it blocks and raises PyMySQL's errors."""

import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CLIENT, COMMAND, CR, ER
from pymysql.protocol import OKPacketWrapper

from shopfloor.sinks.mysql_packets import Pairs, pairs
from shopfloor.turns import giving_way

_LARGEST: Final = 1_000_000
_PIECE: Final = 2**18
"""Bytes that are read at once."""
_OkPacket: Final[Any] = OKPacketWrapper

Row = tuple[Any, ...]


class Link:
    """One connection; transactions are begun by the server with the first statement."""

    def __init__(  # who, where, how
        self, host: str, user: str, password: str, database: str, seconds: float, tls: ssl.SSLContext | None
    ) -> None:
        """Nothing is opened yet; ``seconds`` is how long an answer may take."""
        self.database = database
        self.largest = _LARGEST
        """Bytes of one statement of many rows, and of a part of what is loaded; less where the server takes less."""
        # Of the server's request for a file PyMySQL may know nothing (`local_infile`): it would send whichever file a
        # forged server names. `load` answers it with what is in memory.
        options: dict[str, Any] = {
            "host": host, "user": user, "password": password, "database": database, "charset": "utf8mb4",
            "autocommit": False, "client_flag": CLIENT.LOCAL_FILES, "read_timeout": seconds, "write_timeout": seconds,
            "ssl": tls, "ssl_disabled": tls is None, "program_name": "shopfloor", "defer_connect": True,
        }  # fmt: skip
        self._driver: Any = Connection(**options)

    @property
    def open(self) -> bool:
        """Whether it is connected, as far as is known here."""
        return bool(self._driver.open)

    def log_in(self, reached: socket.socket) -> None:
        """Begin the session on a connected socket, which is the link's from now on."""
        self._driver.connect(reached)

    def close(self) -> None:
        """Say goodbye."""
        self._driver.close()

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._driver.ping(reconnect=False)

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement; returns how many rows it changed."""
        with self._driver.cursor() as cursor:
            changed: int = cursor.execute(statement, values or None)
        return changed

    change = execute  # as ``sql.link`` calls it

    def execute_many(self, statement: str, rows: Iterable[Row]) -> None:
        """Run an INSERT … VALUES (%s, …) with many rows at once."""
        made = giving_way(rows)
        first = next(made, None)
        if first is not None:
            with self._driver.cursor() as cursor:
                cursor.max_stmt_length = self.largest
                cursor.executemany(statement, chain((first,), made))

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """What a SELECT gives."""
        with self._driver.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def pairs(self, statement: str, values: Sequence[object], size: int) -> Iterator[Pairs]:
        """What a SELECT of two columns gives as bytes, about ``size`` rows at a time; all of it is to be taken.

        The first is shorter than 251 bytes and never NULL. PyMySQL would make objects of each row and field, which
        takes several times as long.
        """
        driver = self._driver
        with driver.cursor() as cursor:
            text: str = cursor.mogrify(statement, values or None)
        driver._execute_command(COMMAND.COM_QUERY, text.encode())  # noqa: SLF001  # as `load` does
        for _ in range(driver._read_packet().read_length_encoded_integer() + 1):  # noqa: SLF001
            driver._read_packet()  # noqa: SLF001  # a column's name and type, and their end
        yield from pairs(self._more, size)

    def _more(self) -> bytes:
        """Some bytes of what the server sends."""
        try:
            self._driver._sock.settimeout(self._driver._read_timeout)  # noqa: SLF001
            found: bytes = self._driver._rfile.read1(_PIECE)  # noqa: SLF001
        except OSError as error:
            self._driver._force_close()  # noqa: SLF001
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, str(error)) from error
        if not found:
            self._driver._force_close()  # noqa: SLF001
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, "it closed the connection during a question")
        return found

    def value(self, statement: str, values: Sequence[object] = ()) -> Any:
        """The first column of the first row; None: there is no row."""
        found = self.rows(statement, values)
        return found[0][0] if found else None

    def end(self, number: int) -> None:
        """End another connection by its number; it may be gone by itself."""
        try:
            self.execute("KILL %s", (number,))
        except pymysql.OperationalError as error:
            if error.args[:1] != (ER.NO_SUCH_THREAD,):
                raise

    def load(self, statement: str, content: memoryview) -> tuple[int, int]:
        """Run a LOAD DATA LOCAL with this content; returns how many rows came in and how many warnings there are.

        No file is opened, whatever name the server says.
        """
        driver = self._driver
        driver._execute_command(COMMAND.COM_QUERY, statement.encode())  # noqa: SLF001  # PyMySQL sends files only
        answer = driver._read_packet()  # noqa: SLF001
        if answer.is_load_local_packet():
            for start in range(0, len(content), self.largest):
                driver.write_packet(content[start : start + self.largest].tobytes())
            driver.write_packet(b"")
            answer = driver._read_packet()  # noqa: SLF001
        done = _OkPacket(answer)
        driver.server_status = done.server_status
        return done.affected_rows, done.warning_count

    def commit(self) -> None:
        """Make the transaction durable."""
        self._driver.commit()

    def roll_back(self) -> None:
        """Forget the transaction."""
        self._driver.rollback()


DatabaseError: Final = pymysql.MySQLError
"""What all of this raises."""
