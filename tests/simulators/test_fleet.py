"""The fleet: its chain against the matrix, its messages at a real broker, the whole way into the journal."""

import asyncio
import json
import math
import re
import signal
import statistics
import sys
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from contextlib import suppress
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest

from shopfloor import plant
from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.simulators.fleet import (
    DWELL,
    JUMPS,
    SCRAP,
    Event,
    State,
    fleet,
    quality_score,
    scrap_chance,
)
from shopfloor.simulators.fleet_mqtt import message, serve
from shopfloor.simulators.pace import Pace
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import Mosquitto, require_program

BEGIN = 1_767_225_600 * 10**9
"""2026-01-01T00:00:00Z"""
HOUR = 3600 * 10**9
ROOT = Path(__file__).parents[2]


def history(hours: float, machines: int = 3, seed: int = 1, every: float = 60.0) -> list[Event]:
    return list(takewhile(lambda event: event.time < BEGIN + hours * HOUR, fleet(machines, seed, BEGIN, every)))


def of(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event.kind == kind]


def stays(events: list[Event]) -> list[tuple[State, State, float]]:
    """Each stay of each machine: its state, the one that followed, its seconds."""
    by_machine: dict[str, list[Event]] = defaultdict(list)
    for event in of(events, "state"):
        by_machine[event.machine].append(event)
    return [
        (State(one.said["state"]), State(following.said["state"]), (following.time - one.time) / 1e9)
        for told in by_machine.values()
        for one, following in pairwise(told)
    ]


@pytest.fixture(scope="module")
def year() -> list[Event]:
    """Long enough for statistics."""
    return history(24 * 60, machines=4, every=86_400)


def test_states_follow_each_other_by_the_matrix(year: list[Event]) -> None:
    """Chi-square of each row; what the matrix does not have never happens."""
    counts = Counter((before, after) for before, after, _ in stays(year))
    for before, row in JUMPS.items():
        assert sum(row.values()) == pytest.approx(1)
        total = sum(counts[before, after] for after in State)
        assert total > 500
        assert all(not counts[before, after] for after in State if after not in row)
        statistic = sum((counts[before, after] - total * p) ** 2 / (total * p) for after, p in row.items())
        assert statistic < {1: 10.83, 2: 13.82, 3: 16.27}[len(row) - 1], "significant at 0.001"


def test_a_state_lasts_for_an_exponentially_distributed_time(year: list[Event]) -> None:
    """Mean and standard deviation are the same, and those of the table."""
    lasted: dict[State, list[float]] = defaultdict(list)
    for state, _, seconds in stays(year):
        lasted[state].append(seconds)
    for state, mean in DWELL.items():
        error = mean / math.sqrt(len(lasted[state]))
        assert abs(statistics.mean(lasted[state]) - mean) < 4 * error
        assert abs(statistics.pstdev(lasted[state]) - mean) < 4 * math.sqrt(2) * error


def test_the_table_in_the_docs_is_the_matrix() -> None:
    page = (ROOT / "docs" / "simulators.md").read_text("utf-8")
    for state, row in JUMPS.items():
        shown = [f"{row[to]:.2f}" if to in row else "–" for to in State]
        assert f"| {state} | {DWELL[state] / 60:.0f} min | {' | '.join(shown)} |" in page


def test_the_same_seed_gives_the_same_history() -> None:
    assert history(3) == history(3)
    assert history(3) != history(3, seed=2)


def test_what_happens_does_not_depend_on_how_often_it_is_told() -> None:
    often, seldom = history(24, every=5), history(24, every=3600)
    for kind in ("state", "scrap"):
        assert of(often, kind) == of(seldom, kind)


def test_all_is_told_in_the_order_of_time() -> None:
    times = [event.time for event in history(10)]
    assert times == sorted(times)
    assert len(of(history(10), "telemetry")) == 3 * 600


def test_parts_are_made_while_it_runs_and_scrap_is_told_one_by_one(year: list[Event]) -> None:
    events = history(48, every=10)
    told = Counter(event.machine for event in of(events, "scrap"))
    changed = [event.time for event in of(events, "state")]
    for before, after in pairwise(event for event in of(events, "telemetry") if event.machine == "machine-01"):
        made = after.said["good_parts"] - before.said["good_parts"]
        assert made >= 0
        if before.said["state"] == after.said["state"] != "running" and (after.time - before.time) < 60e9:
            ran = bisect_left(changed, after.time) > bisect_right(changed, before.time)
            assert made == 0 or ran
    last = {event.machine: event.said for event in of(events, "telemetry")}
    for machine, said in last.items():
        assert told[machine] - said["scrap_parts"] in (0, 1)
        assert said["good_parts"] > 20 * said["scrap_parts"] > 0
    for event in of(year, "scrap"):
        assert event.said["scrap_reason"] in SCRAP[event.said["scrap_category"]]
    assert {event.said["scrap_category"] for event in of(year, "scrap")} == set(SCRAP)


def test_heat_and_speed_make_the_quality_score_and_that_makes_scrap() -> None:
    assert quality_score(60, 1) == 100
    assert quality_score(22, 1) < quality_score(50, 1) < 100
    assert quality_score(60, 1.2) < quality_score(60, 1.1) < 100
    assert quality_score(500, 2) == 0
    assert scrap_chance(100) < scrap_chance(50) < scrap_chance(0)
    scores = [e.said["quality_score"] for e in of(history(48), "telemetry") if "quality_score" in e.said]
    assert 0 <= min(scores) < 70
    assert max(scores) == 100


# ---- by MQTT ----------------------------------------------------------------------------------------------


def connection(port: int) -> MqttConnection:
    return MqttConnection.model_validate({"servers": f"mqtt://127.0.0.1:{port}", "timeout": "30 s"})


async def test_a_strangers_client_reads_every_message(tmp_path: Path) -> None:
    """mosquitto_sub gets them in order, as JSON, each on the topic of its machine and kind."""
    program = require_program("mosquitto_sub", "apt-get install mosquitto-clients")
    events = list(islice(fleet(3, 7, BEGIN, 30.0), 2000))
    async with Mosquitto(tmp_path, options=["log_type subscribe"]) as broker:
        listener = await asyncio.create_subprocess_exec(
            program, "-p", str(broker.port), "-q", "1", "-t", "plant/#", "-C", str(len(events)), "-F", "%t %p",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await until(lambda: "plant/#" in broker.log(), "it listens", 60)
        await serve(connection(broker.port), iter(events), Pace(BEGIN, 1e9), topic="plant")
        out, _ = await asyncio.wait_for(listener.communicate(), 100)
    lines = [line.split(" ", 1) for line in out.decode().splitlines()]
    assert [topic for topic, _ in lines] == [f"plant/{event.machine}/{event.kind}" for event in events]
    for (_, payload), event in zip(lines, events, strict=True):
        said = json.loads(payload)
        assert said.pop("machine") == event.machine
        assert said.pop("timestamp").endswith("Z")
        assert said == event.said


async def test_the_whole_way_into_the_journal_by_the_plant_file_of_the_docs(tmp_path: Path) -> None:
    """Fleet, Mosquitto, source, journal, historian: every value of every message, with its own time, once."""
    page = (ROOT / "docs" / "simulators.md").read_text("utf-8")
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "type: mqtt" in block)
    (tmp_path / "broker").mkdir()
    options = ["persistence true", f"persistence_location {tmp_path}/broker/", "autosave_interval 1",
               "autosave_on_changes true", "log_type subscribe"]  # fmt: skip
    events = list(islice(fleet(3, 7, BEGIN, 10.0), 3000))
    said = [(f"{event.machine}/{name}", event.time, value) for event in events for name, value in event.said.items()]
    wanted = set(said)  # three are said twice
    heard: list[str] = []
    async with Mosquitto(tmp_path / "broker", options=options) as broker:
        described = plant.parse(text.replace("1883", str(broker.port)), "docs.yaml", tmp_path, {})
        async with Pipeline(described) as pipeline:
            await until(lambda: _connected(pipeline), "the source is connected")
            # It subscribes later, once its name is durable; what is said before that is nobody's.
            await until(lambda: "/#" in broker.log() or "/+" in broker.log(), "it has subscribed")

            async def stored() -> set[tuple[str, int, Any]]:
                found: set[tuple[str, int, Any]] = set()
                if pipeline.historian is not None:
                    for tag in {tag for tag, _, _ in wanted}:
                        series = await pipeline.historian.history(tag, 0, 2**62, limit=10**6)
                        found |= {(tag, *pair) for pair in zip(series.times, series.values, strict=True)}
                return found

            await serve(connection(broker.port), iter(events[:1500]), Pace(BEGIN, 1e9), said=heard.append)
            await until(
                lambda: sum(c.samples for c in pipeline.components() if c.name == "fleet") > 1000, "the first half"
            )
            await serve(connection(broker.port), iter(events[1500:]), Pace(BEGIN, 1e9), said=heard.append)

            def taken() -> int:
                return sum(c.samples for c in pipeline.components() if c.name == "fleet")

            # Counted, as asking for all the histories again and again would keep the pipeline from its work.
            with suppress(pytest.fail.Exception):  # which values are not there says more
                await until(lambda: taken() >= len(said), "every value has come", 120)
            await until(lambda: not any(c.lag_entries for c in pipeline.components()), "all is delivered", 120)
            found = await stored()
            assert not wanted - found, f"{taken()} taken, {heard}, {await pipeline.ledger()}"
            assert found == wanted
            assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]


def _connected(pipeline: Pipeline) -> bool:
    return any(status.name == "fleet" and status.state == "running" for status in pipeline.components())


async def test_a_broker_that_goes_away_is_waited_for_and_gets_the_rest(tmp_path: Path) -> None:
    """Killed while messages are under way: none is left out, and who tells says so."""
    program = require_program("mosquitto_sub", "apt-get install mosquitto-clients")
    events = list(islice(fleet(2, 3, BEGIN, 1.0), 4000))
    heard: list[str] = []
    found: list[bytes] = []
    async with Mosquitto(tmp_path) as broker:
        stop = asyncio.Event()

        async def listen() -> None:
            """A subscriber that comes back; a new one each time, so it counts what it got itself."""
            while not stop.is_set():
                listener = await asyncio.create_subprocess_exec(
                    program, "-p", str(broker.port), "-i", "keeper", "-c", "-q", "1", "-t", "fleet/#",
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
                assert listener.stdout is not None
                try:
                    while line := await listener.stdout.readline():
                        found.append(line)
                finally:
                    if listener.returncode is None:
                        listener.send_signal(signal.SIGTERM)
                    await listener.wait()
                await asyncio.sleep(0.02)

        listening = asyncio.create_task(listen())

        def in_the_middle() -> Any:
            for number, event in enumerate(events):
                if number == 1200:
                    broker.kill()
                    broker.start()
                yield event

        await serve(connection(broker.port), in_the_middle(), Pace(BEGIN, 1e9), said=heard.append)
        stop.set()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert [text.split(":")[0] for text in heard] == ["the broker is away", "the broker is there again"]
    assert set(found) <= {message("fleet", event).payload + b"\n" for event in events}


async def test_a_broker_that_is_not_there_or_refuses_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await serve(connection(1), iter(()), Pace(BEGIN, 1e9))
    async with Mosquitto(tmp_path, access="topic write elsewhere/#\n") as broker:
        with pytest.raises(Misconfigured, match="--topic"):
            await serve(connection(broker.port), islice(fleet(1, 1, BEGIN, 1.0), 5), Pace(BEGIN, 1e9))


async def test_the_command_line_fills_a_past_and_ends(tmp_path: Path) -> None:
    """`--from`, `--until`, `--speed`: it says where it publishes, and ends by itself with exit code 0."""
    program = require_program("mosquitto_sub", "apt-get install mosquitto-clients")
    wanted = len(history(0.5, machines=2, seed=5, every=30.0))
    async with Mosquitto(tmp_path, options=["log_type subscribe"]) as broker:
        listener = await asyncio.create_subprocess_exec(
            program, "-p", str(broker.port), "-q", "1", "-t", "line/#", "-C", str(wanted), "-F", "%p",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await until(lambda: "line/#" in broker.log(), "it listens", 60)
        done = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shopfloor", "simulate", "fleet", "--server", f"mqtt://127.0.0.1:{broker.port}",
            "--machines", "2", "--seed", "5", "--every", "30s", "--topic", "line", "--speed", "1e9",
            "--from", "2026-01-01", "--until", "2026-01-01T00:30:00Z", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(done.communicate(), 60)
        out, _ = await asyncio.wait_for(listener.communicate(), 100)
    assert done.returncode == 0
    assert b"line/#" in said
    assert len(out.splitlines()) == wanted
