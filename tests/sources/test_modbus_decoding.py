"""A block's registers become values at once, exactly as each tag's own layout decodes them."""

from typing import get_args

from hypothesis import given, strategies as st

from shopfloor.protocols.modbus_address import Layout, Order, TypeName
from shopfloor.protocols.modbus_plan import Block, Extent
from shopfloor.samples import Quality, Value
from shopfloor.sources.modbus_decoding import Decoder

_REGISTERS = 30
_NUMBERS = [name for name in get_args(TypeName) if name not in {"bool", "string"}]
_ORDER = st.sampled_from(get_args(Order))
LAYOUT = st.one_of(
    st.tuples(st.sampled_from(_NUMBERS), _ORDER).map(lambda given: Layout(*given)),
    st.tuples(_ORDER, st.integers(1, 9)).map(lambda given: Layout("string", *given)),
    st.integers(0, 15).map(lambda bit: Layout("bool", bits=(bit, bit))),
    st.sampled_from([(0, 3), (3, 9), (4, 7), (12, 15), (15, 15)]).map(lambda bits: Layout("uint16", bits=bits)),
)
WORDS = st.lists(st.integers(0, 0xFFFF), min_size=_REGISTERS, max_size=_REGISTERS)


def _block(tags: list[tuple[Layout, int]], start: int) -> tuple[Block, dict[int, Layout]]:
    layouts = {100 + n: layout for n, (layout, _) in enumerate(tags)}
    extents = [
        Extent(100 + n, 1, "holding", start + min(at, _REGISTERS - layout.size), layout.size)
        for n, (layout, at) in enumerate(tags)
    ]
    return Block(1, "holding", start, _REGISTERS, extents), layouts


@given(
    st.lists(st.tuples(LAYOUT, st.integers(0, _REGISTERS)), min_size=1, max_size=12), st.integers(0, 100), WORDS, WORDS
)
def test_each_tag_gets_what_its_layout_says(
    tags: list[tuple[Layout, int]], start: int, first: list[int], second: list[int]
) -> None:
    """Also where tags overlap, and for every order of bytes."""
    block, layouts = _block(tags, start)
    decoder = Decoder(block, layouts)
    for words in (first, second, first):
        column = decoder.column(words)
        found = dict(zip(column.places, column.values, strict=True))
        expected: dict[int, Value] = {
            e.tag: layouts[e.tag].decode(words[e.start - start : e.end - start]) for e in block.extents
        }
        assert repr(sorted(found.items())) == repr(sorted(expected.items()))  # NaN is unlike itself


def test_an_unchanged_block_gives_the_very_same_column() -> None:
    block, layouts = _block([(Layout("float32"), 0)], 0)
    decoder = Decoder(block, layouts)
    column = decoder.column([0] * _REGISTERS)
    assert decoder.column([0] * _REGISTERS) is column
    assert decoder.bad(Quality.BAD, 11) == ([100], [None], Quality.BAD, 11)
    assert decoder.column([0, 1] + [0] * (_REGISTERS - 2)) is not column


def test_coils_are_true_or_false() -> None:
    block = Block(1, "coil", 5, 3, [Extent(n, 1, "coil", 5 + n, 1) for n in range(3)])
    assert Decoder(block, dict.fromkeys(range(3), Layout("bool"))).column([True, False, 1]).values == [
        True,
        False,
        True,
    ]
