"""The session of a Sparkplug edge node as a state machine: no socket, no file, no clock.

1. A machine is a device: the first level of a tag is the device, the rest the metric; a tag of one level is a
   metric of the node. Characters that a topic level cannot have are percent-encoded.
2. Each CONNECT takes the next bdSeq (``connect``), which its will and every NBIRTH of the session carry.
3. A birth tells what was published last of each metric, and null where nothing was yet. So no sample is told
   twice as data, and none is told only by a birth. A new metric, or one that changes its type, is born before
   its first value; what is new in one call of ``data`` is born together.
4. A sample is historical when Shopfloor had received it before the session's first birth, or when a newer one of
   its tag was published already. While history is told the host's picture is behind; once it ends
   the node is born again (``owes_births``), which brings the picture up to date.
5. A device dies (DDEATH) when every source of it that is known to be away or there is away, and is born again
   when one returns or says something. The pipeline's tags ``$source/NAME/connected`` tell.
6. One sequence 0 to 255 counts every message of the node but NDEATH; NBIRTH sets it to 0.

Times given in are ns, UTC, where they are called ``received`` or belong to samples, and ms, as on the
wire, where they are called ``now``.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from shopfloor.protocols.sparkplug.edge_memory import KnownDevice, KnownMetric, Memory, forgotten
from shopfloor.protocols.sparkplug.edge_tags import (
    BDSEQ,
    fitting_type,
    join_tag,
    quality_word,
    source_of,
    split_tag,
)
from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload, Property, PropertySet
from shopfloor.protocols.sparkplug.topics import NAMESPACE, EdgeTopic, MessageType, StateTopic
from shopfloor.samples import Batch, Quality, Sample, Value

REBIRTH: Final = "Node Control/Rebirth"
SEQUENCE: Final = 256
"""Both seq and bdSeq count from 0 to 255."""
REBIRTH_PAUSE: Final = 1000
"""ms between two rebirths that hosts ask for: a thousand requests at once are one rebirth, or two."""

_LEGACY_STATES: Final = {b"ONLINE": True, b"OFFLINE": False}
_MILLISECOND: Final = 10**6
_MESSAGE_BYTES: Final = 128 * 1024
_METRIC_BYTES: Final = 128
"""At most what a metric of a data message needs beside its value."""


class Publication(NamedTuple):
    """A message to be published at QoS 0, not retained (the will at QoS 1)."""

    topic: str
    payload: Payload

    @property
    def is_birth(self) -> bool:
        """Whether it is an NBIRTH or DBIRTH, which tell the data types."""
        return self.topic.split("/")[2] in (MessageType.NBIRTH, MessageType.DBIRTH)


class _HostState(msgspec.Struct):
    online: bool
    timestamp: int


class _Device:
    """A device in this session; the one without a name is the node."""

    __slots__ = ("born", "metrics", "name", "pending", "size", "sources", "types")

    def __init__(self, name: str) -> None:
        self.name = name
        self.metrics: dict[str, KnownMetric] = {}
        self.sources: set[str] = set()
        self.born = False
        self.pending: list[Metric] = []
        self.size = 0
        self.types: dict[int | str, DataType] | None = None
        """Of the metrics by alias and name; None: to be made anew."""


class _Place(NamedTuple):
    """Where a tag goes."""

    device: _Device
    metric: KnownMetric


class _Last(NamedTuple):
    """What was published last of a metric before the call that is not confirmed."""

    type: DataType
    time: int | None
    value: Value
    quality: int
    status: int


class EdgeNode:
    """One session of an edge node: make one for each connection, from the memory of the one before."""

    def __init__(
        self,
        group: str,
        node: str,
        memory: Memory,
        *,
        primary_host: str = "",
        aliases: bool = True,
        exact: bool = False,
        legacy_state: bool = False,
    ) -> None:
        """``exact`` tells the nanoseconds below a metric's ms as a property; ``primary_host`` empty: none is obeyed.

        ``legacy_state`` says that the primary host speaks Sparkplug 2.2: ``STATE/host``, plain text, no time.
        """
        self.group = group
        self.node = node
        self.primary_host = primary_host
        self.host_online: bool | None = None
        """What the primary host last said validly; None: nothing yet."""
        self.born_at: int | None = None
        """ms of the session's first birth; None: not born."""
        self.server = memory.server
        self.message_size = _MESSAGE_BYTES
        """Bytes above which a data message is closed and the next one begun; a single value may be larger."""
        self._aliases = aliases
        self._exact = exact
        self._legacy_state = legacy_state
        self._bd_seq = memory.bd_seq
        self._next_alias = memory.next_alias
        self._connected = dict(memory.connected)
        self._devices: dict[str, _Device] = {"": _Device("")}
        self._places: dict[str, _Place] = {}
        for known in memory.devices:
            device = self._device(known.name)
            device.sources.update(known.sources)
            for metric in known.metrics:
                device.metrics[metric.name] = msgspec.structs.replace(metric)
        self._by_alias = {m.alias: (d.name, m) for d in self._devices.values() for m in d.metrics.values()}
        self._seq = 0
        self._host_time: int | None = None
        self._rebirth = False
        self._last_birth = 0
        self._behind = False
        self._unconfirmed: dict[int, _Last] = {}

    # ---- the connection -----------------------------------------------------------------------------

    def connect(self, now: int) -> Publication:
        """Take the next bdSeq and give the will of the CONNECT; keep ``memory()`` before sending it."""
        self._bd_seq = 0 if self._bd_seq is None else (self._bd_seq + 1) % SEQUENCE
        return self.death(now)

    def death(self, now: int) -> Publication:
        """NDEATH: the will, and what is published before a deliberate end (both at QoS 1)."""
        payload = Payload(
            timestamp=now, metrics=[Metric(name=BDSEQ, timestamp=now, type=DataType.INT64, value=self.bd_seq)]
        )
        return Publication(self._topic(MessageType.NDEATH), payload)

    @property
    def bd_seq(self) -> int:
        """Of this session; raises RuntimeError before ``connect``."""
        if self._bd_seq is None:
            raise RuntimeError("connect first: it takes the bdSeq")
        return self._bd_seq

    @property
    def command_topic(self) -> str:
        """NCMD of this node, to be subscribed to at QoS 1."""
        return self._topic(MessageType.NCMD)

    @property
    def device_commands(self) -> str:
        """DCMD of all devices, to be subscribed to where they may be commanded."""
        return f"{NAMESPACE}/{self.group}/{MessageType.DCMD}/{self.node}/+"

    def commanded(self, topic: str) -> str:
        """The device that a message to one of these topics commands; empty: the node itself."""
        return "" if topic == self.command_topic else topic.rpartition("/")[2]

    @property
    def state_topic(self) -> str:
        """STATE of the primary host, to be subscribed to at QoS 1; empty when none is obeyed."""
        return str(StateTopic(self.primary_host, legacy=self._legacy_state)) if self.primary_host else ""

    @property
    def may_be_born(self) -> bool:
        """Whether births are allowed: no primary host, or it said that it is online."""
        return not self.primary_host or self.host_online is True

    @property
    def must_leave(self) -> bool:
        """Whether the primary host is offline at this server: say NDEATH if born, disconnect, try the next one."""
        return bool(self.primary_host) and self.host_online is False

    def state(self, topic: str, payload: bytes) -> None:
        """Take a STATE message; what is not of the primary host, malformed, or older than the last is ignored."""
        if topic != self.state_topic:
            return
        if self._legacy_state:
            self.host_online = _LEGACY_STATES.get(payload, self.host_online)
            return
        try:
            said = msgspec.json.decode(payload, type=_HostState)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if self._host_time is None or said.timestamp >= self._host_time:
            self._host_time = said.timestamp
            self.host_online = said.online

    def command(self, payload: Payload) -> None:
        """Take an NCMD, which may ask for a rebirth; what else it may ask for, ``orders`` tells."""
        if any(metric.name == REBIRTH and metric.value is True for metric in payload.metrics):
            self._rebirth = True

    def metric(self, device: str, key: int | str) -> KnownMetric | None:
        """The metric of a device (empty: of the node) with this alias or name, where it was born."""
        if isinstance(key, str):
            found = self._devices.get(device)
            return None if found is None else found.metrics.get(key)
        known = self._by_alias.get(key)
        return known[1] if known is not None and known[0] == device else None

    def types(self, device: str) -> dict[int | str, DataType]:
        """The types of a device's metrics by alias and name, for reading a command to it."""
        found = self._devices.get(device)
        if found is None:
            return {}
        if found.types is None:
            metrics = found.metrics.values()
            found.types = {m.alias: m.type for m in metrics} | {m.name: m.type for m in metrics}
        return found.types

    @staticmethod
    def tag_of(device: str, name: str) -> str:
        """The tag that is told as this metric."""
        return join_tag(device, name)

    def told(self, tag: str) -> int | None:
        """The time of what was told last of a tag, ns UTC; None: nothing was."""
        place = self._places.get(tag) or self._find(tag)
        return None if place is None else place.metric.time

    def rebirth_due(self) -> int | None:
        """When to be born again because a host asked, ms; None: nobody did. Until then no data may be published."""
        return self._last_birth + REBIRTH_PAUSE if self._rebirth else None

    @property
    def owes_births(self) -> bool:
        """Whether the host's picture is behind because newest values were told as history."""
        return self._behind

    # ---- births -------------------------------------------------------------------------------------

    def births(self, now: int) -> list[Publication]:
        """NBIRTH and a DBIRTH for every device that is not away, under the session's bdSeq."""
        if self.born_at is None:
            self.born_at = now
        self._seq = 0
        self._rebirth = self._behind = False
        self._last_birth = now
        node = self._devices[""]
        node.born = True
        own = [
            Metric(name=BDSEQ, timestamp=now, type=DataType.INT64, value=self.bd_seq),
            Metric(name=REBIRTH, timestamp=now, type=DataType.BOOLEAN, value=False),
        ]
        found = [self._message(MessageType.NBIRTH, node, [*own, *self._born_metrics(node, now)], now)]
        for device in self._devices.values():
            if device is not node:
                device.born = bool(device.metrics) and not self._is_away(device)
                if device.born:
                    found.append(self._message(MessageType.DBIRTH, device, self._born_metrics(device, now), now))
        return found

    def _birth_of(self, devices: Iterable[_Device], now: int) -> list[Publication]:
        """Births because of what is new in these; a metric of the node needs an NBIRTH and so everything anew."""
        wanted = list(devices)
        if any(not device.name for device in wanted):
            return self.births(now)
        for device in wanted:
            device.born = True
        return [self._message(MessageType.DBIRTH, device, self._born_metrics(device, now), now) for device in wanted]

    def _born_metrics(self, device: _Device, now: int) -> list[Metric]:
        """Every metric with name, alias, type and what was published last, oldest first."""
        known = sorted(device.metrics.values(), key=lambda metric: -1 if metric.time is None else metric.time)
        return [
            Metric(
                name=metric.name,
                alias=metric.alias if self._aliases else None,
                timestamp=now if metric.time is None else metric.time // _MILLISECOND,
                type=metric.type,
                is_null=metric.value is None,
                value=metric.value,
                properties=None if metric.time is None else self._properties(metric, metric.time, always=True),
            )
            for metric in known
        ]

    # ---- data ---------------------------------------------------------------------------------------

    def data(self, batches: Sequence[Batch], now: int) -> Iterator[Publication]:
        """The messages that tell these samples, to be published in this order; ``confirm`` once they are held.

        None of the batches may have an ``unfit`` sample. Raises RuntimeError before ``births``.
        """
        if self.born_at is None:
            raise RuntimeError("births come first")
        yield from self._introduce(batches, now)
        for batch in batches:
            late = batch.received // _MILLISECOND < self.born_at
            if self._behind and not late:
                yield from self._flush_all(now)
                yield from self.births(now)
            for sample in batch:
                source = source_of(sample.tag)
                if source is not None:
                    yield from self._source_is(source, sample, now, late=late)
                else:
                    yield from self._tell(batch.source, sample, now, late=late)
        yield from self._flush_all(now)

    def echo(self, tag: str, value: Value, now: int) -> Iterator[Publication]:
        """Tell what was written and read back, where no sample tells it: the tag had this value already.

        It is no sample, so it leaves no trace in what the node knows.
        """
        device, metric = self._places.get(tag) or self._find(tag) or (None, None)
        if device is None or metric is None or not device.born:
            return
        if metric.type is DataType.DOUBLE and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if fitting_type(value, metric.type) is not metric.type:
            return  # told with another type than its birth's, it could not be read
        time = max(now * _MILLISECOND, metric.time or 0)
        said = Sample(tag, time, value)
        kind = MessageType.DDATA if device.name else MessageType.NDATA
        yield self._message(kind, device, [self._datum(metric, said, historical=False)], now)

    def confirm(self) -> None:
        """What ``data`` gave so far is held by the other side."""
        self._unconfirmed.clear()

    def memory(self, *, values: bool = True) -> Memory:
        """What to keep for the next session: nothing that is not confirmed counts as published.

        ``values`` False leaves out what was published: what to keep in case this session ends in a crash.
        """
        return Memory(
            bd_seq=self._bd_seq,
            next_alias=self._next_alias,
            devices=[
                KnownDevice(
                    name=device.name,
                    metrics=[self._confirmed(m) if values else forgotten(m) for m in device.metrics.values()],
                    sources=sorted(device.sources),
                )
                for device in self._devices.values()
            ],
            connected=dict(self._connected),
            server=self.server,
        )

    def _confirmed(self, metric: KnownMetric) -> KnownMetric:
        last = self._unconfirmed.get(metric.alias)
        if last is None:
            return msgspec.structs.replace(metric)
        return msgspec.structs.replace(metric, **last._asdict())

    def _introduce(self, batches: Sequence[Batch], now: int) -> Iterator[Publication]:
        """Bear what is new in these batches, all at once."""
        changed: dict[str, _Device] = {}
        for batch in batches:
            for tag, value in zip(batch.tags, batch.values, strict=True):
                place = self._places.get(tag)
                if place is None:
                    if source_of(tag) is not None:
                        continue
                    place = self._find(tag)
                    if place is None:
                        place = self._add(tag, value)
                        changed[place.device.name] = place.device
                place.device.sources.add(batch.source)
        if changed:
            yield from self._birth_of(changed.values(), now)

    def _find(self, tag: str) -> _Place | None:
        """The tag's metric where memory has it."""
        device_name, name = split_tag(tag)
        device = self._devices.get(device_name)
        metric = device.metrics.get(name) if device is not None else None
        if device is None or metric is None:
            return None
        place = self._places[tag] = _Place(device, metric)
        return place

    def _add(self, tag: str, value: Value) -> _Place:
        device_name, name = split_tag(tag)
        device = self._device(device_name)
        metric = KnownMetric(name=name, alias=self._next_alias, type=fitting_type(value, None))
        self._next_alias += 1
        device.metrics[name] = metric
        device.types = None
        self._by_alias[metric.alias] = (device.name, metric)
        place = self._places[tag] = _Place(device, metric)
        return place

    def _device(self, name: str) -> _Device:
        return self._devices.setdefault(name, _Device(name))

    def _tell(self, source: str, sample: Sample, now: int, *, late: bool) -> Iterator[Publication]:
        """Add a sample to its device's message, after a birth where one is needed."""
        device, metric = self._places[sample.tag]
        kind = fitting_type(sample.value, metric.type)
        older = metric.time is not None and sample.time < metric.time
        if kind != metric.type:
            yield from self._tell_retyped(device, metric, kind, sample, now, late=late, older=older)
            return
        if not device.born:
            yield from self._birth_of([device], now)
        device.sources.add(source)
        size = _METRIC_BYTES + (len(sample.value) if isinstance(sample.value, str | bytes) else 0)
        if device.size + size > self.message_size:
            yield from self._flush(device, now)
        device.size += size
        device.pending.append(self._datum(metric, sample, historical=late or older))
        if not older:
            self._update(metric, sample)
            self._behind |= late

    def _tell_retyped(  # a sample and where it belongs
        self, device: _Device, metric: KnownMetric, kind: DataType, sample: Sample, now: int, *, late: bool, older: bool
    ) -> Iterator[Publication]:
        """Bear the metric with the sample's type, null, and tell the sample; one of the past leaves no trace."""
        before = msgspec.structs.replace(metric)
        self._note(metric)
        yield from self._flush_all(now)
        device.types = None
        metric.type, metric.time, metric.value = kind, None, None
        yield from self._birth_of([device], now)
        device.pending.append(self._datum(metric, sample, historical=late or older))
        if not older:
            self._update(metric, sample)
            self._behind |= late
            return
        yield from self._flush(device, now)
        device.types = None
        metric.type, metric.time, metric.value = before.type, before.time, before.value
        yield from self._birth_of([device], now)

    def _update(self, metric: KnownMetric, sample: Sample) -> None:
        """Remember the sample as what was published last."""
        self._note(metric)
        metric.time, metric.value = sample.time, sample.value
        metric.quality, metric.status = sample.quality, sample.status

    def _note(self, metric: KnownMetric) -> None:
        last = _Last(metric.type, metric.time, metric.value, metric.quality, metric.status)
        self._unconfirmed.setdefault(metric.alias, last)

    def _datum(self, metric: KnownMetric, sample: Sample, *, historical: bool) -> Metric:
        was_good = metric.quality >= Quality.GOOD
        return Metric(
            name=None if self._aliases else metric.name,
            alias=metric.alias if self._aliases else None,
            timestamp=sample.time // _MILLISECOND,
            type=metric.type,
            is_historical=historical,
            is_null=sample.value is None,
            value=sample.value,
            properties=self._properties(sample, sample.time, always=not was_good) or None,
        )

    def _properties(self, said: KnownMetric | Sample, time: int, *, always: bool) -> PropertySet:
        """Quality in Sparkplug's three words, and exactly where those do not suffice; the protocol's own status."""
        found: dict[str, Property] = {}
        word = quality_word(said.quality)
        if always or word != Quality.GOOD:
            found["Quality"] = Property(DataType.INT32, word)
        if word != said.quality:
            found["OPC Quality"] = Property(DataType.INT32, said.quality)
        if said.status:
            found["Status"] = Property(DataType.UINT32, said.status)
        if self._exact and time % _MILLISECOND:
            found["Nanoseconds"] = Property(DataType.INT32, time % _MILLISECOND)
        return found

    # ---- devices that come and go --------------------------------------------------------------------

    def _source_is(self, source: str, sample: Sample, now: int, *, late: bool) -> Iterator[Publication]:
        """A source connected or was lost: its devices follow; of the past only the end counts."""
        self._connected[source] = sample.value is True
        if late:
            self._behind = True
            return
        for device in self._devices.values():
            if not device.name or source not in device.sources:
                continue
            if self._is_away(device):
                if device.born:
                    yield from self._flush(device, now)
                    device.born = False
                    yield self._message(MessageType.DDEATH, device, [], now)
            elif not device.born and device.metrics:
                yield from self._birth_of([device], now)

    def _is_away(self, device: _Device) -> bool:
        known = [self._connected[source] for source in device.sources if source in self._connected]
        return bool(known) and not any(known)

    # ---- messages -----------------------------------------------------------------------------------

    def _flush_all(self, now: int) -> Iterator[Publication]:
        for device in self._devices.values():
            yield from self._flush(device, now)

    def _flush(self, device: _Device, now: int) -> Iterator[Publication]:
        """The data message of a device: history in order, then what is live, oldest first."""
        if not device.pending:
            return
        metrics, device.pending, device.size = device.pending, [], 0
        history = [metric for metric in metrics if metric.is_historical]
        live = [metric for metric in metrics if not metric.is_historical]
        live.sort(key=lambda metric: metric.timestamp or 0)
        yield self._message(MessageType.DDATA if device.name else MessageType.NDATA, device, [*history, *live], now)

    def _message(self, kind: MessageType, device: _Device, metrics: Sequence[Metric], now: int) -> Publication:
        payload = Payload(timestamp=now, metrics=metrics, seq=self._seq)
        self._seq = (self._seq + 1) % SEQUENCE
        return Publication(self._topic(kind, device.name), payload)

    def _topic(self, kind: MessageType, device: str = "") -> str:
        return str(EdgeTopic(self.group, kind, self.node, device or None))
