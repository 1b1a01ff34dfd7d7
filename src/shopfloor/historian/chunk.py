"""One chunk: consecutive rows of one tag, column by column, as few bytes as they can be.

Numbers are compressed by pcodec, which finds the decimal step of a sensor and the pace of a clock;
text and bytes by zstd. A column whose rows are all alike is one number. The bytes are a msgpack
array, one item a column, in the order of ``_Chunk``.
"""

from itertools import pairwise
from typing import Any, Final, cast

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pcodec import (  # pyright: ignore[reportMissingTypeStubs]  # it carries no types; those we use are below
    ChunkConfig,  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
    standalone,  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
)

from shopfloor.historian.rows import Int64, Objects, Rows, ValueKind

ROWS: Final = 65_536
"""The most rows of a chunk: decoding one costs about 2 ms."""
DATA: Final = 4 * 2**20
"""The most bytes of text in a chunk, unless one value alone is larger."""

_pcodec: Final[Any] = cast("Any", standalone)
_CONFIG: Final[Any] = cast("Any", ChunkConfig)(compression_level=8)
_RAW: Final = b"\0"
_PCO: Final = b"\1"
_DTYPES: Final[dict[int, type[Any]]] = {ValueKind.FLOAT: np.float64, ValueKind.UINT: np.uint64}

Column = int | bytes


class Damaged(Exception):
    """These bytes are not what was written."""


class _Chunk(msgspec.Struct, array_like=True, frozen=True):
    rows: int
    entry: Column
    time: Column
    kind: Column
    numbers: dict[int, Column]
    """By kind, the bits of the rows of that kind."""
    lengths: Column
    data: bytes
    """Text and bytes values one after the other, zstd; empty when there are none."""
    quality: Column
    status: Column
    server: Column
    """Server time minus source time, or 0 when no row has one."""


_ENCODE: Final = msgspec.msgpack.Encoder()
_DECODE: Final = msgspec.msgpack.Decoder(_Chunk)


def encode(rows: Rows) -> bytes:
    """The rows, at least one, as the bytes of a chunk."""
    kinds: list[int] = np.unique(rows.kind).tolist()
    numeric = {
        kind: _numbers(rows.bits if len(kinds) == 1 else rows.bits[rows.kind == kind], kind)
        for kind in kinds
        if ValueKind.NONE < kind < ValueKind.TEXT
    }
    items: list[bytes] = [] if rows.data is None else [item for item in rows.data.tolist() if item is not None]
    return _ENCODE.encode(
        _Chunk(
            len(rows),
            _packed(rows.entry),
            _packed(rows.time),
            _packed(rows.kind.astype(np.uint16)),
            numeric,
            _packed(np.array([len(item) for item in items], np.int64)) if items else 0,
            squeezed(b"".join(items)) if items else b"",
            _packed(rows.quality),
            _packed(rows.status),
            _packed(rows.server - rows.time) if rows.server.any() else 0,
        )
    )


def decode(content: bytes | memoryview) -> Rows:
    """The rows of a chunk. Raises Damaged."""
    try:
        return _decoded(_DECODE.decode(content))
    except Damaged:
        raise
    except Exception as error:
        # pcodec, zstd and msgpack each have their own errors for bytes that are not theirs
        raise Damaged(str(error)) from error


def _decoded(chunk: _Chunk) -> Rows:
    size = chunk.rows
    time = _unpacked(chunk.time, np.int64, size)
    kind = _unpacked(chunk.kind, np.uint16, size).astype(np.uint8)
    bits = np.zeros(size, np.int64)
    for code, column in chunk.numbers.items():
        if isinstance(chunk.kind, int):
            bits = _bits(column, code, size)
        else:
            mask = kind == code
            bits[mask] = _bits(column, code, int(mask.sum()))
    return Rows(
        entry=_unpacked(chunk.entry, np.int64, size),
        time=time,
        kind=kind,
        bits=bits,
        quality=_unpacked(chunk.quality, np.uint16, size),
        status=_unpacked(chunk.status, np.uint32, size),
        server=np.zeros(size, np.int64) if chunk.server == 0 else _unpacked(chunk.server, np.int64, size) + time,
        data=_data(chunk, kind),
    )


def _data(chunk: _Chunk, kind: NDArray[np.uint8]) -> Objects | None:
    mask = kind >= ValueKind.TEXT
    count = int(mask.sum())
    if not count:
        return None
    ends = np.cumsum(_unpacked(chunk.lengths, np.int64, count))
    content = unsqueezed(chunk.data)
    items = np.empty(count, np.object_)
    items[:] = [content[a:b] for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]
    result = np.full(len(kind), None, np.object_)
    result[mask] = items
    return result


def _numbers(bits: Int64, kind: int) -> Column:
    first = int(bits[0])
    if bool((bits == first).all()):
        return first
    return _packed(bits.view(_DTYPES.get(kind, np.int64)))


def _bits(column: Column, kind: int, size: int) -> Int64:
    if isinstance(column, int):
        return np.full(size, column, np.int64)
    return _unpacked(column, _DTYPES.get(kind, np.int64), size).view(np.int64)


def _packed(numbers: NDArray[Any]) -> Column:
    """A column as one number when all are alike, else compressed, else as it is where that is shorter."""
    if numbers.dtype.kind != "f":
        first = int(numbers[0])
        if bool((numbers == first).all()):
            return first
    packed = bytes(_pcodec.simple_compress(np.require(numbers, requirements=("C", "A")), _CONFIG))
    return _PCO + packed if len(packed) < numbers.nbytes else _RAW + numbers.tobytes()


def _unpacked(column: Column, dtype: type[Any], size: int) -> NDArray[Any]:
    if isinstance(column, int):
        return np.full(size, column, dtype)
    numbers: NDArray[Any] | None = (
        np.frombuffer(column[1:], dtype) if column[:1] == _RAW else _pcodec.simple_decompress(column[1:])
    )
    if numbers is None or len(numbers) != size or numbers.dtype != dtype:
        raise Damaged("a column has another length or type than its chunk says")
    return numbers


def squeezed(content: bytes) -> bytes:
    """The bytes by zstd, their length in front."""
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return len(content).to_bytes(8, "little") + packed


def unsqueezed(packed: bytes) -> bytes:
    """The bytes that ``squeezed`` was given."""
    if not packed:
        return b""
    content: bytes = pa.decompress(
        packed[8:], decompressed_size=int.from_bytes(packed[:8], "little"), codec="zstd", asbytes=True
    )
    return content


def packed(numbers: Int64) -> Column:
    """A column of int64 outside a chunk (a segment's list of journal entries)."""
    return _packed(numbers) if len(numbers) else 0


def unpacked(column: Column, size: int) -> Int64:
    """The column that ``packed`` gave. Raises Damaged."""
    return _unpacked(column, np.int64, size)


def pieces(rows: Rows) -> list[Rows]:
    """Rows in order, cut into pieces that each make a chunk of bounded size."""
    cuts = set(range(ROWS, len(rows), ROWS))
    if rows.data is not None:
        total = 0
        for i, item in enumerate(rows.data.tolist()):
            length = 0 if item is None else len(item)
            if i in cuts or (total and total + length > DATA):
                cuts.add(i)
                total = 0
            total += length
    edges = [0, *sorted(cuts), len(rows)]
    return [rows.take(slice(a, b)) for a, b in pairwise(edges) if b > a]
