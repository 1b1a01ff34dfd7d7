"""A small edge node for tests: born when a host is online or asks, echoes what it is told to set."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.mqtt import Message, Will
from shopfloor.protocols.mqtt_session import Session, Subscription, open_session
from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload
from shopfloor.protocols.sparkplug.payload import decode, encode
from shopfloor.samples import Unavailable

ALIASES = {1: "PV", 2: "SP"}


class Edge:
    """The node ``g/e1`` with the metrics ``PV`` (alias 1), ``SP`` (alias 2) and the device ``cnc`` with ``Speed``."""

    def __init__(self, session: Session, bdseq: int) -> None:
        self.session = session
        self.bdseq = bdseq
        self.values: dict[str, Any] = {"PV": 0.5, "SP": 1.5}
        self.births = 0
        self.rebirths_asked = 0
        self.obeys = True
        self.seq = 0

    @classmethod
    @asynccontextmanager
    async def at(cls, port: int, bdseq: int = 0) -> AsyncIterator["Edge"]:
        connection = MqttConnection.model_validate({"servers": f"mqtt://127.0.0.1:{port}"})
        death = encode(Payload(timestamp=0, metrics=[_bdseq(bdseq)]))
        will = Will(b"spBv1.0/g/NDEATH/e1", death, 1)
        session = await open_session(connection, f"edge-{time.monotonic_ns()}", will=will)
        edge = cls(session, bdseq)
        await session.subscribe(
            [Subscription(topic) for topic in ("spBv1.0/STATE/+", "spBv1.0/g/NCMD/e1", "spBv1.0/g/DCMD/e1/+")]
        )
        listening = asyncio.create_task(edge._listen())
        try:
            yield edge
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError, Unavailable):
                await listening
            await session.close()

    async def birth(self) -> None:
        self.births += 1
        self.seq = -1
        metrics = [
            Metric(name=n, alias=i, type=DataType.DOUBLE, value=self.values[n]) for i, n in ((1, "PV"), (2, "SP"))
        ]
        rebirth = Metric(name="Node Control/Rebirth", type=DataType.BOOLEAN, value=False)
        await self.say("NBIRTH", _bdseq(self.bdseq), rebirth, *metrics)
        await self.say("DBIRTH", Metric(name="Speed", alias=3, type=DataType.INT32, value=-7), device="cnc")

    async def say(self, verb: str, *metrics: Metric, device: str | None = None, retain: bool = False) -> None:
        self.seq = (self.seq + 1) % 256
        payload = Payload(timestamp=time.time_ns() // 10**6, metrics=metrics, seq=self.seq)
        topic = f"spBv1.0/g/{verb}/e1" + ("" if device is None else f"/{device}")
        await self.publish(topic, encode(payload, datatypes=verb.endswith("BIRTH")), retain=retain)

    async def publish(self, topic: str, body: bytes, *, retain: bool = False) -> None:
        await self.session.publish([Message(topic.encode(), body, retain)], 0)

    async def set(self, name: str, value: float) -> None:
        self.values[name] = value
        await self.say("NDATA", Metric(alias=1 if name == "PV" else 2, type=DataType.DOUBLE, value=value))

    async def _listen(self) -> None:
        async for packets in self.session.arrivals():
            for packet in packets:
                self.session.acknowledge([packet])
                if "/STATE/" in packet.topic:
                    if packet.payload.startswith(b'{"online":true'):
                        await self.birth()
                    continue
                for metric in decode(packet.payload, {"Node Control/Rebirth": DataType.BOOLEAN}).metrics:
                    if metric.name == "Node Control/Rebirth":
                        self.rebirths_asked += 1
                        await self.birth()
                    elif self.obeys and metric.name is None and metric.alias in ALIASES:
                        await self.set(ALIASES[metric.alias], float(str(metric.value)))


def _bdseq(number: int) -> Metric:
    return Metric(name="bdSeq", type=DataType.INT64, value=number)
