# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""An OPC UA session: reaches a server, checks it, logs in, and says precisely what went wrong.

The transport and the secure channel are asyncua's. Everything that can be decided before is: the
server is asked first for the endpoints that it offers, its certificate is checked against the trust
list, and the security that was asked for is used or nothing.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

import msgspec
from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.utils import Buffer
from asyncua.crypto import security_policies, uacrypto
from asyncua.crypto.uacrypto import InvalidSignature  # pyright: ignore[reportPrivateImportUsage]  # it is its own
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import struct_from_binary
from asyncua.ua.uaerrors import UaStatusCodeError
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shopfloor.protocols.opcua_security import Identity, Trust, identity, subject, thumbprint
from shopfloor.samples import Misconfigured, Unavailable

# Whatever asyncua's client logs as an error also comes as an exception, which the pipeline reports once.
for _name in ("asyncua.client", "asyncua.uaprotocol", "asyncua.common.connection"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

_log: Final = logging.getLogger(__name__)

PolicyName = Literal["None", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
ModeName = Literal["none", "sign", "sign_and_encrypt"]

_POLICIES: Final[Mapping[PolicyName, type[security_policies.SecurityPolicy]]] = {
    "None": security_policies.SecurityPolicyNone,
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
_MODES: Final[Mapping[ModeName, ua.MessageSecurityMode]] = {
    "none": ua.MessageSecurityMode.None_,
    "sign": ua.MessageSecurityMode.Sign,
    "sign_and_encrypt": ua.MessageSecurityMode.SignAndEncrypt,
}
_PORT: Final = 4840
_CODES: Final = StatusCodes

_AWAY: Final[Mapping[int, str]] = {
    _CODES.BadTooManySessions: "the server has no session left; old ones end by their time-out, or raise its limit",
    _CODES.BadTooManySubscriptions: "the server has no subscription left; old ones end by their time-out, "
    "or raise its limit",
    _CODES.BadServerHalted: "the server is halted",
    _CODES.BadShutdown: "the server is shutting down",
    _CODES.BadTcpServerTooBusy: "the server is too busy",
    _CODES.BadSessionIdInvalid: "the server has forgotten the session",
    _CODES.BadSessionClosed: "the server has closed the session",
    _CODES.BadSecureChannelIdInvalid: "the server has forgotten the secure channel",
    _CODES.BadSecureChannelClosed: "the server has closed the secure channel",
    _CODES.BadTimeout: "the server did not answer in time",
    _CODES.BadNoSubscription: "the server has ended the subscription",
}
"""What passes by itself."""

_PERSON: Final[Mapping[int, str]] = {
    _CODES.BadTcpEndpointUrlInvalid: "the server does not know this path; correct `endpoint` (the server's own "
    "configuration shows its URL)",
    _CODES.BadIdentityTokenRejected: "the server refuses this user; correct `username` and `password`, or allow "
    "anonymous users on the server",
    _CODES.BadIdentityTokenInvalid: "the server refuses this user; correct `username` and `password`",
    _CODES.BadUserAccessDenied: "the server denies this user access; correct `username` and `password`, or give the "
    "user the right on the server",
    _CODES.BadUserSignatureInvalid: "the server refuses this user's certificate",
    _CODES.BadSecurityModeRejected: "the server refuses this security mode; correct `security.mode`",
    _CODES.BadSecurityPolicyRejected: "the server refuses this security policy; correct `security.policy`, or allow it "
    "on the server",
    _CODES.BadServiceUnsupported: "the server does not offer this service",
}
"""What a person must change."""

_OWN_CERTIFICATE: Final[Mapping[int, str]] = {
    _CODES.BadCertificateUntrusted: "does not trust",
    _CODES.BadSecurityChecksFailed: "refuses (most servers say so when they do not trust it yet)",
    _CODES.BadCertificateInvalid: "cannot use",
    _CODES.BadCertificateTimeInvalid: "holds for not valid at this time (compare the clocks of both machines)",
    _CODES.BadCertificateUriInvalid: "refuses for its application URI",
    _CODES.BadCertificateHostNameInvalid: "refuses for its host name",
    _CODES.BadCertificateUseNotAllowed: "refuses for its key usage",
    _CODES.BadCertificateRevoked: "holds for revoked",
    _CODES.BadCertificateIssuerRevoked: "refuses, because its issuer is revoked",
    _CODES.BadCertificateChainIncomplete: "refuses, because it does not know all of its issuers",
    _CODES.BadCertificateRevocationUnknown: "refuses, because it has no revocation list of its issuer",
    _CODES.BadCertificateIssuerRevocationUnknown: "refuses, because it has no revocation list of its issuer",
    _CODES.BadCertificatePolicyCheckFailed: "refuses for its key length or signature algorithm",
    _CODES.BadNoValidCertificates: "cannot use",
}
"""What a server may have against the client's certificate."""


@dataclass(frozen=True)
class Server:
    """Which server, and how it is to be reached."""

    endpoint: str
    policy: PolicyName
    mode: ModeName
    folder: Path
    """Where certificates are."""
    certificate: Path | None
    key: Path | None
    trust: Trust
    username: str | None
    password: str | None = field(repr=False)
    plain_password: bool
    """Whether the password may go over the network unencrypted."""
    timeout: float
    """Seconds that the server has for an answer."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.endpoint)
        return parts.hostname or "", parts.port or _PORT


class Limits(msgspec.Struct, frozen=True):
    """The most items that the server takes in one call."""

    read: int = 1000
    browse: int = 500
    monitor: int = 1000


def name_of(status: int) -> str:
    """The symbolic name of a StatusCode, ``BadNodeIdUnknown``."""
    return ua.StatusCode(ua.UInt32(status)).name


class Session:
    """An activated session. Use it as an async context manager.

    Entered again after its connection was lost, it goes on with the same session where the server still
    has it (ActivateSession on a new secure channel, OPC 10000-4, 5.7.3).
    """

    def __init__(self, server: Server) -> None:
        """Opens nothing yet."""
        self._server = server
        self._client = self._new_client()
        self._identity: Identity | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._peer: bytes | None = None
        """The server's certificate as the session was created with it."""
        self._alive_there = False
        """Whether the connection was lost while the session was active, so that the server still has it."""
        self._lost = False
        self.limits = Limits()
        self.resumed = False
        """Whether the last entering took up the session from before, with its subscriptions."""
        self._established = False
        """Whether the present connection reached a session."""
        self.product = ""
        """The server's product URI."""

    @property
    def connected(self) -> bool:
        """Whether a request can be sent now."""
        protocol = self._client.uaclient.protocol
        return protocol is not None and protocol.transport is not None and not protocol.transport.is_closing()

    @property
    def timeout(self) -> float:
        """Seconds that the server has for an answer."""
        return self._server.timeout

    def _new_client(self) -> Client:
        host, port = self._server.address
        path = urlsplit(self._server.endpoint).path
        shown = f"[{host}]" if ":" in host else host
        client = Client(f"opc.tcp://{shown}:{port}{path}", timeout=self._server.timeout)
        client.name = client.description = "Shopfloor"
        client.application_uri = f"urn:{socket.gethostname()}:shopfloor"
        client.product_uri = "urn:shopfloor"
        client.session_timeout = int(max(30.0, 3 * self._server.timeout) * 1000)
        return client

    async def __aenter__(self) -> Self:
        """Connect. Raises Unavailable when the server is away and Misconfigured when a person must act."""
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the session, keeping its subscriptions, and the connection; never raises."""
        await self._close()

    async def _open(self) -> None:
        server, client = self._server, self._client
        self._lost = self.resumed = self._established = False
        client.security_policy = security_policies.SecurityPolicyNone()  # type: ignore[no-untyped-call]  # asyncua's
        client.uaclient.set_security(client.security_policy)
        if server.policy != "None":
            self._identity = await asyncio.to_thread(identity, server.folder, server.certificate, server.key)
        try:
            offered = await client.connect_and_get_server_endpoints()
        except Exception as error:
            raise self._reason(error, during="discovery") from error
        chosen = self._choose(offered)
        if self._identity is not None:
            await self._secure(chosen, self._identity)
        self._check_user(chosen)
        self.product = chosen.Server.ProductUri or ""
        try:
            await client.connect_socket()
            await client.send_hello()
            await client.open_secure_channel()
            self._established = True  # also when this breaks in the middle: the session is still there then
            self.resumed = await self._reactivate()
            if not self.resumed:
                await client.create_session()
                await self._activate()
        except Exception as error:
            self._lost = not isinstance(error, UaStatusCodeError)
            raise self._reason(error, during="login") from error
        self._peer = client.security_policy.peer_certificate
        self._renewal = asyncio.create_task(self._renew(), name="opcua channel renewal")
        self.limits = await self._read_limits()

    async def _activate(self) -> None:
        await self._client.activate_session(username=self._server.username, password=self._server.password)

    async def _reactivate(self) -> bool:
        """Take up the session from before; False when there is none, or the server has it no more."""
        if not self._alive_there:
            return False
        self._alive_there = False  # if this fails in whatever way, the next attempt begins anew
        session, policy = self._client.uaclient.session, self._client.security_policy
        session.rebind_authentication_token()
        policy.peer_certificate = policy.peer_certificate or self._peer  # passwords are encrypted for it
        try:
            await self._activate()
        except UaStatusCodeError as error:
            _log.info("session not resumed: %s", name_of(int(error.code)))
            session.reset_authentication_token()
            policy.peer_certificate = policy.peer_certificate if self._identity is not None else None
            return False
        return True

    def _choose(self, offered: Sequence[ua.EndpointDescription]) -> ua.EndpointDescription:
        """The endpoint with exactly the security that was asked for; never another one."""
        server = self._server
        uri, mode = _POLICIES[server.policy].URI, _MODES[server.mode]
        usable = [e for e in offered if (e.EndpointUrl or "").startswith("opc.tcp")]
        for endpoint in usable:
            if endpoint.SecurityPolicyUri == uri and endpoint.SecurityMode == mode:
                return endpoint
        offers = sorted({_security(e) for e in usable}) or ["no endpoint at all"]
        raise Misconfigured(
            f"{server.endpoint} does not offer security {server.policy} with mode {server.mode}, only: "
            f"{', '.join(offers)}; correct `security` or allow it on the server"
        )

    async def _secure(self, chosen: ua.EndpointDescription, own: Identity) -> None:
        """Check the server's certificate and set the client up with both."""
        server = self._server
        found: Any = uacrypto.x509_from_der(chosen.ServerCertificate)  # type: ignore[no-untyped-call]  # asyncua's
        if found is None:
            raise Misconfigured(f"{server.endpoint} shows no certificate; let the server make one")
        shown: bytes = found.public_bytes(Encoding.DER)
        said = await asyncio.to_thread(server.trust.check, shown, chosen.Server.ApplicationUri, server.address[0])
        if said:
            _log.warning("%s: %s", server.endpoint, said)
        client = self._client
        client.application_uri = own.application_uri
        await client.set_security(
            _POLICIES[server.policy],
            own.certificate.public_bytes(Encoding.DER),
            own.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            server_certificate=shown,
            mode=_MODES[server.mode],
        )

    def _check_user(self, chosen: ua.EndpointDescription) -> None:
        """Raise Misconfigured when the server takes no such user, or would get the password unencrypted."""
        server = self._server
        tokens = list(chosen.UserIdentityTokens or [])
        wanted = ua.UserTokenType.UserName if server.username is not None else ua.UserTokenType.Anonymous
        fitting = [t for t in tokens if t.TokenType == wanted]
        if tokens and not fitting:
            offers = ", ".join(sorted({t.TokenType.name for t in tokens}))
            what = "no users with password" if server.username is not None else "no anonymous users"
            advice = "remove `username`" if server.username is not None else "give `username` and `password`"
            raise Misconfigured(f"{server.endpoint} takes {what} with this security, only: {offers}; {advice}")
        if server.username is None or server.plain_password or server.mode == "sign_and_encrypt":
            return
        policy = (fitting[0].SecurityPolicyUri if fitting else None) or chosen.SecurityPolicyUri
        if policy == security_policies.SecurityPolicyNone.URI:
            raise Misconfigured(
                f"the password would go to {server.endpoint} unencrypted; use `security: {{policy: Basic256Sha256, "
                "mode: sign_and_encrypt}`, or allow it with `security: {plain_password: true}`"
            )

    def _reason(self, error: Exception, *, during: Literal["discovery", "login"]) -> Exception:  # noqa: PLR0911  # a table
        """The error that the pipeline reacts to, with what to do."""
        host, port = self._server.address
        if isinstance(error, Unavailable | Misconfigured):
            return error
        if isinstance(error, socket.gaierror):
            return Unavailable(f"the name {host} is not known; correct `endpoint`, or this machine's DNS")
        if isinstance(error, ConnectionRefusedError):
            return Unavailable(f"nothing listens on {host}:{port}; is the OPC UA server started, is the port right?")
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            return Unavailable(
                f"{host}:{port} does not answer within {self._server.timeout:g} s; is it switched on, is the address "
                "right, does a firewall let it through?"
            )
        if isinstance(error, UaStatusCodeError):
            return self._status_reason(int(error.code))
        if isinstance(error, AssertionError) and self._identity is not None:
            # So asyncua passes a fault on that answers the opening of the channel; which one is not to be had.
            return Misconfigured(
                f"{self._server.endpoint} refuses a secure channel, most likely because it does not trust Shopfloor's "
                f"certificate yet; {self._trust_me(self._identity)}"
            )
        if isinstance(error, InvalidSignature):
            return Misconfigured(f"{host}:{port} signs with another key than its certificate's; renew it on the server")
        if isinstance(error, OSError) and not isinstance(error, ConnectionError):
            return Unavailable(f"{host}:{port} cannot be reached: {error.strerror or error}")
        if isinstance(error, ConnectionError):
            return Unavailable(
                f"{host}:{port} closes the connection; is this the OPC UA server's port (opc.tcp)?"
                if during == "discovery"
                else f"{host}:{port} closes the connection while Shopfloor logs in"
                + (f"; {self._trust_me(self._identity)}" if self._identity else "")
            )
        return Unavailable(
            f"{host}:{port} answers unexpectedly; is this an OPC UA server? {type(error).__name__}: {error}"
        )

    @staticmethod
    def _trust_me(own: Identity) -> str:
        return (
            f"on the server, trust the certificate with thumbprint {thumbprint(own.certificate)} named "
            f"“{subject(own.certificate)}” (application URI {own.application_uri})"
        )

    def _status_reason(self, code: int) -> Exception:
        where, name = self._server.endpoint, name_of(code)
        if code in _OWN_CERTIFICATE and self._identity is not None:
            return Misconfigured(
                f"{where} {_OWN_CERTIFICATE[code]} Shopfloor's certificate ({name}); {self._trust_me(self._identity)}"
            )
        if code in _PERSON:
            return Misconfigured(f"{where}: {_PERSON[code]} ({name})")
        return Unavailable(f"{where}: {_AWAY.get(code, 'the server answers with an error')} ({name})")

    async def _renew(self) -> None:
        """Renew the secure channel's keys at three quarters of their life (OPC 10000-4, 5.5.2)."""
        while True:
            await asyncio.sleep(max(self._client.secure_channel_timeout * 0.75 / 1000, 1.0))
            try:
                await self._client.open_secure_channel(renew=True)
                self._client.uaclient.revolve_security_token()
            except Exception:  # noqa: BLE001  # whatever it was, without keys the connection is over
                self._client.disconnect_socket()
                return

    async def _read_limits(self) -> Limits:
        """The server's operation limits; where it says none or 0, what is known to work everywhere."""
        ids = (
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
        )
        answers = await self.read([(ua.NodeId(ua.Int32(i)), AttributeIds.Value) for i in ids])
        said = [a.Value.Value if a.Value is not None else None for a in answers]
        usual = Limits()
        read, browse, monitor = (
            min(limit, most) if isinstance(limit, int) and limit > 0 else most
            for limit, most in zip(said, (usual.read, usual.browse, usual.monitor), strict=True)
        )
        return Limits(read, browse, monitor)

    async def request(self, request: object, timeout: float | None = None) -> Buffer:  # noqa: ASYNC109  # asyncua's own
        """Send a request and return the body of its response, from the response's type on.

        ``timeout`` in seconds, 0 for none. Raises Unavailable when the connection is lost or the server
        does not answer, UaStatusCodeError when it answers with a fault.
        """
        protocol = self._client.uaclient.protocol
        if protocol is None or protocol.is_closed:
            self._lost = True
            raise Unavailable(f"the connection to {self._server.endpoint} is lost")
        try:
            return await protocol.send_request(request, self._server.timeout if timeout is None else timeout)
        except TimeoutError as error:
            self._lost = True
            raise Unavailable(f"{self._server.endpoint} did not answer within {self._server.timeout:g} s") from error
        except (OSError, ConnectionError) as error:
            self._lost = True
            raise Unavailable(f"the connection to {self._server.endpoint} is lost: {error}") from error

    async def call(self, request: object, response: type[Any]) -> Any:
        """Send a request and decode its response. Raises as ``request`` does, also for a bad service result."""
        answer: Any = struct_from_binary(response, await self.request(request))
        answer.ResponseHeader.ServiceResult.check()
        return answer

    async def read(self, nodes: Sequence[tuple[ua.NodeId, AttributeIds]]) -> list[ua.DataValue]:
        """Read attributes, split into as many calls as the server needs; answers in the same order."""
        found: list[ua.DataValue] = []
        for start in range(0, len(nodes), self.limits.read):
            request = ua.ReadRequest()
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            request.Parameters.NodesToRead = [
                ua.ReadValueId(NodeId=node, AttributeId=attribute)
                for node, attribute in nodes[start : start + self.limits.read]
            ]
            found += (await self.call(request, ua.ReadResponse)).Results
        return found

    def explain(self, error: UaStatusCodeError) -> Exception:
        """A fault as the error that the pipeline reacts to."""
        return self._status_reason(int(error.code))

    def give_up(self) -> None:
        """The server says nothing any more: leave without a farewell, so that the session can be taken up again."""
        self._lost = True

    async def _close(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        uaclient = self._client.uaclient
        protocol = uaclient.protocol
        active = not uaclient.session.authentication_token.is_null()
        if self._established:  # else this connection never reached the session, which may still be there
            self._alive_there = active and (self._lost or protocol is None or protocol.is_closed)
        if protocol is not None and not protocol.is_closed and self._established and not self._alive_there:
            with contextlib.suppress(Exception):  # the other side may be gone already
                async with asyncio.timeout(min(self._server.timeout, 2.0)):
                    await uaclient.close_session(delete_subscriptions=False)
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1.0):
                    await uaclient.close_secure_channel()
        with contextlib.suppress(Exception):
            transport = None if protocol is None else protocol.transport
            uaclient.disconnect_socket()
            if transport is not None:
                transport.abort()
        if not self._alive_there:
            uaclient.session.reset_authentication_token()


def _security(endpoint: ua.EndpointDescription) -> str:
    """An endpoint's security in the words of the plant file."""
    policy = (endpoint.SecurityPolicyUri or "").rpartition("#")[2]
    mode = next((name for name, m in _MODES.items() if m == endpoint.SecurityMode), str(endpoint.SecurityMode))
    return f"{policy} with mode {mode}"
