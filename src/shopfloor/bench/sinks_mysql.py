"""MariaDB for ``shopfloor bench sinks``: the sink beside LOAD DATA LOCAL of finished files."""

import shutil
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pymysql
from pydantic import SecretStr

from shopfloor.plant import HistorianConfig, SinkConfig
from shopfloor.samples import Batch, Misconfigured
from shopfloor.sinks import mysql_rows
from shopfloor.sinks.mysql import MysqlConfig
from shopfloor.sinks.mysql_historian import MysqlHistorianConfig
from shopfloor.sinks.mysql_tables import Server
from shopfloor.sinks.sql import ddl, rows
from shopfloor.sinks.sql.tables import HISTORY
from shopfloor.testing.programs import MariaDb

_DIALECT: Final = Server("MariaDB", (10, 11), loads=True, packet=16 * 2**20).dialect
_DURABLE: Final = (
    "--innodb-flush-method=fsync", "--innodb-flush-log-at-trx-commit=1", "--innodb-doublewrite=1",
    "--innodb-buffer-pool-size=512M", "--innodb-log-file-size=1G", "--local-infile=1",
)  # fmt: skip
_NULL: Final = "\\N"


class MysqlBench:
    """A server that syncs its disk, as one in a plant does."""

    name: str = "mariadb"
    bulk: str = "LOAD DATA LOCAL"
    share: float = 1.0

    def __init__(self) -> None:
        """Nothing is started yet. Raises Misconfigured when MariaDB is not installed."""
        if not shutil.which("mariadb-install-db"):
            raise Misconfigured(f"MariaDB is not installed; install it with: {MariaDb.HOW_TO_INSTALL}")
        self._home = tempfile.TemporaryDirectory(prefix="shopfloor-bench-")
        self._server = MariaDb(Path(self._home.name), options=_DURABLE)
        self._names = ddl.Names(_DIALECT)
        self._files: list[Path] = []
        self._link: Any = None

    def __enter__(self) -> Self:
        self._server.start()
        self._link = pymysql.connect(host="127.0.0.1", port=self._server.port, user="root", local_infile=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._link is not None:
            self._link.close()
        self._server.stop(30)
        self._home.cleanup()

    def config(self, run: int) -> SinkConfig:
        """A sink with a database of its own."""
        self._execute(f"CREATE DATABASE sink_{run}")
        dsn = f"mysql://root@127.0.0.1:{self._server.port}/sink_{run}"
        return MysqlConfig.model_validate({"name": f"bench-{run}", "dsn": dsn, "prefix": ""})

    def historian(self, keep: int) -> HistorianConfig:
        """A historian with a database of its own."""
        self._execute("CREATE DATABASE historian")
        dsn = SecretStr(f"mysql://root@127.0.0.1:{self._server.port}/historian")
        return MysqlHistorianConfig(dsn=dsn, prefix="", keep=keep)

    def settle(self) -> None:
        """Take the statistics of the historian's table, as the server does by itself."""
        self._execute("ANALYZE TABLE historian.history")

    def prepare(self, run: int, groups: Sequence[Sequence[Batch]]) -> None:
        """Make the same table in another database, and finished files."""
        self._execute(f"CREATE DATABASE bulk_{run}")
        self._execute(f"USE bulk_{run}")
        for statement in ddl.create(self._names, HISTORY):
            self._execute(statement)
        if not self._files:
            tags = sorted({tag for group in groups for batch in group for tag in batch.tags})
            ids = {tag: number for number, tag in enumerate(tags, 1)}
            for number, group in enumerate(groups):
                file = Path(self._home.name) / f"{number}.tsv"
                file.write_text("".join(_lines(group, ids)), "utf-8")
                self._files.append(file)

    def load(self) -> None:
        """In MySQL's own format, with all columns."""
        for file in self._files:
            self._execute(
                f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE {self._names.full(HISTORY.name)} CHARACTER SET utf8mb4 "
                f"({self._names.columns(HISTORY)})"
            )
            self._link.commit()

    def counted(self, run: int) -> tuple[int, int]:
        """How many rows each table has."""
        return self._count(f"sink_{run}.history"), self._count(f"bulk_{run}.history")

    def _count(self, table: str) -> int:
        self._link.commit()  # a new view of what others have stored
        count: int = self._execute(f"SELECT COUNT(*) FROM {table}")[0][0]  # noqa: S608  # own text
        return count

    def _execute(self, statement: str) -> Sequence[tuple[Any, ...]]:
        with self._link.cursor() as cursor:
            cursor.execute(statement)
            found: Sequence[tuple[Any, ...]] = cursor.fetchall()
        return found


def _lines(group: Sequence[Batch], ids: dict[str, int]) -> list[str]:
    """The rows of a transaction as lines of text; the plant of the bench has numbers and switches only."""
    return [
        "\t".join(map(_field, row)) + "\n"
        for block in rows.blocks(enumerate(group, 1), ids)
        for row in mysql_rows.rows(block)
    ]


def _field(value: Any) -> str:
    if value is None:
        return _NULL
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ")
    return str(int(value)) if isinstance(value, bool) else str(value)
