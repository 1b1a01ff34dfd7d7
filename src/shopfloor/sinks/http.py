"""Samples to an MES or any other HTTP service: a template for the address, one for the body.

A request counts as held once the server answered with 2xx. Each carries a key made of the journal's offset and the
sample's place there, the same after a restart: a server that knows the key again counts it once.
"""

import gzip
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Annotated, Any, Final, Literal, Self, cast

import httpx
import msgspec
from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shopfloor.plant import Plant
from shopfloor.plant.components import Form, SinkConfig, Strict
from shopfloor.plant.http import (
    ApiKey,
    Authentication,
    Basic,
    Bearer,
    HeaderName,
    HeaderValue,
    HttpConnection,
    OAuth2,
    WebAddress,
    web_address,
)
from shopfloor.protocols import http
from shopfloor.protocols.http import Answer, ClientCredentials, Header
from shopfloor.protocols.tls import file_problems
from shopfloor.samples import Batch, Misconfigured, Unavailable
from shopfloor.seams import Sink
from shopfloor.sinks.http_templates import BodyTemplate, CannotFill, UrlTemplate, described
from shopfloor.sinks.offers import Offer, Offers
from shopfloor.sinks.tag_facts import TagFacts
from shopfloor.sinks.text import is_unicode
from shopfloor.turns import Pieces

_WRONG_ADDRESS: Final = frozenset({404, 405, 410, 415})
"""What a server says to every request when address, method or content type are wrong."""
_PROXY: Final = 407
_AT_ONCE: Final = 100
"""Samples that are described in one turn: a few milliseconds."""
_SAID: Final = ("tag", "time", "value", "quality", "good", "source")
"""What the body says of each sample where no template says otherwise."""
_SAID_IF_ANY: Final = ("unit", "encoding", "special", "status", "key")


def _address(text: str) -> str:
    web_address(text.replace(" ", "") if "{{" in text or "{%" in text else text)
    web_address(UrlTemplate(text).example())
    return text


class Partial(Strict):
    """Where the server says which samples of a request it refuses while it takes the others."""

    list: Annotated[str, StringConstraints(min_length=1)] = Field(
        default="errors", description="The JSON list of what it refuses; `result.errors` is `errors` in `result`."
    )
    index: str = Field(default="index", description="In each entry: the place of the sample in the request, from 0.")
    message: str = Field(default="message", description="In each entry: why.")


class HttpConfig(HttpConnection, SinkConfig):
    """Sends samples to an MES or another HTTP service, each request made by a template."""

    type: Literal["http"] = "http"
    url: Annotated[str, AfterValidator(_address)] = Field(
        description="Where to, `https://mes.example/api/samples`. `{{ tag }}`, `{{ machine }}`, `{{ signal }}`, "
        "`{{ source }}` and `{{ site }}` may stand in it."
    )
    method: Literal["POST", "PUT", "PATCH"] = Field(default="POST", description="The method of the requests.")
    batch: int = Field(default=100, ge=1, le=10_000, description="How many samples a request may hold; 1: each alone.")
    content_type: Annotated[str, Form(r"[\w.+-]+/[\w.+-]+(;.*)?", "a media type, like application/json")] = Field(
        default="application/json", description="The media type of the body; values are escaped for JSON or XML by it."
    )
    body: str | None = Field(
        default=None,
        description="The body as a template (Jinja2); by default JSON with all that is known of each sample.",
    )
    headers: dict[HeaderName, HeaderValue] = Field(default={}, description="Further headers of each request.")
    auth: Authentication | None = Field(default=None, description="How we say who we are; by default not at all.")
    idempotency_header: HeaderName | None = Field(
        default="Idempotency-Key", description="The header with the request's key; `null`: none."
    )
    compression: Literal["none", "gzip"] = Field(default="none", description="How bodies are compressed.")
    conflict: Literal["reject", "held", "retry"] = Field(
        default="reject",
        description="What 409 means: `reject` keeps the samples as dead letters, `held`: the server has them already, "
        "`retry`: not now.",
    )
    partial: Partial | None = Field(
        default=None, description="Where an answer says which samples are refused; by default 2xx means all are held."
    )
    health: WebAddress | None = Field(
        default=None,
        description="An address that answers GET with 2xx when the service is well; by default OPTIONS is asked of "
        "`url`, and any answer will do.",
    )

    _facts: TagFacts = PrivateAttr(default_factory=TagFacts)
    _offers: Offers = PrivateAttr(default_factory=Offers)

    @field_validator("body")
    @classmethod
    def _fills(cls, body: str | None, info: ValidationInfo) -> str | None:
        if body is not None and "content_type" in info.data and "batch" in info.data:
            BodyTemplate(body, info.data["content_type"]).check(info.data["batch"])
        return body

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.body is None and "json" not in self.content_type:
            raise ValueError("`content_type` is not JSON, so say by `body` what is sent")
        reserved = {"content-type", "content-encoding", "content-length", "host", "authorization"}
        named = next((name for name in self.headers if name.lower() in reserved), None)
        if named is not None:
            raise ValueError(f"`headers` cannot set {named}; use `content_type`, `compression` or `auth`")
        return self

    def place(self, plant: Plant) -> None:
        """Remember the site, and which units the tags have."""
        self._facts = TagFacts(plant)

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        return file_problems(self) if self.addresses_with_tls() else ()

    def build(self) -> "HttpSink":
        """The sink; opens nothing yet."""
        return HttpSink(self, self._facts, self._offers)

    def authentication(self) -> httpx.Auth | None:
        """What is added to each request."""
        match self.auth:
            case Basic(username=username, password=password):
                return httpx.BasicAuth(username, password.get_secret_value())
            case Bearer(token=token):
                return Header("Authorization", f"Bearer {token.get_secret_value()}")
            case ApiKey(header=header, key=key):
                return Header(header, key.get_secret_value())
            case OAuth2():
                return ClientCredentials(self.auth)
            case None:
                return None


class Request(msgspec.Struct, frozen=True):
    """Samples that go to the server together."""

    url: str
    places: Sequence[int]
    """Of the samples in the journal's entry."""

    def halves(self) -> "tuple[Request, Request]":
        """The first and the second half of its samples."""
        middle = len(self.places) // 2
        return Request(self.url, self.places[:middle]), Request(self.url, self.places[middle:])


class HttpSink(Sink):
    """Sends batches; enter it to connect."""

    def __init__(self, config: HttpConfig, facts: TagFacts, offers: Offers) -> None:
        """Built by ``HttpConfig.build``; ``offers`` outlives it, so what was confirmed is not sent again."""
        self._config = config
        self._facts = facts
        self._site = facts.site
        self._offers = offers
        self._seconds = config.timeout / 1e9
        self._url = UrlTemplate(config.url)
        self._body = None if config.body is None else BodyTemplate(config.body, config.content_type)
        self._client: httpx.AsyncClient | None = None
        self._headers = {**config.headers, "Content-Type": config.content_type}
        if config.compression == "gzip":
            self._headers["Content-Encoding"] = "gzip"

    async def __aenter__(self) -> Self:
        """Ask whether the server is there. Raises Unavailable when it is not, Misconfigured when it lets us not in."""
        config = self._config
        self._client = await http.client(config, tls=config.addresses_with_tls(), auth=config.authentication())
        try:
            await self._greet()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _greet(self) -> None:
        url = self._config.health or self._url.example()
        method = "OPTIONS" if self._config.health is None else "GET"
        answer = await self._exchange(method, url, dict(self._config.headers), None)
        where = http.shown(url)
        if answer.status == http.UNAUTHORIZED:
            raise Misconfigured(self._let_in(where, answer))
        if answer.status == _PROXY:
            raise Misconfigured(f"the proxy wants to know who we are: {answer.sentence}; correct `proxy`")
        well = answer.status in http.OK if self._config.health is not None else answer.status not in (502, 503, 504)
        if not well and answer.status in http.LATER:
            raise Unavailable(f"{where} is not ready: {answer.sentence}", after=answer.after)
        if not well:
            raise Misconfigured(f"{where} answers {answer.status} ({answer.sentence}); correct `health`")

    async def write(self, offset: int, batch: Batch) -> None:
        """Send the batch; see ``write_many``."""
        await self._deliver(offset, batch)

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Send every sample of these batches, in order; what the server confirmed before is not sent again.

        Raises Rejected for samples that the server or the template refuses for good, Unavailable when it takes
        nothing now, Misconfigured when a person must act (address, credentials, certificates).
        """
        if entries:
            self._offers.begin(entries[0][0])
        for offset, batch in entries:
            await self._deliver(offset, batch)

    async def _deliver(self, offset: int, batch: Batch) -> None:
        """Send what is still to be sent, in requests that stay the same however often they are begun.

        One that is refused is halved until the samples that are refused stand alone.
        """
        offer = self._offers.take(offset, batch)
        if offer.requests is None:
            await self._examine(batch, offer)
        offer.refuse()
        if offer.requests is None:
            offer.requests = await self._cut(batch, offer)
        at = {place: i for i, place in enumerate(offer.places)}
        while offer.requests:
            request: Request = offer.requests[0]
            chosen = await self._described(offset, batch, [(at[place], place) for place in request.places])
            reason = await self._refused(request, chosen, offer)  # if no answer comes, it stays the first one
            offer.requests.popleft()
            if reason is not None and len(chosen) > 1:
                offer.requests.extendleft(reversed(request.halves()))
            elif reason is not None:
                offer.refused[request.places[0]] = reason
        offer.refuse()

    async def _examine(self, batch: Batch, offer: Offer) -> None:
        """Note as refused, before any is sent, what is no Unicode."""
        pieces = Pieces(_AT_ONCE)
        for place, tag, value in zip(offer.places, batch.tags, batch.values, strict=True):
            if not is_unicode(tag) or (isinstance(value, str) and not is_unicode(value)):
                offer.refused[place] = "the text is not Unicode, so it cannot be written as UTF-8"
            await pieces.worked(1)

    async def _cut(self, batch: Batch, offer: Offer) -> deque[Request]:
        """The requests of an entry: the samples of an address together, in order. What has none is refused."""
        by_url: dict[str, list[int]] = {}
        pieces = Pieces(_AT_ONCE)
        for place, tag in zip(offer.places, batch.tags, strict=True):
            try:
                by_url.setdefault(self._url.of(tag, batch.source, self._site), []).append(place)
            except CannotFill as error:
                offer.refused[place] = f"its address {error}"
            await pieces.worked(1)
        most = self._config.batch
        return deque(
            Request(url, places[at : at + most]) for url, places in by_url.items() for at in range(0, len(places), most)
        )

    async def _described(
        self, offset: int, batch: Batch, chosen: Sequence[tuple[int, int]]
    ) -> list[Mapping[str, object]]:
        """Samples as templates see them; ``chosen``: where each is in the batch, and in the entry."""
        stem, units = f"{self._site}.{self._config.name}-{offset}", self._facts.units
        found, pieces = list[Mapping[str, object]](), Pieces(_AT_ONCE)
        for part in (chosen[at : at + _AT_ONCE] for at in range(0, len(chosen), _AT_ONCE)):
            samples = batch.select([i for i, _ in part])
            for sample, (_, place) in zip(samples, part, strict=True):
                found.append(described(sample, batch, units.get(sample.tag, ""), f"{stem}-{place}"))
            await pieces.worked(len(part))
        return found

    async def _refused(self, request: Request, chosen: Sequence[Mapping[str, object]], offer: Offer) -> str | None:
        """Why the request is refused for good; None: the server has taken it, which is noted."""
        key = str(chosen[0]["key"]) if len(chosen) == 1 else f"{chosen[0]['key']}-{request.places[-1]}.{len(chosen)}"
        try:
            body = self._content(chosen, key)
        except CannotFill as error:
            return f"the body {error}"
        headers = dict(self._headers)
        if self._config.idempotency_header is not None:
            headers[self._config.idempotency_header] = key
        answer = await self._exchange(self._config.method, request.url, headers, body)
        reason = self._refusal(request, answer)
        if reason is None:
            self._take(request, answer, offer)
        return reason

    def _content(self, chosen: Sequence[Mapping[str, object]], key: str) -> bytes:
        if self._body is not None:
            body = self._body.fill(chosen, self._site, key)
        else:
            said = [_said(one) for one in chosen]
            body = msgspec.json.encode({"site": self._site, "key": key, "samples": said})
        return gzip.compress(body, 6, mtime=0) if self._config.compression == "gzip" else body

    async def _exchange(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        if self._client is None:
            raise Unavailable("not connected")
        return await http.exchange(self._client, method, url, headers=headers, content=content, within=self._seconds)

    def _refusal(self, request: Request, answer: Answer) -> str | None:
        """Why the server refuses the request for good; None: it has taken it. Raises what the pipeline acts on."""
        where, status = http.shown(request.url), answer.status
        if status in http.OK or (status == http.CONFLICT and self._config.conflict == "held"):
            return None
        if status in http.LATER or (status == http.CONFLICT and self._config.conflict == "retry"):
            raise Unavailable(f"{where} takes nothing now: {answer.sentence} ({status})", after=answer.after)
        if status in (http.UNAUTHORIZED, http.FORBIDDEN, _PROXY):
            raise Misconfigured(self._let_in(where, answer))
        if status in http.MOVED:
            there = answer.headers.get("location", "another address")
            raise Misconfigured(f"{where} has moved to {there} ({status}); write that into `url`")
        if status in _WRONG_ADDRESS and self._url.constant:
            raise Misconfigured(
                f"{where} answers {self._config.method} with {status}: {answer.sentence}; correct `url`, `method` or "
                "`content_type`"
            )
        return f"{answer.sentence} ({status})"

    def _let_in(self, where: str, answer: Answer) -> str:
        remedy = "correct `auth`" if self._config.auth is not None else "give `auth`"
        if answer.status == http.FORBIDDEN:
            remedy = f"allow it there, or {remedy}"
        return f"{where} does not let us in: {answer.sentence} ({answer.status}); {remedy}"

    def _take(self, request: Request, answer: Answer, offer: Offer) -> None:
        """Note what the server refuses of a request that it has taken in part."""
        refused = self._refused_in_part(request, answer)
        offer.refused |= {request.places[i]: reason for i, reason in refused.items()}

    def _refused_in_part(self, request: Request, answer: Answer) -> Mapping[int, str]:
        """By their place in the request, the samples that the server does not take although it answers 2xx."""
        partial = self._config.partial
        if partial is None:
            if answer.status == http.MULTI_STATUS:
                raise Misconfigured(
                    f"{http.shown(request.url)} answers 207: some may be refused; say by `partial` where it tells which"
                )
            return {}
        try:
            found: Any = json.loads(answer.body) if answer.body.strip() else {}
            for step in partial.list.split("."):
                found = found.get(step) or {}
            listed = [cast("Mapping[str, Any]", entry) for entry in found]
            refused = {
                range(len(request.places)).index(int(entry[partial.index])): _reason(entry, partial.message)
                for entry in listed
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Misconfigured(
                f"what {http.shown(request.url)} says of refused samples cannot be read ({type(error).__name__}: "
                f"{error}); correct `partial`"
            ) from error
        return refused


def _said(sample: Mapping[str, object]) -> Mapping[str, object]:
    """A sample as the body says it where there is no template."""
    always = {name: sample[name] for name in _SAID}
    return always | {name: sample[name] for name in _SAID_IF_ANY if sample[name]}


def _reason(entry: Mapping[str, Any], message: str) -> str:
    said = entry.get(message)
    with suppress(TypeError, ValueError):
        return f"{http.sentence(json.dumps(said).encode()) if not isinstance(said, str) else said}" or "refused"
    return "refused"
