"""Who may connect to the OPC UA server, and what a client of another make (node-opcua) sees and writes."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.uaerrors import UaStatusCodeError

from shopfloor import plant as plants
from shopfloor.commands import Audit, CommandInbox, Commands
from shopfloor.pipeline import Pipeline
from shopfloor.plant import Allow, Commands as CommandsConfig
from shopfloor.plant.components import FromEnvironment
from shopfloor.protocols.opcua_security import generate
from shopfloor.samples import Batch, Command, Outcome, Sample, Value
from shopfloor.simulators.press import PressServer
from shopfloor.simulators.press_line import Press
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port
from tests.sinks.opcua_client import NAMESPACE, NodeClient, config, connected, node, node_client, read, shown
from tests.sinks.opcua_standard import standard_nodes

__all__ = ["standard_nodes"]  # a fixture

SECOND = 10**9
T0 = 1_767_592_800_123_456_789
CODES = ua.StatusCodes
USERS: list[dict[str, Any]] = [
    {"name": "scada", "password": "s3cret", "writes": True},
    {"name": "viewer", "password": "look"},
]
ALLOW = [
    Allow(tag="press-1/SP", range=(0, 80)),
    Allow(tag="press-1/Mode", role="admin"),
    Allow(tag="press-1/Broken"),
    Allow(tag="press-1/Odd"),
    Allow(tag="press-1/Start", momentary=True, lease=60 * SECOND),
]
FIRST = [
    Sample("press-1/PV", T0, 41.5),
    Sample("press-1/SP", T0, 40.0),
    Sample("press-1/Mode", T0, 1),
    Sample("press-1/Broken", T0, 1.0),
    Sample("press-1/Odd", T0, 1.0),
    Sample("press-1/Start", T0, value=False),
    Sample("press-1/Order", T0, "A-4711 Größe"),
    Sample("press-1/Count", T0, 2**53 + 1),
    Sample("press-1/Blob", T0, b"\x00\xff\x07"),
    Sample("press-1/Sensor", T0, 1.0, 16),
]


def secured(folder: Path, port: int, **options: Any) -> Any:
    """Only secure channels, only users."""
    chosen: dict[str, Any] = {
        "anonymous": False,
        "security": {},
        "users": _with_secrets(USERS),
        "commands": {},
        **options,
    }
    return config(folder, port, **chosen)


def _with_secrets(users: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the plant file's loader gives what stands in the environment."""
    return [{**user, "password": FromEnvironment(user["password"])} for user in users]


@asynccontextmanager
async def secure_client(
    port: int, folder: Path, user: str | None = None, password: str = "", mode: str = "SignAndEncrypt"
) -> AsyncIterator[Client]:
    """Asyncua's client with a certificate of its own, made in ``folder``."""
    certificate, key = folder / "client.der", folder / "client.pem"
    if not certificate.exists():
        generate(certificate, key)
    client = Client(f"opc.tcp://127.0.0.1:{port}", timeout=30)
    client.application_uri = f"urn:{socket.gethostname()}:shopfloor"
    await client.set_security(SecurityPolicyBasic256Sha256, certificate, key, mode=ua.MessageSecurityMode[mode])
    if user is not None:
        client.set_user(user)
        client.set_password(password)
    async with client:
        yield client


def trust(folder: Path, client: Path) -> None:
    """What a person does."""
    trusted = folder / "pki" / "trusted-clients"
    trusted.mkdir(parents=True, exist_ok=True)
    (trusted / "client.der").write_bytes((client / "client.der").read_bytes())


@pytest.fixture
def clients(tmp_path: Path) -> Path:
    folder = tmp_path / "client"
    folder.mkdir()
    generate(folder / "client.der", folder / "client.pem")
    return folder


# ---- who may come in --------------------------------------------------------------------------------


async def test_nobody_comes_in_without_security_unless_it_is_allowed(tmp_path: Path) -> None:
    """Asyncua's server itself opens an unsecured channel whatever it offers; with the right password, too."""
    port = free_port()
    async with secured(tmp_path, port).build():
        for user, password in (("scada", "s3cret"), ("", "")):
            raw = Client(f"opc.tcp://127.0.0.1:{port}", timeout=30)
            await raw.connect_socket()
            try:
                await raw.send_hello()
                await raw.open_secure_channel()
                with pytest.raises(UaStatusCodeError) as refused:
                    await _force_session(raw, user, password)
                assert refused.value.code in (
                    CODES.BadSecurityModeInsufficient, CODES.BadIdentityTokenRejected,
                )  # fmt: skip
            finally:
                raw.disconnect_socket()


async def _force_session(raw: Client, user: str, password: str) -> None:
    """Begin a session on whatever channel there is, without asking which endpoints are offered."""
    created = ua.CreateSessionParameters()
    created.ClientDescription.ApplicationUri = "urn:intruder"
    created.EndpointUrl = raw.server_url.geturl()
    created.SessionName = "intruder"
    created.RequestedSessionTimeout = 60_000
    created.ClientNonce = b"n" * 32
    await raw.uaclient.create_session(created)
    activated = ua.ActivateSessionParameters()
    activated.UserIdentityToken = (
        ua.UserNameIdentityToken(PolicyId="username", UserName=user, Password=password.encode())
        if user
        else ua.AnonymousIdentityToken(PolicyId="anonymous")
    )
    await raw.uaclient.activate_session(activated)


async def test_an_unknown_certificate_is_kept_for_a_person_to_trust(
    tmp_path: Path, clients: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused and named; moved into the trusted folder it comes in, without a restart."""
    port = free_port()
    async with secured(tmp_path, port).build():
        with pytest.raises(UaStatusCodeError) as refused:
            async with secure_client(port, clients, "scada", "s3cret"):
                pytest.fail("it came in")
        assert refused.value.code == CODES.BadCertificateUntrusted
        kept = list((tmp_path / "pki" / "refused-clients").iterdir())
        assert [file.read_bytes() for file in kept] == [(clients / "client.der").read_bytes()]
        assert f"move {kept[0]} to {tmp_path / 'pki' / 'trusted-clients'}" in caplog.text
        (tmp_path / "pki" / "trusted-clients").mkdir()
        kept[0].rename(tmp_path / "pki" / "trusted-clients" / kept[0].name)
        for mode in ("Sign", "SignAndEncrypt"):
            async with secure_client(port, clients, "scada", "s3cret", mode) as client:
                assert await client.get_namespace_index(NAMESPACE)


async def test_a_wrong_password_an_unknown_user_and_nobody_are_refused(
    tmp_path: Path, clients: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    trust(tmp_path, clients)
    async with secured(tmp_path, port).build():
        for user, password in (("scada", "wrong"), ("scada", ""), ("admin", "s3cret"), (None, "")):
            with pytest.raises((UaStatusCodeError, ua.UaError)):
                async with secure_client(port, clients, user, password):
                    pytest.fail(f"{user} came in")
        async with secure_client(port, clients, "viewer", "look") as client:
            assert await client.get_namespace_index(NAMESPACE)
    assert caplog.text.count("'scada' may not log in, or gave another password") == 1  # not for each try
    assert "s3cret" not in caplog.text
    assert "wrong" not in caplog.text


async def test_only_the_modes_of_the_plant_file_are_offered(tmp_path: Path, clients: Path) -> None:
    port = free_port()
    trust(tmp_path, clients)
    only = {"policies": ["Basic256Sha256"], "modes": ["sign_and_encrypt"]}
    async with secured(tmp_path, port, security=only).build():
        endpoints = await Client(f"opc.tcp://127.0.0.1:{port}", timeout=30).connect_and_get_server_endpoints()
        offered = {(e.SecurityPolicyUri.rpartition("#")[2], e.SecurityMode.name) for e in endpoints}
        assert offered == {("Basic256Sha256", "SignAndEncrypt")}
        assert {t.TokenType for e in endpoints for t in e.UserIdentityTokens} == {ua.UserTokenType.UserName}
        with pytest.raises(ua.UaError):
            async with secure_client(port, clients, "scada", "s3cret", "Sign"):
                pytest.fail("it came in")


# ---- writing ----------------------------------------------------------------------------------------


class Shop:
    """A server that takes writes, with the machine behind it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writes: list[tuple[str, Value, str]] = []

    async def execute(self, command: Command) -> Outcome:
        if command.tag == "press-1/Broken":
            return Outcome(command.id, done=False, detail="the PLC is not connected")
        self.writes.append((command.tag, command.value, command.issued_by))
        done = None if command.tag == "press-1/Odd" else True
        return Outcome(command.id, done=done, detail="read back")


@asynccontextmanager
async def shop(folder: Path, **options: Any) -> AsyncIterator[Shop]:
    """The server of ``secured``, or as the options say."""
    port = free_port()
    found = Shop(port)
    chosen = secured(folder, port, **{"commands": {"who": "opcua"}, **options})
    audit = Audit(folder / "audit.db", time.time_ns)
    async with Commands(CommandsConfig(allow=ALLOW), audit, found.execute) as commands:
        sink = chosen.build()
        sink.commanded(CommandInbox(commands, chosen.commands, chosen.name))
        async with sink:
            await sink.write(1, Batch.of("plc", T0, FIRST))
            yield found


PLAIN = {"security": {"policies": ["None", "Basic256Sha256"]}, "anonymous": True}


RESULTS: list[tuple[str, Any, int]] = [
    ("press-1/SP", 42.5, 0),
    ("press-1/SP", 42, 0),
    ("press-1/SP", 81.0, CODES.BadOutOfRange),
    ("press-1/SP", "much", CODES.BadTypeMismatch),
    ("press-1/SP", [1.0, 2.0], CODES.BadTypeMismatch),
    ("press-1/Mode", 2, CODES.BadUserAccessDenied),
    ("press-1/PV", 1.0, CODES.BadNotWritable),
    ("press-1/Broken", 2.0, CODES.BadDeviceFailure),
    ("press-1/Odd", 2.0, CODES.BadUnexpectedError),
    ("press-9/Nothing", 2.0, CODES.BadNodeIdUnknown),
]


async def _status(client: Client, tag: str, value: Any) -> int:
    """The result of a write, as the server gives it."""
    wanted = ua.WriteValue(
        NodeId=(await node(client, tag)).nodeid,
        AttributeId=ua.AttributeIds.Value,
        Value=ua.DataValue(ua.Variant(value)),
    )
    (status,) = await client.uaclient.write(ua.WriteParameters(NodesToWrite=[wanted]))
    return status.value


async def test_a_write_goes_into_the_command_path_and_never_into_the_value(tmp_path: Path) -> None:
    """The result is what became of it; the value changes when the machine says so. The audit record has the user."""
    async with shop(tmp_path, **PLAIN) as at, connected(at.port, user="scada", password="s3cret") as client:
        for tag, value, expected in RESULTS:
            assert await _status(client, tag, value) == expected, (tag, value)
        assert shown(await read(client, "press-1/SP")) == 40.0
        assert at.writes == [
            ("press-1/SP", 42.5, "opcua/scada"),
            ("press-1/SP", 42, "opcua/scada"),
            ("press-1/Odd", 2.0, "opcua/scada"),
        ]
        display = ua.DataValue(ua.Variant(ua.LocalizedText("mine")))
        with pytest.raises(UaStatusCodeError):
            await (await node(client, "press-1/SP")).write_attribute(ua.AttributeIds.DisplayName, display)
        with pytest.raises(UaStatusCodeError):
            await client.nodes.objects.add_folder(2, "mine")


@pytest.mark.parametrize("user", [None, "viewer"])
async def test_who_may_not_write_is_refused_and_sees_so(tmp_path: Path, user: str | None) -> None:
    """UserAccessLevel tells a client what it may do, AccessLevel what anybody may."""
    login = {} if user is None else {"user": user, "password": "look"}
    async with shop(tmp_path, **PLAIN) as at:
        async with connected(at.port, **login) as client:
            assert await _status(client, "press-1/SP", 42.5) == CODES.BadUserAccessDenied
            found = await node(client, "press-1/SP")
            assert await found.get_user_access_level() == {ua.AccessLevel.CurrentRead}
            assert await found.get_access_level() == {ua.AccessLevel.CurrentRead, ua.AccessLevel.CurrentWrite}
        assert at.writes == []
        async with connected(at.port, user="scada", password="s3cret") as client:
            levels = await (await node(client, "press-1/SP")).get_user_access_level()
            assert ua.AccessLevel.CurrentWrite in levels


async def test_a_button_is_pressed_renewed_and_let_go_also_by_leaving(tmp_path: Path) -> None:
    """True presses and renews, false lets go; a client that leaves lets go; nobody else may take it over."""
    async with shop(tmp_path, **PLAIN) as at, connected(at.port, user="scada", password="s3cret") as other:
        async with connected(at.port, user="scada", password="s3cret") as client:
            assert await _status(client, "press-1/Start", value=False) == CODES.BadInvalidState  # it holds nothing
            assert await _status(client, "press-1/Start", value=True) == 0
            assert await _status(client, "press-1/Start", value=True) == 0
            assert await _status(other, "press-1/Start", value=True) == CODES.BadInvalidState
            assert await _status(other, "press-1/Start", value=False) == CODES.BadInvalidState
            assert await _status(client, "press-1/Start", value=False) == 0
            assert [value for _, value, _ in at.writes] == [True, False]
            assert await _status(client, "press-1/Start", 7) == CODES.BadTypeMismatch
            assert await _status(client, "press-1/Start", value=True) == 0
        await until(lambda: [value for _, value, _ in at.writes] == [True, False, True, False], "it is let go")
        assert await _status(other, "press-1/Start", value=True) == 0


# ---- a client of another make -----------------------------------------------------------------------


async def _look_round(peer: NodeClient, index: int) -> None:
    """Browse down to the machine and read every kind of value."""
    below = (await peer.ask("browse", node="i=85"))["below"]
    site = next(found for found in below if found["name"] == "Plant")
    (machine,) = (await peer.ask("browse", node=site["id"]))["below"]
    names = {found["name"]: found["id"] for found in (await peer.ask("browse", node=machine["id"]))["below"]}
    assert names == {sample.tag.partition("/")[2]: f"ns={index};s={sample.tag}" for sample in FIRST}

    async def value(tag: str) -> Any:
        return await peer.ask("read", node=f"ns={index};s=press-1/{tag}")

    pv = await value("PV")
    assert (pv["value"], pv["type"], pv["status"]) == (41.5, "Double", "Good")
    assert pv["ms"] == T0 // 10**6
    assert (await value("Order"))["value"] == "A-4711 Größe"
    assert (await value("Count"))["value"] == str(2**53 + 1)
    assert (await value("Blob"))["value"] == "AP8H"
    assert (await value("Start"))["value"] is False
    sensor = await value("Sensor")
    assert (sensor["status"], sensor["value"]) == ("BadSensorFailure", None)
    kind = await peer.ask("read", node=f"ns={index};s=press-1/PV", attribute="DataType")
    assert "11" in str(kind["value"])


async def test_node_opcua_browses_reads_subscribes_and_writes(tmp_path: Path) -> None:
    """Without security and with Basic256Sha256, one process of node for all: it takes seconds to load."""
    async with node_client(tmp_path / "node") as peer, shop(tmp_path, **PLAIN) as at:
        endpoint = f"opc.tcp://127.0.0.1:{at.port}"
        answer = await peer.ask("connect", endpoint=endpoint)
        index = answer["namespaces"].index(NAMESPACE)
        await _look_round(peer, index)
        sp = f"ns={index};s=press-1/SP"
        assert (await peer.ask("write", node=sp, type="Double", value=42.5))["status"] == "BadUserAccessDenied"
        await peer.ask("disconnect")

        secure = {"endpoint": endpoint, "mode": "SignAndEncrypt", "policy": "Basic256Sha256"}
        first = await peer.ask("connect", **secure, user="scada", password="s3cret")
        assert "BadCertificateUntrusted" in first["refused"]
        (kept,) = (tmp_path / "pki" / "refused-clients").iterdir()
        (tmp_path / "pki" / "trusted-clients").mkdir()
        kept.rename(tmp_path / "pki" / "trusted-clients" / kept.name)
        assert "refused" in await peer.ask("connect", **secure, user="scada", password="wrong")
        for mode in ("Sign", "SignAndEncrypt"):
            again = {**secure, "mode": mode}
            assert "namespaces" in await peer.ask("connect", **again, user="scada", password="s3cret")
            await _look_round(peer, index)
            assert (await peer.ask("write", node=sp, type="Double", value=42.5))["status"] == "Good"
            assert (await peer.ask("write", node=sp, type="Double", value=99))["status"] == "BadOutOfRange"
            await peer.ask("disconnect")
        assert at.writes == [("press-1/SP", 42.5, "opcua/scada")] * 2


PLANT = """
plant: {{site: bremen}}
sources:
  - name: plc
    type: opcua
    endpoint: {press}
    publishing: 50 ms
    tags:
      - {{tag: press-1/SP, node: "ns=2;s=Channel1.Device1.SP", unit: bar}}
      - {{tag: press-1/MotorStatus, node: "ns=2;s=Channel1.Device1.MotorStatus"}}
      - {{tag: press-1/Start, node: "ns=2;s=Channel1.Device1.Start"}}
sinks:
  - name: scada
    type: opcua
    endpoint: opc.tcp://127.0.0.1:{port}
    security: {{policies: [None, Basic256Sha256]}}
    users: [{{name: scada, password: "${{SCADA}}", writes: true}}]
    commands: {{}}
    pki: pki
    memory: memory
commands:
  allow:
    - {{tag: press-1/SP, range: [0, 80], expires: 60 s}}
    - {{tag: press-1/Start, momentary: true, lease: 10 s, expires: 60 s}}
journal: {{path: journal.db}}
console: null
"""


async def test_from_node_opcua_into_the_plc_and_back(tmp_path: Path) -> None:
    """The whole way: a SCADA sees the values, sets one, presses Start, and sees the machine answer."""
    server, port = PressServer(f"opc.tcp://127.0.0.1:{free_port()}", Press()), free_port()
    async with server, node_client(tmp_path / "node") as peer:
        working = asyncio.create_task(server.run())
        text = PLANT.format(press=server.endpoint, port=port)
        plant = plants.parse(text, "plant.yaml", tmp_path, {"SCADA": "s3cret"})
        async with Pipeline(plant) as pipeline:
            await until(lambda: all(c.state == "running" for c in pipeline.components()), "everything runs", 60)
            answer = await peer.ask("connect", endpoint=f"opc.tcp://127.0.0.1:{port}", user="scada", password="s3cret")
            index = answer["namespaces"].index("urn:shopfloor:bremen")
            tags = {name: f"ns={index};s=press-1/{name}" for name in ("SP", "MotorStatus", "Start")}
            await peer.ask("subscribe", nodes=list(tags.values()))

            async def hears(name: str, value: object) -> None:
                async def heard() -> bool:
                    told = (await peer.ask("heard"))["heard"]
                    newest = [one["value"] for one in told if one["node"] == tags[name]]
                    return bool(newest) and newest[-1] == value

                await until(heard, f"it hears {name} {value}", 60)

            await hears("MotorStatus", value=False)
            assert (await peer.ask("write", node=tags["SP"], type="Double", value=37.5))["status"] == "Good"
            await hears("SP", 37.5)
            assert server.press.set_point == 37.5
            assert (await peer.ask("write", node=tags["Start"], type="Boolean", value=True))["status"] == "Good"
            await hears("MotorStatus", value=True)
            assert (await peer.ask("write", node=tags["Start"], type="Boolean", value=False))["status"] == "Good"
            await hears("Start", value=False)
            await peer.ask("disconnect")
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
