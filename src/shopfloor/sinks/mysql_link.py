"""What the MySQL sink asks of its driver, PyMySQL, with types; all of it blocks and raises PyMySQL's errors."""

import socket
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CLIENT, COMMAND
from pymysql.protocol import OKPacketWrapper

_LARGEST: Final = 1_000_000
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

    def execute_many(self, statement: str, rows: Iterable[Row]) -> None:
        """Run an INSERT … VALUES (%s, …) with many rows at once."""
        made = list(rows)
        if made:
            with self._driver.cursor() as cursor:
                cursor.max_stmt_length = self.largest
                cursor.executemany(statement, made)

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """What a SELECT gives."""
        with self._driver.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def value(self, statement: str, values: Sequence[object] = ()) -> Any:
        """The first column of the first row; None: there is no row."""
        found = self.rows(statement, values)
        return found[0][0] if found else None

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
