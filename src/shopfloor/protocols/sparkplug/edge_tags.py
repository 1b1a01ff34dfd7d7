"""Between a plant's tags and an edge node's metrics: names, types, qualities, and what cannot be told."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from shopfloor.protocols.sparkplug.model import DataType
from shopfloor.protocols.sparkplug.topics import id_problem
from shopfloor.samples import Batch, Quality, Sample, Value

BDSEQ: Final = "bdSeq"

_INT64_MAX: Final = 2**63 - 1
_STALE: Final = 500
_SOURCE: Final = "$source/"
_CONNECTED: Final = "/connected"
_FORBIDDEN: Final = str.maketrans({"%": "%25", "+": "%2B", "#": "%23"})


class Unfit(NamedTuple):
    """Samples of a batch that cannot be told in Sparkplug."""

    reason: str
    indices: Sequence[int]


def unfit(batch: Batch, largest: int) -> Unfit | None:
    """The samples that cannot be told, and why; None when all can. ``largest`` is of a text or bytes."""
    found = [(index, reason) for index, sample in enumerate(batch) if (reason := problem_of(sample, largest))]
    return Unfit(found[0][1], [index for index, _ in found]) if found else None


def split_tag(tag: str) -> tuple[str, str]:
    """A tag's device and metric; the device is empty where the tag has one level only (a metric of the node)."""
    device, slash, name = tag.partition("/")
    if not (device and slash and name):
        return "", tag
    return device.translate(_FORBIDDEN), name


def join_tag(device: str, name: str) -> str:
    """The tag that ``split_tag`` takes apart into these."""
    if not device:
        return name
    return "/".join((device.replace("%2B", "+").replace("%23", "#").replace("%25", "%"), name))


def source_of(tag: str) -> str | None:
    """The source that a tag ``$source/NAME/connected`` speaks of."""
    if tag.startswith(_SOURCE) and tag.endswith(_CONNECTED):
        return tag[len(_SOURCE) : -len(_CONNECTED)]
    return None


def problem_of(sample: Sample, largest: int) -> str:
    """Why a sample cannot be told; empty when it can."""
    value = sample.value
    if sample.time < 0:
        return "Sparkplug has no times before 1970"
    if isinstance(value, str | bytes):
        try:
            size = len(value.encode()) if isinstance(value, str) else len(value)
        except UnicodeEncodeError as error:
            return f"cannot be written as UTF-8: {error}"
        if size > largest:
            return f"larger than the {largest} bytes that the broker takes"
    return _tag_problem(sample.tag)


@lru_cache(65536)
def _tag_problem(tag: str) -> str:
    """Why a tag can be no metric; empty when it can."""
    device, name = split_tag(tag)
    if tag == BDSEQ:
        return f"{BDSEQ} is a name of Sparkplug's own; give the tag another one"
    problem = id_problem(device) if device else None
    if problem is not None:
        return f"{device!r} cannot be the id of a device: {problem}"
    try:
        name.encode()
    except UnicodeEncodeError as error:
        return f"the tag's name cannot be written as UTF-8: {error}"
    return ""


def fitting_type(value: Value, known: DataType | None) -> DataType:
    """The data type for a value: the known one as long as it holds the value exactly."""
    match value:
        case None:
            return DataType.STRING if known is None else known
        case bool():
            return DataType.BOOLEAN
        case int():
            unsigned = value > _INT64_MAX or (known is DataType.UINT64 and value >= 0)
            return DataType.UINT64 if unsigned else DataType.INT64
        case float():
            return DataType.DOUBLE
        case str():
            return DataType.STRING
        case bytes():
            return DataType.BYTES


def quality_word(quality: int) -> int:
    """Sparkplug's quality: 192 good, 0 bad, 500 stale for what is neither."""
    if quality >= Quality.GOOD:
        return Quality.GOOD
    return _STALE if quality >= Quality.UNCERTAIN else Quality.BAD
