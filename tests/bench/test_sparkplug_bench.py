"""The Sparkplug bench measures what it says: everything arrives, nobody is asked for a rebirth twice."""

from pathlib import Path

import pytest

from shopfloor.bench import Result, sparkplug, storm
from shopfloor.bench.observed import Observed, Order, Told, plain
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.samples import Unavailable
from shopfloor.simulators.sparkplug_fleet import Fleet, Shape
from shopfloor.testing.contracts import Leftovers, until
from shopfloor.testing.programs import Mosquitto, children, require_program


@pytest.fixture(autouse=True)
def mosquitto() -> None:
    require_program("mosquitto", Mosquitto.HOW_TO_INSTALL)


class Silent:
    """Notes nothing."""

    def said(self, device: int, turn: int, time: int, at: int) -> None:
        pass

    def retold(self, device: int, turn: int) -> None:
        pass


def order(port: int, folder: Path) -> Order:
    connection = plain(MqttConnection(servers=[f"mqtt://127.0.0.1:{port}"]))
    return Order(kind="plant", connection=connection, group="load", folder=str(folder))


def values(results: list[Result]) -> dict[str, float]:
    return {result.name: result.value for result in results}


@pytest.mark.parametrize("kind", ["double", "mixed"])
async def test_every_metric_reaches_the_historian_also_at_full_speed(
    kind: sparkplug.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises when one sample is missing or too many, or when a host had to ask for a rebirth."""
    monkeypatch.setattr(sparkplug, "_WARM_UP", 0.2)
    found = await sparkplug._throughput(kind, 0.5)
    assert found.rate > 0
    assert found.rss > 0


async def test_latency_is_of_every_sample_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkplug, "_WARM_UP", 0.2)
    monkeypatch.setattr(sparkplug, "_MOST_LATE", 100)  # a busy machine is no fault of the bench
    monkeypatch.setattr(sparkplug, "PACE", 10_000)
    journal, historian = await sparkplug._latencies(0.5)
    assert len(journal) == len(historian) == 5000
    assert min(journal.min(), historian.min()) >= 0  # nothing is durable before it is published


async def test_nodes_whose_connections_break_at_once_are_born_once_and_not_asked() -> None:
    found = values(await storm.nodes_return(20))
    assert found["rebirth_storm_requests"] == 0
    assert found["rebirth_storm_births_most"] == 1


async def test_a_host_that_is_back_asks_each_node_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storm, "INTERVAL", 10**9)
    found = values(await storm.host_returns(20))
    assert found["host_restart_requests"] == 20
    assert found["host_restart_requests_most"] == 1


async def test_after_a_restart_of_the_broker_no_node_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storm, "INTERVAL", 10**9)
    found = values(await storm.broker_returns(20))
    assert found["broker_restart_requests_most"] <= 1


async def test_a_shopfloor_that_cannot_start_is_said(tmp_path: Path) -> None:
    left = Leftovers()
    (tmp_path / "journal.db").mkdir()
    async with Mosquitto(tmp_path) as broker:
        with pytest.raises(Unavailable, match="journal"):
            await Observed(order(broker.port, tmp_path), lambda _: None).__aenter__()
    await left.none()


async def test_a_shopfloor_that_dies_is_no_longer_running(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker:
        observed = Observed(order(broker.port, tmp_path), lambda _: None)
        async with observed:
            process, _ = children("shopfloor.bench.observed")[-1]
            process.kill()
            await until(lambda: not observed.running, "its end is noticed")


async def test_what_fails_while_hearing_is_raised(tmp_path: Path) -> None:
    def refuse(told: Told) -> None:
        raise LookupError(told.stage)

    async def play() -> None:
        connection = MqttConnection(servers=[f"mqtt://127.0.0.1:{broker.port}"])
        observed = Observed(order(broker.port, tmp_path), refuse)
        async with observed, Fleet(connection, Shape(), 10**9, Silent()):
            await until(lambda: not observed.running, "it is given up")

    async with Mosquitto(tmp_path) as broker:
        with pytest.raises(LookupError):
            await play()
