"""Samples and machines' figures as documents of MongoDB; each counts once, however often it is written.

An ``_id`` is made of what the journal knows of a sample, so what was written before a crash or a lost answer is there
already when it is written again. ``docs/connectors/mongodb.md`` says what is in the documents.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Literal, Self, cast

from bson.codec_options import CodecOptions, DatetimeConversion
from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, StringConstraints, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from shopfloor.plant.components import Form, FromEnvironment, Secret, SinkConfig
from shopfloor.plant.model import Plant
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.protocols.tls import file_problems
from shopfloor.samples import Batch, Misconfigured, Rejected, Unavailable
from shopfloor.seams import Connection, Sink
from shopfloor.sinks import mongodb_documents as documents
from shopfloor.sinks.mongodb_bulk import Missing, bulk
from shopfloor.sinks.mongodb_documents import Document, Stored
from shopfloor.sinks.mongodb_errors import DUPLICATE, about_document, meaning, meant
from shopfloor.sinks.mongodb_recorder import Recorder, Shapes
from shopfloor.sinks.offers import Offer, Offers
from shopfloor.turns import Pieces, turn

_SECOND: Final = DURATION_UNITS["s"]
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_EXAMPLE: Final = "mongodb://user@host:27017/database"
SLICE: Final = 250
"""Documents in one command: making them takes a few milliseconds, one's turn."""
_UNDER_WAY: Final = 4
"""Commands that wait for their answers at once."""
_SAMPLES: Final = "samples"
_LATEST: Final = "latest"
_INDEXES: Final = {
    _SAMPLES: ["tag", "time"],
    "kpi_window": ["machine", "period", "starts"],
    "production_run": ["machine", "starts"],
    "cycle": ["machine", "ends"],
    "stop_event": ["machine", "starts"],
}
_INDEX_DIFFERS: Final = frozenset({85, 86})
"""The administrator has made such an index already, with other options."""
_CODEC: Final = CodecOptions[dict[str, Any]](datetime_conversion=DatetimeConversion.DATETIME_MS)


def _parsed(text: str) -> Mapping[str, Any]:
    """What a DSN says; asks no name server. Raises ValueError, whose text never shows the DSN."""
    plain = text.replace("mongodb+srv://", "mongodb://", 1)
    head, mark, options = plain.partition("?")
    kept = [option for option in options.split("&") if not option.lower().startswith("srv")]
    try:
        found: Mapping[str, Any] = parse_uri(head + (mark + "&".join(kept) if kept != [""] else ""), warn=False)
    except (PyMongoError, ValueError, UnicodeError) as error:
        reason = str(error) if "option" in str(error).lower() else "is no address"
        raise ValueError(f"{reason}; write {_EXAMPLE}") from None
    if not found["database"]:
        raise ValueError(f"names no database; write {_EXAMPLE}")
    if found["collection"]:
        raise ValueError(f"names a collection behind the database; write {_EXAMPLE}")
    if found["options"].get("w") == 0:
        raise ValueError("has w=0, by which nobody would know what is stored; leave `w` out")
    return found


def _dsn(value: object) -> object:
    if isinstance(value, str):
        found = _parsed(value)
        if found["password"] and not isinstance(value, FromEnvironment):
            # The text of this error never shows the value, so it is not one that quotes its input.
            raise PydanticCustomError(
                "secret", "a password must not stand in the plant file; write `password: ${NAME}` and set NAME"
            )
        return str(value)
    return value


class MongoDbConfig(SinkConfig):
    """Stores samples and machines' figures as documents of MongoDB; each counts once."""

    type: Literal["mongodb"] = "mongodb"
    dsn: Annotated[SecretStr, BeforeValidator(_dsn), WithJsonSchema({"type": "string"})] = Field(
        description="Where: `mongodb://user@host:27017/database`, all members of a replica set, `mongodb+srv://…`, and "
        "all options behind `?` (`replicaSet`, `authSource`, `w`); or all of it as `${VAR}`. Other computers are "
        "spoken to with TLS and a checked certificate, unless `?tls=false` says otherwise."
    )
    password: Secret | None = Field(default=None, description="Password of the user in `dsn`, as `${VAR}`.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the server's certificate; by default the system's own.",
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file of our certificate and its key, for servers that ask for one."
    )
    key_password: Secret | None = Field(default=None, description="Password of the key in it, as `${VAR}`.")
    prefix: Annotated[
        str, Form(r"([A-Za-z_][A-Za-z0-9_]*)?", "letters, digits and `_`"), StringConstraints(max_length=20)
    ] = Field(default="", description="What stands before the name of each collection.")
    time_series: bool = Field(
        default=False,
        description="Make `samples` a time series collection: a fraction of the space, but each sample at least once.",
    )
    recorder: Recorder | None = Field(
        default=None, description="The signal recorder's collections instead, for a front end that reads them."
    )
    writer: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="What tells this Shopfloor's samples from those of others in the same collections; by default the "
        "plant's site and the sink's name.",
    )
    timeout: Duration = Field(
        default=30 * _SECOND, ge=_SECOND // 10,
        description="How long finding a server, and each of its answers, may take.",
    )  # fmt: skip
    keep_alive: Duration = Field(
        default=10 * _SECOND, ge=_SECOND // 2, description="How often a connection is tried while nothing is written."
    )

    _site: str = PrivateAttr(default="")
    _zone: str = PrivateAttr(default="UTC")
    _offers: Offers = PrivateAttr(default_factory=Offers)

    @model_validator(mode="before")
    @classmethod
    def _only_recorded(cls, fields: Any) -> Any:
        """With ``recorder`` it gets the tags that stand there."""
        given = cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}
        if given.get("recorder") is not None and "tags" not in given:
            with suppress(ValueError):  # what is wrong there, the field itself says
                return {**given, "tags": Recorder.model_validate(given["recorder"]).tags}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.key_password is not None and self.certificate_file is None:
            raise ValueError("`key_password` needs `certificate_file`")
        if self.recorder is not None and set(self.tags) != set(self.recorder.tags):
            raise ValueError("`recorder` says which tags it gets; leave `tags` out")
        if self.recorder is not None and (self.time_series or self.prefix):
            raise ValueError("`time_series` and `prefix` are for Shopfloor's own collections; leave them out")
        if (self.ca_file or self.certificate_file) and not self.tls:
            raise ValueError("`ca_file` and `certificate_file` need TLS; write `?tls=true` behind `dsn`")
        if self.password is not None and not self._where["username"]:
            raise ValueError(f"`password` needs a user in `dsn`; write {_EXAMPLE}")
        return self

    def place(self, plant: Plant) -> None:
        """Remember the site and its time zone."""
        self._site, self._zone = plant.plant.site, plant.plant.timezone

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        return file_problems(self) if self.tls else ()

    @property
    def key_file(self) -> Path | None:
        """The key is in the certificate's file."""
        return self.certificate_file

    @property
    def _where(self) -> Mapping[str, Any]:
        return _parsed(self.dsn.get_secret_value())

    @property
    def database(self) -> str:
        """Its name."""
        return str(self._where["database"])

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        said = self._where["options"].get("tls")
        srv = self.dsn.get_secret_value().startswith("mongodb+srv://")
        return bool(said) if said is not None else srv or any(host not in _LOCAL for host, _ in self._where["nodelist"])

    @property
    def writes_as(self) -> str:
        """What tells its samples from others' in the same collections."""
        return self.writer or (f"{self._site}/{self.name}" if self._site else self.name)

    def client(self) -> AsyncMongoClient[Document]:
        """A client that connects when it is asked something."""
        milliseconds, options = self.timeout // 10**6, self._where["options"]
        given: dict[str, Any] = {"tls": self.tls}
        for name, file in (("tlsCAFile", self.ca_file), ("tlsCertificateKeyFile", self.certificate_file)):
            if file is not None:
                given[name] = str(file)
        if self.key_password is not None:
            given["tlsCertificateKeyFilePassword"] = self.key_password.get_secret_value()
        if self.password is not None:
            given |= {"username": self._where["username"], "password": self.password.get_secret_value()}
        return AsyncMongoClient(
            self.dsn.get_secret_value(), serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds * 2 // 3,  # so that the reason is known before nobody was found
            socketTimeoutMS=milliseconds, wTimeoutMS=milliseconds, w=options.get("w", "majority"),
            journal=options.get("journal", True), maxPoolSize=2 * _UNDER_WAY, appname=f"shopfloor {self.name}", **given,
        )  # fmt: skip

    def build(self) -> "MongoDbSink":
        """The sink; opens nothing yet."""
        shapes = None if self.recorder is None else Shapes(self.recorder, self._zone)
        return MongoDbSink(self, self._offers, shapes, create=True)

    def probe(self) -> Connection:
        """The sink, but it makes nothing."""
        shapes = None if self.recorder is None else Shapes(self.recorder, self._zone)
        return MongoDbSink(self, self._offers, shapes, create=False)


class MongoDbSink(Sink):
    """Writes batches; enter it to connect."""

    def __init__(self, config: MongoDbConfig, offers: Offers, shapes: Shapes | None, *, create: bool) -> None:
        """Built by ``MongoDbConfig.build``; ``offers`` outlives it, so what was confirmed is not written again.

        ``shapes``: the signal recorder's; ``create``: whether to make collections and indexes.
        """
        self._config = config
        self._offers = offers
        self._shapes = shapes
        self._create = create
        self._longest = documents.LONGEST_IN_TIME_SERIES if config.time_series else documents.LONGEST
        self._client: AsyncMongoClient[Document] | None = None
        self._newest: dict[str, int] = {}
        """The time of what ``latest`` has, by tag, as far as it was written on this connection."""
        self._answered = 0.0
        self._missing = Missing(config.name)

    async def __aenter__(self) -> Self:
        """Connect, ask by changing nothing whether we may write, make collections. Raises what the pipeline acts on."""
        try:
            with meaning():
                self._client = self._config.client()
                await self._ask()
                if self._shapes is None:
                    await self._prepare()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        self._newest = {}
        self._answered = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        client, self._client = self._client, None
        self._missing.leave()
        if client is not None:
            with suppress(PyMongoError):
                await client.close()

    @property
    def _database(self) -> AsyncDatabase[Document]:
        if self._client is None:
            raise Unavailable("not connected")
        # `readPreference` of a DSN is for those who ask much: what was written a moment ago the primary alone knows.
        return self._client.get_database(
            self._config.database, codec_options=_CODEC, read_preference=ReadPreference.PRIMARY
        )

    async def _ask(self) -> None:
        """Change a document that there cannot be: who lacks the right, or asks a secondary, is told so."""
        recorder = self._config.recorder
        name = self._config.prefix + _LATEST if recorder is None else recorder.production_into
        await self._database[name].update_one({"_id": {"$in": []}}, {"$set": {"asked": True}})

    async def _prepare(self) -> None:
        """Examine the collections that are there; make those, and indexes, that are not."""
        config, database = self._config, self._database
        name = config.prefix + _SAMPLES
        listed = await database.list_collections(filter={"name": name})
        there = [one async for one in listed if one["name"] == name]  # a proxy may not know filters
        if there and ("timeseries" in there[0].get("options", {})) != config.time_series:
            what, said = ("an ordinary", "false") if config.time_series else ("a time series", "true")
            raise Misconfigured(
                f"{name} is there as {what} collection; write `time_series: {said}`, rename it there, or give another "
                "`prefix`"
            )
        if not self._create:
            return
        if not there and config.time_series:
            await database.create_collection(name, timeseries={"timeField": "time", "metaField": "tag"})
        for collection, fields in _INDEXES.items():
            try:
                await database[config.prefix + collection].create_index([(field, 1) for field in fields])
            except OperationFailure as error:
                if error.code not in _INDEX_DIFFERS:
                    raise

    async def lost(self) -> None:
        """Raise Unavailable when the connection is lost: it is tried whenever nothing was written for a while."""
        pause = self._config.keep_alive / 1e9
        while True:
            await asyncio.sleep(max(0.01, self._answered + pause - time.monotonic()))
            if time.monotonic() - self._answered >= pause:
                with meaning():
                    await self._database.command("ping")
                self._answered = time.monotonic()

    async def write(self, offset: int, batch: Batch) -> None:
        """Take the batch; see ``write_many``."""
        await self.write_many([(offset, batch)])

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Write every sample that is not held yet. Raises Rejected, Unavailable, Misconfigured.

        Samples that no MongoDB can hold are refused before any is written. Of those that this server refuses (a
        validator, an index of the administrator's), the others of their batch are held, and count once all the same.
        What follows from stored samples and is refused is said in the log; an hour is all that its sample is, so its
        sample is refused with it.
        """
        if not entries:
            return
        self._offers.begin(entries[0][0])
        taken = [(offset, batch, self._offers.take(offset, batch)) for offset, batch in entries]
        pieces = Pieces()
        for _, batch, offer in taken:
            offer.number(batch)
            for i, reason in self._unfit(batch).items():
                offer.refused.setdefault(offer.places[i], reason)
            await pieces.worked(len(batch))
        _refuse([offer for _, _, offer in taken])
        await self._put_all(self._stored(taken))
        _refuse([offer for _, _, offer in taken])
        with meaning():
            if self._shapes is None:
                await self._derived(entries)
            else:
                await self._put_hours(self._shapes, taken)
        _refuse([offer for _, _, offer in taken])
        self._answered = time.monotonic()

    def _unfit(self, batch: Batch) -> Mapping[int, str]:
        found = documents.unfit(batch, self._longest)
        return found if self._shapes is None else {**self._shapes.unfit(batch), **found}

    def _stored(self, taken: Iterable[tuple[int, Batch, Offer]]) -> Iterator[Stored]:
        shape = documents.sample if self._shapes is None else self._shapes.signal
        for offset, batch, offer in taken:
            yield from documents.stored(self._config.writes_as, offset, batch, offer, shape)

    async def _put_all(self, found: Iterator[Stored]) -> None:
        """Insert in slices, some at once; between making two of them others have their turn."""
        under_way: deque[asyncio.Task[None]] = deque()
        try:
            while part := list(islice(found, SLICE)):
                under_way.append(asyncio.create_task(self._put(part), name=f"{self._config.name}: insert"))
                if len(under_way) == _UNDER_WAY:
                    await under_way.popleft()
                if len(part) == SLICE:
                    await turn()
            while under_way:
                await under_way.popleft()
        except Exception:
            # What the server confirms of the others is to be known: a time series collection would have it twice.
            await asyncio.gather(*under_way, return_exceptions=True)
            raise
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _put(self, part: Sequence[Stored]) -> None:
        """Insert some documents; note which are held and which are refused. Raises Unavailable, Misconfigured."""
        recorder = self._config.recorder
        name = self._config.prefix + _SAMPLES if recorder is None else recorder.signals_into
        refused: Mapping[int, str] = {}
        if len(part) == SLICE:
            await turn()  # the driver makes bytes of the documents now
        with meaning():
            try:
                await self._database[name].insert_many([one.document for one in part], ordered=False)
            except BulkWriteError as error:
                refused = await self._refused(name, part, error)
        self._answered = time.monotonic()
        for i, one in enumerate(part):
            if i in refused:
                one.offer.refused[one.place] = refused[i]
            else:
                one.offer.held.add(one.place)

    async def _refused(self, name: str, part: Sequence[Stored], error: BulkWriteError) -> Mapping[int, str]:
        """Which the server refuses for good and why; what is there already is held. Raises what holds up all."""
        details: Mapping[str, Any] = error.details or {}
        errors: Sequence[Mapping[str, Any]] = details.get("writeErrors", [])
        if details.get("writeConcernErrors") or any(not about_document(one["code"]) for one in errors):
            raise meant(error) from error
        refused = {int(one["index"]): str(one.get("errmsg", one["code"])) for one in errors}
        doubled = {
            part[i].document["_id"]: i for i in (int(one["index"]) for one in errors if one["code"] == DUPLICATE)
        }
        if doubled:
            async for found in self._database[name].find({"_id": {"$in": list(doubled)}}):
                if documents.same(part[doubled[found["_id"]]].document, found):
                    del refused[doubled[found["_id"]]]
        return refused

    async def _put_hours(self, shapes: Shapes, taken: Iterable[tuple[int, Batch, Offer]]) -> None:
        """Set the recorder's hours right, in order; note whose hour is refused."""
        recorder = self._config.recorder
        hours = [] if recorder is None else shapes.hours(taken)
        into = "" if recorder is None else recorder.production_into
        while hours:
            part, hours = hours[: SLICE // 2], hours[SLICE // 2 :]
            writes = [(hour, update) for hour in part for update in hour.updates]
            refused = await bulk(self._database, into, [update for _, update in writes], ordered=True)
            for i, reason in refused.items():
                hour = writes[i][0]
                hour.offer.refused[hour.place] = reason
                hours = [*part[part.index(hour) + 1 :], *hours]
            await turn()

    async def _derived(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """What follows from the samples: the newest ones, the figures of machines."""
        newest = await self._newest_of(entries)
        writing: dict[str, Sequence[Any]] = {_LATEST: [documents.newer(one) for one in newest]}
        for name, writes in {**writing, **documents.figures(entries)}.items():
            collection = self._config.prefix + name
            for at in range(0, len(writes), SLICE):
                refused = await bulk(self._database, collection, writes[at : at + SLICE])
                self._missing.add(collection, list(refused.values()))
                await turn()

    async def _newest_of(self, entries: Sequence[tuple[int, Batch]]) -> list[Document]:
        """The newest sample of each tag, where it is newer than what was written before."""
        found: dict[str, tuple[int, Batch, int]] = {}
        pieces = Pieces()
        for offset, batch in entries:
            await pieces.worked(len(batch))
            for i, (tag, at) in enumerate(zip(batch.tags, batch.times, strict=True)):
                if at >= self._newest.get(tag, at):
                    self._newest[tag] = at
                    found[tag] = (offset, batch, i)
        made: list[Document] = []
        for offset, batch, i in found.values():
            (one,) = batch.select([i]) if len(batch) > 1 else batch
            made.append(documents.sample(one, batch) | {"entry": offset})
        return made


def _refuse(offers: Sequence[Offer]) -> None:
    """Raise Rejected when there is something to refuse: by its places where one batch is offered."""
    if len(offers) == 1:
        offers[0].refuse()
    reason = next((reason for offer in offers for reason in offer.refused.values()), None)
    if len(offers) > 1 and reason is not None:
        raise Rejected(reason)
