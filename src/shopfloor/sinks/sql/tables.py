"""What the SQL sinks store: tables, columns, keys, in no database's own words.

Times are UTC in microseconds, which all of these databases have; ``nanos`` beside one holds the nanoseconds (0 to 999)
below it, so nothing is rounded. Tables of samples are narrow: a row a sample, its value in the one column that holds
its type exactly, the others NULL; all of them NULL is the value null.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

VERSION: Final = 2
"""Of these tables; stored in ``META`` under ``version``."""
LONGEST_TAG: Final = 512
"""Characters; what every database can index."""
LONGEST_NAME: Final = 255
LONGEST_WORD: Final = 20


class Kind(Enum):
    """What a column holds; a dialect has a type for each."""

    SERIAL = auto()
    """An int32 that the database gives; the key of its table."""
    INT16 = auto()
    INT32 = auto()
    INT64 = auto()
    UINT64 = auto()
    """Whole numbers up to 2^64 - 1, exact."""
    DOUBLE = auto()
    """IEEE 754; NaN and infinities where the database has them."""
    BOOL = auto()
    TIME = auto()
    """UTC, to the microsecond."""
    DATE = auto()
    TAG = auto()
    """Text up to LONGEST_TAG, compared exactly (case, accents, trailing spaces), can be a key."""
    NAME = auto()
    """Text up to LONGEST_NAME, compared exactly, can be a key."""
    WORD = auto()
    """Text up to LONGEST_WORD, one of few words; can be a key."""
    TEXT = auto()
    """Text of any length."""
    BYTES = auto()
    JSON = auto()
    """A JSON object, kept as it was written."""


class Column(NamedTuple):
    """One column."""

    name: str
    kind: Kind
    null: bool = False
    """Whether it may be NULL."""


class Table(NamedTuple):
    """One table; ``name`` is without the prefix."""

    name: str
    doc: str
    columns: Sequence[Column]
    key: Sequence[str] = ()
    """Its primary key; none for HISTORY."""
    unique: Sequence[str] = ()
    indexes: Sequence[Sequence[str]] = ()
    replaces: Sequence[str] = ()
    """A new fact takes the place of all rows with the same values here; a prefix of ``key``."""

    @property
    def names(self) -> list[str]:
        """The columns' names, in order."""
        return [column.name for column in self.columns]


def _ratios(*names: str) -> list[Column]:
    """Figures that may have no meaning (NULL)."""
    return [Column(name, Kind.DOUBLE, null=True) for name in names]


_MACHINE: Final = Column("machine", Kind.NAME)
_STARTS: Final = Column("starts", Kind.TIME)
_ENTRY: Final = Column("entry", Kind.INT64)
"""Offset in Shopfloor's journal: which batch brought it; ascends over time."""
_LEVEL: Final = Column("level", Kind.WORD)
"""What ``machine`` names: a machine, line, area or site. Sums over all of them would count units twice."""
_WINDOW: Final = (_MACHINE, Column("period", Kind.WORD), _STARTS, Column("revision", Kind.INT32))
_SAMPLE: Final = (
    Column("tag_id", Kind.INT32),
    Column("time", Kind.TIME),
    Column("nanos", Kind.INT16),
    Column("received", Kind.TIME),
    _ENTRY,
    Column("place", Kind.INT32),
    Column("quality", Kind.INT32),
    Column("status", Kind.INT64, null=True),
    Column("server_time", Kind.TIME, null=True),
    Column("server_nanos", Kind.INT16, null=True),
    Column("double_value", Kind.DOUBLE, null=True),
    Column("bigint_value", Kind.INT64, null=True),
    Column("numeric_value", Kind.UINT64, null=True),
    Column("bool_value", Kind.BOOL, null=True),
    Column("text_value", Kind.TEXT, null=True),
    Column("bytes_value", Kind.BYTES, null=True),
)

META: Final = Table(
    "meta",
    "About these tables: their version.",
    [Column("item", Kind.NAME), Column("content", Kind.TEXT)],
    key=["item"],
)
WRITER: Final = Table(
    "writer",
    "How far each Shopfloor has delivered: moves in the transaction that stores the samples.",
    [
        Column("name", Kind.NAME),
        Column("position", Kind.INT64),
        Column("session", Kind.NAME),
        Column("written", Kind.TIME),
    ],
    key=["name"],
)
"""``position`` is -1 before the first entry. ``session`` is a token of whoever writes now: an update that finds another
one there must not be committed."""
TAG: Final = Table(
    "tag",
    "The names of the tags.",
    [Column("id", Kind.SERIAL), Column("name", Kind.TAG)],
    key=["id"],
    unique=["name"],
)
HISTORY: Final = Table(
    "history",
    "Every sample. (entry, place) tells one from another; where times are equal, it is the order in which they came.",
    _SAMPLE,
    indexes=[["tag_id", "time"]],
)
LATEST: Final = Table("latest", "The newest sample of each tag, by its own time.", _SAMPLE, key=["tag_id"])
_SINCE_2: Final = (
    Column("uncounted_seconds", Kind.DOUBLE, null=True),
    Column("state_coverage", Kind.DOUBLE, null=True),
)
"""Last, as tables that were there before have them; NULL in rows of then."""
KPI_WINDOW: Final = Table(
    "kpi_window",
    "Figures of machines and lines for each closed hour, shift and day; a correction is a row with the next revision.",
    [
        *_WINDOW,
        _LEVEL,
        Column("ends", Kind.TIME),
        Column("production_day", Kind.DATE),
        Column("shift_name", Kind.NAME),
        *_ratios(
            "oee", "availability", "performance", "quality", "oee_low", "oee_high", "nee", "teep", "mtbf", "mttr",
            "scrap_rate", "error_rate", "health", "coverage",
        ),
        *_ratios("planned_seconds", "actual_seconds", "ideal_seconds"),
        *_ratios(
            "not_scheduled_seconds", "planned_stop_seconds", "setup_seconds", "production_seconds",
            "minor_stop_seconds", "unplanned_stop_seconds", "blocked_seconds", "unknown_seconds",
        ),
        *_ratios("good", "scrap", "outside"),
        Column("minor_stops", Kind.INT64, null=True),
        Column("incidents", Kind.INT64, null=True),
        Column("formula", Kind.NAME),
        Column("why", Kind.TEXT, null=True),
        _ENTRY,
        Column("record", Kind.JSON),
        *_SINCE_2,
    ],
    key=[column.name for column in _WINDOW],
    replaces=[column.name for column in _WINDOW],
)  # fmt: skip
LOSS: Final = Table(
    "kpi_loss",
    "Stops inside a window by reason; the category is the first level of the reason.",
    [
        *_WINDOW,
        Column("reason", Kind.NAME),
        Column("category", Kind.NAME),
        Column("stops", Kind.INT64),
        Column("seconds", Kind.DOUBLE),
    ],
    key=[*(column.name for column in _WINDOW), "reason"],
    replaces=[column.name for column in _WINDOW],
)
SCRAP: Final = Table(
    "kpi_scrap",
    "Scrap inside a window by reason ('' where none was given); the category is the first level of the reason.",
    [*_WINDOW, Column("reason", Kind.NAME), Column("category", Kind.NAME), Column("units", Kind.DOUBLE)],
    key=[*(column.name for column in _WINDOW), "reason"],
    replaces=[column.name for column in _WINDOW],
)
SHARE: Final = Table(
    "kpi_share",
    "What of a window is of which product, and of which order ('' while none was said); they sum to it.",
    [
        *_WINDOW,
        Column("kind", Kind.WORD),
        Column("name", Kind.NAME),
        *_ratios(
            "oee", "availability", "performance", "quality", "good", "scrap", "ideal_seconds", "production_seconds"
        ),
    ],
    key=[*(column.name for column in _WINDOW), "kind", "name"],
    replaces=[column.name for column in _WINDOW],
)
CYCLE_TIME: Final = Table(
    "kpi_cycle_time",
    "The single cycles of a window summed up, in seconds; lost is time above the ideal cycle.",
    [
        *_WINDOW,
        Column("cycles", Kind.INT64),
        *_ratios("mean", "shortest", "median", "p95", "longest", "lost", "gained"),
        Column("interrupted", Kind.INT64),
        Column("several", Kind.INT64),
    ],
    key=[column.name for column in _WINDOW],
    replaces=[column.name for column in _WINDOW],
)
RUN: Final = Table(
    "production_run",
    "Each product, and each order, from when a machine began to make it until the next one.",
    [
        _MACHINE,
        Column("kind", Kind.WORD),
        _STARTS,
        Column("ends", Kind.TIME),
        Column("production_day", Kind.DATE),
        Column("product", Kind.NAME),
        Column("order_id", Kind.NAME, null=True),
        *_ratios("planned_quantity"),
        Column("due", Kind.TIME, null=True),
        *_ratios("oee", "availability", "performance", "quality", "good", "scrap"),
        Column("revision", Kind.INT32),
        Column("withdrawn", Kind.BOOL),
        _ENTRY,
        Column("record", Kind.JSON),
    ],
    key=["machine", "kind", "starts"],
    replaces=["machine", "kind", "starts"],
)
CYCLE: Final = Table(
    "cycle",
    "Each single cycle, where they are asked for; seconds is NULL where its length is not known.",
    [
        _MACHINE,
        Column("ends", Kind.TIME),
        Column("nanos", Kind.INT16),
        Column("starts", Kind.TIME, null=True),
        Column("kind", Kind.NAME, null=True),
        *_ratios("seconds", "ideal_seconds", "units", "good", "scrap"),
        Column("product", Kind.NAME, null=True),
        Column("order_id", Kind.NAME, null=True),
        Column("withdrawn", Kind.BOOL),
        _ENTRY,
    ],
    key=["machine", "ends", "nanos"],
    replaces=["machine", "ends", "nanos"],
)
STOP: Final = Table(
    "stop_event",
    "Each stop; ends is NULL while it lasts, withdrawn says that late data showed that there was none.",
    [
        _MACHINE,
        _STARTS,
        Column("ends", Kind.TIME, null=True),
        Column("kind", Kind.NAME, null=True),
        Column("state", Kind.NAME, null=True),
        Column("withdrawn", Kind.BOOL),
        _ENTRY,
        Column("record", Kind.JSON),
    ],
    key=["machine", "starts"],
    replaces=["machine", "starts"],
)
STOP_REASON: Final = Table(
    "stop_reason",
    "Why a machine stood, part by part of a stop.",
    [
        _MACHINE,
        _STARTS,
        Column("part", Kind.INT32),
        Column("reason", Kind.NAME),
        Column("category", Kind.NAME),
        Column("part_starts", Kind.TIME),
        Column("seconds", Kind.DOUBLE),
    ],
    key=["machine", "starts", "part"],
    replaces=["machine", "starts"],
)
MACHINE_NOW: Final = Table(
    "machine_now",
    "The running shift of each machine and line and its state, as it was said last.",
    [
        _MACHINE,
        _LEVEL,
        Column("said", Kind.TIME),
        Column("state", Kind.NAME, null=True),
        _STARTS,
        Column("shift_name", Kind.NAME),
        *_ratios("oee", "availability", "performance", "quality", "good", "scrap", "health"),
        _ENTRY,
        Column("record", Kind.JSON),
    ],
    key=["machine"],
    replaces=["machine"],
)

TABLES: Final = (
    META, WRITER, TAG, HISTORY, LATEST, KPI_WINDOW, LOSS, SCRAP, SHARE, CYCLE_TIME, RUN, CYCLE, STOP, STOP_REASON,
    MACHINE_NOW,
)  # fmt: skip
"""All of them, in the order in which they are made; META's version is written last, when all are there."""


class AddTable(NamedTuple):
    """A change: a new table."""

    table: Table


class AddColumn(NamedTuple):
    """A change: a new column, which may be NULL."""

    table: str
    column: Column


class AddIndex(NamedTuple):
    """A change: a new index."""

    table: str
    columns: Sequence[str]


Change = AddTable | AddColumn | AddIndex


class Schema(NamedTuple):
    """A version of the tables and how to come there from each older one."""

    version: int
    tables: Sequence[Table]
    changes: Sequence[Sequence[Change]]
    """``changes[n]`` makes version n + 2 of version n + 1; views are made anew after each."""


SCHEMA: Final = Schema(VERSION, TABLES, [[AddColumn(KPI_WINDOW.name, column) for column in _SINCE_2]])
