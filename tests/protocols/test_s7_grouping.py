"""Reads of an S7 in few telegrams: none too long, no tag torn apart without need, every byte where it belongs."""

from hypothesis import given, strategies as st

from shopfloor.protocols.s7_address import Address, parse
from shopfloor.protocols.s7_grouping import ITEMS_MAX, plan

ADDRESSES = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["DB1,", "DB2,", "M,", "I,", "PI,"]),
    st.sampled_from(["REAL", "INT", "B", "LREAL", "STRING", "WSTRING"]),
    st.integers(0, 600),
    st.just(""),
) | st.builds("{}{}".format, st.sampled_from("TC"), st.integers(0, 300))


@given(st.lists(ADDRESSES, min_size=1, max_size=80), st.sampled_from([240, 480, 960]), st.booleans())
def test_every_byte_of_every_tag_is_read_in_telegrams_that_fit(texts: list[str], pdu: int, alone: bool) -> None:  # noqa: FBT001
    addresses = dict(enumerate(map(parse, texts)))
    made = plan(addresses, pdu, alone=addresses if alone else ())
    for place, address in addresses.items():
        at = 0
        for piece in made.pieces[place]:
            block = made.blocks[piece.block]
            unit = 2 if texts[place][0] in "TC" else 1
            assert (block.area, block.db) == (address.area, address.db)
            assert block.start * unit + piece.begin == address.start * unit + at
            assert piece.end <= block.length
            assert place in made.members[piece.block]
            at += piece.end - piece.begin
        assert at == address.size
        assert len(made.pieces[place]) == 1 or address.size > pdu - 18
    assert sorted(n for request in made.requests for n in request) == list(range(len(made.blocks)))
    for request in made.requests:
        lengths = [made.blocks[n].length for n in request]
        assert len(request) <= ITEMS_MAX
        assert 12 + 12 * len(request) <= pdu
        assert 14 + sum(4 + length + length % 2 for length in lengths) <= pdu


def _read(*texts: str, pdu: int = 240) -> tuple[int, int]:
    made = plan(dict(enumerate(map(parse, texts))), pdu)
    return len(made.blocks), len(made.requests)


def test_neighbours_are_one_block() -> None:
    assert _read("DB1,REAL0", "DB1,REAL4", "DB1,X8.0", "DB1,X8.7", "DB1,INT20") == (1, 1)


def test_what_is_far_apart_goes_into_one_request() -> None:
    assert _read("DB1,REAL0", "DB1,REAL100", "DB2,REAL0", "M0.0", "IW64", "T1", "C1") == (7, 1)


def test_a_full_block_is_as_long_as_the_telegram_allows() -> None:
    assert _read(*(f"DB1,REAL{4 * n}" for n in range(55))) == (1, 1)  # 220 bytes of 222
    assert _read(*(f"DB1,REAL{4 * n}" for n in range(110))) == (2, 2)


def test_text_longer_than_a_telegram_is_read_in_pieces() -> None:
    address: Address = parse("DB1,STRING0")
    made = plan({0: address}, 240)
    assert [(p.begin, p.end) for p in made.pieces[0]] == [(0, 222), (0, 34)]


def test_modules_that_may_be_missing_are_not_read_for_their_neighbours() -> None:
    assert _read("PIW256", "PIW260") == (2, 1)
    assert _read("PIW256", "PIW258") == (1, 1)
