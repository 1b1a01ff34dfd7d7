"""Rows of MySQL's text protocol, taken from its packets: "Protocol::ResultsetRow" in the protocol's documentation.

A packet is three bytes of length (little-endian), one that counts, and the content; content of 2^24 - 1 bytes goes on
in the next packet. A row's field is its length and its bytes, or 0xFB for NULL.
"""

from collections.abc import Callable, Iterator
from typing import Final

from pymysql.err import raise_mysql_exception

Pairs = tuple[list[bytes], list[bytes | None]]

_HEAD: Final = 4
_FULL: Final = 2**24 - 1
_NULL: Final = 0xFB
_MORE: Final = {0xFC: 2, 0xFD: 3, 0xFE: 8}
"""How many bytes of a length stand behind its first, where that does not suffice."""
_ERROR: Final = 0xFF


def pairs(more: Callable[[], bytes], size: int) -> Iterator[Pairs]:
    """The rows of a result of two columns up to its end, about ``size`` at a time; ``more`` gives what comes.

    The first column is shorter than 251 bytes and never NULL, so what begins with a larger byte is the end or an error.
    """
    first: list[bytes] = []
    second: list[bytes | None] = []
    held: list[bytes] = []
    content, at, end = b"", 0, 0
    while True:
        begin = at + _HEAD
        length = content[at] | content[at + 1] << 8 | content[at + 2] << 16 if begin <= end else _FULL
        if begin + length > end:
            content, at = content[at:] + more(), 0
            end = len(content)
            continue
        at = begin + length
        row = content[begin:at]
        if held or length == _FULL:
            held.append(row)
            if length == _FULL:
                continue
            row = b"".join(held)
            held.clear()
        width = row[0] + 1
        if width > _NULL:
            break
        first.append(row[1:width])
        kind = row[width]
        second.append(None if kind == _NULL else row[width + 1 + _MORE.get(kind, 0) :])
        if len(first) >= size:
            yield first, second
            first, second = [], []
    if row[0] == _ERROR:
        raise_mysql_exception(row)
    if first:
        yield first, second
