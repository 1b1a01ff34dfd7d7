"""Values as TDS (MS-TDS 2.2.5) writes them in results, and reads them in calls, as far as the tests need it."""

import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

COLLATION: Final = b"\x09\x04\xd0\x00\x34"
_NO_LIMIT: Final = 0xFFFF
_NULL: Final = b"\xff" * 8
_DAY_ONE: Final = datetime(1, 1, 1)  # noqa: DTZ001  # datetime2 has no zone

Value = int | float | str | bytes | datetime | None


def short(text: str) -> bytes:
    """Text with its length before it, in one byte."""
    return bytes([len(text)]) + text.encode("utf-16-le")


class _Type(NamedTuple):
    declared: bytes
    null: bytes
    written: Callable[..., bytes]


def _whole(size: int) -> _Type:
    return _Type(
        bytes([0x26, size]), b"\x00", lambda value: bytes([size]) + int(value).to_bytes(size, "little", signed=True)
    )


def _in_pieces(content: bytes) -> bytes:
    """A value of a type without a limit."""
    piece = struct.pack("<I", len(content)) + content if content else b""
    return struct.pack("<Q", len(content)) + piece + struct.pack("<I", 0)


def _limited_text(value: str) -> bytes:
    content = value.encode("utf-16-le")
    return struct.pack("<H", len(content)) + content


def _moment(value: datetime) -> bytes:
    since = value - _DAY_ONE
    micros = since.seconds * 10**6 + since.microseconds
    return b"\x08" + micros.to_bytes(5, "little") + since.days.to_bytes(3, "little")


TYPES: Final[dict[str, _Type]] = {
    "bit": _Type(b"\x68\x01", b"\x00", lambda value: bytes([1, bool(value)])),
    "smallint": _whole(2),
    "int": _whole(4),
    "bigint": _whole(8),
    "float": _Type(b"\x6d\x08", b"\x00", lambda value: b"\x08" + struct.pack("<d", value)),
    "decimal(20,0)": _Type(
        b"\x6a\x0d\x14\x00", b"\x00", lambda value: bytes([13, value >= 0]) + abs(value).to_bytes(12, "little")
    ),
    "datetime2(6)": _Type(b"\x2a\x06", b"\x00", _moment),
    "nvarchar(128)": _Type(b"\xe7" + struct.pack("<H", 256) + COLLATION, b"\xff\xff", _limited_text),
    "nvarchar(4000)": _Type(b"\xe7" + struct.pack("<H", 8000) + COLLATION, b"\xff\xff", _limited_text),
    "varbinary(8000)": _Type(
        b"\xa5" + struct.pack("<H", 8000), b"\xff\xff", lambda value: struct.pack("<H", len(value)) + value
    ),
    "nvarchar(max)": _Type(
        b"\xe7" + struct.pack("<H", _NO_LIMIT) + COLLATION, _NULL,
        lambda value: _in_pieces(value.encode("utf-16-le", "surrogatepass")),
    ),
    "varbinary(max)": _Type(b"\xa5" + struct.pack("<H", _NO_LIMIT), _NULL, _in_pieces),
}  # fmt: skip


class Table(NamedTuple):
    """Rows of columns with these types."""

    columns: Sequence[tuple[str, str]]
    """Name and type, one of TYPES."""
    rows: Sequence[Sequence[Value]]

    def written(self) -> bytes:
        """COLMETADATA and the ROWs."""
        found = b"\x81" + struct.pack("<H", len(self.columns))
        for name, kind in self.columns:
            found += struct.pack("<IH", 0, 0x09) + TYPES[kind].declared + short(name)
        for row in self.rows:
            found += b"\xd1"
            for value, (_, kind) in zip(row, self.columns, strict=True):
                found += TYPES[kind].null if value is None else TYPES[kind].written(value)
        return found


def parameters(body: bytes) -> Iterator[Value]:
    """The parameters of a call, behind its number; ends at a type that is none of int, varchar, nvarchar."""
    at = 6
    while at < len(body):
        at += 2 + 2 * body[at]  # its name, and whether it is an output
        kind = body[at]
        if kind == 0x26:
            length = body[at + 2]
            yield int.from_bytes(body[at + 3 : at + 3 + length], "little", signed=length > 1) if length else None
            at += 3 + length
        elif kind in (0xA7, 0xE7):
            (limit,) = struct.unpack_from("<H", body, at + 1)
            content, at = _pieces(body, at + 8) if limit == _NO_LIMIT else _limited(body, at + 8)
            yield None if content is None else content.decode("utf-16-le" if kind == 0xE7 else "cp1252")
        else:
            return


def _limited(body: bytes, at: int) -> tuple[bytes | None, int]:
    (length,) = struct.unpack_from("<H", body, at)
    if length == _NO_LIMIT:
        return None, at + 2
    return body[at + 2 : at + 2 + length], at + 2 + length


def _pieces(body: bytes, at: int) -> tuple[bytes | None, int]:
    content, null = b"", body[at : at + 8] == _NULL
    at += 8
    while not null:
        (length,) = struct.unpack_from("<I", body, at)
        content += body[at + 4 : at + 4 + length]
        at += 4 + length
        if not length:
            return content, at
    return None, at
