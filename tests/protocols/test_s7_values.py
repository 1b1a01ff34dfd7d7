"""S7's data types, each against bytes as Siemens documents them, and addresses as engineers write them."""

import pytest

from shopfloor.protocols.s7_address import Area, parse
from shopfloor.protocols.s7_values import Unfit
from shopfloor.samples import Value

BYTES: list[tuple[str, str, Value]] = [
    ("DB1,B0", "ff", 255),
    ("DB1,SINT0", "ff", -1),
    ("DB1,USINT0", "80", 128),
    ("DB1,W0", "0102", 258),
    ("DB1,I0", "8000", -32768),
    ("DB1,UINT0", "ffff", 65535),
    ("DB1,D0", "ffffffff", 4294967295),
    ("DB1,DI0", "ffffffff", -1),
    ("DB1,UDINT0", "00000001", 1),
    ("DB1,LINT0", "8000000000000000", -(2**63)),
    ("DB1,ULINT0", "ffffffffffffffff", 2**64 - 1),
    ("DB1,LWORD0", "0000000000000001", 1),
    ("DB1,R0", "42280000", 42.0),
    ("DB1,LREAL0", "4045000000000000", 42.0),
    ("DB1,C0", "e4", "ä"),
    ("DB1,STRING0.5", "0503e4622a", "äb*"),
    ("DB1,WSTRING0.3", "0003000220ac0041", "€A"),
    ("DB1,DT0", "2611210430591237", "2026-11-21T04:30:59.123"),
    ("DB1,DT0", "9001010000000002", "1990-01-01T00:00:00"),
    ("DB1,DTL0", "07ea0b15070430010773d0c0", "2026-11-21T04:48:01.125030592"),
    ("DB1,DATE0", "34a1", "2026-11-21"),
    ("DB1,TIME0", "ffffffff", -1),
    ("DB1,TOD0", "05265bff", 86399999),
    ("DB1,S5TIME0", "2127", 127000),
    ("T1", "0127", 1270),
    ("C1", "0999", 999),
    ("DB1,INT0[3]", "00010002ffff", "[1, 2, -1]"),
    ("DB1,REAL0[2]", "3fc000007fc00000", "[1.5, null]"),
]


@pytest.mark.parametrize(("address", "data", "value"), BYTES)
def test_bytes_are_the_value_that_siemens_says(address: str, data: str, value: Value) -> None:
    kind = parse(address).kind
    given = bytes.fromhex(data)
    assert kind.size >= len(given) - 1
    found = kind.decode(given)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("address", "data", "value"), [b for b in BYTES if b[0] not in {"DB1,REAL0[2]", "DB1,STRING0.5"}]
)
def test_a_value_becomes_the_bytes_that_it_came_from(address: str, data: str, value: Value) -> None:
    assert parse(address).kind.encode(value).hex() == data


@pytest.mark.parametrize(
    ("address", "value", "says"),
    [
        ("DB1,INT0", 32768, "-32768 to 32767"),
        ("DB1,INT0", 1.5, "whole numbers"),
        ("DB1,INT0", True, "whole numbers"),
        ("DB1,UINT0", -1, "0 to 65535"),
        ("DB1,REAL0", 1e39, "beyond REAL"),
        ("DB1,REAL0", "1", "takes numbers"),
        ("DB1,X0.0", 1, "true and false"),
        ("DB1,STRING0.3", "abcd", "4 characters do not fit"),
        ("DB1,STRING0.3", "€", "WSTRING"),
        ("DB1,WSTRING0.1", "ab", "do not fit"),
        ("DB1,C0", "ab", "one character"),
        ("DB1,DT0", "1989-01-01T00:00:00", "1990 to 2089"),
        ("DB1,DT0", "yesterday", "no date and time"),
        ("DB1,DTL0", 5, "a date and time"),
        ("DB1,DATE0", "1989-01-01", "no date"),
        ("DB1,S5TIME0", 12345, "12300 ms"),
        ("DB1,S5TIME0", -1, "milliseconds"),
        ("DB1,INT0[2]", "[1]", "JSON text of 2"),
        ("DB1,INT0[2]", "[1, 70000]", "beyond INT"),
        ("DB1,INT0[2]", "1,", "JSON text"),
    ],
)
def test_what_a_type_cannot_hold_is_refused_with_what_it_can(address: str, value: Value, says: str) -> None:
    with pytest.raises(Unfit, match=says):
        parse(address).kind.encode(value)


@pytest.mark.parametrize(
    ("address", "data", "says"),
    [
        ("DB1,STRING0.5", "fe6400000000", "100 characters stand in a STRING of 5"),
        ("DB1,WSTRING0.2", "00fe00640000", "100 characters"),
        ("DB1,WSTRING0.2", "00020001d800", "half a character"),
        ("DB1,DT0", "261321043059123c", "no date and time"),
        ("DB1,DT0", "ff11210430591230", "no BCD"),
        ("DB1,DTL0", "000000000000000000000000", "no date and time"),
        ("C1", "0a0a", "no BCD"),
    ],
)
def test_bytes_that_are_no_value_are_told(address: str, data: str, says: str) -> None:
    with pytest.raises(Unfit, match=says):
        parse(address).kind.decode(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("text", "of_type", "area", "db", "start", "bit", "kind"),
    [
        ("DB1,REAL4", None, Area.DB, 1, 4, 0, "REAL"),
        ("db1, real 4", None, Area.DB, 1, 4, 0, "REAL"),
        ("DB1.DBD4", "REAL", Area.DB, 1, 4, 0, "REAL"),
        ("DB1.DBW4", None, Area.DB, 1, 4, 0, "WORD"),
        ("DB7.DBX3.7", None, Area.DB, 7, 3, 7, "BOOL"),
        ("DB1.DBB10", "string[20]", Area.DB, 1, 10, 0, "STRING"),
        ("DB1,DB4", None, None, 0, 0, 0, "is no data type"),
        ("M10.3", None, Area.MARKERS, 0, 10, 3, "BOOL"),
        ("MD20", "DINT", Area.MARKERS, 0, 20, 0, "DINT"),
        ("M,REAL20", None, Area.MARKERS, 0, 20, 0, "REAL"),
        ("IW64", "INT", Area.INPUTS, 0, 64, 0, "INT"),
        ("EW64", None, Area.INPUTS, 0, 64, 0, "WORD"),
        ("PIW256", None, Area.PERIPHERY, 0, 256, 0, "WORD"),
        ("A0.1", None, Area.OUTPUTS, 0, 0, 1, "BOOL"),
        ("QB2", None, Area.OUTPUTS, 0, 2, 0, "BYTE"),
        ("VW1118", None, Area.DB, 1, 1118, 0, "WORD"),
        ("V1024.0", None, Area.DB, 1, 1024, 0, "BOOL"),
        ("Z1", None, Area.COUNTERS, 0, 1, 0, "COUNTER"),
        ("%DB1.DBX4.3", None, Area.DB, 1, 4, 3, "BOOL"),
        ("%MW4", "INT", Area.MARKERS, 0, 4, 0, "INT"),
        ("T5", None, Area.TIMERS, 0, 5, 0, "S5TIME"),
        ("DB1", None, None, 0, 0, 0, "no S7 address"),
        ("DB1,X0.8", None, None, 0, 0, 0, "0 to 7"),
        ("DB1.DBX0", None, None, 0, 0, 0, "needs its bit"),
        ("M10", None, None, 0, 0, 0, "does not say what lies there"),
        ("DB0,INT2", None, None, 0, 0, 0, "numbers 1 to 65535"),
        ("DB1.DBW4", "REAL", None, 0, 0, 0, "WORD|2 bytes, REAL has 4"),
        ("DB1,REAL4", "INT", None, 0, 0, 0, "leave `type` out"),
        ("DB1.DBD4", "RAEL", None, 0, 0, 0, "'RAEL' is no data type"),
        ("M10.3", "INT", None, 0, 0, 0, "is a bit"),
        ("DB1.DBB3", "BOOL", None, 0, 0, 0, "names no bit"),
        ("DB1,INT4.3", None, None, 0, 0, 0, "has no length"),
        ("DB1,STRING0.300", None, None, 0, 0, 0, "1 to 254"),
        ("DB1,STRING0[3]", None, None, 0, 0, 0, "arrays are of numbers"),
        ("DB1,INT0[0]", None, None, 0, 0, 0, "1 to 65535 elements"),
        ("C5", "INT", None, 0, 0, 0, "needs no `type`"),
        ("T70000", None, None, 0, 0, 0, "0 to 65535"),
    ],
)
def test_addresses_as_engineers_write_them(
    text: str, of_type: str | None, area: Area | None, db: int, start: int, bit: int, kind: str
) -> None:
    if area is None:
        with pytest.raises(Unfit, match=kind):
            parse(text, of_type)
    else:
        found = parse(text, of_type)
        assert found[:4] == (area, db, start, bit)
        assert found.kind.name == kind
