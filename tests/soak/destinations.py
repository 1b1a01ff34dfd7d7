"""Everything that Shopfloor can deliver to on this computer: real servers, and what they hold afterwards.

One more sink is one more class here, and its name in ``ALL``: it starts what it needs, writes its lines of the plant
file, and says what arrived in a way that asks nobody of Shopfloor.
"""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Literal, Self
from urllib.parse import unquote

import yaml

from shopfloor.historian.base import Historian
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.protocols.sparkplug.model import DataType, Metric
from shopfloor.protocols.sparkplug.payload import decode
from shopfloor.samples import Sample
from shopfloor.sinks.files import FilesSinkConfig
from shopfloor.sinks.opcua import OpcUaSinkConfig
from shopfloor.testing.programs import MariaDb, Mosquitto, Postgres, ServerProcess, free_port
from tests.kafka_broker import Broker, create, everything, once
from tests.sinks import mysql, opcua_client, postgres, sqlserver, test_kafka
from tests.sinks.influx import Influxd
from tests.sinks.mes import MesProcess
from tests.sinks.mongo import Mongo
from tests.sinks.mosquitto_sub import MosquittoSub
from tests.sinks.test_files import parquet
from tests.sinks.test_mqtt import sample_of

Promise = Literal["once", "again", "latest", "last"]
"""``once``: each sample once, in the order of its tag. ``again``: some may come again, all are there, first comings in
order. ``latest``: one for each tag and time, of several the one that came last. ``last``: of each tag the one that
came last, as often as it was asked for."""
MS: Final = 10**6
SQLSERVER_PASSWORD: Final = "SOAK_SQLSERVER_PASSWORD"


class Destination(ABC):
    """Where samples go, from entering to leaving. Entering skips the test when a program is missing."""

    name: ClassVar[str]
    promise: ClassVar[Promise]
    unit: ClassVar[int] = 1
    """ns: how exactly it keeps times."""
    has_quality: ClassVar[bool] = True
    quick: ClassVar[bool] = True
    """Whether it takes part in the short test, too; one in Java takes long to start."""
    by_time: ClassVar[bool] = False
    """Whether it gives its samples in the order of their times."""

    def __init__(self, folder: Path) -> None:
        """Nothing is started yet; ``folder`` is the plant's."""
        self.folder = folder
        self.stack = AsyncExitStack()
        self.tags: Sequence[str] = ()
        """Those that there must be, once all is delivered."""
        self.server: ServerProcess | None = None
        """What may be killed, too: it keeps its word over that."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.stack.aclose()

    @abstractmethod
    async def start(self) -> None:
        """Start what it needs."""

    @abstractmethod
    def lines(self) -> str:
        """The sink in the plant file, as a mapping of YAML's short form; "" for the historian."""

    @classmethod
    def here(cls) -> bool:
        """Whether it can take part in a long soak here."""
        return True

    def secrets(self) -> Mapping[str, str]:
        """The variables that its lines name."""
        return {}

    async def look(self, tags: Sequence[str]) -> None:  # noqa: B027  # most need no look
        """See what only a sink at work shows; called in the last life, once all is delivered and nothing new comes.

        ``tags`` are all that the plant file declares.
        """

    @abstractmethod
    async def samples(self) -> Sequence[Sample]:
        """Everything that it holds, in its order."""

    def place(self, name: str) -> Path:
        """A folder for the server's data."""
        found = self.folder / f"server-{name}"
        found.mkdir()
        return found


class Archive(Destination):
    """PostgreSQL."""

    name = "postgres"
    promise = "once"

    async def start(self) -> None:
        self.server = server = await self.stack.enter_async_context(Postgres())
        self._client = postgres.Client(server.port, "shopfloor")

    def lines(self) -> str:
        assert self.server is not None
        return f"type: postgres, dsn: 'postgresql://postgres@127.0.0.1:{self.server.port}/postgres'"

    async def samples(self) -> Sequence[Sample]:
        return await self._client.samples()


class Maria(Destination):
    """MariaDB."""

    name = "mysql"
    promise = "once"

    async def start(self) -> None:
        self.server = server = await self.stack.enter_async_context(MariaDb(self.place(self.name)))
        self._client = await asyncio.to_thread(mysql.Client, server.port)

    def lines(self) -> str:
        assert self.server is not None
        return f"type: mysql, dsn: 'mysql://root@127.0.0.1:{self.server.port}/{self._client.database}'"

    async def samples(self) -> Sequence[Sample]:
        return await asyncio.to_thread(self._client.samples)


class Influx(Destination):
    """InfluxDB 1."""

    name = "influxdb"
    promise = "latest"

    async def start(self) -> None:
        self._influxd = self.server = await self.stack.enter_async_context(Influxd(self.place(self.name)))
        await asyncio.to_thread(self._influxd.query, "CREATE DATABASE floor")

    def lines(self) -> str:
        return f"type: influxdb, url: '{self._influxd.url}', version: 1, database: floor"

    async def samples(self) -> Sequence[Sample]:
        return await asyncio.to_thread(self._influxd.samples, "floor")


class Mes(Destination):
    """The simulated MES, which counts each key once."""

    name = "http"
    promise = "once"

    async def start(self) -> None:
        self._mes = self.server = await self.stack.enter_async_context(MesProcess(self.place(self.name) / "taken"))

    def lines(self) -> str:
        return f"type: http, url: '{self._mes.url}/samples'"

    async def samples(self) -> Sequence[Sample]:
        return await asyncio.to_thread(self._mes.samples)


class Lake(Destination):
    """Parquet files."""

    name = "files"
    promise = "once"

    async def start(self) -> None:
        self._lake = self.place(self.name)

    def lines(self) -> str:
        return f"type: files, folder: '{self._lake}', rotate_every: 10 min, partition: none"  # of the plant's time

    async def samples(self) -> Sequence[Sample]:
        options = {"name": self.name, "folder": self._lake, "partition": "none"}
        async with FilesSinkConfig.model_validate(options).build() as sink:
            await sink.finish()
        return await asyncio.to_thread(parquet, self._lake)


class MqttBroker(Destination):
    """MQTT at QoS 1, heard by mosquitto_sub."""

    name = "mqtt"
    promise = "again"

    async def start(self) -> None:
        broker = await self.stack.enter_async_context(Mosquitto(self.place(self.name)))
        self._port = broker.port
        self._heard = await self.stack.enter_async_context(MosquittoSub.at(broker.port))

    def lines(self) -> str:
        return f"type: mqtt, servers: 'mqtt://127.0.0.1:{self._port}'"

    async def samples(self) -> Sequence[Sample]:
        return [sample_of(one.topic.removeprefix("shopfloor/"), one.json()) for one in self._heard.heard]


class Scada(Destination):
    """Sparkplug B, heard by mosquitto_sub: births tell values, too."""

    name = "sparkplug"
    promise = "again"
    unit = MS
    has_quality = False
    by_time = True  # within a message what is historical stands before what is live

    async def start(self) -> None:
        broker = await self.stack.enter_async_context(Mosquitto(self.place(self.name)))
        self._port = broker.port
        self._heard = await self.stack.enter_async_context(MosquittoSub.at(broker.port, "spBv1.0/#"))

    def lines(self) -> str:
        return f"type: sparkplug, servers: 'mqtt://127.0.0.1:{self._port}', group: soak, node: edge, memory: memory"

    async def samples(self) -> Sequence[Sample]:
        found: list[Sample] = []
        names: dict[int, tuple[str, DataType]] = {}
        for one in self._heard.heard:
            _, _, kind, _, *device = one.topic.split("/")
            if kind in ("NBIRTH", "DBIRTH", "NDATA", "DDATA"):
                payload = decode(one.payload, {alias: kind for alias, (_, kind) in names.items()})
                for metric in payload.metrics:
                    _learn(metric, device, names)
                    found.extend(_told(metric, names, born=kind.endswith("BIRTH")))
        wanted = set(self.tags)
        return [sample for sample in found if sample.tag in wanted]


def _learn(metric: Metric, device: Sequence[str], names: dict[int, tuple[str, DataType]]) -> None:
    if metric.name and metric.alias is not None and metric.type is not None:
        names[metric.alias] = ("/".join([*device, metric.name]), metric.type)


def _told(metric: Metric, names: Mapping[int, tuple[str, DataType]], *, born: bool) -> Sequence[Sample]:
    value, at = metric.value, metric.timestamp
    if (
        metric.alias is None or metric.alias not in names or at is None or (born and value is None)
    ):  # a birth has what has no value yet, too
        return []
    assert value is None or isinstance(value, bool | int | float | str | bytes)
    return [Sample(names[metric.alias][0], at * MS, value)]


class Bus(Destination):
    """Kafka: what came again is told by the headers."""

    name = "kafka"
    promise = "once"
    quick = False

    async def start(self) -> None:
        self._broker = await self.stack.enter_async_context(Broker(self.place(self.name)))
        await asyncio.to_thread(create, self._broker.server, "plant", partitions=1, retention_ms="-1")

    def lines(self) -> str:
        return f"type: kafka, servers: '{self._broker.server}', topic: plant"

    async def samples(self) -> Sequence[Sample]:
        found = await asyncio.to_thread(everything, self._broker.server, "plant")
        return [test_kafka.sample(message) for message in once(found)]


class Recorder(Destination):
    """A server of MongoDB's protocol."""

    name = "mongodb"
    promise = "once"
    quick = False
    by_time = True

    async def start(self) -> None:
        self._mongo = await self.stack.enter_async_context(Mongo(self.place(self.name), memory="4g"))

    def lines(self) -> str:
        return f"type: mongodb, dsn: '{self._mongo.url}/floor'"

    async def samples(self) -> Sequence[Sample]:
        return await asyncio.to_thread(self._mongo.samples, "floor")


class Panel(Destination):
    """The OPC UA server: what it shows at the end, and again after a restart."""

    name = "opcua"
    promise = "last"
    unit = 1000  # asyncua's client tells microseconds
    quick = False

    async def start(self) -> None:
        self._port = free_port()
        self._shown: list[Sample] = []

    def lines(self) -> str:
        return (
            f"type: opcua, endpoint: 'opc.tcp://127.0.0.1:{self._port}', anonymous: true, security: {{policies: "
            "[None]}, pki: opcua-pki, memory: opcua-memory, namespace: 'urn:shopfloor:plant'"
        )

    async def look(self, tags: Sequence[str]) -> None:
        self._shown = await self._ask(tags)

    async def samples(self) -> Sequence[Sample]:
        options = yaml.safe_load(f"{{name: {self.name}, {self.lines()}}}")
        options |= {key: self.folder / options[key] for key in ("pki", "memory")}
        async with OpcUaSinkConfig.model_validate(options).build():
            after = await self._ask(self.tags)
        # The source is away then, and that changes a quality; with the same value it is the same.
        kept = {(one.tag, one.time, repr(one.value)): one for one in self._shown}
        return [*self._shown, *(kept.get((one.tag, one.time, repr(one.value)), one) for one in after)]

    async def _ask(self, tags: Sequence[str]) -> list[Sample]:
        """Every tag that has had a value, as the server shows it."""
        async with opcua_client.connected(self._port) as client:
            index = await client.get_namespace_index(opcua_client.NAMESPACE)
            nodes = [client.get_node(opcua_client.node_id(tag, index)) for tag in tags]
            told = zip(tags, await client.read_attributes(nodes), strict=True)
            return [sample for tag, said in told if (sample := opcua_client.sample(tag, said)) is not None]


class Warehouse(Destination):
    """A SQL Server that the environment names."""

    name = "sqlserver"
    promise = "once"
    quick = False

    @classmethod
    def here(cls) -> bool:
        return bool(os.environ.get(sqlserver.SERVER))

    async def start(self) -> None:
        self._client = await asyncio.to_thread(sqlserver.Client, sqlserver.server())
        self.stack.callback(self._client.drop)

    def lines(self) -> str:
        where = self._client.where
        dsn = f"mssql://{where.username}@{self._client.host}:{self._client.port}/{self._client.database}?encrypt=no"
        return f"type: sqlserver, dsn: '{dsn}', password: '${{{SQLSERVER_PASSWORD}}}'"

    def secrets(self) -> Mapping[str, str]:
        return {SQLSERVER_PASSWORD: unquote(self._client.where.password or "")}

    async def samples(self) -> Sequence[Sample]:
        return await asyncio.to_thread(self._client.samples)


class History(Destination):
    """The embedded historian."""

    name = "historian"
    promise = "once"
    by_time = True

    async def start(self) -> None:
        """It is a file."""

    def lines(self) -> str:
        return ""

    async def samples(self) -> Sequence[Sample]:
        config = DuckDbConfig.model_validate({"path": self.folder / "history.duckdb"})
        store = config.build()
        assert isinstance(store, Historian)
        found: list[Sample] = []
        async with store:
            for tag in self.tags:
                series = await store.history(tag, 0, 2**62, limit=10**8)
                rows = zip(series.times, series.values, series.qualities, strict=True)
                found += [Sample(tag, time, value, quality) for time, value, quality in rows]
        return found


ALL: Final[Sequence[type[Destination]]] = (
    Archive, Maria, Influx, Mes, Lake, MqttBroker, Scada, Bus, Recorder, Panel, Warehouse, History,
)  # fmt: skip
