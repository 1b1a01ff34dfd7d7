"""Sparkplug B 3.0 as a host application: every metric of every edge node and device becomes a tag.

What the messages mean is worked out in ``protocols.sparkplug.host``; this is its connection to a broker.
docs/connectors/sparkplug-source.md says what is promised.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import suppress
from string import Formatter
from types import TracebackType
from typing import Annotated, Final, Literal, NamedTuple, Self, cast

from pydantic import AfterValidator, Field

from shopfloor.plant import Duration, SourceConfig
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.plant.sparkplug import SparkplugLegacy
from shopfloor.protocols.mqtt import Message, Will
from shopfloor.protocols.mqtt_session import Arrival as Packet, Probe, Session, Subscription, open_session
from shopfloor.protocols.mqtt_words import reason_text
from shopfloor.protocols.sparkplug.exchange import Arrival, HostSettings, Moment, NotThere, Publication, Step, Verb
from shopfloor.protocols.sparkplug.host import Host
from shopfloor.protocols.sparkplug.model import Payload
from shopfloor.protocols.sparkplug.packed import decode_packed
from shopfloor.protocols.sparkplug.payload import Malformed, decode_columns, encode
from shopfloor.protocols.sparkplug.topics import EdgeTopic, MessageType, NotSparkplug, StateTopic, id_problem, parse
from shopfloor.protocols.tls import file_problems
from shopfloor.samples import (
    Batch,
    Command,
    Misconfigured,
    Outcome,
    Quality,
    Sample,
    TagInfo,
    Unavailable,
    Value,
    column,
)
from shopfloor.seams import Source

_log: Final = logging.getLogger(__name__)

_MS: Final = 10**6
_SECOND: Final = 10**9
_FIRST_VIEW: Final = 3.0
"""Seconds after connecting for which a command waits for the birth of its tag."""
_FAREWELL: Final = 2.0
"""Seconds that the broker has to take the STATE death."""
_LARGE: Final = 64 * 1024
"""Bytes of a message that is worked on beside the event loop."""
_COMPLAINTS: Final = 1000
"""Topics of which it is remembered that they were complained about."""
_QUIET: Final = frozenset({"birth", "death", "rebirth"})
_DATA: Final = frozenset({MessageType.NDATA, MessageType.DDATA})
_COMMANDS: Final = frozenset({MessageType.NCMD, MessageType.DCMD})


def _id(text: str) -> str:
    problem = id_problem(text)
    if problem is not None:
        raise ValueError(f"{text!r} cannot be an id of Sparkplug: {problem}")
    return text


def _template(text: str) -> str:
    try:
        fields = [part[1:] for part in Formatter().parse(text) if part[1] is not None]
    except ValueError:
        fields = [("", "", None)]
    known = {"group", "node", "device", "metric"}
    if any(name not in known or spec or conversion for name, spec, conversion in fields):
        raise ValueError("only {group}, {node}, {device} and {metric} can stand in braces")
    if not {"device", "metric"} <= {name for name, _, _ in fields}:
        raise ValueError("it needs {device} and {metric}, else several metrics would share one tag")
    if any("{device}" in level and "{metric}" in level for level in text.split("/")):
        raise ValueError("{device} and {metric} need levels of their own, with a / between them")
    return text


SparkplugId = Annotated[str, AfterValidator(_id)]


class SparkplugHostConfig(MqttConnection, SourceConfig):
    """A Sparkplug B 3.0 host application: all metrics of the edge nodes and devices of its groups."""

    type: Literal["sparkplug"] = "sparkplug"
    host_id: SparkplugId = Field(
        description="The id of this host application; unique among all hosts, edge nodes wait for it by this name."
    )
    role: Literal["primary", "passive"] = Field(
        default="primary",
        description="`primary`: publishes STATE, asks for rebirths, sends commands. `passive`: only listens.",
    )
    groups: list[SparkplugId] = Field(default=[], description="The groups that it listens to; all by default.")
    tag: Annotated[str, AfterValidator(_template)] = Field(
        default="{group}/{node}/{device}/{metric}",
        description="How tags are named. The level with `{device}` is left out for metrics of a node itself.",
    )
    reorder: Duration = Field(
        default=2 * _SECOND, ge=0,
        description="How long a gap in a node's sequence may stay open until a rebirth is requested.",
    )  # fmt: skip
    rebirth_rate: int = Field(
        default=20, ge=1, le=10_000, description="How many rebirths are requested a second, over all nodes."
    )
    rebirth_spread: Duration = Field(
        default=2 * _SECOND, ge=0, description="The longest random delay of a rebirth request."
    )
    rebirth_pause: Duration = Field(
        default=30 * _SECOND, ge=_SECOND // 10,
        description="How long a node is left alone after a rebirth request; doubled each time that no birth follows.",
    )  # fmt: skip
    confirmation: Duration = Field(
        default=5 * _SECOND, ge=_SECOND // 10,
        description="How long a node may take to publish the value that a command set.",
    )  # fmt: skip
    discovery: Duration = Field(
        default=10 * _SECOND, ge=_SECOND // 10, description="How long `shopfloor browse` listens for births."
    )  # fmt: skip
    clock_skew_limit: Duration | None = Field(
        default=None,
        description="A time further than this from the time of reception is replaced by it, and the quality becomes "
        "uncertain. Historical values keep theirs.",
    )

    legacy: SparkplugLegacy = Field(
        default=SparkplugLegacy(), description="For edge nodes older than Sparkplug 3.0; nothing of it by default."
    )

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        return file_problems(self)

    def build(self) -> "SparkplugSource":
        """The source; opens nothing yet."""
        return SparkplugSource(self)

    def probe(self) -> Probe:
        """Only the connection, under a name of its own: a second client of one identity would disturb the first."""
        return Probe(self)


class _Line(NamedTuple):
    """A connection and the server that it goes to."""

    server: str
    session: Session


class _Awaited(NamedTuple):
    """A command whose echo is awaited."""

    value: Value
    echoed: "asyncio.Future[bool]"


class SparkplugSource(Source):
    """A host application; enter it to connect and say so. Its view of the nodes outlives a lost connection."""

    def __init__(self, config: SparkplugHostConfig, clock: Callable[[], int] = time.time_ns) -> None:
        """Built by ``SparkplugHostConfig.build``; ``clock`` gives ns, UTC."""
        self._config = config
        self._clock = clock
        self._client_id = config.client_id or f"shopfloor-{config.name[:40]}-{secrets.token_hex(4)}"
        self._host = Host(
            HostSettings(
                host_id=config.host_id,
                primary=config.role == "primary",
                groups=config.groups,
                tag=config.tag,
                reorder=config.reorder,
                rebirth_rate=config.rebirth_rate,
                rebirth_spread=config.rebirth_spread,
                rebirth_pause=config.rebirth_pause,
                clock_skew_limit=config.clock_skew_limit,
                legacy_state=config.legacy.state_2_2,
            )
        )
        self._line: _Line | None = None
        self._since = 0.0
        self._owed: list[Step] = []
        """What is to be said before anything else: what became stale while nobody read."""
        self._lost = 0
        self._awaited: dict[str, _Awaited] = {}
        self._births = asyncio.Event()
        self._turn = asyncio.Lock()
        """Held while a large message is worked on in another thread."""
        self._complained: set[str] = set()

    # ---- the seam -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect with the STATE death as will, subscribe, say STATE. Raises Unavailable, Misconfigured."""
        away: list[str] = []
        wrong: list[str] = []
        for server in self._config.servers:
            try:
                self._line = await self._connect(server)
            except Unavailable as error:
                away.append(str(error))
            except Misconfigured as error:
                wrong.append(str(error))
            else:
                self._since = asyncio.get_running_loop().time()
                return self
        if away:
            raise Unavailable("; ".join(away + wrong))
        raise Misconfigured("; ".join(wrong))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Say that this host is going, and close."""
        line, self._line = self._line, None
        if line is None:
            return
        self._give_up_commands()
        try:
            with suppress(Unavailable, Misconfigured, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._publish(line, self._host.disconnecting(line.server, self._now()))
        finally:
            self._owed.append(self._host.disconnected(line.server, self._now()))
            await line.session.close()

    async def batches(self) -> AsyncGenerator[Batch]:
        """What came with one read of the network, as a batch; what became stale comes before Unavailable is raised."""
        line = self._connected()
        coming = _Coming(line.session)
        try:
            if (batch := self._batch(self._taken_owed())) is not None:
                yield batch
            while True:
                packets, steps = await self._next(line, coming)
                batch = self._batch(steps)
                lost = await self._answered(line, steps)
                if batch is not None:
                    yield batch
                if lost is not None:
                    raise lost
                line.session.acknowledge(packets)
        except Unavailable:
            self._give_up_commands()
            if (batch := self._batch([self._host.disconnected(line.server, self._now())])) is not None:
                yield batch
            raise
        finally:
            await coming.close()

    async def execute(self, command: Command) -> Outcome:
        """Send the value to the metric's node and wait until the node publishes it."""
        line = self._line
        if line is None:
            return Outcome(command.id, done=False, detail=f"not written: {self._config.name} is not connected")
        publication = await self._prepared(command)
        if isinstance(publication, str):
            return Outcome(command.id, done=False, detail=f"not written: {publication}")
        if command.tag in self._awaited:
            return Outcome(command.id, done=False, detail="another command for this tag is under way; wait for it")
        if self._clock() >= command.expires:
            return Outcome(command.id, done=False, detail="not written: the command has expired")
        body = cast("Payload", publication.body)
        awaited = _Awaited(cast("Value", body.metrics[0].value), asyncio.get_running_loop().create_future())
        self._awaited[command.tag] = awaited
        self._host.watched.add(command.tag)
        try:
            return await self._sent(line, publication, command.id, awaited.echoed)
        finally:
            del self._awaited[command.tag]
            self._host.watched.discard(command.tag)

    async def _sent(
        self, line: _Line, publication: Publication, command: str, echoed: "asyncio.Future[bool]"
    ) -> Outcome:
        """Send a command once and say what the node answered."""
        seconds = self._config.confirmation / _SECOND
        try:
            async with asyncio.timeout(seconds):
                await self._publish(line, [publication])
                if await echoed:
                    return Outcome(command, done=True, detail="the node published the value")
        except TimeoutError:
            return Outcome(command, done=None, detail=f"sent, but the node did not publish it within {seconds:g} s")
        except Unavailable as error:
            return Outcome(command, done=None, detail=f"the connection was lost while it was sent: {error}")
        return Outcome(command, done=None, detail="sent, but the connection was lost before the node answered")

    async def browse(self) -> AsyncIterator[TagInfo]:
        """Every metric of every node that gives its birth within ``discovery``; nodes that are heard are asked to."""
        line = self._connected()
        coming = _Coming(line.session)
        try:
            async with asyncio.timeout(self._config.discovery / _SECOND):
                while True:
                    packets, steps = await self._next(line, coming)
                    self._batch(steps)
                    line.session.acknowledge(packets)
                    if (lost := await self._answered(line, steps)) is not None:
                        raise lost
        except TimeoutError:
            pass
        finally:
            await coming.close()
        for info in self._host.browse():
            yield info

    # ---- inside -------------------------------------------------------------------------------------

    def _now(self) -> Moment:
        return Moment(self._clock(), time.monotonic_ns())

    def _connected(self) -> _Line:
        if self._line is None:
            raise Unavailable(f"{self._config.name} is not connected")
        return self._line

    async def _connect(self, server: str) -> _Line:
        """The order that Sparkplug wants: CONNECT with the will, subscribe, publish STATE."""
        will = self._host.connecting(server, self._now())
        session: Session | None = None
        try:
            session = await open_session(
                self._config,
                self._client_id,
                will=None if will is None else Will(will.topic.encode(), cast("bytes", will.body), 1, retain=True),
                servers=[server],
            )
            line = _Line(server, session)
            await session.subscribe([Subscription(topic) for topic in self._host.subscriptions()])
            await self._publish(line, self._host.connected(server, self._now()).publications)
        except BaseException:
            self._host.disconnected(server, self._now())
            if session is not None:
                await session.close()
            raise
        return line

    async def _next(self, line: _Line, coming: "_Coming") -> tuple[list[Packet], list[Step]]:
        """What comes next and what it means, with what time itself brings."""
        due = self._host.next_tick()
        packets = await coming.next(None if due is None else max(0.0, (due - time.monotonic_ns()) / _SECOND))
        steps = [step for packet in packets if (step := await self._stepped(line, packet)) is not None]
        steps.append(self._host.tick(self._now()))
        return packets, steps

    async def _answered(self, line: _Line, steps: list[Step]) -> Unavailable | None:
        """Publish what the steps say; the loss of the connection, if it was lost meanwhile."""
        try:
            for step in steps:
                await self._publish(line, step.publications)
        except Unavailable as error:
            return error
        return None

    async def _stepped(self, line: _Line, packet: Packet) -> Step | None:
        """What a message means. A birth of a hundred thousand metrics takes a second, which others need not wait."""
        if len(packet.payload) < _LARGE:
            return self._step(line, packet)
        async with self._turn:
            working = asyncio.ensure_future(asyncio.to_thread(self._step, line, packet))
            try:
                return await asyncio.shield(working)
            except asyncio.CancelledError:
                await asyncio.wait({working})  # nobody may look at the host while it changes
                raise

    def _step(self, line: _Line, packet: Packet) -> Step | None:
        """What a message means; None for one that means nothing to a host."""
        try:
            topic = parse(packet.topic, legacy_state=self._config.legacy.state_2_2)
            if isinstance(topic, StateTopic):
                return self._host.state(line.server, topic.host, packet.payload)
            if topic.type in _COMMANDS:
                return None
            if not packet.retained:
                return self._message(line, topic, packet.payload)
            self._complain(packet.topic, "retained, which Sparkplug forbids; it may be old and is not taken")
        except NotSparkplug as error:
            self._complain(packet.topic, str(error))
        except Malformed as error:
            self._complain(packet.topic, f"no payload of Sparkplug: {error}")
        return None

    def _message(self, line: _Line, topic: EdgeTopic, body: bytes) -> Step:
        """What a message of a node means; raises Malformed."""
        if topic.type in _DATA and (step := self._usual(topic, body)) is not None:
            return step
        # UInt32 in long_value is no version 3.0, but what Tahu and its relatives write; it cannot be mistaken.
        payload = decode_packed(body, legacy_uint32_in_long=True)
        return self._host.received(line.server, _arrival(topic, payload), self._now())

    def _usual(self, topic: EdgeTopic, body: bytes) -> Step | None:
        """What a data message means when it is as data messages are: in order, plain values; else None."""
        types = self._host.types(topic.group, topic.node, topic.device)
        columns = None if types is None else decode_columns(body, types)
        if columns is None:
            return None
        return self._host.received_columns(topic.group, topic.node, topic.device, columns, self._now())

    def _complain(self, topic: str, text: str) -> None:
        """Say it once for each topic."""
        if topic not in self._complained and len(self._complained) < _COMPLAINTS:
            self._complained.add(topic)
            _log.warning("%s: a message on %s is %s", self._config.name, topic, text)

    def _taken_owed(self) -> list[Step]:
        owed, self._owed = self._owed, []
        return owed

    def _batch(self, steps: list[Step]) -> Batch | None:
        """The samples of these steps together, None when there are none; what else they say is done here."""
        tags: list[str] = []
        times: list[int] = []
        values: list[Value] = []
        qualities: list[int] = []
        for step in steps:
            tags += step.tags
            times += step.times
            values += step.values
            qualities += step.qualities
            self._lost += step.lost
            for echo in step.echoes:
                self._echoed(echo)
            for event in step.events:
                level = logging.DEBUG if event.kind in _QUIET else logging.WARNING
                _log.log(level, "%s: %s: %s", self._config.name, event.where, event.text)
                if event.kind == "birth":
                    self._births.set()
        if not tags:
            return None
        lost, self._lost = self._lost, 0
        return Batch(self._config.name, self._clock(), tags, times, column(values), qualities, lost_before=lost)

    async def _publish(self, line: _Line, publications: Iterable[Publication]) -> None:
        """Publish in order. Raises Misconfigured when the broker forbids one, Unavailable."""
        for one in publications:
            body = _body(one, uint32_in_long=self._config.legacy.uint32_in_long)
            message = Message(one.topic.encode(), body, one.retain)
            for refusal in await line.session.publish([message], one.qos):
                raise Misconfigured(
                    f"the broker does not take our message on {one.topic}: {reason_text(refusal.reason)}; "
                    "allow it in the broker's access list, or set `role: passive`"
                )

    async def _prepared(self, command: Command) -> Publication | str:
        """The message of a command, or why there is none.

        Right after connecting the births are still coming, so the command waits for the one that it needs.
        """
        loop = asyncio.get_running_loop()
        while True:
            self._births.clear()
            try:
                async with self._turn:
                    return self._host.write(command.tag, command.value, self._now())
            except NotThere as error:
                left = self._since + _FIRST_VIEW - loop.time()
                if left <= 0:
                    return str(error)
                try:
                    async with asyncio.timeout(left):
                        await self._births.wait()
                except TimeoutError:
                    return str(error)
            except ValueError as error:
                return str(error)

    def _echoed(self, echo: Sample) -> None:
        awaited = self._awaited.get(echo.tag)
        if awaited is None or awaited.echoed.done() or echo.quality < Quality.GOOD:
            return
        if type(echo.value) is type(awaited.value) and echo.value == awaited.value:
            awaited.echoed.set_result(True)

    def _give_up_commands(self) -> None:
        for awaited in self._awaited.values():
            if not awaited.echoed.done():
                awaited.echoed.set_result(False)


class _Coming:
    """What comes on a session; a deadline that passes costs nothing that is under way."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._arrivals = session.arrivals()
        self._waiting: asyncio.Task[list[Packet]] | None = None

    async def next(self, within: float | None) -> list[Packet]:
        """The messages of one read; empty after ``within`` seconds. Raises Unavailable."""
        if self._waiting is None:
            if packets := self._session.taken():
                return packets
            self._waiting = asyncio.create_task(self._one())
        done, _ = await asyncio.wait({self._waiting}, timeout=within)
        if not done:
            return []
        waiting, self._waiting = self._waiting, None
        return waiting.result()

    async def close(self) -> None:
        """End the waiting."""
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
        await self._arrivals.aclose()

    async def _one(self) -> list[Packet]:
        return await anext(self._arrivals)


def _arrival(topic: EdgeTopic, payload: Payload) -> Arrival:
    return Arrival(cast("Verb", topic.type.value), topic.group, topic.node, topic.device, payload)


def _body(publication: Publication, *, uint32_in_long: bool) -> bytes:
    body = publication.body
    return body if isinstance(body, bytes) else encode(body, legacy_uint32_in_long=uint32_in_long)
