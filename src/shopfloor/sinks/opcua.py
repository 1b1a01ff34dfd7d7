# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""An OPC UA server of Shopfloor's own: the latest value of every tag for SCADA, MES and whoever speaks OPC UA.

It shows the present state, no history: "held" means that the value is shown, told to the subscribers there are, and
will be shown again after a restart. docs/connectors/opcua-sink.md says what a subscriber may miss.
"""

import asyncio
import logging
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Literal, Self

from asyncua import ua
from asyncua.server.server import Server
from pydantic import Field, PrivateAttr, StringConstraints, field_validator, model_validator

from shopfloor.interpreter import released, settling
from shopfloor.plant import ByMessage, Plant, Secret, SinkConfig, Strict
from shopfloor.plant.components import passes
from shopfloor.plant.machine import Machine
from shopfloor.protocols.opcua_security import ClientTrust, Identity, identity
from shopfloor.protocols.opcua_session import ModeName, PolicyName
from shopfloor.protocols.opcua_values import OVERFLOW, overflowed, quality, status_of
from shopfloor.samples import Batch, Rejected, Sample, TagInfo, Unavailable, Value
from shopfloor.seams import Connection, Inbox, Sink
from shopfloor.sinks.opcua_commands import Writes
from shopfloor.sinks.opcua_machinery import DI, LIVE, MACHINERY, Machinery
from shopfloor.sinks.opcua_memory import Latest, Memory
from shopfloor.sinks.opcua_server import ServerThread, demand_free, dismantle, end, listening
from shopfloor.sinks.opcua_sessions import Account, Door
from shopfloor.sinks.opcua_space import Space, source_of
from shopfloor.sinks.tag_facts import TagFacts
from shopfloor.turns import Pieces

_log: Final = logging.getLogger("shopfloor.sinks.opcua")

_ENDPOINT: Final = re.compile(r"opc\.tcp://(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+)(:\d{1,5})?(/\S*)?")
_HIGHEST_PORT: Final = 65_535
_PRESENCE: Final = "$source/*/connected"
_LONGEST_TAG: Final = 4096
"""Characters of a node id (OPC 10000-3, 8.2.4)."""
_LARGEST: Final = 4 * 2**20
"""Bytes of a text or of bytes: a client takes a message of a few megabytes."""
_OVERFLOW_BIT: Final = OVERFLOW & 0x80

_POLICIES: Final = {
    ("Basic256Sha256", "sign"): ua.SecurityPolicyType.Basic256Sha256_Sign,
    ("Basic256Sha256", "sign_and_encrypt"): ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ("Aes128_Sha256_RsaOaep", "sign"): ua.SecurityPolicyType.Aes128Sha256RsaOaep_Sign,
    ("Aes128_Sha256_RsaOaep", "sign_and_encrypt"): ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    ("Aes256_Sha256_RsaPss", "sign"): ua.SecurityPolicyType.Aes256Sha256RsaPss_Sign,
    ("Aes256_Sha256_RsaPss", "sign_and_encrypt"): ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
}


class ServerSecurity(Strict):
    """How clients may connect. Nothing weaker is let in."""

    policies: list[PolicyName] = Field(
        default=["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"],
        min_length=1,
        description="The security policies that are offered. `None` lets clients in without any security: only where "
        "it stands here.",
    )
    modes: list[ModeName] = Field(
        default=["sign", "sign_and_encrypt"],
        min_length=1,
        description="`sign` protects against change, `sign_and_encrypt` also against reading.",
    )
    certificate: Path | None = Field(
        default=None,
        description="Shopfloor's own certificate (DER or PEM), absolute or relative to `pki`. Without it a self-signed "
        "one is made there when it is first needed, the same that sources show.",
    )
    private_key: Path | None = Field(default=None, description="The certificate's RSA key, unencrypted PEM or DER.")
    trust: Path | list[Path] = Field(
        default=Path("trusted-clients"),
        description="Certificates of clients or of their authorities that are let in: files or folders, absolute or "
        "relative to `pki`. A client that is refused has its certificate put into `refused-clients` beside.",
    )
    plain_password: bool = Field(
        default=False, description="Whether a password may come over an unsecured connection. Better leave it."
    )

    @model_validator(mode="after")
    def _check(self) -> "ServerSecurity":
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("`certificate` and `private_key` go together; leave both out to have a pair made")
        if "none" in self.modes:
            raise ValueError("`modes` are those of secure policies; to allow no security add None to `policies`")
        return self

    def offered(self) -> list[ua.SecurityPolicyType]:
        """What asyncua is to offer, the strongest first."""
        secure = [_POLICIES[policy, mode] for policy in self.policies if policy != "None" for mode in self.modes]
        return [*secure, *([ua.SecurityPolicyType.NoSecurity] if "None" in self.policies else [])]


class UserConfig(Strict):
    """Somebody who may log in."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=60)] = Field(description="The user's name.")
    password: Secret = Field(description="The password, only as `${VAR}`.")
    writes: bool = Field(
        default=False, description="Whether this user may write what `commands.allow` allows; needs `commands`."
    )


class OpcUaSinkConfig(SinkConfig):
    """An OPC UA server with the latest value of every tag, for SCADA and MES."""

    type: Literal["opcua"] = "opcua"
    tags: list[str] = Field(
        default=["*", _PRESENCE],
        min_length=1,
        description="Which tags it shows: names or patterns in which `*` matches any run of characters.",
    )
    endpoint: str = Field(
        default="opc.tcp://127.0.0.1:4840",
        description="Where it listens, `opc.tcp://address:port`. By default only programs on this computer reach it; "
        "`opc.tcp://0.0.0.0:4840` listens on all addresses.",
    )
    security: ServerSecurity = Field(default=ServerSecurity(), description="How clients may connect.")
    users: list[UserConfig] = Field(default=[], description="Who may log in.")
    anonymous: bool = Field(
        default=False, description="Whether clients without a user may read. Writing always needs a user."
    )
    pki: Path = Field(
        default=Path("data/pki"),
        description="Folder of certificates, relative to the plant file: Shopfloor's own and those of clients.",
    )
    namespace: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")] | None = Field(
        default=None,
        description="URI of the namespace in which the node id of a tag is its name; by default `urn:shopfloor:SITE`.",
    )
    memory: Path = Field(
        default=Path("data/opcua"),
        description="Folder of a file with the latest values, so that they are there again after a restart.",
    )
    sessions: int = Field(default=100, ge=1, le=10_000, description="How many clients may be connected.")
    commands: ByMessage | None = Field(
        default=None, description="Whether users with `writes` may write tags; by default nobody may."
    )

    _plant: Plant | None = PrivateAttr(default=None)

    @field_validator("tags")
    @classmethod
    def _with_presence(cls, tags: list[str]) -> list[str]:
        return tags if _PRESENCE in tags else [*tags, _PRESENCE]

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, text: str) -> str:
        match = _ENDPOINT.fullmatch(text)
        if match is None or (match[2] is not None and not 0 < int(match[2][1:]) <= _HIGHEST_PORT):
            raise ValueError(f"{text!r} is no address to listen on; write opc.tcp://0.0.0.0:4840")
        return text

    @model_validator(mode="after")
    def _somebody(self) -> "OpcUaSinkConfig":
        names = [user.name for user in self.users]
        if not names and not self.anonymous:
            raise ValueError("nobody could log in: give `users`, or set `anonymous: true` to let everybody read")
        if len(set(names)) < len(names):
            raise ValueError("a user stands in `users` twice; keep one")
        if self.commands is None and any(user.writes for user in self.users):
            raise ValueError("a user with `writes: true` can write nothing without `commands: {}`")
        secure = [policy for policy in self.security.policies if policy != "None"]
        if names and not secure and not self.security.plain_password:
            raise ValueError(
                "with `policies: [None]` alone passwords would come unencrypted; add Basic256Sha256, or set "
                "`plain_password: true` in `security`"
            )
        return self

    def place(self, plant: Plant) -> None:
        """Remember the plant: its site, lines, tags and units."""
        self._plant = plant

    def commanded(self) -> ByMessage | None:
        """How clients may write, where they may."""
        return self.commands

    def build(self) -> "OpcUaSink":
        """The sink; opens nothing yet."""
        return OpcUaSink(self, self._plant)

    def probe(self) -> Connection:
        """Only the certificate and the port: a running server keeps its own."""
        return _Probe(self)

    def identity(self) -> Identity:
        """Shopfloor's certificate; raises Misconfigured."""
        return identity(self.pki, self.security.certificate, self.security.private_key)

    def trust(self) -> ClientTrust:
        """Which clients are trusted."""
        listed = self.security.trust
        paths = [listed] if isinstance(listed, Path) else listed
        return ClientTrust([self.pki / path for path in paths], self.pki / "refused-clients")


class _Probe(Connection):
    def __init__(self, config: OpcUaSinkConfig) -> None:
        self._config = config

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._config.identity)
        demand_free(self._config.endpoint)
        return self


class OpcUaSink(Sink):
    """Shows batches; enter it to listen."""

    def __init__(self, config: OpcUaSinkConfig, plant: Plant | None = None) -> None:
        """Built by ``OpcUaSinkConfig.build``."""
        self._config = config
        self._plant = plant
        self._facts = TagFacts(plant)
        self._inbox: Inbox | None = None
        self._thread: ServerThread | None = None
        self._server: Server | None = None
        self._memory: Memory | None = None
        self._space: Space | None = None
        self._offset = 0
        self._settled = False
        """Whether what is made for it is out of the sight of Python's collector."""

    # ---- the seam -----------------------------------------------------------------------------------

    def commanded(self, inbox: Inbox) -> None:
        """Take what clients write."""
        self._inbox = inbox

    async def __aenter__(self) -> Self:
        own = await asyncio.to_thread(self._config.identity)
        writes = None if self._inbox is None else Writes(self._inbox)
        door = self._door(writes, asyncio.get_running_loop())
        self._thread = ServerThread(f"{self._config.name}: OPC UA server")
        try:
            await self._thread.start()
            await self._thread.call(self._open(own, door))
        except BaseException:
            await asyncio.shield(self._leave())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await asyncio.shield(self._leave())

    async def held(self) -> int | None:
        """The last offset whose values will be shown again after a restart."""
        return self._offset

    async def write(self, offset: int, batch: Batch) -> None:
        """Show every sample; see ``write_many``."""
        await self.write_many([(offset, batch)])

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Show every sample in its turn, and keep the latest of each tag.

        Raises Rejected for what OPC UA cannot tell, Unavailable when the latest values cannot be kept: nothing is
        shown then.
        """
        if self._thread is None:
            raise Unavailable("not listening")
        await self._thread.call(self._take(entries))

    # ---- in the server's thread ---------------------------------------------------------------------

    async def _open(self, own: Identity, door: Door) -> None:
        config = self._config
        demand_free(config.endpoint)  # before anything that takes time
        self._memory = memory = Memory(config.memory / f"{config.name}.db")
        if memory.moved is not None:
            _log.warning(
                "%s was damaged and was moved to %s: %s shows tags again as new values come",
                memory.path, memory.moved, config.name,
            )  # fmt: skip
        self._offset = memory.offset()
        namespace = config.namespace or f"urn:shopfloor:{self._facts.site or 'plant'}"
        # An address space is what Python's collector would look at for a second now and then, and all of it stays.
        with settling():
            self._server = await listening(
                config.endpoint,
                door,
                own,
                config.security.offered(),
                [namespace, f"{namespace}:folders", *((MACHINERY, DI) if self._machines() else ())],
                config.sessions,
                partial(self._populate, memory, door),
            )
        self._settled = True

    async def _populate(self, memory: Memory, door: Door, server: Server, indices: Sequence[int]) -> None:
        """Every tag of the plant file, and what was shown before."""
        plant = self._plant
        allowed = plant.commands.allow if plant is not None else []
        ranges = {allow.tag: allow.range for allow in allowed if allow.range is not None}
        writable = [] if self._inbox is None else self._inbox.tags
        space = Space(server.iserver.aspace, (indices[0], indices[1]), self._facts, writable, ranges)
        declared = [info for info in _declared(plant) if passes(info.tag, self._config.tags)]
        known, gone = _sorted_out(memory.all(), plant, {info.tag for info in declared}, self._config.tags)
        memory.forget(gone)
        await space.declare(declared)
        if machines := self._machines():
            machinery = Machinery(space, (indices[2], indices[3], indices[1]))
            told = {info.tag for info in declared}
            for machine in machines:
                place = "/".join(part for part in (self._facts.site, machine.line) if part)
                machinery.add(machine, place, judged=machine.id + LIVE in told)
        await space.restore(known)
        self._space = space
        door.tag_of, door.writable = space.tag_of, space.writable

    def _machines(self) -> Sequence[Machine]:
        return self._plant.machines if self._plant is not None else ()

    async def _take(self, entries: Sequence[tuple[int, Batch]]) -> None:
        memory, space = self._memory, self._space
        if memory is None or space is None:
            raise Unavailable("not listening")
        rows: list[Latest] = []
        offset, pieces = self._offset, Pieces()
        for at, batch in entries:
            if at <= self._offset:
                continue  # it is shown already
            self._demand_fit(batch, space, alone=len(entries) == 1)
            rows += (_latest(batch, sample) for sample in batch)
            offset = at
            await pieces.worked(len(batch))
        if offset > self._offset:
            memory.store({row.tag: row for row in rows}.values(), offset)
            self._offset = offset
            await space.apply(rows)

    def _demand_fit(self, batch: Batch, space: Space, *, alone: bool) -> None:
        """Raise Rejected for samples that cannot be told; with several batches they are offered one by one."""
        problems = [
            (place, problem)
            for place, (tag, value) in enumerate(zip(batch.tags, batch.values, strict=True))
            if (isinstance(value, str | bytes) or tag not in space.tags) and (problem := _problem(tag, value))
        ]
        if problems:
            raise Rejected(problems[0][1], [place for place, _ in problems] if alone else None)

    async def _close(self) -> None:
        server, self._server = self._server, None
        memory, self._memory = self._memory, None
        space, self._space = self._space, None
        try:
            if server is not None:
                await end(server)
                await dismantle(server)
            if space is not None:
                await space.clear()
        finally:
            if memory is not None:
                memory.close()

    # ---- beside it ----------------------------------------------------------------------------------

    async def _leave(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            await thread.call(self._close())
        finally:
            await thread.stop()
            if self._settled:  # now nobody has any of it: not its loop, nor a coroutine there
                self._settled = False
                released()

    def _door(self, writes: Writes | None, loop: asyncio.AbstractEventLoop) -> Door:
        """Who may come in; writes go over to the loop of the command path."""
        config = self._config
        door = Door(
            accounts={u.name: Account(u.password.get_secret_value(), u.writes) for u in config.users},
            anonymous=config.anonymous,
            unsecured="None" in config.security.policies,
            plain_password=config.security.plain_password,
            trust=config.trust(),
            tag_of=lambda _: None,
            writable=lambda _: False,
        )
        if writes is not None:

            async def write(session: str, who: str, tag: str, value: Value, asked: int) -> int:
                written = asyncio.run_coroutine_threadsafe(writes.write(session, who, tag, value, asked), loop)
                return await asyncio.wrap_future(written)

            door.write = write
            door.left = lambda session: _soon(loop, partial(writes.left, session))
        return door


def _soon(loop: asyncio.AbstractEventLoop, work: partial[None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(work)


def _declared(plant: Plant | None) -> Iterable[TagInfo]:
    """Every tag that the plant file names."""
    if plant is not None:
        for source in plant.sources:
            yield from source.declared() or ()
        for processor in plant.processors:
            yield from processor.outputs()


def _sorted_out(
    rows: Iterable[Latest], plant: Plant | None, declared: set[str], wanted: Sequence[str]
) -> tuple[list[Latest], list[str]]:
    """What was shown before and is still wanted, and the tags that the plant has no more."""
    known: list[Latest] = []
    gone: list[str] = []
    sources = plant.sources if plant is not None else []
    processors = plant.processors if plant is not None else []
    there = {maker.name for maker in (*sources, *processors)}
    listing = {source.name for source in sources if source.declared() is not None}
    for row in rows:
        about = source_of(row.tag)
        maker = about or row.source
        stays = plant is None or (maker in there and (about is not None or maker not in listing or row.tag in declared))
        if stays and passes(row.tag, wanted):
            known.append(row)
        else:
            gone.append(row.tag)
    return known, gone


def _latest(batch: Batch, sample: Sample) -> Latest:
    """As it is shown: with the StatusCode that came where it still says the same as the quality."""
    status = sample.status
    if overflowed(status):
        status &= ~_OVERFLOW_BIT  # it spoke of the other server's queue
    if not status or quality(status) != sample.quality:
        status = status_of(sample.quality)
    return Latest(sample.tag, batch.source, sample.time, sample.value, status, batch.received)


def _problem(tag: str, value: object) -> str:
    """Why a sample cannot be told; empty when it can."""
    try:
        size = len(value.encode()) if isinstance(value, str) else len(value) if isinstance(value, bytes) else 0
        tag.encode()
    except UnicodeEncodeError as error:
        return f"cannot be written as UTF-8: {error}"
    if len(tag) > _LONGEST_TAG:
        return f"the tag's name has more than the {_LONGEST_TAG} characters of a node id"
    return f"larger than the {_LARGEST} bytes that OPC UA clients take" if size > _LARGEST else ""
