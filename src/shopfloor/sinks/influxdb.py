"""Samples to InfluxDB 1, 2 or 3, or whatever else takes its line protocol.

A line is idempotent: what is written again replaces itself. So every sample counts once, whatever is sent twice.
"""

import asyncio
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Annotated, Any, Final, Literal, Self, cast
from urllib.parse import urlencode

import httpx
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, StringConstraints, model_validator

from shopfloor.plant import Plant
from shopfloor.plant.components import Form, SinkConfig
from shopfloor.plant.http import HeaderSecret, HttpConnection, PlainSecret, WebAddress
from shopfloor.protocols import http
from shopfloor.protocols.http import Answer, Header
from shopfloor.protocols.tls import file_problems
from shopfloor.samples import Batch, Misconfigured, Rejected, Unavailable
from shopfloor.seams import Connection, Sink
from shopfloor.sinks.line_protocol import Lines, TagKey, Unwritable, measurement_template
from shopfloor.sinks.offers import Offer, Offers
from shopfloor.sinks.tag_facts import TagFacts
from shopfloor.turns import Pieces

Text = Annotated[str, StringConstraints(min_length=1)]
_NEEDS: Final[Mapping[str, tuple[Sequence[str], Sequence[str]]]] = {
    "1": (("database",), ("retention_policy", "username", "password", "create")),
    "2": (("org", "bucket", "token"), ()),
    "3": (("database",), ("token",)),
}
"""By version: options that it must have, and may have beside."""
_AT_ONCE: Final = 250
"""Lines that are made in one turn: a few milliseconds."""
_REFUSED: Final = frozenset({400, 413, 422})
"""Answers that say: not these lines."""
_ITS_WORDS: Final = frozenset({"code", "message", "error"})
"""Fields of what InfluxDB says of a bad request."""
_NOTHING: Final = (
    "nothing to write",
    "no points",
    "no lines",
    "no data",
    "empty",
    "requires points",
    "unable to parse",
)
"""What those say who take line protocol and answer with text."""
_ITS_OWN: Final = frozenset(name for must, may in _NEEDS.values() for name in (*must, *may))


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class InfluxDbConfig(HttpConnection, SinkConfig):
    """Writes samples to InfluxDB 1, 2 or 3, or to others that take its line protocol (VictoriaMetrics, QuestDB)."""

    type: Literal["influxdb"] = "influxdb"
    url: WebAddress = Field(description="The server's address, `http://host:8086`, without what follows for writing.")
    version: Annotated[
        Literal["1", "2", "3"], BeforeValidator(_as_text, json_schema_input_type=Literal["1", "2", "3"] | int)
    ] = Field(default="2", description="Which API: 1 (database), 2 (organisation and bucket) or 3 (database).")
    database: Text | None = Field(default=None, description="Version 1 and 3: the database.")
    retention_policy: Text | None = Field(default=None, description="Version 1: by default the database's own.")
    username: Text | None = Field(default=None, description="Version 1: user name.")
    password: PlainSecret | None = Field(default=None, description="Version 1: password, as `${VAR}`.")
    create: bool = Field(default=True, description="Version 1: make the database where it is not there.")
    org: Text | None = Field(default=None, description="Version 2: the organisation.")
    bucket: Text | None = Field(default=None, description="Version 2: the bucket.")
    token: HeaderSecret | None = Field(default=None, description="Version 2 and 3: the token, as `${VAR}`.")
    measurement: Annotated[Text, AfterValidator(measurement_template)] = Field(
        default="shopfloor",
        description="The measurement; `{tag}`, `{machine}`, `{signal}`, `{line}`, `{source}`, `{site}` can be in it.",
    )
    tag_set: list[TagKey] = Field(
        default=["source", "unit", "machine"],
        description="Which tags each line has beside `tag`, the full path; they make no further series.",
    )
    labels: dict[Annotated[str, Form(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", "letters, digits, `_`, `.`, `-`")], Text] = Field(
        default={}, description="Further tags that all lines have: `{plant: bremen}`."
    )
    fields: Literal["by_type", "one"] = Field(
        default="by_type",
        description="`by_type`: `value` for floats, `value_int`, `value_bool`, `value_text`, `value_base64`. `one`: "
        "`value` for all; a measurement then has one type only, what differs becomes dead letters.",
    )
    batch: int = Field(default=5000, ge=1, le=100_000, description="How many lines a request may hold.")
    compression: Literal["none", "gzip"] = Field(default="gzip", description="How requests are compressed.")

    _facts: TagFacts = PrivateAttr(default_factory=TagFacts)

    @model_validator(mode="after")
    def _of_its_version(self) -> Self:
        must, may = _NEEDS[self.version]
        lacks = next((name for name in must if getattr(self, name) is None), None)
        if lacks is not None:
            raise ValueError(f"version {self.version} needs `{lacks}`")
        odd = next((name for name in self.model_fields_set & _ITS_OWN if name not in (*must, *may)), None)
        if odd is not None:
            raise ValueError(f"`{odd}` is not for version {self.version}; take it away, or correct `version`")
        if (self.username is None) != (self.password is None):
            raise ValueError("`username` and `password` belong together; give both")
        if taken := {"tag", "repeat", *self.tag_set} & self.labels.keys():
            raise ValueError(f"`labels` cannot set {min(taken)}: lines have that tag already")
        return self

    def place(self, plant: Plant) -> None:
        """Remember the site, the machines and which units the tags have."""
        self._facts = TagFacts(plant)

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        return file_problems(self) if self.addresses_with_tls() else ()

    def build(self) -> "InfluxDbSink":
        """The sink; opens nothing yet."""
        return InfluxDbSink(self, self._facts, create=self.create)

    def probe(self) -> Connection:
        """The sink, but it creates nothing: it asks whether it might."""
        return InfluxDbSink(self, self._facts, create=self.create, probing=True)

    def authentication(self) -> httpx.Auth | None:
        """What is added to each request."""
        if self.token is not None:
            return Header(
                "Authorization", f"{'Token' if self.version == '2' else 'Bearer'} {self.token.get_secret_value()}"
            )
        if self.username is not None and self.password is not None:
            return httpx.BasicAuth(self.username, self.password.get_secret_value())
        return None

    @property
    def writing(self) -> str:
        """The address for writing."""
        match self.version:
            case "1":
                path, query = "/write", {"db": self.database, "rp": self.retention_policy, "precision": "ns"}
            case "2":
                path, query = "/api/v2/write", {"org": self.org, "bucket": self.bucket, "precision": "ns"}
            case "3":
                path = "/api/v3/write_lp"
                query = {"db": self.database, "precision": "nanosecond", "accept_partial": "true"}
        given = {key: value for key, value in query.items() if value is not None}
        return f"{self.url.rstrip('/')}{path}?{urlencode(given)}"


class InfluxDbSink(Sink):
    """Writes batches; enter it to connect."""

    def __init__(self, config: InfluxDbConfig, facts: TagFacts, *, create: bool, probing: bool = False) -> None:
        """Built by ``InfluxDbConfig.build``; ``create``: whether to make the database; ``probing``: nothing is made."""
        self._config = config
        self._create = create and config.version == "1"
        self._probing = probing
        self._offers = Offers()
        self._seconds = config.timeout / 1e9
        self._client: httpx.AsyncClient | None = None
        self._lines = Lines(
            facts, measurement=config.measurement, tag_set=config.tag_set, labels=config.labels,
            by_type=config.fields == "by_type", unsigned=config.version != "1",
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        """Ask whether we may write, by writing nothing. Raises Unavailable, or Misconfigured when a person must act."""
        config = self._config
        self._client = await http.client(config, tls=config.addresses_with_tls(), auth=config.authentication())
        try:
            if self._create and not self._probing:
                await self._make_database()
            answer = await self._post(b"")
            if self._create and self._probing and answer.status == http.NOT_FOUND and await self._may_make():
                return self
            self._greeted(answer)
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

    def _greeted(self, answer: Answer) -> None:
        """Raise what an answer to writing nothing means, unless all is well."""
        if not _finds_nothing(answer) and self._meaning(answer) is not None:
            raise Misconfigured(self._no_influxdb(answer))

    async def _make_database(self) -> None:
        name = (self._config.database or "").replace("\\", "\\\\").replace('"', '\\"')
        answer = await self._asked(f'CREATE DATABASE "{name}"')
        # Who may write, but create nothing, is told so; whether the database is there, the first writing says.
        if answer.status not in (*http.OK, http.FORBIDDEN, http.NOT_FOUND):
            self._meaning(answer)

    async def _may_make(self) -> bool:
        """Whether we may do what only those may who make databases."""
        return (await self._asked("SHOW USERS")).status in http.OK

    async def _asked(self, query: str) -> Answer:
        """What a statement of InfluxDB 1 is answered."""
        url = f"{self._config.url.rstrip('/')}/query?{urlencode({'q': query})}"
        return await self._exchange("POST", url, b"", {})

    async def write(self, offset: int, batch: Batch) -> None:
        """Write the batch. Raises Rejected for its samples that line protocol or the server cannot take."""
        offer = self._offers.take(offset, batch)
        written = await self._all_written(batch, offer, Pieces(_AT_ONCE))
        offer.refuse()
        for at in range(0, len(written), self._config.batch):
            await self._put(written[at : at + self._config.batch], offer)
        offer.refuse()

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Write all in as few requests as may be. Raises as ``write`` does, without naming which are refused."""
        if entries:
            self._offers.begin(entries[0][0])
        if len(entries) == 1:
            await self.write(*entries[0])
            return
        lines, pieces = list[bytes](), Pieces(_AT_ONCE)
        for offset, batch in entries:
            offer = self._offers.take(offset, batch)
            lines += [line for _, line in await self._all_written(batch, offer, pieces)]
            if offer.refused:
                raise Rejected(next(iter(offer.refused.values())))
        for at in range(0, len(lines), self._config.batch):
            refusal = self._meaning(await self._post(b"\n".join(lines[at : at + self._config.batch])))
            if refusal is not None:
                raise Rejected(refusal)

    async def _all_written(self, batch: Batch, offer: Offer, pieces: Pieces) -> list[tuple[int, bytes]]:
        """The same, one's turn at a time where there are many."""
        making, made = self._written(batch, offer), list[tuple[int, bytes]]()
        while part := list(islice(making, _AT_ONCE)):
            made += part
            await pieces.worked(len(part))
        return made

    def _written(self, batch: Batch, offer: Offer) -> Iterator[tuple[int, bytes]]:
        """The lines with their places in the entry; what cannot be written is noted as refused."""
        offer.number(batch)
        for place, sample in zip(offer.places, batch, strict=True):
            try:
                yield place, self._lines.line(sample, batch.source, offer.numbers[place])
            except Unwritable as error:
                offer.refused[place] = str(error)

    async def _put(self, written: Sequence[tuple[int, bytes]], offer: Offer) -> None:
        """Write lines; refused ones are those that the server names, or are found by halving: again is no harm."""
        answer = await self._post(b"\n".join(line for _, line in written))
        refusal = self._meaning(answer)
        if refusal is None:
            return
        if named := _named(answer, len(written)):
            offer.refused |= {written[i][0]: reason for i, reason in named.items()}
        elif len(written) == 1:
            offer.refused[written[0][0]] = refusal
        else:
            middle = len(written) // 2
            await self._put(written[:middle], offer)
            await self._put(written[middle:], offer)

    async def _post(self, lines: bytes) -> Answer:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._config.compression == "gzip" and lines:
            headers["Content-Encoding"] = "gzip"
            lines = await asyncio.to_thread(gzip.compress, lines, 1, mtime=0)
        return await self._exchange("POST", self._config.writing, lines, headers)

    async def _exchange(self, method: str, url: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        if self._client is None:
            raise Unavailable("not connected")
        return await http.exchange(self._client, method, url, headers=headers, content=content, within=self._seconds)

    def _meaning(self, answer: Answer) -> str | None:
        """Why the server refuses lines; None: it has them. Raises what the pipeline acts on."""
        config, status = self._config, answer.status
        if status in http.OK:
            return None
        if status in http.LATER:
            raise Unavailable(f"{config.url} takes nothing now: {answer.sentence} ({status})", after=answer.after)
        if status in (http.UNAUTHORIZED, http.FORBIDDEN):
            mend = "`username` and `password`" if config.version == "1" else "`token`, or allow it to write"
            raise Misconfigured(f"{config.url} does not let us write: {answer.sentence} ({status}); correct {mend}")
        if status == http.NOT_FOUND or status in http.MOVED:
            mend = {"1": "`database`", "2": "`org` and `bucket`", "3": "`database`"}[config.version]
            raise Misconfigured(
                f"{config.url} has not what is asked for: {answer.sentence} ({status}); create it, or correct {mend}, "
                "`version` or `url`"
            )
        if status not in _REFUSED:
            raise Misconfigured(self._no_influxdb(answer))
        return f"{answer.sentence} ({status})"

    def _no_influxdb(self, answer: Answer) -> str:
        said = f"{self._config.url} answers {answer.status}: {answer.sentence}"
        return f"{said}; is it an InfluxDB of this `version`, at this `url`?"


def _finds_nothing(answer: Answer) -> bool:
    """Whether it is a server of line protocol that finds nothing to write a bad request, and not any server."""
    if answer.status != http.BAD_REQUEST:
        return False
    with suppress(ValueError, RecursionError):
        said: object = json.loads(answer.body)
        return isinstance(said, dict) and not _ITS_WORDS.isdisjoint(cast("dict[str, object]", said))
    text = answer.body[:1000].decode("utf-8", "replace").lower()
    return any(words in text for words in _NOTHING)


def _named(answer: Answer, lines: int) -> Mapping[int, str]:
    """The lines that InfluxDB 3 names as refused, while it has taken the others, by their place from 0."""
    try:
        found: list[Mapping[str, Any]] = json.loads(answer.body)["data"]
        return {range(lines).index(int(one["line_number"]) - 1): str(one["error_message"]) for one in found}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
