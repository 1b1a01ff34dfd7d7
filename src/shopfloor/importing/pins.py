"""A pin of the signal recorder as an address of the PLC.

The recorder itself had two kinds: ``DQ.3`` is bit 3 of the first byte of data block 1, and whatever pin a power sensor
had, it read the first word of data block 2, unsigned. Who changed it wrote S7 addresses, or parts of them.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from shopfloor.importing.documents import inner, number
from shopfloor.protocols.s7_address import Area, parse
from shopfloor.protocols.s7_values import Unfit

Signal = Literal["analog", "digital"]

_OWN_BIT: Final = re.compile(r"DQ\.?(\d+)")
_OWN_NAME: Final = re.compile(r"[AD][IQ]\.?\d+")
_BITS: Final = 8
_SIGNED: Final = (Area.INPUTS, Area.OUTPUTS, Area.PERIPHERY)
"""An analogue module gives signed numbers; a data block is read unsigned, as the recorder did."""
_EXAMPLES: Final = {"digital": "I0.0, DB1.DBX0.1 or DQ.0 to DQ.7", "analog": "IW64, PIW256, DB2.DBW0 or DB2,REAL4"}
_AREAS: Final = {
    "i": "I", "e": "I", "input": "I", "inputs": "I", "di": "I", "ai": "I", "": "I",
    "q": "Q", "a": "Q", "output": "Q", "outputs": "Q", "dq": "Q", "aq": "Q", "do": "Q", "ao": "Q",
    "m": "M", "marker": "M", "memory": "M", "flag": "M", "pi": "PI", "db": "DB",
}  # fmt: skip
_PARTS: Final = {
    "type",
    "kind",
    "area",
    "db",
    "dbnumber",
    "byte",
    "bit",
    "word",
    "start",
    "offset",
    "channel",
    "address",
}


class Pin(NamedTuple):
    """Where a sensor is read."""

    address: str
    type: str | None = None
    """The plant file's ``type``, where the address does not say it."""
    doubt: str = ""
    """What a person should look at."""
    is_bit: bool = False


def pin(value: object, signal: Signal | None) -> Pin:
    """The address of a pin: text, or parts such as ``{"type": "digital", "byte": 0, "bit": 1}``. Raises Unfit."""
    parts = inner(value)
    if parts is not None:
        return _addressed(_of_parts(parts, signal), _signal_of(parts) or signal)
    if not isinstance(value, str) or not value.strip():
        raise Unfit(f"{value!r} is no pin; write an address like {_examples(signal)}")
    text = "".join(value.split()).upper().removeprefix("%")
    if signal == "analog" and _OWN_NAME.fullmatch(text):
        doubt = f"the recorder read DB2.DBW0 for every power sensor, whatever its pin ({value}) said: is that right?"
        return Pin("DB2,WORD0", None, doubt)
    own = _OWN_BIT.fullmatch(text)
    if own is not None:
        if int(own[1]) >= _BITS:
            raise Unfit(f"{value!r}: the recorder had DQ.0 to DQ.7 only; write the bit's address, like DB1.DBX1.0")
        return Pin(f"DB1,X0.{int(own[1])}", is_bit=True)
    return _addressed(text, signal)


def _addressed(text: str, signal: Signal | None) -> Pin:
    """An S7 address, checked, with the type of what lies there."""
    try:
        found = parse(text)
    except Unfit as error:
        raise Unfit(f"{text!r} is no address; write one like {_examples(signal)}") from error
    if found.is_bit != (signal == "digital") and signal is not None:
        raise Unfit(f"{text!r} is {'a bit' if found.is_bit else 'no bit'}; write an address like {_EXAMPLES[signal]}")
    if found.kind.name == "WORD" and found.area in _SIGNED and "WORD" not in text:
        return Pin(text, "INT")
    if found.kind.name == "DWORD" and "DWORD" not in text:
        return Pin(text, None, f"{text} is read as a whole number; add `type: REAL` where it is a REAL")
    return Pin(text, is_bit=found.is_bit)


def _examples(signal: Signal | None) -> str:
    return _EXAMPLES[signal] if signal else " or ".join(_EXAMPLES.values())


def _of_parts(value: Mapping[str, Any], signal: Signal | None) -> str:
    """The address that the parts make."""
    parts = {str(key).lower().replace("_", ""): part for key, part in value.items()}
    unknown = sorted(parts.keys() - _PARTS)
    if unknown:
        raise Unfit(
            f"the pin has parts that are not understood ({', '.join(unknown)}); write it like {_examples(signal)}"
        )
    if isinstance(parts.get("address"), str) and number(parts["address"]) is None:
        return "".join(parts["address"].split()).upper()
    block = _whole(parts, "db", "dbnumber")
    named = str(parts.get("area") or "").strip().lower()
    area = "DB" if block is not None else _AREAS.get(named)
    start = _whole(parts, "byte", "word", "start", "offset", "channel", "address")
    bit = _whole(parts, "bit")
    if area is None or start is None or (area == "DB" and block is None):
        raise Unfit(f"the pin {dict(value)!r} does not say where it is; write an address like {_examples(signal)}")
    if bit is not None:
        return f"DB{block},X{start}.{bit}" if area == "DB" else f"{area}{start}.{bit}"
    if (_signal_of(value) or signal) == "digital":
        raise Unfit(f"the pin {dict(value)!r} needs its `bit`, 0 to 7")
    return f"DB{block}.DBW{start}" if area == "DB" else f"{area}W{start}"


def _signal_of(value: Mapping[str, Any]) -> Signal | None:
    return signal(value.get("type") or value.get("kind"))


def signal(word: object) -> Signal | None:
    """Which kind of signal the word means: ``power`` and ``unit-cycle`` are the recorder's own."""
    text = str(word or "").lower()
    if any(part in text for part in ("analog", "power", "temperature", "pressure", "current", "voltage")):
        return "analog"
    return "digital" if any(part in text for part in ("digital", "cycle", "bool", "binary", "switch")) else None


def _whole(parts: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        if name in parts:
            found = number(parts[name])
            if found is None or found < 0 or found != int(found):
                raise Unfit(f"`{name}` of the pin is {parts[name]!r}; it must be a whole number")
            return int(found)
    return None
