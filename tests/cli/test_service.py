"""A plant as a service: systemd takes the unit, and hears that it is ready, alive and stopping."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from shopfloor import plant as plants, service
from shopfloor.samples import Misconfigured
from shopfloor.testing.programs import require_program

RUN: Final = (sys.executable, "-m", "shopfloor")
INSTALL: Final = "apt-get install systemd"


def plant_file(folder: Path, more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plant.yaml"
    path.write_text(f"plant: {{site: bremen}}\nhistorian: {{type: sqlite}}\n{more or 'console: null'}\n")
    return path


@pytest.mark.parametrize("name", ["plain", "with blank", "50% of $HOME"])
@pytest.mark.parametrize("console", ["console: null", "console: {listen: '0.0.0.0:80'}"])
def test_systemd_takes_the_unit(name: str, console: str, tmp_path: Path) -> None:
    """Its own checker finds nothing, whatever the folder is called."""
    checker = require_program("systemd-analyze", INSTALL)
    path = plant_file(tmp_path / name, console)
    secrets = tmp_path / name / "secrets.env"
    secrets.touch()
    unit = tmp_path / "shopfloor-test.service"
    unit.write_text(service.unit(path, plants.load(path), "root", secrets))
    done = subprocess.run([checker, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "shopfloor-test" in line]
    assert (done.returncode, ours) == (0, [])
    assert ("CAP_NET_BIND_SERVICE" in unit.read_text()) == ("80" in console)


def test_systemd_hears_that_it_is_ready_alive_and_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        address = tmp_path / "notify"
        systemd.bind(str(address))
        systemd.settimeout(90)
        process = subprocess.Popen(
            [*RUN, "run", str(plant_file(tmp_path))],
            env={**os.environ, "NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "300000"},
        )
        try:
            heard = [systemd.recv(100) for _ in range(4)]
            assert heard == [b"READY=1", *[b"WATCHDOG=1"] * 3]
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 90
            while systemd.recv(100) != b"STOPPING=1":
                assert time.monotonic() < deadline
            assert process.wait(90) == 0
        finally:
            process.kill()
            process.wait()


def test_a_socket_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*RUN, "run", str(plant_file(tmp_path)), "--for", "1s"], check=False, capture_output=True, text=True,
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "nowhere")}, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0
    assert "systemd cannot be told" in done.stderr


def shopfloor(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *map(str, words)], capture_output=True, text=True, timeout=200, check=False)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users, also in an image")


@needs_root
def test_it_is_installed_into_an_image_and_taken_away(tmp_path: Path) -> None:
    """The real programs of systemd make the user and enable the unit; the data stay."""
    require_program("systemd-sysusers", INSTALL)
    require_program("systemctl", INSTALL)
    image = tmp_path / "image"
    image.mkdir()
    path = plant_file(tmp_path / "plant", "journal: {path: /var/lib/shopfloor/journal.db}\nconsole: null")
    done = shopfloor("service", "install", path, "--user", "sfuser", "--root", image)
    assert done.returncode == 0, done.stderr
    unit = (image / "etc/systemd/system/shopfloor.service").read_text()
    assert f"run {path}" in unit
    assert "User=sfuser" in unit
    assert (image / "etc/systemd/system/multi-user.target.wants/shopfloor.service").is_symlink()
    user = next(line for line in (image / "etc/passwd").read_text().splitlines() if line.startswith("sfuser:"))
    folder = image / "var/lib/shopfloor"
    assert folder.stat().st_uid == int(user.split(":")[2]) != 0
    again = shopfloor("service", "install", path, "--user", "sfuser", "--root", image)
    assert again.returncode == 0, again.stderr
    (folder / "journal.db").touch()
    theirs = shopfloor("service", "install", path, "--user", "sfuser", "--root", image)
    assert theirs.returncode == 2
    assert f"run: chown -R sfuser: {folder}" in theirs.stderr
    done = shopfloor("service", "uninstall", "--root", image)
    assert done.returncode == 0, done.stderr
    assert not list((image / "etc/systemd/system").rglob("shopfloor.service"))
    assert (folder / "journal.db").exists()


@needs_root
def test_a_unit_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    unit = tmp_path / "etc/systemd/system/shopfloor.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    for words in (("install", plant_file(tmp_path)), ("uninstall",)):
        done = shopfloor("service", *words, "--root", tmp_path)
        assert done.returncode == 2
        assert "not ours" in done.stderr
    assert unit.read_text() == "[Service]\n"


def test_secrets_come_from_a_file(tmp_path: Path) -> None:
    """What is missing or malformed is said at once, not by a service that does not start."""
    broker = "sinks: [{name: c, type: mqtt, servers: mqtt://h, username: u, password: '${SF_PASSWORD}'}]"
    path = plant_file(tmp_path, broker)
    secrets = tmp_path / "secrets.env"
    secrets.write_text("# a comment\nOTHER=1\n")
    done = shopfloor("service", "install", path, "--environment", secrets, "--root", tmp_path)
    assert done.returncode == 2
    assert "SF_PASSWORD is not set" in done.stderr
    secrets.write_text("SF_PASSWORD='open\n")
    done = shopfloor("service", "install", path, "--environment", secrets, "--root", tmp_path)
    assert done.returncode == 2
    assert f"{secrets}:1:" in done.stderr
    assert "open" not in done.stderr.replace(str(tmp_path), "")
    assert service._variables_of("SF_PASSWORD='a b'\nX=c\n", secrets) == {"SF_PASSWORD": "a b", "X": "c"}


def test_a_plant_that_the_user_cannot_reach_is_said(tmp_path: Path) -> None:
    path = plant_file(tmp_path / "closed")
    path.parent.chmod(0o700)
    with pytest.raises(Misconfigured, match="below /tmp" if path.is_relative_to("/tmp") else "not open to other users"):
        service._readable([path])
    closed = Path.home() / "plant.yaml"
    if Path.home().stat().st_mode & 0o001 == 0:
        with pytest.raises(Misconfigured, match=r"is not open to other users, .* run: chmod o\+x"):
            service._readable([closed])
