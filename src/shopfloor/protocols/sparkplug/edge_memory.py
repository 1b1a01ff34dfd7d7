"""What an edge node must know after a restart: its bdSeq, and its metrics with what was published of them last."""

from typing import Any

import msgspec

from shopfloor.protocols.sparkplug.model import DataType
from shopfloor.samples import Quality


class KnownMetric(msgspec.Struct, kw_only=True):
    """A metric and what was published of it last."""

    name: str
    alias: int
    type: DataType
    time: int | None = None
    """ns UTC; None: nothing was published yet."""
    value: Any = None
    """A ``Value``; msgspec reads no union of text and bytes."""
    quality: int = Quality.GOOD
    status: int = 0


class KnownDevice(msgspec.Struct, kw_only=True):
    """A device, or the node itself, with its metrics."""

    name: str
    """Empty: the node itself."""
    metrics: list[KnownMetric] = []
    sources: list[str] = []
    """Which sources gave samples of it."""


class Memory(msgspec.Struct, kw_only=True):
    """What an edge node must know after a restart."""

    bd_seq: int | None = None
    """Of the last CONNECT; None: there was none."""
    next_alias: int = 1
    devices: list[KnownDevice] = []
    connected: dict[str, bool] = {}
    """Of each source that said so: whether it was connected."""
    server: int = 0
    """The position of the server to try first."""


def forgotten(metric: KnownMetric) -> KnownMetric:
    """The metric as if nothing had been published of it."""
    return KnownMetric(name=metric.name, alias=metric.alias, type=metric.type)
