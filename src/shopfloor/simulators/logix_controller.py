# cm-ethernetip carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUntypedBaseClass=false, reportMissingTypeStubs=false
"""The tags of a Logix controller as EtherNet/IP clients see them: tag list, structures, arrays, programs, downloads.

cm-ethernetip carries the sessions and connections; what a Logix controller answers about its tags is here, by
Rockwell's publication 1756-PM020 "Logix 5000 Controllers Data Access".
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ethernetip.cip.cip_class import CipClass
from ethernetip.cip.service import CipServiceResponse
from ethernetip.cip.status import CipStatus
from ethernetip.logix.logix_dispatcher import LogixDispatcher

ATOMIC: Final = {
    "BOOL": (0xC1, "?"), "SINT": (0xC2, "b"), "INT": (0xC3, "h"), "DINT": (0xC4, "i"), "LINT": (0xC5, "q"),
    "USINT": (0xC6, "B"), "UINT": (0xC7, "H"), "UDINT": (0xC8, "I"), "ULINT": (0xC9, "Q"), "REAL": (0xCA, "f"),
    "LREAL": (0xCB, "d"), "DWORD": (0xD3, "I"),
}  # fmt: skip
"""Code and layout of each elementary type; an array of BOOL is made of DWORDs."""

_READ, _WRITE, _READ_MODIFY_WRITE, _READ_FRAGMENT, _WRITE_FRAGMENT = 0x4C, 0x4D, 0x4E, 0x52, 0x53
_ATTRIBUTE_LIST, _INSTANCE_LIST, _LARGE_OPEN = 0x03, 0x55, 0x5B
_CONNECTION_MANAGER, _SYMBOL, _TEMPLATE, _CHANGES = 0x06, 0x6B, 0x6C, 0xAC
_STRUCTURE: Final = 0x02A0
_MOST: Final = 470
"""Bytes of data in a reply: an unconnected message takes about 500."""
_BASE_TAG: Final = 1 << 26
_ANYBODY: Final = "EC"
"""Two characters a member behind the name of its structure: it may be read and written."""
_SEGMENT_NAME, _ELEMENT = 0x91, 0x28

_UNKNOWN_PATH: Final = (0x05, ())
_PARTIAL: Final = (0x06, ())
_BEYOND: Final = (0xFF, (0x2105,))
_WRONG_TYPE: Final = (0xFF, (0x2107,))
_READ_ONLY: Final = (0x0F, ())
_NO_SUCH_SERVICE: Final = (0x08, ())


class Member(NamedTuple):
    """A member of a structure."""

    name: str
    type: str
    elements: int = 0
    """Elements of an array; 0: none."""


class Structure:
    """A user-defined type; BOOLs are the bits of hidden bytes, as the programming tool lays them out."""

    def __init__(self, name: str, number: int, members: Sequence[Member], known: Mapping[str, "Structure"]) -> None:
        """``number`` is its template's instance, ``known`` the structures that it may contain."""
        self.name, self.number, self.members = name, number, members
        self.handle = number
        self.places: dict[str, tuple[int, str, int, int]] = {}
        """Offset, type, elements and bit (-1: none) by member name in lower case."""
        self.size = 0
        self.rows: list[tuple[str, int, int, int]] = []
        """Name, info, type code and offset, as the template lists them."""
        end = bit = host = 0
        for name_, kind, count in members:
            if kind == "BOOL" and not count:
                if bit % 8 == 0:
                    host, end = end, end + 1
                    self.rows.append((f"ZZZZZZZZZZ{name}{len(self.rows)}", 0, ATOMIC["SINT"][0], host))
                self.places[name_.lower()] = (host, "BOOL", 0, bit % 8)
                self.rows.append((name_, bit % 8, ATOMIC["BOOL"][0], host))
                bit += 1
                continue
            bit = 0
            size = known[kind].size if kind in known else struct.calcsize(ATOMIC[kind][1])
            end += -end % (4 if kind in known else min(size, 4))
            code = known[kind].number | 0x8000 if kind in known else ATOMIC[kind][0]
            self.places[name_.lower()] = (end, kind, count, -1)
            self.rows.append((name_, count, code | (0x2000 if count else 0) if kind in known else code, end))
            end += size * max(1, count)
        self.size = end + -end % 4

    def definition(self) -> bytes:
        """What reading the template gives."""
        rows = b"".join(struct.pack("<HHI", info, code, offset) for _, info, code, offset in self.rows)
        names = [f"{self.name};n{_ANYBODY * len(self.rows)}", *(row[0] for row in self.rows)]
        return rows + b"".join(name.encode() + b"\0" for name in names)


STRING: Final = Structure("ASCIISTRING82", 0xFCE, [Member("LEN", "DINT"), Member("DATA", "SINT", 82)], {})


class Tag:
    """A tag with its memory."""

    def __init__(self, name: str, kind: str, count: int, size: int, *, writable: bool) -> None:
        """``count`` is 0 for what is no array; ``size`` is that of one element."""
        self.name, self.kind, self.count, self.size, self.writable = name, kind, count, size, writable
        self.data = bytearray(size * max(1, count))


class _Place(NamedTuple):
    """What a path leads to."""

    tag: Tag
    offset: int
    kind: str
    size: int
    left: int
    """Elements from here to the end of the array."""
    bit: int


class _Refused(Exception):
    def __init__(self, status: tuple[int, tuple[int, ...]]) -> None:
        super().__init__(status)
        self.status = CipStatus.error(status[0], *status[1])


class Program:
    """What was downloaded into a controller: its structures and tags."""

    def __init__(self) -> None:
        self.structures: dict[str, Structure] = {"STRING": STRING}
        self.tags: dict[str, Tag] = {}
        """By name in lower case; a program's tags are ``program:main.counter``."""

    def structure(self, name: str, *members: Member) -> None:
        """Define a type."""
        self.structures[name] = Structure(name, 0x100 + len(self.structures), members, self.structures)

    def add(self, name: str, kind: str, count: int = 0, *, writable: bool = True) -> None:
        """Define a tag; a program's is called ``Program:Main.Counter``."""
        size = self.structures[kind].size if kind in self.structures else struct.calcsize(ATOMIC[kind][1])
        self.tags[name.lower()] = Tag(name, kind, count, size, writable=writable)

    def place(self, parts: Sequence[str | int]) -> _Place:
        """What names and indices lead to. Raises _Refused."""
        names = [part.lower() if isinstance(part, str) else part for part in parts]
        first, rest = names[0], names[1:]
        if isinstance(first, str) and first.startswith("program:") and rest:
            first, rest = f"{first}.{rest[0]}", rest[1:]
        tag = self.tags.get(str(first))
        if tag is None:
            raise _Refused(_UNKNOWN_PATH)
        found = _Place(tag, 0, tag.kind, tag.size, max(1, tag.count), -1)
        for part in rest:
            found = self._below(found, part)
        return found

    def _below(self, at: _Place, part: str | int) -> _Place:
        if isinstance(part, int):
            if part >= at.left:
                raise _Refused(_BEYOND)
            return at._replace(offset=at.offset + part * at.size, left=at.left - part)
        structure = self.structures.get(at.kind)
        if structure is None or part not in structure.places:
            raise _Refused(_UNKNOWN_PATH)
        offset, kind, count, bit = structure.places[part]
        size = self.structures[kind].size if kind in self.structures else struct.calcsize(ATOMIC[kind][1])
        return _Place(at.tag, at.offset + offset, kind, size, max(1, count), bit)

    def code(self, kind: str) -> bytes:
        """The type as it stands before a value."""
        if kind in self.structures:
            return struct.pack("<HH", _STRUCTURE, self.structures[kind].handle)
        return struct.pack("<H", ATOMIC[kind][0])

    def get(self, name: str) -> Any:
        """The value of an elementary tag or member (``Line.Count``, ``Counts[3]``)."""
        place = self.place(_parts(name))
        (value,) = struct.unpack_from("<" + ATOMIC[place.kind][1], place.tag.data, place.offset)
        return value if place.bit < 0 else bool(place.tag.data[place.offset] >> place.bit & 1)

    def put(self, name: str, value: Any) -> None:
        """Set an elementary tag or member; text into a STRING."""
        place = self.place(_parts(name))
        if place.kind == "STRING":
            raw = value.encode()
            struct.pack_into("<i82s", place.tag.data, place.offset, len(raw), raw)
        elif place.bit >= 0:
            mask = 1 << place.bit
            byte = place.tag.data[place.offset]
            place.tag.data[place.offset] = byte | mask if value else byte & ~mask
        else:
            struct.pack_into("<" + ATOMIC[place.kind][1], place.tag.data, place.offset, value)


def _parts(name: str) -> list[str | int]:
    head, dot, rest = name.partition(".") if not name.startswith("Program:") else ("", "", name)
    words = [head, *rest.split(".")] if dot else [head or rest]
    if name.startswith("Program:"):
        words = name.split(".")
    found: list[str | int] = []
    for word in words:
        base, _, index = word.rstrip("]").partition("[")
        found += [base, *([int(index)] if index else [])]
    return found


class Controller(LogixDispatcher):  # type: ignore[misc]  # the library carries no types
    """Answers requests about the tags of the program that is loaded."""

    def __init__(self, identity: Any, program: Program, written: Callable[[str], None] | None = None) -> None:
        """``written`` is told each tag that a client wrote, by its full name."""
        super().__init__(identity=identity)
        self.program = program
        self.downloads = 1
        self.has_changes = True
        self._written = written
        self.register_class(CipClass(_CHANGES, "Program Changes"))

    def download(self, program: Program) -> None:
        """Load another program: everything is new, as after a download from the programming tool."""
        self.program = program
        self.downloads += 1

    def dispatch(self, service_code: int, path: Any, data: bytes) -> Any:  # noqa: PLR0911  # one a kind of request
        """One request; the reply."""
        try:
            if service_code == _LARGE_OPEN and path.class_id == _CONNECTION_MANAGER:
                # As controllers before version 20: clients then ask for 500 bytes, the most that a reply here has.
                raise _Refused(_NO_SUCH_SERVICE)  # noqa: TRY301  # one way to refuse for all
            if path.class_id == _CHANGES and service_code == _ATTRIBUTE_LIST and self.has_changes:
                return _good(service_code, self._signature(data))
            if service_code == _INSTANCE_LIST and path.class_id == _SYMBOL:
                return self._listed(service_code, path, data)
            if path.class_id == _TEMPLATE:
                return self._template(service_code, path.instance_id, data)
            if path.symbolic_name is not None:
                return self._tag(service_code, data, self.program.place(_segments(path.raw_path)))
            if path.class_id == _SYMBOL and path.instance_id:
                tag = list(self.program.tags.values())[path.instance_id - 1]
                parts = _segments(path.raw_path)
                return self._tag(service_code, data, self.program.place([*_parts(tag.name), *parts]))
        except _Refused as error:
            return CipServiceResponse.error(service_code, error.status)
        except (IndexError, KeyError, ValueError, struct.error):  # a request that makes no sense
            return CipServiceResponse.error(service_code, CipStatus.error(_UNKNOWN_PATH[0]))
        return super().dispatch(service_code, path, data)

    def _signature(self, data: bytes) -> bytes:
        """Attributes that differ after each change of the program (1756-PM020, "detect changes")."""
        (count,) = struct.unpack_from("<H", data)
        reply = struct.pack("<H", count)
        for attribute in struct.unpack_from(f"<{count}H", data, 2):
            layout = "<HHH" if attribute in {1, 2} else "<HHI"
            reply += struct.pack(layout, attribute, 0, self.downloads)
        return reply

    def _listed(self, service: int, path: Any, data: bytes) -> Any:
        (count,) = struct.unpack_from("<H", data)
        wanted = struct.unpack_from(f"<{count}H", data, 2)
        reply, status = b"", 0
        for number, name, tag in self._scope(path.symbolic_name or ""):
            if number < (path.instance_id or 0):
                continue
            row = struct.pack("<I", number) + b"".join(self._attribute(one, name, tag) for one in wanted)
            if len(reply) + len(row) > _MOST:
                status = _PARTIAL[0]
                break
            reply += row
        return CipServiceResponse(service | 0x80, CipStatus.error(status), reply)

    def _scope(self, program: str) -> Iterator[tuple[int, str, Tag | None]]:
        """The symbols of the controller or of one program, with their instance numbers."""
        tags = list(self.program.tags.values())
        prefix = f"{program}.".lower()
        for number, tag in enumerate(tags, 1):
            if program and tag.name.lower().startswith(prefix):
                yield number, tag.name[len(prefix) :], tag
            elif not program and not tag.name.startswith("Program:"):
                yield number, tag.name, tag
        if not program:
            names = sorted({tag.name.partition(".")[0] for tag in tags if tag.name.startswith("Program:")})
            yield from ((len(tags) + 1 + i, name, None) for i, name in enumerate(names))

    def _attribute(self, number: int, name: str, tag: Tag | None) -> bytes:  # noqa: PLR0911  # a row each
        match number:
            case 1:
                return struct.pack("<H", len(name)) + name.encode()
            case 2:
                return struct.pack("<H", 0x1068 if tag is None else self._symbol_type(tag))
            case 6:
                return struct.pack("<I", _BASE_TAG)
            case 7:
                return struct.pack("<H", 0 if tag is None else tag.size)
            case 8:
                return struct.pack("<3I", 0 if tag is None else tag.count, 0, 0)
            case 10:
                return b"\0" if tag is None or tag.writable else b"\2"
            case _:
                return bytes(4)

    def _symbol_type(self, tag: Tag) -> int:
        structure = self.program.structures.get(tag.kind)
        code = ATOMIC[tag.kind][0] if structure is None else 0x8000 | structure.number
        return code | (0x2000 if tag.count else 0)

    def _template(self, service: int, number: int | None, data: bytes) -> Any:
        structure = next((s for s in self.program.structures.values() if s.number == number), None)
        if structure is None:
            raise _Refused(_UNKNOWN_PATH)
        definition = structure.definition()
        if service == _READ:
            offset, wanted = struct.unpack_from("<IH", data)
            part = definition[offset : offset + min(wanted, _MOST)].ljust(min(wanted, _MOST), b"\0")
            more = wanted > _MOST
            return CipServiceResponse(service | 0x80, CipStatus.error(_PARTIAL[0] if more else 0), part)
        values = {
            1: struct.pack("<H", structure.handle),
            2: struct.pack("<H", len(structure.rows)),
            3: struct.pack("<H", 0),
            4: struct.pack("<I", (len(definition) + 23 + 3) // 4),
            5: struct.pack("<I", structure.size),
        }
        (count,) = struct.unpack_from("<H", data)
        asked = struct.unpack_from(f"<{count}H", data, 2)
        rows = b"".join(struct.pack("<HH", one, 0) + values[one] for one in asked)
        return _good(service, struct.pack("<H", count) + rows)

    def _tag(self, service: int, data: bytes, at: _Place) -> Any:
        if service in {_READ, _READ_FRAGMENT}:
            return self._read(service, data, at)
        if not at.tag.writable:
            raise _Refused(_READ_ONLY)
        if service == _READ_MODIFY_WRITE:
            (size,) = struct.unpack_from("<H", data)
            one, keep = data[2 : 2 + size], data[2 + size : 2 + 2 * size]
            for i in range(size):
                at.tag.data[at.offset + i] = (at.tag.data[at.offset + i] | one[i]) & keep[i]
        elif service in {_WRITE, _WRITE_FRAGMENT}:
            self._write(service, data, at)
        else:
            raise _Refused(_NO_SUCH_SERVICE)
        if self._written is not None:
            self._written(at.tag.name)
        return _good(service, b"")

    def _read(self, service: int, data: bytes, at: _Place) -> Any:
        (count,) = struct.unpack_from("<H", data)
        begin = struct.unpack_from("<I", data, 2)[0] if service == _READ_FRAGMENT else 0
        if count > at.left:
            raise _Refused(_BEYOND)
        if at.bit >= 0:
            raw = b"\xff" if at.tag.data[at.offset] >> at.bit & 1 else b"\0"
        else:
            raw = bytes(at.tag.data[at.offset : at.offset + count * at.size])
        part = raw[begin : begin + _MOST - _MOST % 8]
        status = _PARTIAL[0] if begin + len(part) < len(raw) else 0
        return CipServiceResponse(service | 0x80, CipStatus.error(status), self.program.code(at.kind) + part)

    def _write(self, service: int, data: bytes, at: _Place) -> None:
        code = self.program.code(at.kind)
        if not data.startswith(code):
            raise _Refused(_WRONG_TYPE)
        (count,) = struct.unpack_from("<H", data, len(code))
        begin, head = 0, len(code) + 2
        if service == _WRITE_FRAGMENT:
            (begin,) = struct.unpack_from("<I", data, head)
            head += 4
        if count > at.left:
            raise _Refused(_BEYOND)
        raw = data[head:]
        if at.bit >= 0:
            mask = 1 << at.bit
            byte = at.tag.data[at.offset]
            at.tag.data[at.offset] = byte | mask if raw[0] else byte & ~mask
            return
        raw = raw[: count * at.size - begin]
        at.tag.data[at.offset + begin : at.offset + begin + len(raw)] = raw


def _good(service: int, data: bytes) -> Any:
    return CipServiceResponse.success(service, data)


def _segments(raw: bytes) -> list[str | int]:
    """Names and indices of a path; class and instance in front of them are left out."""
    found: list[str | int] = []
    at = 0
    while at < len(raw):
        if raw[at] == _SEGMENT_NAME:
            size = raw[at + 1]
            # Some clients put a whole path into one segment.
            found += _parts(raw[at + 2 : at + 2 + size].decode())
            at += 2 + size + size % 2
            continue
        width = 1 << (raw[at] & 3)
        skip = 1 if width == 1 else 2
        value = int.from_bytes(raw[at + skip : at + skip + width], "little")
        if raw[at] & 0xFC == _ELEMENT:
            found.append(value)
        at += skip + width
    return found
