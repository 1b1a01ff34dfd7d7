"""Samples as a Sparkplug B 3.0 edge node: births, data by alias, deaths; the journal stores while the host is away.

Sparkplug's data are QoS 0, which MQTT does not acknowledge. So each write ends with a question that the broker
answers in order (an UNSUBSCRIBE of nothing): "held" means that the broker has read every message before it, and that
the primary host, where one is given, was not reported offline until then.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Literal, NamedTuple, Self

import msgspec
from gmqtt.mqtt.constants import MQTTv50
from pydantic import AfterValidator, Field

from shopfloor.plant.components import ByMessage, SinkConfig
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.plant.sparkplug import SparkplugNodeLegacy
from shopfloor.protocols.mqtt import Message, Will, packet_size
from shopfloor.protocols.mqtt_session import Arrival, Probe, Session, Subscription, open_session
from shopfloor.protocols.sparkplug.edge import REBIRTH_PAUSE, EdgeNode, Publication
from shopfloor.protocols.sparkplug.edge_memory import Memory
from shopfloor.protocols.sparkplug.edge_tags import unfit
from shopfloor.protocols.sparkplug.payload import Malformed, decode, encode
from shopfloor.protocols.sparkplug.topics import id_problem
from shopfloor.protocols.tls import file_problems
from shopfloor.samples import Batch, Misconfigured, Rejected, Unavailable, Value
from shopfloor.seams import Inbox, Sink
from shopfloor.sinks.sparkplug_commands import HostCommands
from shopfloor.turns import Pieces

_log: Final = logging.getLogger("shopfloor.sinks.sparkplug")
_MILLISECOND: Final = 10**6
_SECOND: Final = 10**9
_SETTLE: Final = 1.0
"""Seconds without a write after which history counts as told."""
_FAREWELL: Final = 2.0
"""Seconds for a death to be acknowledged before the connection is left to the will."""
_OVERHEAD: Final = 4096
"""Bytes of a message that are at most not its largest value: topic, name, times, properties."""

_MANY: Final = 5000
"""Metrics of a message that is encoded beside the event loop."""


def _id(text: str) -> str:
    problem = id_problem(text)
    if problem is not None:
        raise ValueError(f"{text!r} cannot be an id of Sparkplug: {problem}")
    return text


SparkplugId = Annotated[str, AfterValidator(_id)]


class SparkplugConfig(MqttConnection, SinkConfig):
    """A Sparkplug B 3.0 edge node whose devices are the plant's machines."""

    type: Literal["sparkplug"] = "sparkplug"
    tags: list[str] = Field(
        default=["*", "$source/*"],
        min_length=1,
        description="Which tags it gets: names or patterns in which `*` matches any run of characters. "
        "`$source/*` tells it which devices are there.",
    )
    group: SparkplugId = Field(description="Sparkplug's group id.")
    node: SparkplugId = Field(description="Sparkplug's edge node id; with the group unique among all clients.")
    primary_host: SparkplugId | None = Field(
        default=None,
        description="The host application without which nothing is published: the journal keeps it meanwhile.",
    )
    aliases: bool = Field(default=True, description="Whether data messages name metrics by number instead of by name.")
    precision: Literal["ms", "ns"] = Field(
        default="ms", description="`ns` tells what Sparkplug's milliseconds cut off as the property `Nanoseconds`."
    )
    memory: Path = Field(
        default=Path("data/sparkplug"),
        description="Folder of a small file with bdSeq and the metrics' names, types and last values.",
    )
    commands: ByMessage | None = Field(
        default=None,
        description="Whether hosts may write tags by NCMD and DCMD; by default they may only ask for a rebirth.",
    )

    legacy: SparkplugNodeLegacy = Field(
        default=SparkplugNodeLegacy(), description="For hosts older than Sparkplug 3.0; nothing of it by default."
    )

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        return file_problems(self)

    def commanded(self) -> ByMessage | None:
        """How hosts may write, where they may."""
        return self.commands

    def build(self) -> "SparkplugSink":
        """The sink; opens nothing yet."""
        return SparkplugSink(self)

    def probe(self) -> Probe:
        """Only the connection, under a name of its own: a second client of one identity would disturb the first."""
        return Probe(self)


class MemoryFile:
    """What an edge node keeps between two sessions, as one file that is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        """Its folder is made when it is first written."""
        self.path = path

    def read(self) -> Memory:
        """What was kept; a new memory when there is no file. Raises Misconfigured for one that cannot be read."""
        try:
            return msgspec.msgpack.decode(self.path.read_bytes(), type=Memory)
        except FileNotFoundError:
            return Memory()
        except (OSError, msgspec.DecodeError) as error:
            raise Misconfigured(
                f"{self.path} cannot be read as the memory of an edge node ({error}); make it readable, or move it "
                "away: the node then begins with bdSeq 0 and without known metrics"
            ) from error

    def write(self, memory: Memory) -> None:
        """Replace the file, on disk when this returns. Raises Misconfigured when it cannot be written."""
        new = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                file.write(msgspec.msgpack.encode(memory))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise Misconfigured(
                f"{self.path} cannot be written ({error.strerror}); give a folder with room and rights as `memory`"
            ) from error


class _Line(NamedTuple):
    """A connection and the session of the edge node on it."""

    node: EdgeNode
    session: Session


class SparkplugSink(Sink):
    """Publishes batches as an edge node; enter it to connect and be born."""

    def __init__(self, config: SparkplugConfig, clock: Callable[[], int] = time.time_ns) -> None:
        """Built by ``SparkplugConfig.build``; ``clock`` gives ns, UTC."""
        self._config = config
        self._clock = clock
        self._client_id = config.client_id or f"shopfloor-{config.name[:40]}-{secrets.token_hex(4)}"
        self._file = MemoryFile(config.memory / f"{config.name}.msgpack")
        self._line: _Line | None = None
        self._away = "not connected"
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._wrote = 0.0
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._commands: HostCommands | None = None

    # ---- the seam -----------------------------------------------------------------------------------

    def commanded(self, inbox: Inbox) -> None:
        """Take what hosts command."""
        self._commands = HostCommands(inbox, self._echo)

    async def __aenter__(self) -> Self:
        memory = await asyncio.to_thread(self._file.read)
        try:
            self._line = await self._walk(memory)
        except BaseException:
            await asyncio.to_thread(self._file.write, memory)
            raise
        self._news.clear()
        self._tasks = (
            asyncio.create_task(self._listen(self._line), name=f"{self._config.name}: listening"),
            asyncio.create_task(self._care(self._line), name=f"{self._config.name}: births"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        tasks, self._tasks = self._tasks, ()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._commands is not None:
            await self._commands.leave()
        await self._leave()

    async def lost(self) -> None:
        """Raise Unavailable when the connection to the broker is lost or the primary host goes offline."""
        if self._tasks:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self._there()

    async def write(self, offset: int, batch: Batch) -> None:
        """Publish every sample; see ``write_many``."""
        await self.write_many([(offset, batch)])

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Publish every sample of these batches and wait until the broker has read them.

        Raises Rejected for samples that Sparkplug cannot tell or the broker not take (nothing was published
        then), Unavailable when the connection is lost or the primary host is offline.
        """
        batches = [batch for _, batch in entries]
        async with self._turn:
            node, session = self._there()
            largest, pieces = session.maximum_packet_size - _OVERHEAD, Pieces()
            for batch in batches:
                wrong = unfit(batch, largest)
                if wrong is not None:
                    raise Rejected(wrong.reason, wrong.indices if len(batches) == 1 else None)
                await pieces.worked(len(batch))
            await self._obey(node, session)
            await self._publish(session, node.data(batches, self._now()))
            await self._fence(node, session)
            self._take(node, session, session.taken())
            if node.must_leave:
                raise await self._leave_host(node)
            node.confirm()
            self._wrote = asyncio.get_running_loop().time()
        if node.owes_births:
            self._news.set()

    # ---- connecting ---------------------------------------------------------------------------------

    async def _walk(self, memory: Memory) -> _Line:
        """Connect to one server after the other until one takes us and the primary host is online there.

        ``memory`` keeps what must not be forgotten if that fails: the bdSeq and the server.
        """
        servers = self._config.servers
        away: list[str] = []
        wrong: list[str] = []
        first = memory.server
        for step in range(len(servers)):
            memory.server = (first + step) % len(servers)
            node = self._node(memory)
            will = node.connect(self._now())
            memory.bd_seq = node.bd_seq
            await asyncio.to_thread(self._file.write, node.memory(values=False))
            try:
                return await self._open(node, will, servers[memory.server])
            except Unavailable as error:
                away.append(str(error))
            except Misconfigured as error:
                wrong.append(str(error))
        if away:
            raise Unavailable("; ".join(away + wrong))
        raise Misconfigured("; ".join(wrong))

    def _node(self, memory: Memory) -> EdgeNode:
        return EdgeNode(
            self._config.group,
            self._config.node,
            memory,
            primary_host=self._config.primary_host or "",
            aliases=self._config.aliases,
            exact=self._config.precision == "ns",
            legacy_state=self._config.legacy.state_2_2,
        )

    async def _open(self, node: EdgeNode, will: Publication, server: str) -> _Line:
        death = Will(will.topic.encode(), encode(will.payload))
        session = await open_session(self._config, self._client_id, will=death, servers=[server])
        try:
            commanded = [] if self._commands is None else [node.device_commands]
            wanted = [Subscription(topic, retained="never") for topic in (node.command_topic, *commanded)]
            await session.subscribe([*wanted, *([Subscription(node.state_topic)] if node.state_topic else [])])
            await self._wait_for_host(node, session, server)
            node.message_size = min(node.message_size, session.maximum_packet_size // 2)
            await self._publish(session, node.births(self._now()))
        except BaseException:
            await session.close(with_will=node.born_at is not None)
            raise
        return _Line(node, session)

    async def _wait_for_host(self, node: EdgeNode, session: Session, server: str) -> None:
        """Return once births are allowed; raise Unavailable when the host does not come within ``timeout``.

        With several servers it is not waited for where it is known to be offline.
        """
        others = len(self._config.servers) > 1
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.timeout / _SECOND):
                if node.may_be_born:
                    return
                async for arrivals in session.arrivals():
                    self._take(node, session, arrivals)
                    if node.may_be_born:
                        return
                    if node.must_leave and others:
                        break
        raise Unavailable(f"{server}: the primary host {node.primary_host} is not online there")

    # ---- while connected ----------------------------------------------------------------------------

    def _there(self) -> _Line:
        """The connection, while it is one. Raises Unavailable, or what a task of ours died of."""
        if self._line is None:
            raise Unavailable(self._away)
        for task in self._tasks:
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is not None:
                raise error
        return self._line

    async def _listen(self, line: _Line) -> None:
        """Take what hosts say; raises Unavailable when the connection is lost."""
        node, session = line
        async for arrivals in session.arrivals():
            self._take(node, session, arrivals)

    def _take(self, node: EdgeNode, session: Session, arrivals: Iterable[Arrival]) -> None:
        """Give messages to the state machine; what is malformed asks for nothing."""
        taken = list(arrivals)
        for arrival in taken:
            if arrival.topic == node.state_topic:
                node.state(arrival.topic, arrival.payload)
                continue
            if arrival.retained:  # MQTT 3.1.1 cannot ask for none
                _log.warning("a retained command on %s is not carried out: nobody knows how old it is", arrival.topic)
                continue
            with suppress(Malformed):
                device = node.commanded(arrival.topic)
                payload = decode(arrival.payload, node.types(device), legacy_uint32_in_long=True)
                if not device:
                    node.command(payload)
                if self._commands is not None:
                    self._commands.take(node, device, payload)
        session.acknowledge(taken)
        self._news.set()

    async def _care(self, line: _Line) -> None:
        """Births that hosts ask for or history needs, and leaving with the host, also while nothing is written."""
        node, session = line
        loop = asyncio.get_running_loop()
        while self._line is line:
            await self._news.wait()
            self._news.clear()
            async with self._turn:
                if self._line is line:
                    await self._obey(node, session)
                    if node.must_leave:
                        await self._leave_host(node)
            while self._line is line and node.owes_births:
                async with self._turn:
                    left = self._wrote + _SETTLE - loop.time()
                    if left <= 0 and self._line is line and node.owes_births:
                        await self._publish(session, node.births(self._now()))
                await asyncio.sleep(max(left, 0))

    async def _obey(self, node: EdgeNode, session: Session) -> None:
        """Be born again if a host asked; data waits until then."""
        due = node.rebirth_due()
        if due is not None:
            # The wall clock may have been set back meanwhile; nobody waits longer than the pause for that.
            await asyncio.sleep(min(max(0, due - self._now()), REBIRTH_PAUSE) / 1000)
            await self._publish(session, node.births(self._now()))

    async def _publish(self, session: Session, publications: Iterable[Publication]) -> None:
        messages: list[Message] = []
        pieces = Pieces()
        for publication in publications:
            payload = await _encoded(publication, self._config.legacy)
            message = Message(publication.topic.encode(), payload, retain=False)
            if packet_size(message) > session.maximum_packet_size:
                raise Misconfigured(
                    f"a message to {publication.topic} has {packet_size(message)} bytes, the broker takes "
                    f"{session.maximum_packet_size}; allow larger ones there, or send fewer `tags`"
                )
            messages.append(message)
            await pieces.worked(len(publication.payload.metrics))
        await session.publish(messages, 0)

    async def _echo(self, node: EdgeNode, tag: str, value: Value) -> None:
        """Tell a host what was written, where no sample does."""
        async with self._turn:
            line = self._line
            if line is not None and line.node is node and not node.must_leave:
                await self._obey(node, line.session)
                await self._publish(line.session, node.echo(tag, value, self._now()))

    async def _fence(self, node: EdgeNode, session: Session) -> None:
        """Return once the broker has read everything before: it answers packets in their order."""
        await session.unsubscribe([node.command_topic + "/none"])

    # ---- leaving ------------------------------------------------------------------------------------

    async def _leave_host(self, node: EdgeNode) -> Unavailable:
        """Leave this server because the primary host did; the next one is tried first then."""
        node.server = (node.server + 1) % len(self._config.servers)
        self._away = f"the primary host {node.primary_host} went offline"
        await self._leave()
        return Unavailable(self._away)

    async def _leave(self) -> None:
        """Say NDEATH and DISCONNECT where that is still possible, keep what must be known at the next start."""
        line, self._line = self._line, None
        if line is None:
            return
        node, session = line
        try:
            if session.lost is None:
                topic, payload = node.death(self._now())
                with suppress(Unavailable, TimeoutError):
                    async with asyncio.timeout(_FAREWELL):
                        await session.publish([Message(topic.encode(), encode(payload), retain=False)], 1)
            await session.close(with_will=session.proto_ver == MQTTv50)
        finally:
            session.abort()
            # It was written at connecting too; without this, births say null at first. Not in a thread: we may
            # have been cancelled, and it is a few kilobytes.
            with suppress(Misconfigured):
                self._file.write(node.memory())

    def _now(self) -> int:
        return self._clock() // _MILLISECOND


async def _encoded(publication: Publication, legacy: SparkplugNodeLegacy) -> bytes:
    """The payload's bytes; a birth may have a hundred thousand metrics, which others need not wait for."""
    payload, wide = publication.payload, legacy.uint32_in_long
    datatypes = publication.is_birth or legacy.datatypes_in_data
    if len(payload.metrics) > _MANY:
        return await asyncio.to_thread(encode, payload, datatypes=datatypes, legacy_uint32_in_long=wide)
    return encode(payload, datatypes=datatypes, legacy_uint32_in_long=wide)
