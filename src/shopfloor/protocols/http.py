"""HTTP: a client as the plant file describes it, and what its errors and answers mean to the pipeline."""

import asyncio
import json
import re
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol, cast
from urllib.parse import quote_plus

import httpx
import msgspec
from pydantic import SecretStr

from shopfloor.protocols.tls import TlsFiles, tls_context
from shopfloor.samples import Misconfigured, Unavailable

MOST_READ: Final = 8 * 2**20
"""Bytes of an answer that are read; a server that says more is cut off."""
_LONGEST_SENTENCE: Final = 300
_SENTENCES: Final = ("detail", "message", "error_description", "error", "title", "errors", "description", "reason")
"""Where servers put what a person should read: RFC 9457, InfluxDB, OAuth and the rest."""
_BEFORE_EXPIRY: Final = 30.0
"""Seconds before its end when a token is renewed, or half its life where that is less."""

BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
CONFLICT: Final = 409
OK: Final = range(200, 300)
MULTI_STATUS: Final = 207
MOVED: Final = range(300, 400)
_WANTS_TLS: Final = (
    b"Client sent an HTTP request to an HTTPS server",  # Go: InfluxDB, VictoriaMetrics, Caddy, Traefik
    b"The plain HTTP request was sent to HTTPS port",  # nginx
    b"speaking plain HTTP to an SSL-enabled server port",  # Apache
    b"This combination of host and port requires TLS",  # Tomcat
)
"""What servers answer, with 400, to a request without TLS at a port that wants it."""
LATER: Final = frozenset({408, 425, 429, *range(500, 600)})
"""Answers that say: not now."""


class Settings(TlsFiles, Protocol):
    """How to reach a server; ``plant.http.HttpConnection`` is the form in a plant file."""

    @property
    def url(self) -> str: ...  # noqa: D102  # the model's fields document each
    @property
    def proxy(self) -> str | None: ...  # noqa: D102
    @property
    def timeout(self) -> int: ...  # noqa: D102


class Credentials(Protocol):
    """What OAuth's client credentials grant needs; ``plant.http.OAuth2`` is the form in a plant file."""

    @property
    def token_url(self) -> str: ...  # noqa: D102  # the model's fields document each
    @property
    def client_id(self) -> str: ...  # noqa: D102
    @property
    def client_secret(self) -> SecretStr: ...  # noqa: D102
    @property
    def scope(self) -> str | None: ...  # noqa: D102
    @property
    def audience(self) -> str | None: ...  # noqa: D102
    @property
    def send_as(self) -> str: ...  # noqa: D102


class Answer(msgspec.Struct, frozen=True):
    """What a server said."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def sentence(self) -> str:
        """What it says in words, on one line; its status where it says nothing."""
        return sentence(self.body) or f"{self.status} {httpx.codes.get_reason_phrase(self.status)}".strip()

    @property
    def after(self) -> float:
        """Seconds that it wants to be left alone (Retry-After as seconds or as a date); 0: it does not say."""
        return retry_after(self.headers, time.time())


async def client(settings: Settings, *, tls: bool, auth: httpx.Auth | None = None) -> httpx.AsyncClient:
    """A client; ``tls`` says whether certificates are to be read. Raises Misconfigured for files that are no good."""
    context = await asyncio.to_thread(tls_context, settings) if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(
        auth=auth,
        verify=context,  # without TLS files one that trusts nobody: a redirect is not followed anyway
        proxy=settings.proxy,
        trust_env=False,  # what is reached how stands in the plant file
        timeout=settings.timeout / 1e9,
        headers={"User-Agent": "shopfloor"},
    )


async def exchange(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    within: float | None = None,
) -> Answer:
    """Send a request and read the answer, whatever its status; ``within`` is in seconds and covers all of it.

    Raises Unavailable when the server cannot be reached or does not answer in time, Misconfigured when a person
    must act (certificates, `http://` at a port of TLS).
    """
    answer = await _exchanged(client, method, url, headers, content, within)
    if answer.status == BAD_REQUEST and url.startswith("http:") and any(words in answer.body for words in _WANTS_TLS):
        raise Misconfigured(f"{shown(url)} wants TLS at this port; write the address as https://…")
    return answer


async def _exchanged(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    headers: Mapping[str, str] | None,
    content: bytes | None,
    within: float | None,
) -> Answer:
    try:
        async with (
            asyncio.timeout(within),
            client.stream(method, url, headers=headers, content=content) as response,
        ):
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MOST_READ:
                    break
            return Answer(response.status_code, response.headers, bytes(body[:MOST_READ]))
    except TimeoutError as error:
        raise Unavailable(f"{shown(url)} does not answer within {within or 0:g} s") from error
    except (httpx.RequestError, httpx.InvalidURL, OSError) as error:
        raise meaning(shown(_called(url, error)), error) from error


def _called(url: str, error: Exception) -> str:
    """Which address failed: that of the request, or the one where its token is fetched."""
    with suppress(RuntimeError):  # it was not called yet
        if isinstance(error, httpx.RequestError) and error.request.url != url:
            return str(error.request.url)
    return url


def shown(url: str) -> str:
    """An address as it may stand in a log: without what stands behind the question mark."""
    return url.partition("?")[0]


def meaning(where: str, error: Exception) -> Unavailable | Misconfigured:
    """What an error of a connection means."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Misconfigured(
                f"the certificate of {where} is not accepted: {cause.verify_message}; name the authority that signed "
                "it in `ca_file`, and write the name that stands in it into the address"
            )
        if isinstance(cause, ssl.SSLError):
            return _tls_refused(where, cause)
        if isinstance(cause, socket.gaierror):
            return Unavailable(f"{where}: the name cannot be found ({cause.strerror}); is the name server reached?")
        if isinstance(cause, ConnectionRefusedError):
            return Unavailable(f"{where} cannot be reached: connection refused; does the service run and listen there?")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        said = f"{where} is no address that can be called: {error}"
        if isinstance(error, httpx.LocalProtocolError):  # its text shows the header, which may be a secret
            said = f"a header for {where} is none of HTTP; look for line breaks in `headers`, `auth` and `token`"
        return Misconfigured(said)
    if isinstance(error, httpx.ProxyError):
        said = f"the proxy does not let us through to {where}: {error}; correct `proxy`"
    elif isinstance(error, httpx.TimeoutException):
        said = f"{where} does not answer in time ({type(error).__name__})"
    else:
        said = f"{where} cannot be reached: {str(error) or type(error).__name__}"
    return Unavailable(said)


def _tls_refused(where: str, error: ssl.SSLError) -> Unavailable | Misconfigured:
    said = (error.reason or str(error)).replace("_", " ").lower()
    if "wrong version" in said or "record layer" in said or "http request" in said:
        return Misconfigured(f"{where} speaks no TLS at this port; write the address as http://…, or use its TLS port")
    if "alert" in said:
        return Misconfigured(
            f"{where} refuses the TLS connection: {said}; it may want a certificate of ours (`certificate_file`, "
            "`key_file`), or another one"
        )
    return Unavailable(
        f"{where} broke the TLS connection off: {said}; if it keeps doing that, does it speak TLS at this port?"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    here: BaseException | None = error
    while here is not None:
        yield here
        here = here.__cause__ or here.__context__


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Seconds of Retry-After, seconds or a date (RFC 9110, 10.2.3); 0 where there is none. ``now``: seconds UTC.

    A date is compared with the server's own clock where it tells that.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    until = _date(text)
    if until is None:
        return 0.0
    return max(0.0, until - (_date(headers.get("date", "")) or now))


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def sentence(body: bytes) -> str:
    """The words of an answer that a person should read: of JSON, HTML or text, on one line and not too long."""
    text = body[:64_000].decode("utf-8", "replace").strip()
    if text[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            text = _words(json.loads(body)) or text
    elif text[:1] == "<":
        text = re.sub(r"(?s)<(script|style|head)\b.*?</\1>|<[^>]*>", " ", text)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_SENTENCE else f"{text[:_LONGEST_SENTENCE]}…"


def _words(said: object, depth: int = 4) -> str:
    if isinstance(said, str):
        return said
    if depth and isinstance(said, dict):
        found = (_words(cast("Any", said)[key], depth - 1) for key in _SENTENCES if key in said)
        return next(filter(None, found), "")
    if depth and isinstance(said, list):
        return "; ".join(filter(None, (_words(one, depth - 1) for one in cast("list[object]", said)[:3])))
    return ""


class Header(httpx.Auth):
    """A secret in a header of each request."""

    def __init__(self, name: str, secret: str) -> None:
        """``secret`` is the header's whole value."""
        self._name = name
        self._secret = secret

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Add the header."""
        request.headers[self._name] = self._secret
        yield request


class ClientCredentials(httpx.Auth):
    """Fetches a token with our credentials, renews it before its end and once when it is refused."""

    def __init__(self, credentials: Credentials) -> None:
        """Nothing is fetched before the first request."""
        self._credentials = credentials
        self._token = ""
        self._until = 0.0

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Fetch a token where there is none that lasts, and use it. Raises Unavailable, Misconfigured."""
        fresh = False
        if asyncio.get_running_loop().time() >= self._until:
            self._take(await _read((yield self._asking())))
            fresh = True
        request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == UNAUTHORIZED and not fresh:  # taken back before its time
            self._take(await _read((yield self._asking())))
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _asking(self) -> httpx.Request:
        given = self._credentials
        form = {"grant_type": "client_credentials", "scope": given.scope, "audience": given.audience}
        secret = given.client_secret.get_secret_value()
        if given.send_as == "form":
            form |= {"client_id": given.client_id, "client_secret": secret}
        request = httpx.Request("POST", given.token_url, data={k: v for k, v in form.items() if v is not None},
                                headers={"Accept": "application/json"})  # fmt: skip
        if given.send_as == "basic":
            # Encoded as in a form first (RFC 6749, 2.3.1): a colon or a sign in them would be read as something else.
            return next(httpx.BasicAuth(quote_plus(given.client_id), quote_plus(secret)).auth_flow(request))
        return request

    def _take(self, answer: Answer) -> None:
        where = shown(self._credentials.token_url)
        if answer.status in LATER:
            raise Unavailable(f"{where} gives no token now: {answer.sentence}", after=answer.after)
        if answer.status not in OK:
            raise Misconfigured(
                f"{where} gives no token: {answer.sentence} ({answer.status}); correct `client_id`, `client_secret`, "
                "`scope` or `token_url`"
            )
        try:
            said: dict[str, Any] = json.loads(answer.body)
            self._token, lasts = str(said["access_token"]), float(said.get("expires_in", 300))
        except (ValueError, KeyError, TypeError) as error:
            raise Misconfigured(f"{where} answers, but with no token of OAuth 2; correct `token_url`") from error
        self._until = asyncio.get_running_loop().time() + max(lasts / 2, lasts - _BEFORE_EXPIRY)


async def _read(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.headers, await response.aread())
