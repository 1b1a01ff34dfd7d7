"""Servers for tests come up or say why, and never outlive their test."""

import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from shopfloor.testing.certificates import Authority
from shopfloor.testing.programs import Mosquitto, ServerProcess, answers, free_port, require_program

# Says so first: who listens may be killed at once.
LISTEN = "import socket, sys; print('up', flush=True); s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"


def test_a_program_that_is_missing_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such-thing"):
        require_program("no-such-thing", "apt-get install no-such-thing")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-thing is not installed"):
        require_program("no-such-thing", "apt-get install no-such-thing")


def test_a_free_port_can_be_bound_and_the_next_is_another_one() -> None:
    first, second = free_port(), free_port()
    assert first != second
    with socket.create_server(("127.0.0.1", first)), socket.create_server(("127.0.0.1", second)):
        pass


def test_two_processes_are_never_given_the_same_port_though_none_is_taken() -> None:
    ask = """import sys
from shopfloor.testing.programs import free_port
print(*(free_port() for _ in range(300)), flush=True)
sys.stdin.read()  # it keeps what it has until its input is closed
"""
    with ExitStack() as stack:
        asked = [stack.enter_context(Popen([sys.executable, "-c", ask], stdin=PIPE, stdout=PIPE)) for _ in range(2)]
        given = [{int(port) for port in one.stdout.readline().split()} for one in asked if one.stdout is not None]
        mine = {free_port() for _ in range(300)}
    assert all(len(ports) > 100 for ports in (*given, mine))
    assert not given[0] & given[1]
    assert not mine & (given[0] | given[1])


async def test_a_server_answers_when_the_block_begins_and_is_gone_when_it_ends() -> None:
    port = free_port()
    async with ServerProcess([sys.executable, "-c", LISTEN + "while True: s.accept()", str(port)], port) as server:
        assert answers("127.0.0.1", port)
        pid = server.pid
        server.kill()
        assert not answers("127.0.0.1", port)
        server.start()
        assert answers("127.0.0.1", port)
        assert server.log().split() == ["up", "up"]
    assert not answers("127.0.0.1", port)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_does_not_come_up_shows_its_log() -> None:
    command = [sys.executable, "-c", "print('the disk is full'); raise SystemExit(3)"]
    with pytest.raises(pytest.fail.Exception, match=r"ended with 3(.|\n)*the disk is full"):
        ServerProcess(command, free_port()).start()


def test_a_server_that_ignores_the_request_to_end_is_killed() -> None:
    port = free_port()
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + LISTEN + "while True: s.accept()"
    server = ServerProcess([sys.executable, "-c", stubborn, str(port)], port)
    server.start()
    server.stop(within=0.1)
    assert not server.running
    assert not answers("127.0.0.1", port)


def test_mosquitto_comes_up_plain_and_with_everything(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    everything = Mosquitto(
        tmp_path,
        users={"edge": "secret"},
        identity=authority.server(),
        client_authority=authority.certificate,
        access="user edge\ntopic readwrite shopfloor/#\n",
    )
    with everything:
        assert answers("127.0.0.1", everything.port)
    with Mosquitto(tmp_path) as plain:
        assert answers("127.0.0.1", plain.port)
