"""The embedded broker: it runs, says what it is, and leaves nothing behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from shopfloor.protocols import broker as broker_module
from shopfloor.protocols.broker import Broker, Kind
from shopfloor.samples import Batch, Misconfigured, Sample
from shopfloor.sinks.mqtt import MqttConfig
from shopfloor.testing.contracts import Leftovers, until
from shopfloor.testing.programs import answers, free_port, require_program


def needs(kind: Kind) -> None:
    if kind == "mosquitto":
        require_program("mosquitto", "apt-get install mosquitto")


async def publish(broker: Broker) -> None:
    config = MqttConfig.model_validate({"name": "m", "type": "mqtt", "servers": broker.address})
    async with config.build() as sink:
        await sink.write(1, Batch.of("press", 1, [Sample("press-1/PV", 1, i) for i in range(200)]))


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
async def test_it_takes_messages_and_is_gone_afterwards(kind: Kind) -> None:
    needs(kind)
    left = Leftovers()
    before = set(psutil.Process().children(recursive=True))
    async with Broker(kind=kind) as broker:
        assert broker.kind == kind
        assert broker.port > 0
        await publish(broker)
    assert not answers(broker.host, broker.port)
    assert set(psutil.Process().children(recursive=True)) <= before
    await left.none()


async def test_mosquitto_is_preferred_and_amqtt_steps_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needs("mosquitto")
    assert Broker().kind == "mosquitto"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("shopfloor.protocols.broker._ADMIN_PATHS", ())
    assert Broker().kind == "amqtt"
    with pytest.raises(Misconfigured, match="apt-get install mosquitto"):
        await Broker(kind="mosquitto").__aenter__()


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
async def test_a_taken_port_says_what_to_do(kind: Kind) -> None:
    needs(kind)
    async with Broker(kind=kind) as first:
        with pytest.raises(Misconfigured, match=f"{first.port}.*choose another port"):
            await Broker(first.port, kind=kind).__aenter__()


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
async def test_a_client_that_dies_says_nothing_in_our_log(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """A traceback for each dashboard that is closed would hide what matters."""
    needs(kind)
    async with Broker(kind=kind) as broker:
        _, writer = await asyncio.open_connection(broker.host, broker.port)
        writer.write(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03abc")
        await writer.drain()
        writer.transport.abort()
        await publish(broker)
    assert [record for record in caplog.records if not record.name.startswith("asyncio")] == []


async def test_the_child_ends_when_its_parent_is_killed_and_leaves_no_files(tmp_path: Path) -> None:
    needs("mosquitto")
    require_program("setpriv", "apt-get install util-linux")
    port = free_port()
    program = (
        "import asyncio, sys\nfrom shopfloor.protocols.broker import Broker\n"
        "async def main():\n"
        "    async with Broker(int(sys.argv[1]), kind='mosquitto'):\n"
        "        print('up', flush=True)\n        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(port), stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert parent.stdout is not None
    assert await asyncio.wait_for(parent.stdout.readline(), 100) == b"up\n"
    assert answers("127.0.0.1", port)
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    await until(lambda: not answers("127.0.0.1", port), "the broker ended with its parent")
    await until(lambda: not list(tmp_path.iterdir()), "nothing is left of it")


async def test_what_a_broker_says_that_does_not_start_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mosquitto")
    monkeypatch.setattr(broker_module, "_configuration", lambda *_: ["nonsense true"])
    with pytest.raises(Misconfigured, match=r'it said: .*Unknown configuration variable "?nonsense'):
        await Broker(kind="mosquitto").__aenter__()
