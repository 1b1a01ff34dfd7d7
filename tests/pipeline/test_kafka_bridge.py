"""The whole way: machines, MQTT or Kafka, Shopfloor, Kafka; every part of it killed and back."""

import asyncio
import json
import resource
from pathlib import Path
from time import time_ns

import pytest
from confluent_kafka import Consumer, TopicPartition

from shopfloor import plant
from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline, runner
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.simulators import fleet, fleet_mqtt
from shopfloor.simulators.pace import Pace
from shopfloor.testing.programs import Mosquitto
from tests.kafka_broker import QUIET, Broker, Shared, create, everything, headers, once, put
from tests.pipeline.hands import state, until
from tests.sinks.killing import kill_and_finish


async def test_killed_between_two_topics_each_record_arrives_once(
    kafka: Shared, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` of Shopfloor: no record is taken twice from Kafka, and by the headers each is there once."""
    create(kafka.server, f"{topic}.out", retention_ms="-1")
    put(kafka.server, topic, [(f"press-{i % 5}/n", b"%d" % i) for i in range(20_000)])
    text = f"""
        plant: {{site: bremen}}
        sources:
          - {{name: bus, type: kafka, servers: "{kafka.server}", topics: [{{topic: {topic}, tag: "{{key}}"}}]}}
        sinks:
          - {{name: out, type: kafka, servers: "{kafka.server}", topic: {topic}.out, key: tag}}
    """
    watching = Consumer({"bootstrap.servers": kafka.server, "group.id": "observer", **QUIET})

    def progress() -> int:
        ends = [watching.get_watermark_offsets(TopicPartition(f"{topic}.out", p), timeout=30)[1] for p in (0, 1)]
        return sum(ends)

    await kill_and_finish(tmp_path, text, "out", progress, monkeypatch, most=4000)
    watching.close()
    # That nothing waits in the journal does not say that all has been taken from Kafka.
    async with Pipeline(plant.parse(text, "victim.yaml", tmp_path, {})), asyncio.timeout(120):
        while len(once(await asyncio.to_thread(everything, kafka.server, f"{topic}.out"))) < 20_000:
            await asyncio.sleep(0.2)
    found = [json.loads(message.value() or b"") for message in once(everything(kafka.server, f"{topic}.out"))]
    of_tag: dict[str, list[int]] = {}
    for one in found:
        of_tag.setdefault(one["tag"], []).append(one["value"])
    assert of_tag == {f"press-{i}/n": list(range(i, 20_000, 5)) for i in range(5)}


def _counted(pipeline: Pipeline, name: str) -> int:
    return next(c.samples for c in pipeline.components() if c.name == name)


async def _grows(pipeline: Pipeline, name: str, what: str) -> None:
    before = _counted(pipeline, name)
    await until(lambda: _counted(pipeline, name) > before + 100, what)


@pytest.mark.timeout(600)  # a broker of its own, whose JVM starts three times
async def test_a_fleet_over_mqtt_to_kafka_while_both_brokers_are_killed_stopped_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was acknowledged to a machine is in Kafka, once by the headers, each tag in order; a line for each loss."""
    monkeypatch.setattr(runner, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(runner, "LONGEST_DELAY", 0.2)
    (tmp_path / "mqtt").mkdir()
    mosquitto = Mosquitto(tmp_path / "mqtt")
    broker = Broker(tmp_path / "kafka")
    text = f"""
        plant: {{site: bremen}}
        sources:
          - name: fleet
            type: mqtt
            servers: mqtt://127.0.0.1:{mosquitto.port}
            topics: [{{topic: fleet/+/+, payload: telemetry, tag: "{{machine}}/{{3}}"}}]
        sinks:
          - {{name: bus, type: kafka, servers: "{broker.server}", topic: plant, key: tag, timeout: 5 s}}
    """
    async with mosquitto, broker:
        create(broker.server, "plant", retention_ms="-1")
        begin = time_ns() - 10 * 3600 * 10**9
        connection = MqttConnection.model_validate({"servers": f"mqtt://127.0.0.1:{mosquitto.port}"})
        machines = fleet_mqtt.serve(connection, fleet.fleet(5, 7, begin, 1.0), Pace(begin, 60.0))
        published = asyncio.create_task(machines)
        try:
            async with Pipeline(plant.parse(text, "plant.yaml", tmp_path, {})) as pipeline:
                await _grows(pipeline, "bus", "before anything happens")
                for name, lose in (("bus", broker.kill), ("bus", broker.stop), ("fleet", mosquitto.kill)):
                    server = broker if name == "bus" else mosquitto
                    await asyncio.to_thread(lose)
                    await until(lambda name=name: state(pipeline, name) == "waiting", f"the loss of {name}")  # type: ignore[misc]
                    if name == "bus":
                        await _grows(pipeline, "fleet", "the machines are read on")
                    await asyncio.to_thread(server.start)
                    await until(lambda name=name: state(pipeline, name) == "running", f"the return of {name}")  # type: ignore[misc]
                    await _grows(pipeline, "bus", f"after the return of {name}")
                published.cancel()
                await asyncio.gather(published, return_exceptions=True)
                await until(lambda: not any(c.lag_entries for c in pipeline.components()), "all is delivered")
                rows = await pipeline.ledger()
        finally:
            published.cancel()
        assert not [pair for pair in balances(rows) if pair.missing]
        delivered = sum(row.samples for row in rows if (row.reader, row.outcome) == ("bus", "delivered"))
        found = once(everything(broker.server, "plant"))
    assert len(found) == delivered > 1000
    own = [row for row in rows if row.reader == "bus" and row.source == "fleet"]
    assert {row.outcome for row in own} <= {"delivered", "base", "waiting"}
    entries: dict[str, list[tuple[int, int]]] = {}
    for message in found:
        where = headers(message)
        tag = json.loads(message.value() or b"")["tag"]
        entries.setdefault(tag, []).append((int(where["entry"]), int(where["place"])))
    assert all(places == sorted(places) for places in entries.values())
    said = capsys.readouterr().out
    assert said.count("sink bus is away") == said.count("sink bus is back") >= 2


@pytest.mark.timeout(600)  # a broker of its own, whose JVM starts twice
async def test_a_broker_whose_disk_is_full_loses_nothing_and_has_all_once_it_can_write_again(
    kafka: Shared, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of its files stands for the full disk: the write fails, and a broker ends of that.

    What it did not confirm waits in the journal, the component says so in one line and goes on when it is back.
    """
    monkeypatch.setattr(runner, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(runner, "LONGEST_DELAY", 0.2)
    count = 10_000
    put(kafka.server, topic, [(f"press-{i % 5}/n", b"%d" % i) for i in range(count)])
    with Broker(tmp_path / "kafka") as broker:
        create(broker.server, "out", partitions=1, retention_ms="-1")
        _, hard = resource.prlimit(broker.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (600_000, hard))
        text = f"""
            plant: {{site: bremen}}
            sources:
              - {{name: bus, type: kafka, servers: "{kafka.server}", topics: [{{topic: {topic}, tag: "{{key}}"}}]}}
            sinks:
              - {{name: out, type: kafka, servers: "{broker.server}", topic: out, key: tag, timeout: 3 s,
                 compression: none}}
        """
        async with Pipeline(plant.parse(text, "plant.yaml", tmp_path, {})) as pipeline:
            await asyncio.to_thread(broker.wait, 120)
            await until(lambda: state(pipeline, "out") == "waiting", "it says that the cluster is away")
            await until(lambda: _counted(pipeline, "bus") == count, "the source goes on meanwhile")
            assert _counted(pipeline, "out") < count
            await asyncio.to_thread(broker.start)
            await until(lambda: _counted(pipeline, "out") == count, "all of it is confirmed")
            assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]
        found = once(await asyncio.to_thread(everything, broker.server, "out"))
    of_tag: dict[str, list[int]] = {}
    for one in (json.loads(message.value() or b"") for message in found):
        of_tag.setdefault(one["tag"], []).append(one["value"])
    assert of_tag == {f"press-{i}/n": list(range(i, count, 5)) for i in range(5)}
    said = capsys.readouterr().out
    assert said.count("sink out is away") == said.count("sink out is back") >= 1
