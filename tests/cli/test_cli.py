"""The command line as a person meets it: what it prints, its exit code, never a traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor import plant
from shopfloor.testing.programs import ServerProcess, free_port

RUN = (sys.executable, "-m", "shopfloor")


def shopfloor(*words: str, folder: Path, timeout: float = 90, **environment: str) -> subprocess.CompletedProcess[str]:
    home = {**os.environ, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), **environment}
    return subprocess.run(
        [*RUN, *words], capture_output=True, text=True, timeout=timeout, env=home, cwd=folder, check=False
    )


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a simulated press."""
    port = free_port()
    log = tmp_path_factory.mktemp("press")
    with ServerProcess([*RUN, "simulate", "opcua", "--port", str(port)], port, folder=log, within=200):
        yield port


def plant_file(folder: Path, press: int, console: int, tags: str = "") -> Path:
    path = folder / "plant.yaml"
    path.write_text(
        f"""
plant: {{site: test}}
sources:
  - name: plc
    type: opcua
    endpoint: opc.tcp://127.0.0.1:{press}
    tags:
      - {{tag: press-1/PV, node: "ns=2;s=Channel1.Device1.PV"}}
      - {{tag: press-1/SP, node: "ns=2;s=Channel1.Device1.SP"}}
{tags}
historian: {{type: duckdb}}
commands: {{allow: [{{tag: press-1/SP, range: [0, 80]}}, {{tag: press-1/PV}}]}}
console: {{listen: "127.0.0.1:{console}"}}
""",
        encoding="utf-8",
    )
    return path


def test_help_lists_every_verb(tmp_path: Path) -> None:
    done = shopfloor("--help", folder=tmp_path)
    assert done.returncode == 0
    for verb in (
        "audit",
        "bench",
        "browse",
        "check",
        "demo",
        "import",
        "ledger",
        "probe",
        "run",
        "schema",
        "send",
        "service",
        "simulate",
        "sparkplug",
        "tap",
    ):
        assert f"  {verb} " in done.stdout


def test_check_says_all_that_is_wrong_with_line_and_exits_2(tmp_path: Path) -> None:
    path = tmp_path / "plant.yaml"
    path.write_text("plant: {site: x, timezon: UTC}\nsources:\n  - {name: a, type: opcu}\n", encoding="utf-8")
    done = shopfloor("check", str(path), folder=tmp_path)
    assert done.returncode == 2
    assert f"{path}:1: plant.timezon" in done.stderr
    assert f"{path}:3: sources[0].type" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_of_a_missing_file_exits_2(tmp_path: Path) -> None:
    done = shopfloor("check", "nowhere.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert "nowhere.yaml" in done.stderr


def test_probe_tells_what_is_there_and_what_is_away(tmp_path: Path, press: int) -> None:
    done = shopfloor("probe", str(plant_file(tmp_path, press, free_port())), folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "plc (opcua): ok\n")
    done = shopfloor("probe", str(plant_file(tmp_path, free_port(), free_port())), folder=tmp_path)
    assert done.returncode == 1
    assert "plc (opcua): away" in done.stdout


def test_browse_writes_lines_that_a_plant_file_takes(tmp_path: Path, press: int) -> None:
    path = plant_file(tmp_path, press, free_port())
    done = shopfloor("browse", str(path), "plc", "--filter", "*Device1*", "-o", "tags.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    fragment = (tmp_path / "tags.yaml").read_text(encoding="utf-8")
    assert "Channel1.Device1.GoodParts" in fragment
    text = f"plant: {{site: x}}\nsources:\n  - name: plc\n    type: opcua\n    endpoint: opc.tcp://h:1\n{fragment}"
    assert len(plant.parse(text, "x.yaml", tmp_path, {}).sources[0].declared() or ()) > 10
    done = shopfloor("browse", str(path), "nobody", folder=tmp_path)
    assert done.returncode == 2
    assert "has no source 'nobody'" in done.stderr


def test_a_plant_runs_is_written_to_and_stops_by_sigterm(tmp_path: Path, press: int) -> None:
    """run, send, tap, ledger and audit verify over one journal."""
    console = free_port()
    path, url = plant_file(tmp_path, press, console), f"http://127.0.0.1:{console}"
    with ServerProcess([*RUN, "run", str(path)], console, folder=tmp_path, within=200) as server:
        sent = shopfloor("send", "press-1/SP", "35", "--url", url, folder=tmp_path)
        deadline = time.monotonic() + 100  # the source may still be connecting
        while sent.returncode != 0 and time.monotonic() < deadline:
            sent = shopfloor("send", "press-1/SP", "35", "--url", url, folder=tmp_path)
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert sent.stdout.startswith("press-1/SP = 35: ")
        refused = shopfloor("send", "press-1/SP", "99", "--url", url, folder=tmp_path)
        assert refused.returncode == 2
        assert "0 to 80" in refused.stderr
        kept = shopfloor("send", "press-1/PV", "5", "--url", url, folder=tmp_path)
        assert (kept.returncode, kept.stdout.count("written")) == (1, 1), kept.stdout + kept.stderr
        negative = shopfloor("send", "press-1/SP", "-5", "--url", f"127.0.0.1:{console}/", folder=tmp_path)
        assert negative.returncode == 2
        assert "0 to 80, not -5" in negative.stderr
        with subprocess.Popen([*RUN, "tap", "press-1/*", "--url", url], stdout=subprocess.PIPE, text=True) as tap:
            assert tap.stdout is not None
            lines = [tap.stdout.readline() for _ in range(3)]
            tap.send_signal(signal.SIGINT)
            tap.communicate(timeout=60)
        assert all("press-1/" in line and "quality" in line for line in lines)
        assert shopfloor("tap", "nothing/*", "--url", url, folder=tmp_path).returncode == 2
        os.kill(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + 100
        while server.running and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server._process is not None
        assert server._process.poll() == 0
    ledger = shopfloor("ledger", "--plant", str(path), folder=tmp_path)
    assert ledger.returncode == 0
    assert "balances" in ledger.stdout
    assert "Nothing was lost." in ledger.stdout
    rows = json.loads(shopfloor("ledger", "--plant", str(path), "--json", folder=tmp_path).stdout)
    assert {row["source"] for row in rows} >= {"plc"}
    audit = shopfloor("audit", "verify", "--plant", str(path), folder=tmp_path)
    assert audit.returncode == 0
    assert "the chain is whole" in audit.stdout
    forgotten = shopfloor("ledger", "--plant", str(path), "forget", "historian", folder=tmp_path)
    assert (forgotten.returncode, forgotten.stdout.split()[0]) == (0, "historian")
    assert shopfloor("ledger", "--plant", str(path), "forget", "nobody", folder=tmp_path).returncode == 2


def test_sigterm_during_the_start_ends_cleanly(tmp_path: Path, press: int) -> None:
    """The journal exists before the console answers: what is half started is stopped in order."""
    path = plant_file(tmp_path, press, free_port())
    with subprocess.Popen([*RUN, "run", str(path)], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        deadline = time.monotonic() + 100
        while not list(tmp_path.rglob("journal.db")) and time.monotonic() < deadline:
            time.sleep(0.001)
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=60)
    assert server.returncode == 0, said
    assert "stopping" in said
    assert shopfloor("ledger", "--plant", str(path), folder=tmp_path).returncode == 0


def test_a_simulator_says_where_it_is() -> None:
    port = free_port()
    with subprocess.Popen([*RUN, "simulate", "opcua", "--port", str(port)], stdout=subprocess.PIPE, text=True) as press:
        assert press.stdout is not None
        assert f"opc.tcp://127.0.0.1:{port};" in press.stdout.readline()
        press.send_signal(signal.SIGINT)
        assert press.wait(timeout=60) == 0


def test_a_console_port_in_use_is_said_with_a_remedy(tmp_path: Path, press: int) -> None:
    done = shopfloor("run", str(plant_file(tmp_path, press, press)), folder=tmp_path)
    assert done.returncode == 2
    assert "another program does" in done.stderr


def test_nobody_answers_is_said_without_a_traceback(tmp_path: Path) -> None:
    done = shopfloor("send", "a", "1", "--url", f"http://127.0.0.1:{free_port()}", folder=tmp_path)
    assert done.returncode == 1
    assert "is the plant running" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("demo", "--for", "5"), ("bench", "nothing"), ("ledger",), ("run",), ("nonsense",)])
def test_what_the_user_must_change_exits_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = shopfloor(*words, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_the_schema_is_json(tmp_path: Path) -> None:
    assert json.loads(shopfloor("schema", folder=tmp_path).stdout)["properties"]["plant"]
