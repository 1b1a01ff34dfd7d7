# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""OPC UA: subscribes to the tags of a server, or polls them, and writes with read-back.

Notifications are acknowledged to the server only when they are durable. docs/connectors/opcua-source.md says
what is guaranteed and what is not.
"""

import asyncio
import logging
import re
import time
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, ClassVar, Final, Literal, Self, cast
from urllib.parse import urlsplit

import msgspec
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import nodeid_to_binary
from asyncua.ua.uaerrors import UaStatusCodeError
from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from shopfloor.plant import Duration, Secret, SourceConfig, Strict, TagName
from shopfloor.protocols.opcua_publish import Changes
from shopfloor.protocols.opcua_security import Trust
from shopfloor.protocols.opcua_session import ModeName, PolicyName, Server, Session, name_of
from shopfloor.protocols.opcua_structures import StructureTypes
from shopfloor.protocols.opcua_values import overflowed, quality
from shopfloor.samples import Batch, Command, Misconfigured, Outcome, Quality, TagInfo, Unavailable, column
from shopfloor.seams import Source
from shopfloor.sources.opcua_browse import browse
from shopfloor.sources.opcua_feed import Deadband, Delivery, Feed, Item
from shopfloor.sources.opcua_polling import Polling
from shopfloor.sources.opcua_subscription import Position, Settings, Subscription
from shopfloor.sources.opcua_write import Writer

_log: Final = logging.getLogger(__name__)

_MS: Final = 10**6
_SECOND: Final = 10**9
_ENDPOINT: Final = re.compile(r"opc\.tcp://(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+)(:\d{1,5})?(/\S*)?")
_NAMESPACE_URI: Final = re.compile(r"nsu=([^;]+);(.+)", re.DOTALL)

_REMEDIES: Final = {
    "BadNodeIdUnknown": "correct its `node`: `shopfloor browse` lists those that are there",
    "BadNodeIdInvalid": "correct its `node`: `shopfloor browse` lists those that are there",
    "BadAttributeIdInvalid": "its `node` is no variable; take one below it, `shopfloor browse` lists them",
    "BadNotReadable": "let the server's configuration permit reading it",
    "BadUserAccessDenied": "let the server's configuration permit this user to read it",
}
"""What to change for a node that cannot be read."""

Mode = Literal["subscribe", "poll"]

DeadbandText = Annotated[
    str,
    BeforeValidator(lambda v: str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v),
    StringConstraints(pattern=r"^\d+(\.\d+)?\s*%?$"),
]
"""``0.5`` in the tag's unit, or ``2 %`` of its range."""


def node_id(text: str) -> ua.NodeId:
    """The node id that a plant file writes as ``ns=2;s=PV``; raises ValueError with an example."""
    try:
        node = ua.NodeId.from_string(text)
        nodeid_to_binary(node)
    except Exception as error:
        msg = f"{text!r} is no OPC UA node id; write it like ns=2;s=Channel1.Device1.PV or ns=3;i=1001"
        raise ValueError(msg) from error
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


class Security(Strict):
    """How the connection is secured. It is used exactly as written here, never weaker."""

    policy: PolicyName = Field(default="None", description="The security policy that the server must offer.")
    mode: ModeName = Field(
        default="none", description="`sign` protects against change, `sign_and_encrypt` also against reading."
    )
    certificate: Path | None = Field(
        default=None,
        description="Shopfloor's own certificate (DER or PEM), absolute or relative to `pki`. Without it a self-signed "
        "one is made there when it is first needed; trust it on the server.",
    )
    private_key: Path | None = Field(default=None, description="The certificate's RSA key, unencrypted PEM or DER.")
    trust: Path | list[Path] | None = Field(
        default=None,
        description="Certificates of servers or of their authorities that are trusted: files or folders, absolute or "
        "relative to `pki`. Without it the certificate that the server shows at the first contact is kept, and any "
        "other is refused from then on.",
    )
    plain_password: bool = Field(
        default=False, description="Whether the password may go over the network unencrypted. Better leave it."
    )

    @model_validator(mode="after")
    def _check(self) -> "Security":
        if (self.policy == "None") != (self.mode == "none"):
            msg = (
                "`policy` and `mode` go together: a policy with `mode: sign_and_encrypt` (or `sign`), or neither for "
                "no security"
            )
            raise ValueError(msg)
        if (self.certificate is None) != (self.private_key is None):
            msg = "`certificate` and `private_key` go together; leave both out to have a pair made"
            raise ValueError(msg)
        return self


class OpcUaTag(Strict):
    """One node and the tag that it becomes."""

    tag: TagName = Field(description="The tag's name, `machine/signal`.")
    node: str = Field(
        description="The node id, e.g. `ns=2;s=Channel1.Device1.PV`, or with the namespace's URI, which stays the same "
        "when the server numbers its namespaces anew: `nsu=urn:plc;s=PV`."
    )
    unit: str = Field(default="", description="The unit of its values.")
    description: str = Field(default="", description="What it is.")
    sampling: Duration | None = Field(
        default=None, description="How often the server looks at it (polled: how often it is read); else the source's."
    )
    deadband: DeadbandText | None = Field(
        default=None,
        description="Changes below it are not recorded: `0.5` in the tag's unit, `2 %` of its EURange on the server.",
    )
    mode: Mode | None = Field(default=None, description="`subscribe` or `poll`; else the source's.")
    writable: bool | None = Field(
        default=None, description="False refuses every command for it; otherwise the server decides."
    )

    @field_validator("node")
    @classmethod
    def _node(cls, text: str) -> str:
        named = _NAMESPACE_URI.fullmatch(text)
        node_id(f"ns=0;{named[2]}" if named else text)
        return text


class OpcUaConfig(SourceConfig):
    """Tags of an OPC UA server: PLCs, Kepware, CODESYS, WinCC, any server of the DataAccess profile."""

    address_key: ClassVar[str] = "node"

    type: Literal["opcua"] = "opcua"
    endpoint: str = Field(
        description="The server's address, `opc.tcp://host:port/path`; port 4840 where none is given."
    )
    security: Security = Field(default=Security(), description="How the connection is secured.")
    username: str | None = Field(default=None, description="The user to log in as; anonymous without it.")
    password: Secret | None = Field(default=None, description="The user's password, only as `${VAR}`.")
    pki: Path = Field(
        default=Path("data/pki"),
        description="Folder of certificates, relative to the plant file: Shopfloor's own and those of servers.",
    )
    tags: list[OpcUaTag] = Field(
        default=[], description="What is acquired; `shopfloor browse` writes this list.", max_length=1_000_000
    )
    mode: Mode = Field(
        default="subscribe", description="`poll` for servers without subscriptions: changes are found by reading."
    )
    publishing: Duration = Field(default=200 * _MS, description="How often the server sends what changed.")
    sampling: Duration = Field(default=100 * _MS, description="How often the server looks for changes of a tag.")
    queue: int = Field(
        default=10,
        ge=2,
        le=100_000,
        description="How many changes of a tag the server keeps until they are sent; more than that between two "
        "publications, or while Shopfloor is away, are lost and counted.",
    )
    poll: Duration = Field(default=1 * _SECOND, description="How often a polled tag is read.")
    timeout: Duration = Field(
        default=5 * _SECOND,
        description="How long the server may take to answer, and to give a sign of life, until it counts as away.",
    )
    linger: Duration = Field(
        default=60 * _SECOND,
        description="How long the server keeps queueing changes while Shopfloor is away, so that nothing is lost by a "
        "restart or a broken connection.",
    )
    retry: Duration = Field(
        default=30 * _SECOND, description="When a tag that the server refused or that vanished is tried again."
    )
    clock_skew_limit: Duration | None = Field(
        default=None,
        description="A source time further than this from the time of reception is replaced by it, and the quality "
        "becomes uncertain. Values that have not changed for longer come so once after a connect.",
    )

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, text: str) -> str:
        if "@" in text:
            msg = "user and password do not belong into the endpoint; use `username` and `password`"
            raise ValueError(msg)
        if not _ENDPOINT.fullmatch(text) or not (urlsplit(text).port or 4840) > 0:
            msg = f"{text!r} is no OPC UA endpoint; write it like opc.tcp://10.0.3.21:4840"
            raise ValueError(msg)
        return text

    @model_validator(mode="after")
    def _check(self) -> "OpcUaConfig":
        if self.password is not None and self.username is None:
            msg = "`password` needs `username`"
            raise ValueError(msg)
        seen: set[str] = set()
        for tag in self.tags:
            if tag.tag in seen:
                msg = f"the tag {tag.tag!r} stands in `tags` twice; keep one"
                raise ValueError(msg)
            seen.add(tag.tag)
            if tag.deadband is not None and tag.deadband.endswith("%") and (tag.mode or self.mode) == "poll":
                msg = f"the tag {tag.tag!r} is polled, so its deadband must be absolute, e.g. `0.5`"
                raise ValueError(msg)
        return self

    def build(self) -> "OpcUaSource":
        """The source itself; opens nothing and reads no files yet."""
        return OpcUaSource(self)

    def declared(self) -> Sequence[TagInfo]:
        """The tags as the plant file lists them."""
        return [TagInfo(t.tag, t.node, unit=t.unit, description=t.description, writable=t.writable) for t in self.tags]

    def server(self) -> Server:
        """Which server, and how it is to be reached."""
        security = self.security
        listed = security.trust
        if isinstance(listed, Path):
            listed = [listed]
        return Server(
            endpoint=self.endpoint,
            policy=security.policy,
            mode=security.mode,
            folder=self.pki,
            certificate=security.certificate,
            key=security.private_key,
            trust=Trust(
                None if listed is None else [self.pki / path for path in listed],
                self.pki / "first-seen" / f"{self.name}.der",
            ),
            username=self.username,
            password=None if self.password is None else self.password.get_secret_value(),
            plain_password=security.plain_password,
            timeout=self.timeout / _SECOND,
        )


class OpcUaSource(Source):
    """A connection to one OPC UA server."""

    def __init__(self, config: OpcUaConfig) -> None:
        """Opens nothing yet."""
        self._config = config
        self._names = [tag.tag for tag in config.tags]
        self._handles = {tag.tag: handle for handle, tag in enumerate(config.tags)}
        self._session: Session | None = None
        self._before: Session | None = None
        """The session of before: when its connection was lost, the server may still have it."""
        self._subscription: Subscription | None = None
        self._writer: Writer | None = None
        self._nodes: list[ua.NodeId] = []
        self._position: Position | None = None
        self._lost = 0

    async def __aenter__(self) -> Self:
        """Connect and log in. Raises Unavailable or Misconfigured, each saying what to do."""
        session, self._before = self._before or Session(self._config.server()), None
        try:
            await session.__aenter__()
        except Unavailable:
            self._before = session  # not reached: what the server has of the session it still has
            raise
        try:
            self._nodes = await self._resolve(session)
        except BaseException:
            await session.__aexit__()
            self._before = session
            raise
        self._session, self._writer = session, Writer(session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close the session; the server keeps the subscription for ``linger``."""
        session, self._session, self._writer = self._session, None, None
        if session is not None:
            await session.__aexit__()
            self._before = session

    async def _resolve(self, session: Session) -> list[ua.NodeId]:
        """The tags' node ids, with namespace URIs put into this server's numbers."""
        named = [_NAMESPACE_URI.fullmatch(tag.node) for tag in self._config.tags]
        numbers: dict[str, int] = {}
        if any(named):
            array_id = ua.NodeId(ua.Int32(ObjectIds.Server_NamespaceArray))
            try:
                (found,) = await session.read([(array_id, AttributeIds.Value)])
            except UaStatusCodeError as error:
                raise session.explain(error) from error
            uris = cast("list[str]", found.Value.Value if found.Value is not None else [])
            numbers = {uri: number for number, uri in enumerate(uris)}
        nodes: list[ua.NodeId] = []
        for tag, uri in zip(self._config.tags, named, strict=True):
            if uri is None:
                nodes.append(node_id(tag.node))
            elif uri[1] in numbers:
                nodes.append(node_id(f"ns={numbers[uri[1]]};{uri[2]}"))
            else:
                raise Misconfigured(
                    f"tag {tag.tag}: the server has no namespace {uri[1]!r}; it has: {', '.join(numbers)}"
                )
        return nodes

    def resume(self, checkpoint: bytes) -> None:
        """Go on with the subscription that this checkpoint describes, where the server still has it."""
        with suppress(msgspec.DecodeError):  # one of an older version: begin anew
            self._position = msgspec.msgpack.decode(checkpoint, type=Position)

    async def batches(self) -> AsyncGenerator[Batch]:
        """Whole publish responses as batches; acknowledged to the server when the next one is asked for."""
        session = self._connected()
        structures = StructureTypes(session)
        feeds = await self._feeds(session, structures)
        pending = {asyncio.create_task(feed.next()): feed for feed in feeds}
        try:
            while True:
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    feed = pending.pop(task)
                    delivery = task.result()
                    batch = self._batch(delivery)
                    batch.complete = delivery.complete and len(feeds) == 1  # what is polled was not seen meanwhile
                    if len(batch) or batch.complete:
                        yield batch
                    feed.acknowledge(delivery)
                    if isinstance(feed, Subscription):
                        self._position = feed.position_of(delivery)
                    pending[asyncio.create_task(feed.next())] = feed
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            for feed in feeds:
                await feed.close()

    async def _feeds(self, session: Session, structures: StructureTypes) -> list[Feed]:
        items = self._items()
        polled = [i for i, tag in zip(items, self._config.tags, strict=True) if self._mode(tag) == "poll"]
        subscribed = [i for i, tag in zip(items, self._config.tags, strict=True) if self._mode(tag) == "subscribe"]
        feeds: list[Feed] = []
        if subscribed:
            config = self._config
            settings = Settings(
                config.publishing / _MS, config.linger / _SECOND, config.timeout / _SECOND, config.retry / _SECOND
            )
            subscription = Subscription(session, config.endpoint, subscribed, settings, structures)
            try:
                await subscription.open(self._position, self._subscription)
            except BaseException:
                await subscription.close()
                raise
            self._subscription = subscription
            if self._position is None or self._position.subscription != subscription.id:
                self._position = subscription.position  # what it queues before its first delivery is not lost either
            feeds.append(subscription)
        if polled or not subscribed:
            feeds.append(Polling(session, polled, structures))
        return feeds

    def _mode(self, tag: OpcUaTag) -> Mode:
        return tag.mode or self._config.mode

    def _sampling(self, tag: OpcUaTag) -> int:
        """Nanoseconds; 0 asks the server for every change."""
        if tag.sampling is not None:
            return tag.sampling
        return self._config.poll if self._mode(tag) == "poll" else self._config.sampling

    def _items(self) -> list[Item]:
        config = self._config
        return [
            Item(
                handle,
                tag.tag,
                node,
                self._sampling(tag) / _MS,
                config.queue,
                None
                if tag.deadband is None
                else Deadband(float(tag.deadband.rstrip("% ")), percent=tag.deadband.endswith("%")),
            )
            for handle, (tag, node) in enumerate(zip(config.tags, self._nodes, strict=True))
        ]

    def _batch(self, delivery: Delivery) -> Batch:
        received = time.time_ns()
        changes = delivery.changes
        names = self._names
        if changes.handles and max(changes.handles) >= len(names):
            changes = _known(changes, len(names))
        statuses, qualities, lost = changes.statuses, None, delivery.lost + self._lost
        marked = any(statuses)
        if marked:
            kinds = set(statuses)
            table = {status: quality(status) for status in kinds}
            qualities = array("H", [table[status] for status in statuses])
            lost += sum(statuses.count(status) for status in kinds if overflowed(status))
        self._lost = 0 if changes.handles else lost  # told with the next batch, since this one is none
        times = changes.times
        if 0 in times:
            times = [t or s or received for t, s in zip(times, changes.server_times, strict=True)]
        if self._config.clock_skew_limit is not None:
            times, qualities = _within(times, qualities, received, self._config.clock_skew_limit)
        return Batch(
            self._config.name,
            received,
            [names[handle] for handle in changes.handles],
            array("q", times),
            column(changes.values),
            qualities,
            statuses=array("I", statuses) if marked else None,
            server_times=array("q", changes.server_times) if any(changes.server_times) else None,
            checkpoint=delivery.checkpoint,
            lost_before=lost,
        )

    async def execute(self, command: Command) -> Outcome:
        """Write in the node's own type, unless the command has expired, and read back."""
        handle = self._handles.get(command.tag)
        if handle is None:
            return Outcome(command.id, done=False, detail=f"{self._config.name} has no tag {command.tag!r}")
        if self._config.tags[handle].writable is False:
            return Outcome(command.id, done=False, detail="the plant file says that this tag is not written")
        if self._writer is None:
            return Outcome(command.id, done=False, detail=f"not written: {self._config.name} is not connected")
        return await self._writer.write(command, self._nodes[handle])

    async def examine(self) -> AsyncIterator[str]:
        """Each tag whose node the server does not let read. Raises Unavailable, Misconfigured."""
        session, tags = self._connected(), self._config.tags
        try:
            found = await session.read([(node, AttributeIds.Value) for node in self._nodes])
        except UaStatusCodeError as error:
            raise session.explain(error) from error
        for tag, answer in zip(tags, found, strict=True):
            status = 0 if answer.StatusCode is None else int(answer.StatusCode.value)
            if status >> 31:
                name = name_of(status)
                yield f"{tag.tag} ({tag.node}): {name}; {_REMEDIES.get(name, 'look at the server and what it reads')}"

    async def browse(self, start: str = "i=85", wanted: Sequence[str] = ()) -> AsyncIterator[TagInfo]:
        """Every variable below the node ``start`` (by default all of Objects).

        ``wanted``: only tags that contain one of these texts. Raises Unavailable, Misconfigured.
        """
        session = self._connected()
        try:
            begin = node_id(start)
        except ValueError as error:
            raise Misconfigured(str(error)) from error
        try:
            async for info in browse(session, begin, wanted):
                yield info
        except UaStatusCodeError as error:
            raise session.explain(error) from error

    def _connected(self) -> Session:
        if self._session is None:
            raise Unavailable(f"{self._config.name} is not connected")
        return self._session


def _known(changes: Changes, size: int) -> Changes:
    """Without values of handles that were never given out."""
    found = Changes()
    rows = zip(changes.handles, changes.values, changes.statuses, changes.times, changes.server_times, strict=True)
    for handle, value, status, moment, server in rows:
        if handle < size:
            found.add(handle, value, status, moment, server)
    return found


def _within(
    times: list[int], qualities: "array[int] | None", received: int, limit: int
) -> tuple[list[int], "array[int] | None"]:
    """Times further than ``limit`` from reception become the time of reception, uncertain at best."""
    if not times or (received - limit <= min(times) and max(times) <= received + limit):
        return times, qualities
    judged = array("H", (Quality.GOOD,)) * len(times) if qualities is None else qualities
    checked = list(times)
    for i, moment in enumerate(times):
        if not -limit <= moment - received <= limit:
            checked[i] = received
            judged[i] = min(judged[i], Quality.UNCERTAIN)
    return checked, judged
