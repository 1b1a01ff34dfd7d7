"""Modbus addresses as engineers write them, values in registers, and which requests read them."""

import math
import struct

import pytest
from hypothesis import given, strategies as st

from shopfloor.protocols.modbus_address import Kind, Layout, Order, TypeName, Unfit, parse
from shopfloor.protocols.modbus_plan import Extent, parts, plan
from shopfloor.samples import Value
from shopfloor.testing.contracts import same


@pytest.mark.parametrize(
    ("text", "kind", "start", "bits"),
    [
        ("40001", "holding", 0, None),
        ("49999", "holding", 9998, None),
        ("400001", "holding", 0, None),
        ("465536", "holding", 65535, None),
        ("30008", "input", 7, None),
        ("10001", "discrete", 0, None),
        ("00001", "coil", 0, None),
        ("holding 0", "holding", 0, None),
        ("holding:65535", "holding", 65535, None),
        ("input 0x1F", "input", 31, None),
        ("coil 7", "coil", 7, None),
        ("40001.3", "holding", 0, (3, 3)),
        ("40001.4-7", "holding", 0, (4, 7)),
        ("holding 5.15", "holding", 5, (15, 15)),
    ],
)
def test_addresses(text: str, kind: Kind, start: int, bits: tuple[int, int] | None) -> None:
    assert tuple(parse(text)) == (kind, start, bits)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1", 'write it like "40001"'),
        ("20001", "is no Modbus address"),
        ("40000", "from 1 to 65536"),
        ("465537", "from 1 to 65536"),
        ("holding 65536", "from 0 to 65535"),
        ("40001.16", "bits 0 (least significant) to 15"),
        ("40001.7-4", "the lower one first"),
        ("00001.3", "is one bit already"),
        ("DB1,REAL0", "is no Modbus address"),
        ("40001 ", "is no Modbus address"),
    ],
)
def test_wrong_addresses_say_what_is_right(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"Modbus|bit") as error:
        parse(text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("order", "words"),
    [("ABCD", [0x4148, 0xF5C3]), ("CDAB", [0xF5C3, 0x4148]), ("BADC", [0x4841, 0xC3F5]), ("DCBA", [0xC3F5, 0x4841])],
)
def test_the_four_orders_of_bytes(order: Order, words: list[int]) -> None:
    """12.56 is 41 48 F5 C3, as every calculator on the web says."""
    layout = Layout("float32", order)
    assert layout.encode(12.56) == words
    assert layout.decode(words) == pytest.approx(12.56, abs=1e-6)
    assert Layout("uint64", "CDAB").encode(0x0001000200030004) == [4, 3, 2, 1]
    assert Layout("string", order, 4).encode("abcd") == ([0x6162, 0x6364] if order[0] in "AC" else [0x6261, 0x6463])


RANGES = {
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


@given(st.data(), st.sampled_from(sorted(RANGES)), st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]))
def test_whole_numbers_keep_every_digit(data: st.DataObject, kind: TypeName, order: Order) -> None:
    layout, (low, high) = Layout(kind, order), RANGES[kind]
    value = data.draw(st.integers(low, high))
    words = layout.encode(value)
    assert len(words) == layout.size
    assert layout.decode(words) == value
    for beyond in (low - 1, high + 1):
        with pytest.raises(Unfit, match=f"{low} to {high}"):
            layout.encode(beyond)


@given(st.floats(width=32) | st.just(math.nan), st.floats())
def test_floats_come_back_as_they_were(single: float, double: float) -> None:
    assert same(Layout("float32").decode(Layout("float32").encode(single)), single)
    assert same(Layout("float64", "DCBA").decode(Layout("float64", "DCBA").encode(double)), double)


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10))
def test_text_comes_back_without_the_blanks_behind(text: str) -> None:
    layout = Layout("string", "BADC", 41)
    assert layout.decode(layout.encode(text)) == text.rstrip(" ")


def test_text_that_is_no_utf8_is_latin1_and_odd_lengths_end_where_they_should() -> None:
    words = list(struct.unpack(">2H", "Öl!?".encode("latin-1")))
    assert Layout("string", length=3).decode(words) == "Öl!"


def test_bits_of_a_register() -> None:
    word = [0b1010_0000_0000_1001]
    assert Layout("bool", bits=(3, 3)).decode(word) is True
    assert Layout("bool", bits=(2, 2)).decode(word) is False
    assert Layout("uint16", bits=(12, 15)).decode(word) == 0b1010
    assert Layout("uint16", bits=(4, 7)).encode(5) == [0x50]
    assert Layout("bool", bits=(15, 15)).encode(value=True) == [0x8000]


@pytest.mark.parametrize(
    ("layout", "value", "said"),
    [
        (Layout("uint16"), 1.5, "whole numbers"),
        (Layout("uint16"), True, "whole numbers"),
        (Layout("uint16", bits=(4, 7)), 16, "0 to 15"),
        (Layout("bool"), 1, "true and false"),
        (Layout("float32"), 1e300, "beyond float32"),
        (Layout("float32"), "1", "takes numbers"),
        (Layout("string", length=4), "abcde", "at most 4 bytes"),
        (Layout("string", length=4), "a\0b", "without NUL"),
        (Layout("string", length=4), 5, "takes text"),
    ],
)
def test_what_does_not_fit_is_not_made_to_fit(layout: Layout, value: Value, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        layout.encode(value)


def extents(*where: tuple[str, int, int]) -> list[Extent]:
    return [Extent(i, 1, kind, start, size) for i, (kind, start, size) in enumerate(where)]  # type: ignore[arg-type]  # the four kinds


def test_neighbours_are_read_together_within_the_gap() -> None:
    found = plan(extents(("holding", 0, 2), ("holding", 5, 1), ("holding", 20, 4), ("input", 6, 1)), gap=3)
    assert [(b.kind, b.start, b.size) for b in found] == [("holding", 0, 6), ("holding", 20, 4), ("input", 6, 1)]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2),
            st.sampled_from(["holding", "input", "coil", "discrete"]),
            st.integers(0, 3000),
            st.integers(1, 4),
        ),
        max_size=60,
    ),
    st.integers(0, 125),
    st.integers(4, 125),
)
def test_a_plan_reads_every_tag_once_and_keeps_to_the_limits(
    wanted: list[tuple[int, Kind, int, int]], gap: int, registers: int
) -> None:
    tags = [Extent(i, *one) for i, one in enumerate(wanted)]
    blocks = plan(tags, gap, registers)
    assert sorted(e.tag for b in blocks for e in b.extents) == list(range(len(tags)))
    for block in blocks:
        assert block.size <= (registers if block.kind in {"holding", "input"} else min(2000, 16 * registers))
        assert all((e.device, e.kind) == (block.device, block.kind) for e in block.extents)
        assert all(block.start <= e.start and e.end <= block.start + block.size for e in block.extents)


def test_a_refused_request_is_taken_apart_until_one_tag_is_left() -> None:
    (block,) = plan(extents(*(("holding", 2 * n, 1) for n in range(8)), ("holding", 15, 1)), gap=5)
    waiting, alone = [block], []
    while waiting:
        one = waiting.pop()
        smaller = parts(one)
        assert sorted(e for part in smaller for e in part.extents) == (sorted(one.extents) if smaller else [])
        waiting += smaller
        alone += [] if smaller else [one]
    assert sorted(e.tag for b in alone for e in b.extents) == list(range(9))
    assert parts(block)[-1].extents[-1].tag == 8
