"""Payloads that are compressed as a whole."""

import gzip
import zlib
from collections.abc import Callable

import pytest

from shopfloor.protocols.sparkplug.limits import LARGEST_PAYLOAD
from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload
from shopfloor.protocols.sparkplug.packed import MARK, decode_packed
from shopfloor.protocols.sparkplug.payload import Malformed, encode

INSIDE = Payload(timestamp=5, seq=7, metrics=(Metric(name="PV", timestamp=5, type=DataType.DOUBLE, value=1.5),))


def packed(body: bytes | None) -> bytes:
    return encode(Payload(uuid=MARK, body=body, metrics=[Metric(name="algorithm", type=DataType.STRING, value="X")]))


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])
def test_what_is_inside_is_read(pack: Callable[[bytes], bytes]) -> None:
    assert decode_packed(packed(pack(encode(INSIDE)))) == INSIDE
    assert decode_packed(encode(INSIDE)) == INSIDE


def test_another_uuid_marks_nothing() -> None:
    other = Payload(uuid="mine", body=zlib.compress(b"x"), metrics=())
    assert decode_packed(encode(other)) == other


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (None, "without an end"),
        (b"", "without an end"),
        (b"no zlib", "cannot be unpacked"),
        (zlib.compress(encode(INSIDE))[:-1], "without an end"),
        (zlib.compress(b"\xff\xff"), "no Sparkplug payload"),
        (zlib.compress(bytes(LARGEST_PAYLOAD + 1)), "at most"),
        (zlib.compress(bytes(4 * LARGEST_PAYLOAD)), "of more than"),
    ],
)
def test_what_cannot_be_unpacked_is_malformed(body: bytes | None, why: str) -> None:
    """A few bytes that would become gigabytes are unpacked no further than a payload may be large."""
    with pytest.raises(Malformed, match=why):
        decode_packed(packed(body))


def test_the_largest_is_read() -> None:
    fill = LARGEST_PAYLOAD - len(encode(Payload(body=b"")))
    for size in range(fill - 8, fill):
        data = encode(Payload(body=bytes(size)))
        if len(data) == LARGEST_PAYLOAD:
            break
    assert len(data) == LARGEST_PAYLOAD
    assert decode_packed(packed(zlib.compress(data))).body == bytes(size)


def test_it_is_unpacked_once() -> None:
    """What is packed again inside is taken as it is: nobody does that, and it could go on for ever."""
    found = decode_packed(packed(zlib.compress(packed(zlib.compress(encode(INSIDE))))))
    assert found.uuid == MARK
