"""A real schema registry (Apicurio, by Confluent's interface) for all workers of a run, and Java's reading by it."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import httpx
import pytest

from shopfloor.testing.programs import free_port, missing, require_program

PEER: Final = Path(__file__).parent / "peers" / "registry" / "target"
WITHIN: Final = 180.0
"""Seconds for a start: a JVM beside other tests on a slow machine."""
INCOMPATIBLE: Final = {"type": "record", "name": "Other", "fields": [{"name": "needed", "type": "int"}]}

_STARTED: Final[list[subprocess.Popen[bytes]]] = []
"""Kept, since Python complains of one that is forgotten while it runs; it ends by itself."""


class Registry:
    """Where it is, and what a person would do there."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.path = "/apis/ccompat/v7"
        self.url = f"http://127.0.0.1:{port}{self.path}"

    def put(self, subject: str, schema: str, kind: str = "AVRO", **more: object) -> int:
        """Register a schema; returns its id."""
        body = {"schema": schema, "schemaType": kind, **more}
        answer = httpx.post(f"{self.url}/subjects/{subject}/versions", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["id"])

    def compatibility(self, subject: str, level: str) -> None:
        """How a subject's schemas may change."""
        answer = httpx.put(f"{self.url}/config/{subject}", json={"compatibility": level}, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text

    def versions(self, subject: str) -> list[int]:
        """The versions that a subject has."""
        answer = httpx.get(f"{self.url}/subjects/{subject}/versions", timeout=60, trust_env=False)
        return list(answer.json()) if answer.status_code == 200 else []

    def java(self, records: Sequence[bytes]) -> list[Any]:
        """What Java's libraries read of these records, by the schemas that are here."""
        command = [*_java(), "peer.Reader", self.url]
        said = subprocess.run(
            command, input=b"".join(base64.b64encode(one) + b"\n" for one in records), capture_output=True, check=False,
            timeout=WITHIN,
        )  # fmt: skip
        assert said.returncode == 0, said.stderr.decode()[-3000:]
        return [json.loads(line) for line in said.stdout.splitlines()]


def _java(*settings: str) -> list[str]:
    app = PEER / "app"
    if not (PEER / ".built").exists():
        missing("the schema registry is not built", "apt-get install maven default-jdk-headless, then make test")
    classes = os.pathsep.join((str(PEER / "classes"), str(app / "*"), str(app / "lib" / "*")))
    return [
        str(require_program("java", "apt-get install default-jdk-headless")), "-Xmx384m", "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1", *settings, "-cp", classes,
    ]  # fmt: skip


def shared(root: Path) -> tuple[Registry, Any]:
    """The run's registry, started if it is not there; it ends once every file that came with it is closed."""
    root.mkdir(exist_ok=True)
    with (root / "starting").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        users = (root / "users").open("a+")
        fcntl.lockf(users, fcntl.LOCK_SH)
        where = root / "port"
        if where.exists() and _serves(found := Registry(int(where.read_text()))):
            return found, users
        shutil.rmtree(root / "app", ignore_errors=True)
        started = _start(root / "app", Path(users.name))
        where.write_text(str(started.port))
        return started, users


def _start(folder: Path, users: Path) -> Registry:
    folder.mkdir()
    found = Registry(free_port())
    command = _java(
        "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={found.port}", "-Dquarkus.log.level=WARN",
        "-Dapicurio.storage.kind=sql", "-Dapicurio.storage.sql.kind=h2",
    )  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "peer.Registry", str(users)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
    _STARTED.append(process)
    deadline = monotonic() + WITHIN
    while not _serves(found):
        if process.poll() is not None or monotonic() > deadline:
            process.kill()
            pytest.fail(f"the schema registry did not start; it said:\n{(folder / 'log').read_text()[-5000:]}")
        sleep(0.1)
    return found


def _serves(registry: Registry) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{registry.url}/schemas/types", timeout=5, trust_env=False).status_code == 200
    return False
