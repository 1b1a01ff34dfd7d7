"""`shopfloor load-test` says what became of every sample: against a Shopfloor of its own, and against any broker."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import psutil
import pytest

from shopfloor import listening, load_test
from shopfloor.load_test import Load, Report
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.mqtt_session import Subscription, open_session
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.simulators import sparkplug_fleet
from shopfloor.simulators.sparkplug_fleet import Shape
from shopfloor.testing.certificates import Authority
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import Mosquitto, children, free_port, require_program

MS = 10**6
SHAPE = Shape(group="Load 1", nodes=3, devices=2, metrics=4)


def at(port: int, **more: Any) -> MqttConnection:
    return MqttConnection.model_validate({"servers": f"mqtt://127.0.0.1:{port}", **more})


def wanted(server: MqttConnection | None, turns: int = 5, interval: int = 100 * MS) -> Load:
    return Load(shape=SHAPE, interval=interval, turns=turns, server=server)


@pytest.fixture
def every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that hangs for longer than a round may be late leaves none out: they are counted."""
    monkeypatch.setattr(sparkplug_fleet, "_LATE", 100.0)


async def report(capsys: pytest.CaptureFixture[str], load: Load) -> tuple[int, dict[str, Any]]:
    code = await load_test.run(load, as_json=True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


@pytest.mark.usefixtures("every_round")
async def test_every_sample_is_followed_into_the_historian_of_a_shopfloor_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    require_program("mosquitto", Mosquitto.HOW_TO_INSTALL)
    code, found = await report(capsys, wanted(None))
    assert code == 0, found
    assert (found["planned"], found["sent"], found["arrived_once"]) == (120, 120, 120)
    assert (found["lost"], found["doubled"], found["out_of_order"]) == (0, 0, 0)
    assert found["messages"] == 30
    assert found["ledger_balances"] is True
    assert set(found["latency_ms"]) == {"journal", "historian"}


@pytest.mark.usefixtures("every_round")
async def test_at_a_broker_of_the_users_a_subscriber_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Mosquitto(tmp_path) as broker:
        code, found = await report(capsys, wanted(at(broker.port)))
    assert code == 0, found
    assert (found["sent"], found["arrived_once"]) == (120, 120)
    assert list(found["latency_ms"]) == ["received"]
    assert found["ledger_balances"] is None


@pytest.mark.usefixtures("every_round")
async def test_user_password_and_tls_reach_nodes_and_subscriber(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    async with Mosquitto(tmp_path, users={"load": "secret"}, identity=authority.server()) as broker:
        server = listening.connection(f"mqtts://127.0.0.1:{broker.port}", "load", "secret", authority.certificate)
        code, found = await report(capsys, wanted(server, turns=2))
    assert (code, found["arrived_once"]) == (0, 48), found


@pytest.mark.usefixtures("every_round")
async def test_what_the_broker_keeps_back_is_lost_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_test, "_PATIENCE", 8.0)  # a host waits 2 s for what a gap may still bring
    allowed = (
        "NBIRTH/#",
        "DBIRTH/#",
        "NDEATH/#",
        "DDATA/node-0001/#",
        "DDATA/node-0003/#",
        "DDATA/node-0002/device-002",
    )
    access = "topic write #\n" + "".join(f"topic read spBv1.0/Load 1/{topic}\n" for topic in allowed)
    async with Mosquitto(tmp_path, access=access) as broker:
        code, found = await report(capsys, wanted(at(broker.port)))
    assert code == 1
    assert (found["sent"], found["lost"]) == (120, 20)
    assert found["success_rate"] == pytest.approx(100 / 120)


async def test_ctrl_c_prints_the_result_so_far(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker:
        session = await open_session(at(broker.port), "watcher")
        try:
            await session.subscribe([Subscription("spBv1.0/load/DDATA/#")])
            test = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shopfloor", "load-test", f"--server=mqtt://127.0.0.1:{broker.port}",
                "--nodes=2", "--interval=100ms", "--for=1h", stdout=PIPE, stderr=PIPE,
            )  # fmt: skip
            try:
                await until(lambda: bool(session.taken()), "the nodes say something", within=100)
            finally:
                test.send_signal(signal.SIGINT)
                said, wrong = await test.communicate()
        finally:
            await session.close()
    assert test.returncode == 0, wrong
    assert b"success rate  100 %" in said
    assert b"not sent" in said
    assert b"Traceback" not in wrong


async def test_a_broker_that_dies_ends_nothing_early_and_the_rest_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_test, "_PATIENCE", 1.0)
    async with Mosquitto(tmp_path) as broker:
        session = await open_session(at(broker.port), "watcher")
        await session.subscribe([Subscription("spBv1.0/Load 1/DDATA/#")])
        running = asyncio.create_task(report(capsys, wanted(at(broker.port), turns=60)))  # time to kill it in
        await until(lambda: bool(session.taken()), "the nodes say something", within=100)
        await asyncio.to_thread(broker.kill)
        await session.close()
        code, found = await running
    assert code == 1
    assert 0 < found["sent"] < found["planned"] == 1440
    assert found["arrived_once"] + found["lost"] == found["sent"]
    assert found["connections_lost"] == 3


async def test_a_shopfloor_that_dies_ends_the_test_and_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    require_program("mosquitto", Mosquitto.HOW_TO_INSTALL)
    running = asyncio.create_task(report(capsys, wanted(None, turns=100_000)))
    await until(lambda: bool(children("shopfloor.bench.observed")), "it is started", within=100)
    dying, _ = children("shopfloor.bench.observed")[0]
    await until(lambda: len(psutil.Process().net_connections("tcp")) >= SHAPE.nodes, "the nodes connect", within=100)
    dying.kill()
    code, found = await running
    assert code == 1
    assert "its process ended by itself" in " ".join(found["trouble"])


@pytest.mark.parametrize(
    ("interval", "duration", "shape", "text"),
    [
        (MS, 10**9, SHAPE, "--interval must be 10ms or longer"),
        (10**9, 10**8, SHAPE, "--for must be as long as --interval"),
        (10**9, 10**9, Shape(group="a/b"), "--group"),
        (10**9, 3600 * 10**9, Shape(nodes=10_000, devices=1000, metrics=10), "are more than the"),
    ],
)
def test_what_cannot_be_played_is_refused_before_anything_starts(
    interval: int, duration: int, shape: Shape, text: str
) -> None:
    with pytest.raises(Misconfigured, match=text):
        load_test.load(shape, interval, duration, None)


async def test_a_broker_that_is_not_there_is_said() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await load_test.run(wanted(at(free_port())), as_json=True)


def test_a_hundred_per_cent_are_printed_only_when_everything_arrived() -> None:
    found = Report(
        nodes=1, devices=1, metrics=1, interval_ms=1000.0, planned=10**7, sent=10**7, arrived_once=10**7 - 1,
        success_rate=1 - 1e-7, lost=1, doubled=0, out_of_order=0, latency_ms={}, messages=10**7, seconds=1.0,
        messages_per_second=1.0, metrics_per_second=1.0, connections_lost=0, rebirths_requested=0,
        ledger_balances=None, trouble=[],
    )  # fmt: skip
    assert "99.9999 %: 9,999,999 of 10,000,000" in load_test.as_text(found)
