"""Addresses of SLC 500, MicroLogix and PLC-5 as engineers write them: ``N7:0``, ``B3/21``, ``T4:0.ACC``."""

import re
from typing import Final, Literal, NamedTuple

from shopfloor.protocols.eip_session import Unfit

Family = Literal["slc500", "micrologix", "plc5"]

WORD: Final = 2
BITS: Final = 16
EXAMPLES: Final = "N7:0, N7:0/3, B3/21, F8:1, T4:0.ACC, C5:0/DN, I:1.0/2, S:1/5, ST9:0 or N7:0{10}"


class Area(NamedTuple):
    """A type of data file."""

    code: int
    """Its number in the protocol of SLC 500 and MicroLogix."""
    size: int
    """Bytes of an element."""
    type: str
    """What an element holds, as Logix names it; of structures what their words hold."""
    number: int = -1
    """The only file of this type; -1: any."""
    parts: tuple[str, ...] = ()
    """Names of the second and third word of a structure."""
    flags: tuple[tuple[str, int], ...] = ()
    """Names of bits in the first word of a structure."""


AREAS: Final = {
    # 0x82 and 0x83 are not in the published list, but what SLC 5/05 and MicroLogix answer to.
    "O": Area(0x82, 2, "INT", 0),
    "I": Area(0x83, 2, "INT", 1),
    "S": Area(0x84, 2, "INT", 2),
    "B": Area(0x85, 2, "INT"),
    "T": Area(0x86, 6, "INT", -1, ("PRE", "ACC"), (("EN", 15), ("TT", 14), ("DN", 13))),
    "C": Area(
        0x87, 6, "INT", -1, ("PRE", "ACC"), (("CU", 15), ("CD", 14), ("DN", 13), ("OV", 12), ("UN", 11), ("UA", 10))
    ),
    "R": Area(
        0x88, 6, "INT", -1, ("LEN", "POS"),
        (("EN", 15), ("EU", 14), ("DN", 13), ("EM", 12), ("ER", 11), ("UL", 10), ("IN", 9), ("FD", 8)),
    ),
    "N": Area(0x89, 2, "INT"),
    "F": Area(0x8A, 4, "REAL"),
    "ST": Area(0x8D, 84, "STRING"),
    "A": Area(0x8E, 2, "ASCII"),
    "L": Area(0x91, 4, "DINT"),
}  # fmt: skip
"""Data files by their letters."""

_ADDRESS: Final = re.compile(
    r"(?P<area>ST|[A-Z])(?P<file>\d{1,3})?"
    r"(?::(?P<element>\d{1,4})(?:\.(?P<word>\d{1,3}|[A-Z]{2,3}))?(?:/(?P<bit>\d{1,3}|[A-Z]{2}))?|/(?P<flat>\d{1,5}))"
    r"(?:\{(?P<count>\d{1,4})\})?"
)
_ELSEWHERE: Final = {
    "MG": "message control blocks", "PD": "PID control blocks", "BT": "block transfer control blocks",
    "SC": "SFC status", "D": "BCD files", "PL": "programmable limit switches",
}  # fmt: skip
_COUNT_MAX: Final = 1000


class Address(NamedTuple):
    """Where a value lies, and what it is."""

    area: Area
    file: int
    element: int
    """Of inputs and outputs of SLC 500 and MicroLogix the slot."""
    word: int
    """In the element, or in the slot."""
    bit: int
    """-1: none."""
    elements: int
    """Of a range; 0: a single one."""
    in_slot: bool = False
    """Whether ``word`` counts the words of a slot: inputs and outputs of SLC 500 and MicroLogix."""

    @property
    def type(self) -> str:
        """As Logix names it: ``BOOL``, ``INT``, ``REAL[10]``, ``STRING``."""
        base = "BOOL" if self.bit >= 0 else self.area.type
        if base == "ASCII":
            return "STRING"  # a range of characters is one text
        return f"{base}[{self.elements}]" if self.elements else base

    @property
    def start(self) -> int:
        """The first byte of its first element in the file, or of its word in the slot."""
        return self.word * WORD if self.in_slot else self.element * self.area.size

    @property
    def length(self) -> int:
        """Bytes of all elements that it touches."""
        return max(1, self.elements) * self.area.size


def parse(text: str, family: Family = "slc500") -> Address:
    """The address that a plant file writes so. Raises Unfit that says what to write instead."""
    plain = "".join(text.split()).upper()
    prefix = re.match(r"[A-Z]+", plain)
    if prefix and prefix[0] in _ELSEWHERE:
        raise Unfit(
            f"{text!r}: {_ELSEWHERE[prefix[0]]} ({prefix[0]}) cannot be read; let the program copy what is wanted"
        )
    found = _ADDRESS.fullmatch(plain)
    if found is None or found["area"] not in AREAS:
        raise Unfit(f"{text!r} is no address of a data file; write it like {EXAMPLES}")
    area = AREAS[found["area"]]
    _known(text, found["area"], family)
    file = _file(text, found, area)
    count = int(found["count"] or 0)
    if found["count"] is not None and not 1 <= count <= _COUNT_MAX:
        raise Unfit(f"{text!r}: a range has 1 to {_COUNT_MAX} elements")
    octal = family == "plc5" and found["area"] in {"I", "O"}
    if found["flat"] is not None:
        at = _flat(text, found, area, file)
    else:
        element = _number(text, found["element"], octal=octal)
        word, bit = _inside(text, found, area, octal=octal)
        at = Address(area, file, element, word, bit, 0)
    if at.bit >= 0 and count:
        raise Unfit(f"{text!r}: bits have no ranges; read the words, N7:0{{10}}, or list the bits")
    if octal and at.word:
        raise Unfit(f"{text!r}: a PLC-5 has no words of a slot; write rack and group, like I:017 or I:017/10 (octal)")
    return at._replace(elements=count, in_slot=found["area"] in {"I", "O"} and not octal)


def _known(text: str, letter: str, family: Family) -> None:
    if letter == "L" and family != "micrologix":
        raise Unfit(f"{text!r}: only MicroLogix has files of long words (L); is `family: micrologix` meant?")
    if letter == "A" and family == "plc5":
        raise Unfit(f"{text!r}: ASCII files of a PLC-5 cannot be read; use a string file, like ST9:0")


def _file(text: str, found: re.Match[str], area: Area) -> int:
    written = found["file"]
    if area.number >= 0:
        if written is not None and int(written) != area.number:
            raise Unfit(f"{text!r}: {found['area']} is file {area.number}; write {found['area']}:…")
        return area.number
    if written is None:
        raise Unfit(f"{text!r}: which file? Write its number behind the letter, like {found['area']}7:0")
    return int(written)


def _flat(text: str, found: re.Match[str], area: Area, file: int) -> Address:
    """``B3/21``: a bit counted from the beginning of the file."""
    if area is not AREAS["B"]:
        raise Unfit(
            f"{text!r}: only bits of B files are counted through; write the word, like {found['area']}{file}:0/5"
        )
    element, bit = divmod(int(found["flat"]), BITS)
    return Address(area, file, element, 0, bit, 0)


def _number(text: str, digits: str, *, octal: bool) -> int:
    try:
        return int(digits, 8 if octal else 10)
    except ValueError as error:
        raise Unfit(f"{text!r}: inputs and outputs of a PLC-5 are numbered in octal, without 8 and 9") from error


def _inside(text: str, found: re.Match[str], area: Area, *, octal: bool) -> tuple[int, int]:
    """The word in the element or slot, and the bit in it."""
    part, bit = found["word"], found["bit"]
    flags, names = dict(area.flags), {name: number for number, name in enumerate(area.parts, 1)}
    if part in flags and bit is None:
        part, bit = None, part  # T4:0.DN is as good as T4:0/DN
    if area.parts:
        wanted = ", ".join([*area.parts, *flags])
        if part is None and bit is None:
            raise Unfit(f"{text!r}: say what of it, like {found.string}.{area.parts[-1]} ({wanted})")
        word = names.get(part or "", -1) if part and not part.isdigit() else int(part or 0)
        if not 0 <= word <= len(area.parts) or (bit is not None and not bit.isdigit() and bit not in flags):
            raise Unfit(f"{text!r}: there is no such member; it has {wanted}")
    elif part is None or (part.isdigit() and area in {AREAS["I"], AREAS["O"]}):
        word = int(part or 0)
    else:
        raise Unfit(f"{text!r}: {found['area']} files have no members; only T, C and R have")
    if bit is None:
        return word, -1
    if area in {AREAS["I"], AREAS["O"]} and part is None and not octal:
        return divmod(_number(text, bit, octal=False), BITS)  # I:1/18 is I:1.1/2
    number = flags[bit] if bit in flags else _number(text, bit, octal=octal) if bit.isdigit() else -1
    most = 32 if area is AREAS["L"] else BITS if area.type == "INT" else 0
    if not 0 <= number < most:
        raise Unfit(f"{text!r}: " + (f"there are bits 0 to {most - 1}" if most else f"{area.type} has no bits"))
    return word, number
