# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Who may connect to the OPC UA server, and what a client may do: read, and ask for a write.

asyncua's server lets an unsecured channel in whatever it offers, takes the certificate of a session for that of its
channel, numbers its authentication tokens, and writes into its nodes what a client writes. Here a session is only
activated on a channel that is offered, with the channel's own certificate trusted and a known user; its token is
random; and a write goes to ``Door.write``.
"""

import hmac
import logging
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

from shopfloor.protocols.opcua_security import ClientTrust, Untrusted, application_uri
from shopfloor.protocols.opcua_values import plain
from shopfloor.samples import Misconfigured, Value
from shopfloor.sinks import opcua_standard
from shopfloor.sinks.opcua_monitoring import SHORTEST_INTERVAL, monitored

_log: Final = logging.getLogger("shopfloor.sinks.opcua")

_CODES: Final = StatusCodes
_MOST_WRITES: Final = 100
"""Values in one request: each may take as long as a machine does."""
_AGAIN: Final = 60.0
"""Seconds after which the same refusal is logged again."""
_MOST_KINDS: Final = 1000
_RSA_1_5: Final = "http://www.w3.org/2001/04/xmlenc#rsa-1_5"
_READ: Final = 1

InternalSession.max_connections = sys.maxsize  # asyncua's own count is that of all servers, and of all that ever were

Write = Callable[[str, str, str, Value, int], Awaitable[int]]
"""Ask for a write: session, user, tag, value, and when the client asked (ns UTC); a StatusCode."""


@dataclass(frozen=True)
class Account:
    """Somebody who may log in."""

    password: str
    writes: bool


@dataclass
class Door:
    """What decides about clients."""

    accounts: Mapping[str, Account]
    anonymous: bool
    unsecured: bool
    """Whether channels without security are let in."""
    plain_password: bool
    trust: ClientTrust
    tag_of: Callable[[ua.NodeId], str | None]
    writable: Callable[[str], bool]
    write: Write | None = None
    """None: nothing can be written."""
    left: Callable[[str], None] = lambda _: None
    """Told the session that ended."""

    def __post_init__(self) -> None:
        self._said: dict[str, float] = {}

    def refuse(self, code: int, peer: str, why: str) -> NoReturn:
        """Log it, once in a while, and raise the ServiceError."""
        now = time.monotonic()
        if len(self._said) >= _MOST_KINDS:
            self._said.clear()
        if now - self._said.get(why, -_AGAIN) >= _AGAIN:
            self._said[why] = now
            _log.warning("an OPC UA client at %s was refused: %s", peer, why)
        raise ServiceError(code)

    def may_write(self, user: User) -> bool:
        """Whether this user may write anything at all."""
        account = self.accounts.get(user.name or "")
        return self.write is not None and account is not None and account.writes

    def get_user(  # what asyncua asks of a user manager
        self,
        iserver: object,  # noqa: ARG002
        username: str | None = None,
        password: str | None = None,
        certificate: object = None,  # noqa: ARG002
    ) -> User | None:
        """The user, None for a wrong name or password."""
        if username is None:
            return User(role=UserRole.User) if self.anonymous else None
        account = self.accounts.get(username)
        expected = account.password if account is not None else secrets.token_hex()
        fits = hmac.compare_digest((password or "").encode("utf-8", "replace"), expected.encode())
        return User(role=UserRole.User, name=username) if fits and account is not None else None


class Sessions(InternalServer):
    """asyncua's server with our sessions."""

    def __init__(self, door: Door) -> None:
        """``door`` decides about clients."""
        super().__init__(user_manager=door)  # type: ignore[arg-type]  # a protocol in all but name
        self.door = door
        self.allow_remote_admin = False

    async def load_standard_address_space(self, shelf_file: Path | None = None) -> None:
        """The standard's nodes, without holding the other threads."""
        if shelf_file is not None or not await opcua_standard.load(self.aspace):
            await super().load_standard_address_space(shelf_file)

    def create_session(
        self, name: str, user: User = User(role=UserRole.Anonymous), external: bool = False  # noqa: B008, FBT001, FBT002  # asyncua's signature
    ) -> InternalSession:  # fmt: skip
        """A session of a client."""
        if not external:
            return super().create_session(name, user, external)
        return ClientSession(self, self.aspace, self.subscription_service, name, user=user, external=True)

    def clients(self) -> "list[ClientSession]":
        """Every session that a client has, also one that has no connection at present."""
        return [session for session in self._external_sessions.values() if isinstance(session, ClientSession)]

    def register_server(self, server: Any, conf: Any = None) -> None:  # noqa: ARG002  # asyncua's signature
        """It is no discovery server: everybody could make it tell what they like."""
        raise ServiceError(_CODES.BadServiceUnsupported)

    def decrypt_user_token(self, isession: Any, token: ua.UserNameIdentityToken) -> tuple[str, str]:
        """User and password; not by RSA 1.5, which gives away whether a guess was well formed."""
        if token.EncryptionAlgorithm == _RSA_1_5:
            raise ServiceError(_CODES.BadIdentityTokenRejected)
        return super().decrypt_user_token(isession, token)


class ClientSession(InternalSession):
    """A session of a client."""

    def __init__(self, internal_server: Sessions, *rest: Any, **options: Any) -> None:
        super().__init__(internal_server, *rest, **options)
        self.server = internal_server
        self.door = internal_server.door
        self.certificate: bytes | None = None
        self.client_uri: str | None = None
        internal_server.unregister_external_session(self)
        self.auth_token = ua.NodeId(ua.ByteString(secrets.token_bytes(32)), ua.Int16(0))
        internal_server.register_external_session(self)

    @property
    def key(self) -> str:
        """Its name for the command path."""
        return str(self.session_id.Identifier)

    async def create_session(
        self, params: ua.CreateSessionParameters, sockname: tuple[str, int] | None = None
    ) -> ua.CreateSessionResult:
        """Remember what the client calls itself: its certificate must say the same."""
        self.client_uri = params.ClientDescription.ApplicationUri
        return await super().create_session(params, sockname=sockname)

    def activate_session(
        self, params: ua.ActivateSessionParameters, peer_certificate: bytes | None
    ) -> ua.ActivateSessionResult:
        """Let a client in. Raises ServiceError when its channel, its certificate or its user is not let in."""
        door, peer = self.door, _address(self.name)
        if not peer_certificate:
            if not door.unsecured:
                door.refuse(_CODES.BadSecurityModeInsufficient, peer, "it came without security")
        else:
            self._check(peer_certificate, peer)
        token = params.UserIdentityToken
        named = token.UserName if isinstance(token, ua.UserNameIdentityToken) else None
        if named is not None and not peer_certificate and not token.EncryptionAlgorithm and not door.plain_password:
            door.refuse(_CODES.BadIdentityTokenRejected, peer, f"the password of {named!r} came unencrypted")
        before = self.user.name if self.is_activated() else named
        others = sum(session.is_activated() for session in self.server.clients() if session is not self)
        if others >= self.server.max_connections:
            door.refuse(_CODES.BadTooManySessions, peer, f"{others} sessions are there, which is all of `sessions`")
        try:
            result = super().activate_session(params, peer_certificate)
        except ServiceError as error:
            who = "somebody without a user" if named is None else f"{named!r}"
            door.refuse(error.code, peer, f"{who} may not log in, or gave another password")
        if before != self.user.name:
            self.door.left(self.key)
        self.certificate = peer_certificate
        return result

    def _check(self, certificate: bytes, peer: str) -> None:
        """Whether the channel's certificate is trusted, the one it began with, and the client's own."""
        door = self.door
        if self.is_activated() and certificate != self.certificate:
            door.refuse(_CODES.BadSecurityChecksFailed, peer, "another client's session was asked for")
        try:
            shown = door.trust.check(certificate)
        except Untrusted as error:
            door.refuse(_CODES.BadCertificateUntrusted, peer, str(error))
        except Misconfigured as error:
            door.refuse(_CODES.BadCertificateUntrusted, peer, f"certificates cannot be checked: {error}")
        uri = application_uri(shown)
        if self.client_uri and uri != self.client_uri:
            why = f"it calls itself {self.client_uri}, but its certificate was made for {uri}"
            door.refuse(_CODES.BadCertificateUriInvalid, peer, why)

    async def close_session(self, delete_subs: bool = True) -> None:  # noqa: FBT001, FBT002  # asyncua's signature
        """The client is gone: what it holds is let go."""
        self.door.left(self.key)
        await super().close_session(delete_subs)

    async def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        """As asyncua reads; but what this user may do is this user's."""
        results = await super().read(params)
        if not self.door.may_write(self.user):
            for place, wanted in enumerate(params.NodesToRead):
                if wanted.AttributeId == AttributeIds.UserAccessLevel and results[place].Value is not None:
                    results[place] = ua.DataValue(ua.Variant(_READ, ua.VariantType.Byte))
        return results

    async def write(self, params: ua.WriteParameters) -> list[ua.StatusCode]:
        """Ask the command path, one after the other."""
        wanted = params.NodesToWrite
        if len(wanted) > _MOST_WRITES:
            raise ServiceError(_CODES.BadTooManyOperations)
        asked = time.time_ns()  # each may take long, and nobody wants the last one when it is its turn
        return [ua.StatusCode(ua.UInt32(await self._write(one, asked))) for one in wanted]

    async def create_subscription(
        self, params: ua.CreateSubscriptionParameters, *rest: Any, **options: Any
    ) -> ua.CreateSubscriptionResult:
        """One that publishes at intervals, as only such a one ever ends when nobody asks for it."""
        params.RequestedPublishingInterval = max(params.RequestedPublishingInterval, SHORTEST_INTERVAL)
        result = await super().create_subscription(params, *rest, **options)
        monitored(self.subscription_service.subscriptions[result.SubscriptionId])
        return result

    async def _write(self, wanted: ua.WriteValue, asked: int) -> int:  # one a reason
        door = self.door
        tag = door.tag_of(wanted.NodeId)
        if tag is None:
            return _CODES.BadNodeIdUnknown if wanted.NodeId not in self.aspace else _CODES.BadNotWritable
        if wanted.AttributeId != AttributeIds.Value or not door.writable(tag):
            return _CODES.BadNotWritable
        if not door.may_write(self.user) or door.write is None:
            return _CODES.BadUserAccessDenied
        given = wanted.Value
        if wanted.IndexRange or given.Value is None or (given.StatusCode is not None and given.StatusCode.is_bad()):
            return _CODES.BadWriteNotSupported
        if given.Value.is_array:
            return _CODES.BadTypeMismatch
        return await door.write(self.key, self.user.name or "", tag, plain(given.Value.Value), asked)


def _address(name: Any) -> str:
    """Where a client is, of what asyncua calls the session by."""
    return str(name[0]) if isinstance(name, tuple) and name else str(name)
