"""Values as JSON without loss: the form of docs/api.md and of the audit record.

What JSON carries exactly stands for itself; the rest is an object with the one key ``int``, ``float``
or ``bytes``. ``text`` and ``length`` mark a value that was cut.
"""

import base64
import binascii
import math
import re
from collections.abc import Iterable
from typing import Final, cast

from shopfloor.samples import INT_MAX, INT_MIN, Value

JsonValue = bool | int | float | str | dict[str, str | int] | None

SAFE: Final = 2**53 - 1
"""Integers up to this size survive in every JSON reader."""

_FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")


def to_json(value: Value, cut: int | None = None) -> JsonValue:
    """The value as JSON can carry it; text and bytes above ``cut`` characters or bytes are cut and say so.

    Text that is not valid Unicode (lone surrogates) cannot be JSON: such characters become ``?``.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -SAFE <= value <= SAFE else {"int": str(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": _float_name(value)}
    length = len(value)
    if isinstance(value, bytes):
        shown = value if cut is None else value[:cut]
        text = base64.b64encode(shown).decode()
        return {"bytes": text} if len(shown) == length else {"bytes": text, "length": length}
    if cut is not None and length > cut:
        return {"text": _unicode(value[:cut]), "length": length}
    return _unicode(value)


def column_to_json(values: Iterable[Value], cut: int | None = None) -> list[JsonValue]:
    """Many values at once; finite floats, which most are, pass without a call: only they minus themselves are 0."""
    return [v if isinstance(v, float) and v - v == 0 else to_json(v, cut) for v in values]


def from_json(value: object) -> Value:
    """The value that ``to_json`` would give this for. Raises ValueError that says what is wrong."""
    if isinstance(value, dict):
        pairs = list(cast("dict[object, object]", value).items())
        if len(pairs) != 1:
            raise ValueError('an object as value has exactly one key: "int", "float" or "bytes"')
        return _tagged(*pairs[0])
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value)
    if value is None or isinstance(value, bool | float | str):
        return value
    raise ValueError("a value is true, false, a number, text or an object with the key int, float or bytes")


def _tagged(kind: object, text: object) -> Value:
    if not isinstance(text, str):
        raise ValueError(  # noqa: TRY004  # what is wrong is the document, not a Python type
            f'the {kind!r} of a value is text, as in {{"int": "18446744073709551615"}}'
        )
    if kind == "int" and _INTEGER.fullmatch(text):
        return _bounded(int(text))
    if kind == "float" and text in _FLOATS:
        return _FLOATS[text]
    if kind == "bytes":
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("the bytes of a value are Base64 text") from error
    raise ValueError(
        'an object as value is {"int": "decimal digits"}, {"float": "NaN", "Infinity" or "-Infinity"} '
        'or {"bytes": "Base64"}'
    )


def _bounded(value: int) -> int:
    if not INT_MIN <= value <= INT_MAX:
        raise ValueError(f"an integer lies between {INT_MIN} and {INT_MAX}")
    return value


def _float_name(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text
