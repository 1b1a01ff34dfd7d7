"""Reaching an OPC UA server: every security, and every way to fail said with what to do."""

import asyncio
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua.ua.status_codes import StatusCodes
from cryptography import x509
from pydantic import SecretStr

from shopfloor.protocols.opcua_security import thumbprint
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.sources.opcua import OpcUaConfig
from shopfloor.testing.contracts import Leftovers
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.sources.opcua_peer import Peer

POLICIES = ("Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
PATIENCE = 40.0


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with Peer(
        tmp_path_factory.mktemp("peer"),
        security=["None", "Sign", "SignAndEncrypt"],
        policies=POLICIES,
        users={"operator": "geheim"},
        anonymous=True,
    ) as started:
        yield started


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """Trusts nobody by itself, offers no unsecured connection, knows no anonymous users, has a path."""
    with Peer(
        tmp_path_factory.mktemp("strict"),
        security=["SignAndEncrypt"],
        users={"operator": "geheim"},
        accept=False,
        path="/UA/Plant",
    ) as started:
        yield started


def configured(endpoint: str, folder: Path, **more: Any) -> OpcUaConfig:
    return OpcUaConfig.model_validate(
        {
            "name": "press",
            "type": "opcua",
            "endpoint": endpoint,
            "pki": folder / "pki",
            "timeout": "30 s",
            "tags": [{"tag": "PV", "node": "nsu=urn:shopfloor:peer;s=PV"}],
            **more,
        }
    )


def secured(policy: str = "Basic256Sha256", mode: str = "sign_and_encrypt", **more: Any) -> dict[str, Any]:
    return {"policy": policy, "mode": mode, **more}


def with_password(config: OpcUaConfig, username: str, password: str) -> OpcUaConfig:
    """As the plant file does with ``${PW}``."""
    return config.model_copy(update={"username": username, "password": SecretStr(password)})


async def first(config: OpcUaConfig) -> list[str]:
    async with config.build() as source:
        batches = source.batches()
        batch = await asyncio.wait_for(anext(batches), PATIENCE)
        await batches.aclose()
        return list(batch.tags)


@pytest.mark.parametrize("mode", ["sign", "sign_and_encrypt"])
@pytest.mark.parametrize("policy", POLICIES)
async def test_every_policy_and_mode(peer: Peer, tmp_path: Path, policy: str, mode: str) -> None:
    assert await first(configured(peer.endpoint, tmp_path, security=secured(policy, mode))) == ["PV"]


@pytest.mark.parametrize("security", [{}, secured()])
async def test_a_user_with_a_password(peer: Peer, tmp_path: Path, security: dict[str, Any]) -> None:
    """Also without a secure channel, where the server takes the password encrypted."""
    config = with_password(configured(peer.endpoint, tmp_path, security=security), "operator", "geheim")
    assert await first(config) == ["PV"]


@pytest.mark.parametrize("security", [{}, secured()])
async def test_a_wrong_password(peer: Peer, tmp_path: Path, security: dict[str, Any]) -> None:
    config = with_password(configured(peer.endpoint, tmp_path, security=security), "operator", "wrong")
    with pytest.raises(Misconfigured, match="correct `username` and `password`"):
        await first(config)


async def test_an_anonymous_user_where_none_is_allowed(strict: Peer, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"no anonymous users.*`username`"):
        await first(configured(f"{strict.endpoint}/UA/Plant", tmp_path, security=secured()))


@pytest.mark.parametrize("security", [{}, secured(mode="sign"), secured("Aes128_Sha256_RsaOaep")])
async def test_security_that_is_not_offered_is_never_weakened(
    strict: Peer, tmp_path: Path, security: dict[str, Any]
) -> None:
    """It lists what the server offers instead."""
    with pytest.raises(Misconfigured, match="only: Basic256Sha256 with mode sign_and_encrypt"):
        await first(configured(f"{strict.endpoint}/UA/Plant", tmp_path, security=security))


async def test_a_certificate_that_the_server_does_not_trust(strict: Peer, tmp_path: Path) -> None:
    """The error names the thumbprint; once it is trusted on the server, it works."""
    endpoint = f"{strict.endpoint}/UA/Plant"
    config = with_password(configured(endpoint, tmp_path, security=secured()), "operator", "geheim")
    with pytest.raises(Misconfigured) as refused:
        await first(config)
    own = x509.load_der_x509_certificate((tmp_path / "pki" / "own.der").read_bytes())
    assert thumbprint(own) in str(refused.value)
    pki = next(Path(strict.command[-1].split('"folder": "')[1].split('"')[0]).glob("pki"))
    rejected, certificates = pki / "rejected", pki / "trusted" / "certs"

    async def trusted() -> bool:
        for found in rejected.iterdir():
            shutil.move(found, certificates / found.name)
        await asyncio.sleep(0.2)  # the server looks at its folders now and then
        try:
            return await first(config) == ["PV"]
        except Misconfigured:
            # What left a folder before the server began to watch it stays rejected: it is shown once more.
            for found in certificates.iterdir():
                shutil.copy(found, rejected)
            await asyncio.sleep(0.2)
            return False

    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not await trusted():
        assert asyncio.get_running_loop().time() < deadline


async def test_a_trust_list(peer: Peer, tmp_path: Path) -> None:
    """An empty one trusts nobody; a server whose certificate is in it is trusted."""
    (tmp_path / "pki" / "trusted").mkdir(parents=True)
    config = configured(peer.endpoint, tmp_path, security=secured(trust="trusted"))
    with pytest.raises(Misconfigured, match="not trusted"):
        await first(config)
    assert await first(configured(peer.endpoint, tmp_path / "other", security=secured())) == ["PV"]
    shutil.copy(tmp_path / "other" / "pki" / "first-seen" / "press.der", tmp_path / "pki" / "trusted" / "plc.der")
    assert await first(config) == ["PV"]


async def test_another_server_at_the_same_address(peer: Peer, tmp_path: Path, strict: Peer) -> None:
    """Once seen, a server cannot be exchanged unnoticed, even where no trust list is given."""
    assert await first(configured(peer.endpoint, tmp_path, security=secured())) == ["PV"]
    config = with_password(
        configured(f"{strict.endpoint}/UA/Plant", tmp_path, security=secured()), "operator", "geheim"
    )
    with pytest.raises(Misconfigured, match="another certificate"):
        await first(config)


async def test_a_password_is_not_sent_in_the_clear(tmp_path: Path) -> None:
    """A server that takes it only unencrypted is refused, unless the plant file allows it."""
    async with _plain_server() as port:
        config = with_password(configured(f"opc.tcp://127.0.0.1:{port}", tmp_path, tags=[]), "operator", "geheim")
        with pytest.raises(Misconfigured, match=r"unencrypted.*plain_password"):
            await first(config)
        allowed = config.model_copy(update={"security": config.security.model_copy(update={"plain_password": True})})
        async with allowed.build():
            pass


def _plain_server() -> Any:
    from contextlib import asynccontextmanager  # noqa: PLC0415  # only here

    from asyncua import Server, ua  # noqa: PLC0415  # the only test with this server

    @asynccontextmanager
    async def serving() -> Any:
        server = Server()
        await server.init()
        port = free_port()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.UserNameIdentityToken])
        async with server:
            yield port

    return serving()


class TestNobodyThere:
    async def test_a_name_that_is_not_known(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match=r"name no-such-plc\.invalid is not known"):
            await first(configured("opc.tcp://no-such-plc.invalid:4840", tmp_path))

    async def test_a_port_that_nobody_listens_on(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="nothing listens"):
            await first(configured(f"opc.tcp://127.0.0.1:{free_port()}", tmp_path))

    async def test_a_host_that_does_not_answer(self, peer: Peer, tmp_path: Path) -> None:
        async with FaultProxy("127.0.0.1", peer.port) as proxy:
            proxy.black_hole()
            with pytest.raises(Unavailable, match=r"does not answer within 0\.3 s"):
                await first(configured(f"opc.tcp://127.0.0.1:{proxy.port}", tmp_path, timeout="300 ms"))

    @pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, b""])
    async def test_something_else_than_opc_ua(self, tmp_path: Path, answer: bytes) -> None:
        """A web server, a silent one, one that closes: an error, nothing that hangs."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
                await first(configured(f"opc.tcp://127.0.0.1:{port}", tmp_path, timeout="1 s"))

    @pytest.mark.parametrize(
        ("code", "error", "said"),
        [
            (StatusCodes.BadTcpEndpointUrlInvalid, Misconfigured, "correct `endpoint`"),
            (StatusCodes.BadTcpServerTooBusy, Unavailable, "too busy"),
            (StatusCodes.BadOutOfMemory, Unavailable, "BadOutOfMemory"),
        ],
    )
    async def test_a_server_that_refuses_the_hello(
        self, tmp_path: Path, code: int, error: type[Exception], said: str
    ) -> None:
        """The server's own code tells whether a person must act."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"ERRF" + struct.pack("<IIi", 16, code, -1))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(error, match=said):
                await first(configured(f"opc.tcp://127.0.0.1:{port}", tmp_path))

    async def test_a_namespace_that_the_server_does_not_have(self, peer: Peer, tmp_path: Path) -> None:
        tags = [{"tag": "PV", "node": "nsu=urn:nobody;s=PV"}]
        with pytest.raises(Misconfigured, match="urn:shopfloor:peer"):
            await first(configured(peer.endpoint, tmp_path, tags=tags))


async def test_probing_leaves_nothing_behind(peer: Peer, tmp_path: Path) -> None:
    """Entering and leaving is the probe, also when it fails."""
    left = Leftovers()
    for security in ({}, secured()):
        async with configured(peer.endpoint, tmp_path, security=security).build():
            pass
    with pytest.raises(Misconfigured, match="nowhere"):
        await configured(peer.endpoint, tmp_path, security=secured(trust="nowhere")).build().__aenter__()
    await left.none()
    counts = await peer.ask(ping=True)
    assert counts == {"sessions": 0, "subscriptions": counts["subscriptions"]}
