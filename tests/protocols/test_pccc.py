"""Addresses of data files, the commands that read them, and what processors answer."""

import pytest
from hypothesis import given, strategies as st

from shopfloor.protocols import pccc_commands
from shopfloor.protocols.eip_session import Unfit
from shopfloor.protocols.pccc_address import AREAS, Address, Family, parse
from shopfloor.protocols.pccc_commands import MOST, Refusal
from shopfloor.protocols.pccc_grouping import plan
from shopfloor.protocols.pccc_values import decode, encode


@pytest.mark.parametrize(
    ("text", "file", "element", "word", "bit", "elements", "kind"),
    [
        ("N7:0", 7, 0, 0, -1, 0, "INT"),
        ("n7:255/15", 7, 255, 0, 15, 0, "BOOL"),
        ("N7:5{10}", 7, 5, 0, -1, 10, "INT[10]"),
        ("B3/21", 3, 1, 0, 5, 0, "BOOL"),
        ("B3:1/5", 3, 1, 0, 5, 0, "BOOL"),
        ("F8:1", 8, 1, 0, -1, 0, "REAL"),
        ("T4:0.ACC", 4, 0, 2, -1, 0, "INT"),
        ("T4:0.PRE", 4, 0, 1, -1, 0, "INT"),
        ("T4:0/DN", 4, 0, 0, 13, 0, "BOOL"),
        ("T4:0.DN", 4, 0, 0, 13, 0, "BOOL"),
        ("T4:3.ACC/2", 4, 3, 2, 2, 0, "BOOL"),
        ("T4:0.ACC{5}", 4, 0, 2, -1, 5, "INT[5]"),
        ("C5:0.ACC", 5, 0, 2, -1, 0, "INT"),
        ("C5:0/CU", 5, 0, 0, 15, 0, "BOOL"),
        ("R6:0.LEN", 6, 0, 1, -1, 0, "INT"),
        ("R6:0/FD", 6, 0, 0, 8, 0, "BOOL"),
        ("S:1/5", 2, 1, 0, 5, 0, "BOOL"),
        ("S2:42", 2, 42, 0, -1, 0, "INT"),
        ("I:1.0/2", 1, 1, 0, 2, 0, "BOOL"),
        ("I:1/18", 1, 1, 1, 2, 0, "BOOL"),
        ("O:2.0", 0, 2, 0, -1, 0, "INT"),
        ("I:3.1{4}", 1, 3, 1, -1, 4, "INT[4]"),
        ("ST9:0", 9, 0, 0, -1, 0, "STRING"),
        ("A10:0{10}", 10, 0, 0, -1, 10, "STRING"),
    ],
)
def test_addresses_as_engineers_write_them(
    text: str, file: int, element: int, word: int, bit: int, elements: int, kind: str
) -> None:
    at = parse(text)
    assert (at.file, at.element, at.word, at.bit, at.elements, at.type) == (file, element, word, bit, elements, kind)


def test_a_plc5_counts_its_inputs_in_octal() -> None:
    assert parse("I:017/10", "plc5")[1:5] == (1, 0o17, 0, 0o10)
    assert parse("O:010", "plc5")[1:5] == (0, 8, 0, -1)
    assert parse("N7:10/9", "plc5")[1:5] == (7, 10, 0, 9)


def test_long_words_are_of_micrologix() -> None:
    assert parse("L10:0", "micrologix").type == "DINT"
    assert parse("L10:0/31", "micrologix").bit == 31


@pytest.mark.parametrize(
    ("text", "family", "said"),
    [
        ("", "slc500", "is no address of a data file; write it like N7:0"),
        ("N7", "slc500", "is no address"),
        ("Count", "slc500", "is no address"),
        ("N:0", "slc500", "which file"),
        ("N7:0/16", "slc500", "there are bits 0 to 15"),
        ("F8:0/3", "slc500", "REAL has no bits"),
        ("ST9:0/1", "slc500", "STRING has no bits"),
        ("T4:0", "slc500", "say what of it, like T4:0.ACC (PRE, ACC, EN, TT, DN)"),
        ("T4:0.LEN", "slc500", "there is no such member; it has PRE, ACC"),
        ("C5:0/TT", "slc500", "there is no such member"),
        ("T4:0.3", "slc500", "there is no such member"),
        ("N7:0.ACC", "slc500", "only T, C and R have"),
        ("N7/5", "slc500", "only bits of B files are counted through; write the word, like N7:0/5"),
        ("I3:0", "slc500", "I is file 1"),
        ("N7:0{0}", "slc500", "a range has 1 to"),
        ("N7:0/3{2}", "slc500", "bits have no ranges"),
        ("MG9:0.ERR", "slc500", "message control blocks (MG) cannot be read"),
        ("PD10:0.SP", "plc5", "PID control blocks (PD) cannot be read"),
        ("L10:0", "slc500", "is `family: micrologix` meant?"),
        ("L10:0", "plc5", "only MicroLogix"),
        ("A10:0", "plc5", "use a string file"),
        ("I:018", "plc5", "octal, without 8 and 9"),
        ("I:001/8", "plc5", "octal, without 8 and 9"),
        ("I:1.1", "plc5", "write rack and group, like I:017"),
    ],
)
def test_what_is_no_address_is_said(text: str, family: Family, said: str) -> None:
    with pytest.raises(Unfit) as error:
        parse(text, family)
    assert said in str(error.value)


@given(st.text(max_size=12), st.sampled_from(["slc500", "micrologix", "plc5"]))
def test_nothing_but_unfit_comes_of_any_text(text: str, family: Family) -> None:
    try:
        at = parse(text, family)
    except Unfit:
        return
    assert 0 <= at.length <= 84 * 1000


def test_commands_byte_by_byte() -> None:
    """The layout that libplctag and nodepccc use, too."""
    assert pccc_commands.read(parse("N7:0"), 2, "slc500").hex() == "a2020789" + "0000"
    assert pccc_commands.read(parse("N7:300"), 20, "slc500").hex() == "a2140789" + "ff2c01" + "00"
    assert pccc_commands.write(parse("T4:2.PRE"), b"\x78\x00", "slc500").hex() == "aa020486" + "0201" + "7800"
    assert pccc_commands.write_bit(parse("B3:1/5"), True, "slc500").hex() == "ab020385" + "0100" + "20002000"
    assert pccc_commands.write_bit(parse("B3:1/5"), False, "slc500").hex() == "ab020385" + "0100" + "20000000"
    assert pccc_commands.read(parse("N7:0", "plc5"), 2, "plc5").hex() == "01" + "00000100" + "060700" + "02"
    assert (
        pccc_commands.write(parse("N7:1", "plc5"), b"\x05\x00", "plc5").hex() == "00" + "00000100" + "060701" + "0500"
    )
    assert (
        pccc_commands.write(parse("T4:2.PRE", "plc5"), b"\x05\x00", "plc5").hex() == "0000000100" + "0e040201" + "0500"
    )
    assert pccc_commands.write_bit(parse("B3:1/5", "plc5"), True, "plc5").hex() == "26" + "060301" + "ffff" + "2000"
    assert pccc_commands.write_bit(parse("B3:1/5", "plc5"), False, "plc5").hex() == "26" + "060301" + "dfff" + "0000"


def test_answers_are_told_from_refusals_and_from_answers_to_something_else() -> None:
    assert pccc_commands.answer(bytes.fromhex("4f0034120500"), 0x1234) == b"\x05\x00"
    assert pccc_commands.answer(bytes.fromhex("4f103412"), 0x1234) == Refusal(0x10)
    assert pccc_commands.answer(bytes.fromhex("4ff034120b"), 0x1234) == Refusal(0xF0, 0x0B)
    assert pccc_commands.answer(bytes.fromhex("4f0035120500"), 0x1234) is None
    assert pccc_commands.answer(b"\x4f", 0x1234) is None


@pytest.mark.parametrize(
    ("refusal", "said", "passing"),
    [
        (Refusal(0x10), "there is no such file, it is of another type, or it ends before", False),
        (Refusal(0x70), "PROGRAM mode (STS 70)", False),
        (Refusal(0xB0), "a program is being loaded", True),
        (Refusal(0xF0, 0x06), "there is no such file", False),
        (Refusal(0xF0, 0x0B), "protected", False),
        (Refusal(0xF0, 0x11), "another type (STS F0, EXT STS 11)", False),
        (Refusal(0xF0, 0x1A), "another programming device owns it", True),
        (Refusal(0xF0, 0xEE), "refused (STS F0, EXT STS EE)", False),
        (Refusal(0x02), "a station between here and the processor", False),
    ],
)
def test_refusals_say_what_to_look_at(refusal: Refusal, said: str, passing: bool) -> None:  # noqa: FBT001  # a column
    assert said in str(refusal)
    assert refusal.passing is passing


@pytest.mark.parametrize("family", ["slc500", "plc5"])
@pytest.mark.parametrize(
    ("address", "value", "told"),
    [
        ("N7:0", -32768, -32768),
        ("F8:0", 2.5, 2.5),
        ("ST9:0", "odd", "odd"),
        ("ST9:0", "x" * 82, "x" * 82),
        ("N7:0{3}", [1, -2, 3], "[1,-2,3]"),
        ("F8:0{2}", [0.5, -1.5], "[0.5,-1.5]"),
    ],
)
def test_values_come_back_as_they_went(family: Family, address: str, value: object, told: object) -> None:
    at = parse(address, family)
    assert decode(encode(value, at, family), at, family) == told


def test_text_has_its_first_character_in_the_high_byte_and_a_plc5_the_sign_first() -> None:
    assert encode("AB", parse("A10:0"), "slc500") == b"BA"
    assert encode("ABC", parse("ST9:0"), "slc500")[:6] == b"\x03\0BA\0C"
    assert encode(1.0, parse("F8:0"), "slc500").hex() == "0000803f"
    assert encode(1.0, parse("F8:0"), "plc5").hex() == "803f0000"
    with pytest.raises(Unfit, match="room for 4"):
        encode("ABCDE", parse("A10:0{2}"), "slc500")
    with pytest.raises(ValueError, match="32767 characters stand in a string that holds 82"):
        decode(b"\xff\x7f" + bytes(82), parse("ST9:0"), "slc500")


def test_neighbours_are_read_together_and_slots_by_themselves() -> None:
    texts = ["N7:0", "N7:100", "N7:117", "N7:118", "T4:0.ACC", "T4:1/DN", "I:1.0", "I:1.1/3", "I:1.3", "I:2.0", "B3/17"]
    made = plan({n: parse(text) for n, text in enumerate(texts)})
    seen = {(b.first.area.code, b.first.file, b.first.element, b.first.word, b.size) for b in made.blocks}
    assert seen == {
        (0x89, 7, 0, 0, 236), (0x89, 7, 118, 0, 2), (0x86, 4, 0, 0, 12), (0x83, 1, 1, 0, 4), (0x83, 1, 1, 3, 2),
        (0x83, 1, 2, 0, 2), (0x85, 3, 1, 0, 2),
    }  # fmt: skip


def test_what_is_longer_than_an_answer_is_read_in_whole_elements() -> None:
    made = plan({0: parse("F8:10{100}"), 1: parse("ST9:1{3}")})
    assert [(b.first.area.code, b.first.element, b.size) for b in made.blocks] == [
        (0x8A, 10, 236), (0x8A, 69, 164), (0x8D, 1, 168), (0x8D, 3, 84),
    ]  # fmt: skip


_words = st.builds(
    lambda file, element, many: Address(AREAS["N"], file, element, 0, -1, many),
    st.integers(7, 9), st.integers(0, 999), st.sampled_from([0, 0, 0, 2, 120, 400]),
)  # fmt: skip


@given(st.lists(_words, max_size=40), st.sets(st.integers(0, 39)))
def test_every_tag_finds_its_own_bytes_in_the_blocks(addresses: list[Address], alone: set[int]) -> None:
    made = plan(dict(enumerate(addresses)), alone=alone)
    assert all(0 < block.size <= MOST for block in made.blocks)
    for place, at in enumerate(addresses):
        covered = [
            (made.blocks[block].first.file, made.blocks[block].first.start + byte)
            for block, begin, end in made.pieces[place]
            for byte in range(begin, end)
            if end <= made.blocks[block].size
        ]
        assert covered == [(at.file, at.start + n) for n in range(at.length)]
    for block, members in enumerate(made.members):
        assert len(members) == 1 or not alone & set(members), (block, members)
