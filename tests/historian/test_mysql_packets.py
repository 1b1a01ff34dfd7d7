"""Rows are taken from MySQL's packets however these come in pieces."""

import random
import struct
from collections.abc import Iterator

import pymysql
import pytest
from hypothesis import given, strategies as st

from shopfloor.sinks.mysql_packets import pairs

FULL = 2**24 - 1
END = b"\xfe\x00\x00\x02\x00"
ROWS = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=250),
        st.one_of(st.none(), st.sampled_from([0, 1, 250, 251, 65_535, 65_536, 70_000]).map(lambda size: b"x" * size)),
    ),
    max_size=30,
)


def field(content: bytes | None) -> bytes:
    if content is None:
        return b"\xfb"
    if len(content) < 251:
        return bytes([len(content)]) + content
    if len(content) < 2**16:
        return b"\xfc" + struct.pack("<H", len(content)) + content
    if len(content) < 2**24:
        return b"\xfd" + len(content).to_bytes(3, "little") + content
    return b"\xfe" + struct.pack("<Q", len(content)) + content


def packets(contents: list[bytes]) -> bytes:
    parts: list[bytes] = []
    for content in contents:
        for start in range(0, len(content) + 1, FULL):  # one that is full is followed by another, be it empty
            part = content[start : start + FULL]
            parts += [len(part).to_bytes(3, "little"), bytes([len(parts) // 3 % 256]), part]
    return b"".join(parts)


def pieces(content: bytes, longest: int, seed: int) -> Iterator[bytes]:
    chosen, at = random.Random(seed), 0
    while at < len(content):
        size = chosen.randint(1, longest)
        yield content[at : at + size]
        at += size


@given(ROWS, st.integers(1, 5000), st.integers(0, 9), st.integers(1, 7))
def test_rows_are_those_that_were_sent(
    rows: list[tuple[bytes, bytes | None]], longest: int, seed: int, size: int
) -> None:
    content = packets([*(field(first) + field(second) for first, second in rows), END])
    found = list(pairs(pieces(content, longest, seed).__next__, size))
    assert [row for some in found for row in zip(*some, strict=True)] == rows
    assert all(len(first) <= size for first, _ in found)


@pytest.mark.parametrize("size", [FULL - 11, FULL - 10, FULL - 9, FULL + 70_000])
def test_a_row_of_more_than_a_packet_is_put_together(size: int) -> None:
    """The length of the first field and its byte, and up to nine bytes of the second's length, stand before."""
    large = b"y" * size
    content = packets([field(b"a") + field(large), field(b"b") + field(None), END])
    ((first, second),) = pairs(pieces(content, 2**22, 1).__next__, 10)
    assert (first, second) == ([b"a", b"b"], [large, None])


def test_an_error_behind_some_rows_is_raised() -> None:
    error = b"\xff" + struct.pack("<H", 1317) + b"#70100Query execution was interrupted"
    content = packets([field(b"a") + field(None), error])
    with pytest.raises(pymysql.err.MySQLError, match="interrupted"):
        list(pairs(iter([content]).__next__, 10))
