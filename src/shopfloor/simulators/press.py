"""A press line behind a real OPC UA server, with the address space of a Kepware or CODESYS installation.

``Objects / Channel1 / Device1 / PV`` is the node ``ns=2;s=Channel1.Device1.PV``, and so on for every tag
in TAGS. SP, Start and Stop can be written, everything else is the machine's own. What it does is in
``press_line``; this module lets it run in real time and shows it to OPC UA clients.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from asyncua import ua
from asyncua.common.callback import CallbackType
from asyncua.common.node import Node
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shopfloor.protocols.opcua_security import identity
from shopfloor.samples import Misconfigured
from shopfloor.simulators.press_line import FULL_SCALE, Press, Readings

ENDPOINT: Final = "opc.tcp://127.0.0.1:4840"
NAMESPACE: Final = "urn:shopfloor:simulator:press"
"""The namespace of the tags; its index is 2."""
TICK: Final = 0.1
"""Seconds from one scan of the simulated PLC to the next."""
EXTRA_EVERY: Final = 1.0
"""Seconds in which each extra tag changes once."""

_DEVICE: Final = "Channel1.Device1"
_EXTRA: Final = "Channel1.Device2"
_GROUP: Final = 100
"""Extra tags a folder: with thousands in one, building the address space takes quadratic time."""


class Tag(NamedTuple):
    """A tag of the press: how the PLC declares it."""

    kind: ua.VariantType
    description: str
    unit: str = ""
    range: tuple[float, float] | None = None
    writable: bool = False


TAGS: Final[Mapping[str, Tag]] = {
    "CV": Tag(ua.VariantType.Float, "Controlled variable: valve opening", "%", (0, 100)),
    "PV": Tag(ua.VariantType.Float, "Process variable: pressure", "bar", (0, FULL_SCALE)),
    "SP": Tag(ua.VariantType.Float, "Set-point of the pressure", "bar", (0, FULL_SCALE), writable=True),
    "MotorStatus": Tag(ua.VariantType.Boolean, "The motor runs"),
    "Start": Tag(ua.VariantType.Boolean, "Start button: starts on its rising edge", writable=True),
    "Stop": Tag(ua.VariantType.Boolean, "Stop button: stops while pressed, wins over Start", writable=True),
    "GoodParts": Tag(ua.VariantType.UInt32, "Good parts since the PLC was loaded, rolls over"),
    "ScrapParts": Tag(ua.VariantType.UInt32, "Scrapped parts since the PLC was loaded, rolls over"),
    "CycleTime": Tag(ua.VariantType.Float, "Seconds from part to part", "s", (0, 60)),
    "Temperature": Tag(ua.VariantType.Float, "Hydraulic oil", "°C", (0, 120)),
    "State": Tag(ua.VariantType.Int32, "PackML state: 2 stopped, 3 starting, 6 execute, 11 held (jammed)"),
    "FaultCode": Tag(ua.VariantType.UInt16, "0 none, 17 sheet jam"),
    "TotalParts": Tag(ua.VariantType.UInt32, "All parts since the PLC was loaded, rolls over"),
    "ScrapReason": Tag(ua.VariantType.Int32, "Of the last scrapped part: 1 pressure, 2 material"),
    "IdealRate": Tag(ua.VariantType.Float, "Parts per minute at best", "1/min"),
    "Cycle": Tag(ua.VariantType.Boolean, "The ram is down: rises once a part"),
    "Power": Tag(ua.VariantType.Float, "Power sensor", "kW", (0, 75)),
    "Energy": Tag(ua.VariantType.Double, "Energy since the PLC was loaded", "kWh"),
}
"""Every tag of the press by name; its node is ``ns=2;s=Channel1.Device1.<name>``."""

_POLICIES: Final = (
    ua.SecurityPolicyType.NoSecurity,
    ua.SecurityPolicyType.Basic256Sha256_Sign,
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
)


async def serve(  # noqa: PLR0913  # each is an option of `shopfloor simulate opcua`
    endpoint: str = ENDPOINT,
    *,
    seed: int = 1,
    extra_tags: int = 0,
    running: bool = True,
    attended: bool = True,
    certificates: Path | None = None,
    users: Mapping[str, str] | None = None,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve a press at ``endpoint`` (``opc.tcp://host:port``) until cancelled; see ``PressServer``.

    ``ready`` is called once clients can connect. Raises Misconfigured when the endpoint cannot be had.
    """
    press = Press(seed, running=running, attended=attended)
    async with PressServer(
        endpoint, press, extra_tags=extra_tags, certificates=certificates, users=users
    ) as server:  # fmt: skip
        if ready is not None:
            ready()
        await server.run()


class PressServer:
    """An OPC UA server that shows a press; enter it to listen, ``run`` it to let time pass."""

    def __init__(
        self,
        endpoint: str,
        press: Press,
        *,
        extra_tags: int = 0,
        certificates: Path | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; nothing listens yet.

        ``extra_tags`` adds that many changing values (``ns=2;s=Channel1.Device2.Group001.Tag00001`` …,
        100 a group). ``certificates`` is a folder for the server's certificate and key, made there when missing: with
        it every security policy is offered, without it only None. ``users`` maps names to passwords and
        forbids anonymous clients.
        """
        self.endpoint = endpoint
        self.press = press
        self._extra_tags = extra_tags
        self._certificates = certificates
        self._users = users
        self._server = Server(user_manager=None if users is None else _Users(users))  # type: ignore[arg-type]  # a protocol in all but name
        self._nodes: dict[str, ua.NodeId] = {}
        self._extra: list[ua.NodeId] = []
        self._shown: dict[str, object] = {}
        self._elapsed = 0.0

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            with suppress(Exception):  # a server that did not start cannot be stopped cleanly either
                await self._server.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._server.stop()

    async def _open(self) -> None:
        server = self._server
        await server.init()
        server.set_endpoint(self.endpoint)
        server.set_server_name("Shopfloor press simulator")
        await self._secure()
        await self._populate()
        server.subscribe_server_callback(CallbackType.PostWrite, self._written)
        try:
            await server.start()
        except OSError as error:
            raise Misconfigured(
                f"the simulator cannot listen at {self.endpoint}: {error.strerror or error}; choose another port"
            ) from error

    async def run(self) -> None:
        """Let the press run in real time until cancelled."""
        loop = asyncio.get_running_loop()
        last = due = loop.time()
        while True:
            now = loop.time()
            self.press.step(now - last)
            await self.show(now - last)
            last = now
            due = max(due + TICK, loop.time())
            await asyncio.sleep(due - loop.time())

    async def show(self, dt: float = TICK) -> None:
        """Publish what the press shows; extra tags move on by ``dt`` seconds."""
        now = ua.DateTime.now(UTC)
        readings = self.press.read()
        for name in Readings.__struct_fields__:
            value = getattr(readings, name)
            if self._shown.get(name) != value:
                self._shown[name] = value
                await self._publish(self._nodes[name], value, TAGS[name].kind, now)
        await self._show_extra(dt, now)

    async def _show_extra(self, dt: float, now: ua.DateTime) -> None:
        count = len(self._extra)
        begin = int(self._elapsed / EXTRA_EVERY * count)
        self._elapsed += dt
        for number in range(max(begin, int(self._elapsed / EXTRA_EVERY * count) - count),
                            int(self._elapsed / EXTRA_EVERY * count)):  # fmt: skip
            index, round_ = number % count, number // count
            value, kind = _extra_value(index, round_)
            await self._publish(self._extra[index], value, kind, now)

    async def _publish(self, node: ua.NodeId, value: object, kind: ua.VariantType, now: ua.DateTime) -> None:
        await self._server.write_attribute_value(
            node, ua.DataValue(ua.Variant(value, kind), SourceTimestamp=now, ServerTimestamp=now)
        )

    def _written(self, event: Any, _dispatcher: Any) -> None:
        """A client wrote: hand what the server took to the press, so that no short press of a button is missed."""
        if not event.is_external:
            return
        names = {node: name for name, node in self._nodes.items()}
        for write, status in zip(event.request_params.NodesToWrite, event.response_params, strict=True):
            name = names.get(write.NodeId)
            if name is None or not status.is_good() or write.Value.Value is None:
                continue
            self._operate(name, write.Value.Value.Value)

    def _operate(self, name: str, value: Any) -> None:
        if name == "SP":
            with suppress(ValueError, TypeError):  # NaN or nothing: the PLC goes on with what it had
                self.press.set_pressure(float(value))
            self._shown["SP"] = None if value != self.press.set_point else value
        elif name == "Start":
            self.press.start_button(pressed=bool(value))
        elif name == "Stop":
            self.press.stop_button(pressed=bool(value))

    async def _secure(self) -> None:
        if self._certificates is None:
            self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            self._certificates.mkdir(parents=True, exist_ok=True)
            own = await asyncio.to_thread(identity, self._certificates)
            await self._server.set_application_uri(own.application_uri)
            await self._server.load_certificate(own.certificate.public_bytes(Encoding.DER), format="DER")
            key = own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            await self._server.load_private_key(key, format="PEM")
            self._server.set_security_policy(list(_POLICIES))
        token = ua.AnonymousIdentityToken if self._users is None else ua.UserNameIdentityToken
        self._server.set_identity_tokens([token])

    async def _populate(self) -> None:
        index = await self._server.register_namespace(NAMESPACE)
        channel = await _folder(self._server.get_objects_node(), index, "Channel1")
        device = await _folder(channel, index, _DEVICE)
        extra = await _folder(channel, index, _EXTRA) if self._extra_tags else channel
        for name, tag in TAGS.items():
            node = await _variable(device, index, f"{_DEVICE}.{name}", tag.kind)
            await _describe(node, tag)
            self._nodes[name] = node.nodeid
        for begin in range(0, self._extra_tags, _GROUP):
            path = f"{_EXTRA}.Group{begin // _GROUP + 1:03}"
            group = await _folder(extra, index, path)
            for number in range(begin, min(begin + _GROUP, self._extra_tags)):
                _, kind = _extra_value(number, 0)
                node = await _variable(group, index, f"{path}.Tag{number + 1:05}", kind)
                self._extra.append(node.nodeid)
        self._server.iserver.aspace.force_server_timestamp = True
        await self.show(0.0)


class _Users:
    """Lets in who knows a password; what asyncua asks for as its user manager."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = users

    def get_user(
        self,
        iserver: object,  # noqa: ARG002  # asyncua passes it
        username: str | None = None,
        password: str | None = None,
        certificate: object = None,  # noqa: ARG002  # asyncua passes it
    ) -> User | None:
        known = self._users.get(username or "")
        return User(role=UserRole.User, name=username) if known is not None and known == password else None


def _extra_value(index: int, number: int) -> tuple[object, ua.VariantType]:
    """The ``number``-th value of an extra tag: by turns a wave, a counter, a switch and a saw-tooth."""
    match index % 4:
        case 0:
            return 50 + 40 * math.sin(number / 10 + index), ua.VariantType.Double
        case 1:
            return (number * (1 + index % 7)) % 2**31, ua.VariantType.Int32
        case 2:
            return number % (2 + index % 5) == 0, ua.VariantType.Boolean
        case _:
            return float((number + index) % 100), ua.VariantType.Float


def _node_id(path: str, index: int) -> ua.NodeId:
    return ua.NodeId(ua.String(path), ua.Int16(index))


async def _folder(parent: Node, index: int, path: str) -> Node:
    return await parent.add_folder(_node_id(path, index), ua.QualifiedName(path.rpartition(".")[2], index))


async def _variable(parent: Node, index: int, path: str, kind: ua.VariantType) -> Node:
    initial = False if kind is ua.VariantType.Boolean else 0.0 if kind.name in ("Float", "Double") else 0
    name = ua.QualifiedName(path.rpartition(".")[2], index)
    return await parent.add_variable(_node_id(path, index), name, initial, varianttype=kind)


async def _describe(node: Node, tag: Tag) -> None:
    await node.write_attribute(AttributeIds.Description, ua.DataValue(ua.Variant(ua.LocalizedText(tag.description))))
    if tag.writable:
        await node.set_writable()
    if tag.unit:
        unit = ua.EUInformation(DisplayName=ua.LocalizedText(tag.unit))
        await node.add_property(0, "EngineeringUnits", unit)
    if tag.range is not None:
        await node.add_property(0, "EURange", ua.Range(*tag.range))
