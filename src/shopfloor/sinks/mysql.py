"""Samples and machines' figures in tables of MySQL or MariaDB, each exactly once.

What ``write_many`` gets and the position in the journal are one transaction, so after a crash of either side the
pipeline goes on behind what the database holds. ``docs/connectors/mysql-sink.md`` says what is in the tables.
"""

import secrets
from typing import Annotated, Any, ClassVar, Final, Literal, Self, cast

from pydantic import Field, StringConstraints, model_validator

from shopfloor.plant.components import Form, SinkConfig
from shopfloor.samples import Unavailable
from shopfloor.seams import Connection
from shopfloor.sinks.mysql_database import MysqlDatabase
from shopfloor.sinks.mysql_link import Link
from shopfloor.sinks.mysql_session import Session, connect
from shopfloor.sinks.mysql_table import Mapped, OwnTable
from shopfloor.sinks.mysql_tables import (
    ELSEWHERE,
    claim,
    examined,
    lock_name,
    making,
    may_make,
    may_write,
    owned,
    prepare,
    prepare_position,
    server_of,
)
from shopfloor.sinks.mysql_writing import Tables, Target, write
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.position import Position
from shopfloor.sinks.sql.process import is_remnant, who
from shopfloor.sinks.sql.session_sink import Entries, SessionSink
from shopfloor.sinks.sql.tables import LONGEST_NAME

Identifier: Final = Form(r"[A-Za-z_][A-Za-z0-9_$]*", "letters, digits, `_` and `$`")


class MysqlConfig(MysqlDatabase, SinkConfig):
    """Stores samples and machines' figures in tables of MySQL or MariaDB, which it makes; each exactly once."""

    type: Literal["mysql"] = "mysql"
    table: Annotated[str, Identifier, StringConstraints(max_length=64)] | None = Field(
        default=None,
        description="A table of the plant's own instead of Shopfloor's: samples go there, as `columns` says.",
    )
    columns: dict[Annotated[str, Identifier, StringConstraints(max_length=64)], str] = Field(
        default_factory=dict,
        description="What each column of `table` gets: `{time}`, `{received}`, `{tag}`, `{value}`, `{quality}` for a "
        "row a sample; or `{time}` and the names of tags for a row an instant.",
    )

    @model_validator(mode="before")
    @classmethod
    def _only_mapped(cls, fields: Any) -> Any:
        """Tags that no column gets are not wanted, unless `tags` says otherwise."""
        if not isinstance(fields, dict):
            return fields
        given = cast("dict[str, object]", fields)
        columns = given.get("columns")
        if "tags" in given or not isinstance(columns, dict):
            return given
        said = cast("dict[object, object]", columns)
        tags = Mapped("", {str(name): str(what) for name, what in said.items()}).tags
        return {**given, "tags": tags} if tags else given

    @model_validator(mode="after")
    def _both(self) -> "MysqlConfig":
        if (self.table is None) == bool(self.columns):
            raise ValueError("`table` and `columns` belong together; give both")
        if self.table is not None and (problem := Mapped(self.table, self.columns).problem()):
            raise ValueError(f"`columns`: {problem}")
        return self

    @property
    def tables(self) -> tuple[str, ...]:
        """Which tables of which database they are, as far as the plant file tells; none where it is the plant's own."""
        return super().tables if self.table is None else ()

    @property
    def mapped(self) -> Mapped | None:
        """The plant's own table; None: Shopfloor's."""
        return None if self.table is None else Mapped(self.table, self.columns)

    def build(self) -> "MysqlSink":
        """The sink; opens nothing yet."""
        return MysqlSink(self)

    def probe(self) -> Connection:
        """All but writing: what is there is examined, and whether the rights for the rest are there."""
        return MysqlProbe(self)


class MysqlProbe(Connection):
    """Connects and examines, and changes nothing."""

    def __init__(self, config: MysqlDatabase, *, historian: bool = False) -> None:
        """Built by ``MysqlConfig.probe``, or a historian's."""
        self._config = config
        self._historian = historian

    async def __aenter__(self) -> Self:
        """Examine; raises Unavailable or Misconfigured, and leaves at once."""
        session = await connect(self._config.address())
        try:
            await session.run(lambda: self._examine(session.link))
        finally:
            await session.close()
        return self

    def _examine(self, link: Link) -> None:
        server = server_of(link)
        names = server.names(self._config.prefix)
        mapped = self._config.mapped
        if mapped is not None:
            OwnTable(link, ddl.Names(server.dialect), mapped).examine()
            may_write(link, names, mapped.table, list(mapped.columns))
            return
        server.demand_new_enough()
        examined(link, names)
        owned(link, names, self._config.position[:LONGEST_NAME], historian=self._historian)
        may_make(link, names)


class MysqlSink(SessionSink[Session]):
    """Writes batches; enter it to connect."""

    historian: ClassVar[bool] = False
    """Whether the tables are to be its own: nobody else's samples among them."""

    def __init__(self, config: MysqlDatabase) -> None:
        """Built by ``MysqlConfig.build``."""
        super().__init__(config.keep_alive / 1e9)
        self._config = config

    async def _connect(self) -> Session:
        return await connect(self._config.address())

    def _begin(self, session: Session) -> int:
        link, config = session.link, self._config
        server = server_of(link)
        names = server.names(config.prefix)
        me = config.position[:LONGEST_NAME]
        if config.mapped is None:
            prepare(link, names, server, config.timeout / 2e9)
            position = Position(names, me, f"{secrets.token_hex(8)} {who(60)}")
        else:
            prepare_position(link, names)
            position = Position(names, me, f"{secrets.token_hex(8)} {who(60)}{ELSEWHERE}{config.mapped.table}")
        self._alone(link, names, position)
        target = (
            Tables(link, names, loads=server.loads, packet=server.packet)
            if config.mapped is None
            else OwnTable(link, ddl.Names(server.dialect), config.mapped)
        )
        with making(link, names, config.timeout / 2e9):
            if config.mapped is None:
                claim(link, names, me, historian=self.historian)
            held = position.take(link)
        target.begin()
        self._target: Target = target
        self._position = position
        return held

    def _put(self, session: Session, entries: Entries) -> None:
        write(session.link, self._target, self._position, entries)

    def _alone(self, link: Link, names: ddl.Names, position: Position) -> None:
        """Nobody else may move this position: hold a lock as long as the connection is there.

        A connection of this computer whose process is gone, or is this one, is a remnant; it is ended.
        """
        lock = lock_name(f"{link.database}.{names.prefix} {self._config.position}")
        if link.value("SELECT GET_LOCK(%s, 0)", (lock,)) == 1:
            return
        holder = position.holder(link).partition(" ")[2].partition(ELSEWHERE)[0]
        number = link.value("SELECT IS_USED_LOCK(%s)", (lock,))
        if number is not None and is_remnant(holder):
            link.end(number)
        if link.value("SELECT GET_LOCK(%s, %s)", (lock, self._config.timeout / 4e9)) == 1:
            return
        raise Unavailable(
            f"another Shopfloor ({holder}) writes there under the name {self._config.position!r}; stop it, or give one "
            "of them another `writer`"
        )
