"""What travels through Shopfloor: samples in batches, commands and their outcomes, three errors.

Everything else in the product passes these values; this module imports no other room.

Time is always nanoseconds since 1970-01-01T00:00:00Z as ``int``. Quality is the OPC quality byte
(OPC Data Access 3.0, 6.8): 192 and above is good, 64 to 191 uncertain, below 64 bad.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Final, Literal, Self, cast

import msgspec

Value = bool | int | float | str | bytes | None
"""One reading. Integers cover int64 and uint64; wider structures travel as JSON text."""

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1


class Quality(IntEnum):
    """The OPC qualities that Shopfloor itself assigns; sources may pass on any other OPC quality."""

    BAD = 0
    CONFIGURATION_ERROR = 4
    NOT_CONNECTED = 8
    DEVICE_FAILURE = 12
    SENSOR_FAILURE = 16
    LAST_KNOWN = 20
    COMMUNICATION_FAILURE = 24
    OUT_OF_SERVICE = 28
    WAITING_FOR_INITIAL_DATA = 32
    UNCERTAIN = 64
    LAST_USABLE = 68
    SENSOR_NOT_ACCURATE = 80
    ENGINEERING_UNITS_EXCEEDED = 84
    SUB_NORMAL = 88
    GOOD = 192
    LOCAL_OVERRIDE = 216


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One value of one tag at one instant."""

    tag: str
    time: int
    """When the value was true at its source, ns UTC."""
    value: Value
    quality: int = Quality.GOOD
    status: int = 0
    """The protocol's own status code as received (OPC UA StatusCode); 0 where there is none."""
    server_time: int = 0
    """When the server in between saw it, ns UTC (OPC UA ServerTimestamp); 0 where there is none."""

    @property
    def good(self) -> bool:
        """Whether the OPC quality is good (192 and above)."""
        return self.quality >= Quality.GOOD


class Batch:
    """Samples of one source that become durable together.

    Iterate it for samples, or take its columns, which all have the batch's length:
    ``tags`` (str), ``times`` (array 'q'), ``values`` (array 'd' when every value is a float, array 'q'
    when every value is an int64, else a list), ``qualities`` (array 'H'), and, only where the protocol
    has them, ``statuses`` (array 'I') and ``server_times`` (array 'q'), else None. The arrays offer the
    buffer protocol, so pyarrow and NumPy read them without a copy. Columns must not be changed once the
    batch exists: readers of the journal share them.
    """

    __slots__ = (
        "checkpoint", "complete", "lost_before", "qualities", "received", "server_times", "source", "statuses", "tags",
        "times", "values",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # a column each
        self,
        source: str,
        received: int,
        tags: Sequence[str],
        times: Sequence[int],
        values: Sequence[Value],
        qualities: Sequence[int] | None = None,
        *,
        statuses: Sequence[int] | None = None,
        server_times: Sequence[int] | None = None,
        checkpoint: bytes | None = None,
        lost_before: int = 0,
        complete: bool = False,
    ) -> None:
        """Take columns of equal length.

        ``received`` is the time of reception, ns UTC. ``checkpoint`` is where the source would go on
        after a restart; it is stored in the transaction that makes the batch durable. ``lost_before``
        counts values that the other side says it dropped before this batch (queue overflow).
        ``complete`` says that nothing is missing although the source was away: the other side has kept what it
        had to say, and gives it from this batch on; such a batch may be empty.
        ``qualities`` left out means all good. Raises ValueError when columns differ in length.
        """
        self.source = source
        self.received = received
        self.tags = tags
        self.times = times if isinstance(times, array) else array("q", times)
        self.values = values
        if qualities is None:
            self.qualities = array("H", (Quality.GOOD,)) * len(tags)
        else:
            self.qualities = qualities if isinstance(qualities, array) else array("H", qualities)
        self.statuses = statuses if statuses is None or isinstance(statuses, array) else array("I", statuses)
        self.server_times = (
            server_times if server_times is None or isinstance(server_times, array) else array("q", server_times)
        )
        self.checkpoint = checkpoint
        self.lost_before = lost_before
        self.complete = complete
        size = len(tags)
        if not (
            size == len(self.times) == len(values) == len(self.qualities)
            and (self.statuses is None or len(self.statuses) == size)
            and (self.server_times is None or len(self.server_times) == size)
        ):
            msg = f"the columns of a batch of {source!r} differ in length"
            raise ValueError(msg)

    @classmethod
    def of(cls, source: str, received: int, samples: Iterable[Sample], *, checkpoint: bytes | None = None) -> "Batch":
        """A batch of these samples, in their order."""
        rows = list(samples)
        return cls(
            source,
            received,
            [s.tag for s in rows],
            array("q", [s.time for s in rows]),
            [s.value for s in rows],
            array("H", [s.quality for s in rows]),
            statuses=array("I", [s.status for s in rows]) if any(s.status for s in rows) else None,
            server_times=array("q", [s.server_time for s in rows]) if any(s.server_time for s in rows) else None,
            checkpoint=checkpoint,
        )

    def __len__(self) -> int:
        return len(self.tags)

    def __iter__(self) -> Iterator[Sample]:
        if self.statuses is None and self.server_times is None:
            return map(Sample, self.tags, self.times, self.values, self.qualities)
        zeros = (0,) * len(self)
        return map(
            Sample,
            self.tags,
            self.times,
            self.values,
            self.qualities,
            zeros if self.statuses is None else self.statuses,
            zeros if self.server_times is None else self.server_times,
        )

    def select(self, indices: Sequence[int]) -> "Batch":
        """The batch with only the samples at ``indices``, which ascend; itself when that is all of them."""
        if len(indices) == len(self):
            return self
        return Batch(
            self.source,
            self.received,
            [self.tags[i] for i in indices],
            array("q", [self.times[i] for i in indices]),
            _like(self.values, [self.values[i] for i in indices]),
            array("H", [self.qualities[i] for i in indices]),
            statuses=None if self.statuses is None else array("I", [self.statuses[i] for i in indices]),
            server_times=None if self.server_times is None else array("q", [self.server_times[i] for i in indices]),
            lost_before=self.lost_before,
        )

    def called(self, source: str) -> "Batch":
        """The same columns under the name of another source."""
        return Batch(
            source,
            self.received,
            self.tags,
            self.times,
            self.values,
            self.qualities,
            statuses=self.statuses,
            server_times=self.server_times,
        )

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} from {self.source}>"


def _like(column: Sequence[Value], values: list[Value]) -> Sequence[Value]:
    """The values in a column of the same layout."""
    if isinstance(column, array):
        return array(column.typecode, values)  # type: ignore[arg-type]  # they came out of such an array
    return values


def column(values: list[Value]) -> Sequence[Value]:
    """A batch's column of these values: an array where all are floats or all int64, else the list itself.

    Arrays save space and time all the way down.
    """
    kinds = set(map(type, values))
    if kinds == {float}:
        return cast("Sequence[Value]", array("d", cast("list[float]", values)))
    if kinds == {int}:
        with suppress(OverflowError):  # beyond int64
            return cast("Sequence[Value]", array("q", cast("list[int]", values)))
    return values


class Command(msgspec.Struct, frozen=True):
    """A value to be written to a tag: carried out at most once and never after ``expires``."""

    id: str
    tag: str
    value: Value
    issued_by: str
    expires: int
    """ns UTC; checked by the source at the last moment before the write."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a command."""

    command_id: str
    done: bool | None
    """True: written and read back. False: not written. None: unknown, a person resolves it."""
    detail: str = ""


class Request(msgspec.Struct, frozen=True):
    """A value that a message asks to write; the command path makes a Command of it, or refuses."""

    tag: str
    value: Value
    id: str = ""
    """What the sender calls it; empty: nothing."""
    sent: int | None = None
    """When it was sent, ns UTC by the sender's clock; None: it does not say."""
    sequence: int | None = None
    """Of a renewal of a press; grows."""
    who: str = ""
    """The user that the other side knows the sender by; empty: nobody in particular."""
    left: bool = False
    """Of a false that nobody sent: the sender is gone, and what it pressed ends with it."""


class Answer(msgspec.Struct, frozen=True):
    """What became of a Request; a press gets one for its beginning and one for its end."""

    id: str
    tag: str
    event: Literal["set", "press", "release", "refused"]
    value: Value
    done: bool | None
    """As in Outcome; False for what was refused."""
    detail: str = ""
    """For the engineer."""
    reason: str = ""
    """Why a press ended (``released``, ``lease ended``, ``connection lost``, ``session ended``); or what was wrong."""
    refusal: str = ""
    """The kind of refusal (``role``, ``range`` …, see ``commands.refusal``) where there was one; not for persons."""


class TagInfo(msgspec.Struct, frozen=True):
    """What is known of a tag without reading it: declared in the plant file, or found by browsing."""

    tag: str
    address: str = ""
    """Where the source finds it, as the plant file writes it (``ns=2;s=Channel1.Device1.PV``)."""
    data_type: str = ""
    unit: str = ""
    description: str = ""
    writable: bool | None = None
    """None: not known."""


class Unavailable(Exception):
    """The other side cannot be reached or is not ready: leave, wait, come back."""

    def __init__(self, *said: object, after: float = 0.0) -> None:
        """``after``: seconds before which the other side wants no further attempt (HTTP's Retry-After)."""
        super().__init__(*said)
        self.after = after


class Misconfigured(Exception):
    """It will fail until a person changes something; the text says what."""


class Rejected(Exception):
    """These samples will never be accepted; go on with the rest."""

    def __init__(
        self, reason: str, indices: Sequence[int] | None = None, *, reasons: Mapping[int, str] | None = None
    ) -> None:
        """``indices`` are positions in the batch that was offered; None means all of it.

        ``reasons`` has the reason of each position where these differ. What of a reason is no Unicode is replaced: it
        may be half of a character that a server has cut, and is kept.
        """
        reason = _unicode(reason)
        super().__init__(reason)
        self.reason = reason
        self.indices = indices
        self.reasons = {i: _unicode(one) for i, one in (reasons or {}).items()}
        """By position in the batch, those that are not ``reason``."""

    @classmethod
    def each(cls, reasons: Mapping[int, str]) -> Self:
        """Those at these positions, at least one, each for its own reason."""
        first = next(iter(reasons.values()))
        return cls(first, sorted(reasons), reasons={i: why for i, why in reasons.items() if why != first})

    def why(self, size: int) -> Mapping[str, Sequence[int]]:
        """The reasons, each with its positions in ascending order; ``size``: of the batch that was offered."""
        found: dict[str, list[int]] = {}
        for i in sorted(set(self.indices or range(size))):
            found.setdefault(self.reasons.get(i, self.reason), []).append(i)
        return found


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
