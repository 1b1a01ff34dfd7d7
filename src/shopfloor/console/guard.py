"""Stands before everything: known hosts, same origin, bodies of JSON within bounds, and headers that protect."""

import ipaddress
import logging
import socket
from collections.abc import Collection, Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shopfloor.console.problem import Problem

LARGEST_BODY: Final = 64 * 1024

_log = logging.getLogger(__name__)

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware that refuses what no route should see."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        """``hosts``: further names under which browsers reach the console (a reverse proxy's)."""
        self._app = app
        self._hosts = frozenset({"localhost", *own_names(), *(host.lower() for host in hosts)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is fine, answer the rest with a problem document."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        problem = self._problem(scope)
        if problem is None:
            await self._pass_on(scope, receive, _protected(send))
        elif scope["type"] == "websocket":
            # Closing before accepting answers the handshake with 403.
            await send({"type": "websocket.close", "code": 1008, "reason": problem.title})
        else:
            await problem.response()(scope, receive, _protected(send))

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An error that no handler knows is a mistake of ours: logged once, answered as one."""
        started = scope["type"] == "websocket"

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if started:
                raise
            _log.exception("%s %s failed by an error in Shopfloor itself", scope["method"], scope["path"])
            detail = f"{type(error).__name__}; the log has the rest, please report it"
            await Problem(500, "Shopfloor made a mistake", detail).response()(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not _known(host, self._hosts):
            return Problem(
                421,
                "This address is not known here",
                f"the console does not answer to {host[:100]!r}; use its IP address, or add the name to console.hosts",
            )
        writes = scope["type"] == "websocket" or scope["method"] not in _READING
        if writes and not _same_origin(headers, host):
            return Problem(
                403,
                "Another site may not do this",
                f"the request comes from {headers.get('origin', 'another site')[:100]!r}, the console is {host!r}",
            )
        return _body_problem(headers) if scope["type"] == "http" and writes else None


def own_names() -> Collection[str]:
    """What this computer is called, in lower case; asking DNS could take long where there is none."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return {name, short, f"{short}.local"}


def _known(host: str, hosts: Collection[str]) -> bool:
    """Whether a Host header names this console. A name that anybody can register could be anybody's page."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    if name is None or "/" in host or "@" in host:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in hosts or name.endswith(".localhost")
    return True


def _same_origin(headers: Headers, host: str) -> bool:
    """Browsers always say where a writing request comes from; other clients do not and are no danger here."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    # The scheme is left out: behind a proxy that ends TLS it differs.
    return origin is None or origin.partition("://")[2].lower() == host.lower()


def _body_problem(headers: Headers) -> Problem | None:
    if "transfer-encoding" in headers:
        return Problem(411, "The request cannot be read", "send a Content-Length instead of chunks")
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        return Problem(400, "The request cannot be read", "its Content-Length is no number")
    if int(length) > LARGEST_BODY:
        return Problem(413, "The request is too large", f"a body has at most {LARGEST_BODY} bytes")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if int(length) and kind != "application/json":
        return Problem(415, "The request cannot be read", "send JSON with Content-Type: application/json")
    return None


def _protected(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
