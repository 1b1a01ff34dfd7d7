"""The demo as a newcomer meets it: everything runs and arrives, its end says so, and trouble is said plainly."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from shopfloor.demo import Simulator, _at_work
from shopfloor.journal import balances, read_file
from shopfloor.samples import Unavailable
from shopfloor.testing.programs import children, free_port

RUN = (sys.executable, "-m", "shopfloor")
SOURCES = ("opcua", "s7", "logix", "fleet", "cmm")
PATIENCE = 180.0
"""Seconds that six processes may take to come up on a busy machine."""


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *words], capture_output=True, text=True, timeout=PATIENCE, env=environment(folder), cwd=folder,
        check=False,
    )  # fmt: skip


def ask(listen: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{listen}/api/{path}", timeout=60) as answer:
        return json.load(answer)


def delivering(listen: str) -> bool:
    """Whether every component runs and has given or taken something."""
    return all(one["samples"] and one["state"] == "running" for one in ask(listen, "components")["components"])


def ran(folder: Path, enough: Callable[[str], bool], program: Sequence[str] = RUN) -> tuple[int, str, str]:
    """Exit code, output and errors of a demo that was stopped by Ctrl-C once ``enough`` of its console's address."""
    listen = f"127.0.0.1:{free_port()}"
    with subprocess.Popen(
        [*program, "demo", "--listen", listen, "--folder", str(folder / "d")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(folder), cwd=folder,
    ) as demo:  # fmt: skip
        try:
            deadline = time.monotonic() + PATIENCE
            while demo.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(urllib.error.URLError, TimeoutError, ConnectionError):
                    if enough(listen):
                        break
                time.sleep(0.1)
        finally:
            demo.send_signal(signal.SIGINT)
            out, errors = demo.communicate(timeout=60)
    return demo.returncode, out, errors


@pytest.mark.timeout(500)
def test_every_source_delivers_and_the_ledger_balances_also_the_second_time(tmp_path: Path) -> None:
    """All machines are seen, with their states and counters; the second run goes on where the first ended."""
    seen: dict[str, Any] = {}

    def all_there(listen: str) -> bool:
        seen.update({row["tag"]: row for row in ask(listen, "tags?limit=1000")["tags"]})
        states = ("press-1/State", "press-2/State", "press-3/State", "filler-1/State", "filler-2/State")
        return (
            delivering(listen)
            and all(isinstance(seen[tag]["value"], int) for tag in states)
            and seen["machine-04/state"]["value"] is not None
            and seen["cmm-1/length"]["value"] is not None
        )

    code, out, errors = ran(tmp_path, all_there)
    assert code == 0, out + errors
    assert errors == "" or "Traceback" not in errors
    assert "Every sample is accounted for, and nothing was lost." in out
    assert re.search(r"Processor: \d+\.\d\d of one core over \d+ s", out)
    assert seen["cmm-1/length"]["unit"] == "mm"
    assert seen["machine-04/temperature"]["unit"] == "°C"
    first = received(tmp_path)
    assert set(SOURCES) <= first.keys()

    code, out, errors = ran(tmp_path, all_there)
    assert code == 0, out + errors
    second = received(tmp_path)
    assert all(second[source] > first[source] for source in SOURCES)


def received(folder: Path) -> dict[str, int]:
    rows = read_file(folder / "d" / "data" / "journal.db")
    assert not any(pair.missing for pair in balances(rows))
    return {row.source: row.samples for row in rows if row.outcome == "received" and row.samples}


@pytest.mark.timeout(300)
def test_it_ends_by_itself(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    done = run(tmp_path, "demo", "--for", "1s", "--listen", listen, "--folder", str(tmp_path / "d"))
    assert "Traceback" not in done.stderr
    assert "Every sample is accounted for" in done.stdout
    # In so short a time a source may not have come to its first value; then that is said, and nothing else is wrong.
    assert done.returncode == ("Nothing came" in done.stdout)


@pytest.mark.timeout(300)
def test_a_simulator_that_is_pulled_away_comes_back_and_nothing_is_lost(tmp_path: Path) -> None:
    killed: list[int] = []

    def back(listen: str) -> bool:
        s7 = next(one for one in ask(listen, "components")["components"] if one["name"] == "s7")
        if not killed and s7["samples"]:
            simulator = next(process for process, words in children("simulate") if "s7" in words)
            simulator.kill()
            killed.append(s7["samples"])
        return bool(killed) and delivering(listen) and s7["samples"] > killed[0] + 60

    code, out, errors = ran(tmp_path, back)
    assert code == 0, out + errors
    assert "The simulated s7 was pulled away; it starts again in 10 s." in out
    assert "The simulated s7 is there again" in out
    assert "Every sample is accounted for" in out


@pytest.mark.parametrize("listen", ["8080", "127.0.0.1:99999"])
def test_a_wrong_address_of_the_demo_is_said_as_the_option_that_it_is(tmp_path: Path, listen: str) -> None:
    done = run(tmp_path, "demo", "--listen", listen)
    assert done.returncode == 2
    assert done.stderr.startswith(f"--listen {listen}: must be host:port")


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(tmp_path, "demo", "--listen", listen)
    assert done.returncode == 2
    assert done.stderr.startswith(f"--listen {listen}: another program listens there already")
    assert done.stdout == ""


def test_what_cannot_be_written_ends_it_with_one_sentence(tmp_path: Path) -> None:
    """Here a file stands where its data shall be; all simulators have started by then and are ended."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "data").write_text("in the way")
    done = run(tmp_path, "demo", "--listen", f"127.0.0.1:{free_port()}", "--folder", str(tmp_path / "d"))
    assert done.returncode == 2, done.stderr
    assert str(tmp_path / "d" / "data") in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_simulator_that_does_not_start_is_said() -> None:
    broken = Simulator("s7", "--seed=none", port=free_port())
    with pytest.raises(Unavailable, match="simulated s7 did not start; `shopfloor simulate s7` shows why"):
        async with _at_work([broken]):
            pytest.fail("it did not start, and yet the demo went on")


@pytest.mark.timeout(300)
def test_without_mosquitto_everything_arrives_too(tmp_path: Path) -> None:
    """The same demo in a process that finds no Mosquitto: amqtt stands in."""
    script = tmp_path / "without.py"
    script.write_text(
        "import sys\n"
        "from shopfloor.protocols import broker\n"
        "broker.mosquitto = lambda: None\n"
        "from shopfloor.cli import main\n"
        "main()\n",
        encoding="utf-8",
    )
    code, out, errors = ran(tmp_path, delivering, program=(sys.executable, str(script)))
    assert code == 0, out + errors
    assert "amqtt, inside this process, because Mosquitto is not installed" in out
    assert "Every sample is accounted for, and nothing was lost." in out
