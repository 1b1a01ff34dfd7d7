"""The chaos kit breaks real processes, and sees a loss and a double where there is one."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pymysql
import pytest
from click.testing import CliRunner

from shopfloor.chaos import FAULTS, Fault, databases, experiment
from shopfloor.chaos.databases import KINDS, Database, PostgreSql
from shopfloor.chaos.experiment import Count, Finding, experiments
from shopfloor.chaos.faults import chosen, missing
from shopfloor.chaos.report import as_text
from shopfloor.chaos.stage import Stage
from shopfloor.cli import shopfloor
from shopfloor.plant import parse
from shopfloor.samples import Batch, Misconfigured, Sample, Unavailable
from shopfloor.simulators.databases import NotInstalled
from shopfloor.sinks.sql.tables import HISTORY
from shopfloor.testing.programs import skipped

PATIENCE = 240.0


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for temporary files that the databases' users may enter, which pytest's own is not."""
    for kind in KINDS:
        if said := kind.missing():
            skipped(said)
    with tempfile.TemporaryDirectory(prefix="shopfloor-chaos-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def test_what_is_killed_and_cut_off_loses_nothing(place: Path) -> None:
    """Six of the faults in one run, as a user does it, for each run starts nine processes; `shopfloor chaos` plays all.

    That a database was in the middle of a transaction is made sure, not hoped: the server said so.
    """
    names = ("both-killed", "answers-lost", "disk-full", "postgres-killed", "mysql-killed", "sessions-ended")
    with subprocess.Popen(
        [sys.executable, "-m", "shopfloor", "chaos", *names, "--for", "1s", "--rate", "3", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(place)},
    ) as chaos:  # fmt: skip
        try:
            output, errors = chaos.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            chaos.send_signal(signal.SIGINT)  # it ends what it has started
            output, errors = chaos.communicate()
    assert chaos.returncode == 0, errors + output
    findings = {one["name"]: one for one in json.loads(output)}
    assert list(findings) == list(names)
    for one in findings.values():
        assert one["measured"] > 0
        assert (one["lost"], one["doubled"], one["delayed"]) == (0, 0, 0)
        held = {count["destination"]: count["held"] for count in one["counts"]}
        assert held == dict.fromkeys(("mes", "postgres", "mysql"), one["measured"])
        assert one["depth"] > 0 or one["name"] == "sessions-ended", "something waited; they log in again at once"
        assert one["recovered"] or one["recovery"] > 60
    assert findings["answers-lost"]["again"] > 0, "what the MES had taken came again, and was counted once"
    assert seen(findings["answers-lost"]) == [
        f"{title}: the answer to what it had stored was lost" for title in ("MES", "PostgreSQL", "MariaDB")
    ]
    assert seen(findings["postgres-killed"]) == ["PostgreSQL: killed while session N had a transaction open"]
    assert seen(findings["mysql-killed"]) == ["MariaDB: killed while session N had a transaction open"]
    assert seen(findings["sessions-ended"]) == [
        f"{title}: session N ended while its transaction was open" for title in ("PostgreSQL", "MariaDB")
    ]
    assert findings["postgres-killed"]["beside"] is not None, "the others had all of it, while this one was away"
    assert not list(place.iterdir()), "it cleans up"


def seen(finding: Any) -> Sequence[str]:
    """What was seen, without the sessions' numbers."""
    return [re.sub(r"\d+", "N", words) for words in finding["seen"]]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_a_sink_that_was_away_when_its_transaction_is_awaited_comes_back(
    place: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Database]
) -> None:
    """It has to take its position over first, and who waits for its transaction has a lock on that."""
    monkeypatch.setattr(databases, "_COMES_WITHIN", 45.0)
    database = kind(place)
    monkeypatch.setenv(database.variable, database.password)
    text = f"plant: {{site: chaos}}\nsinks:{database.lines(database.port)}"
    config = parse(text, "plant.yaml", place).sinks[0]
    entry = count(1)

    async def deliver() -> None:
        while True:
            with contextlib.suppress(Unavailable):
                async with config.build() as sink:
                    while True:
                        await sink.write(next(entry), Batch.of("cmm", 1, [Sample("cmm-1/length", 1, 1.0)]))
            await asyncio.sleep(0.1)

    try:
        await database.start()
        async with config.build():
            pass
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            awaited = group.create_task(database.end_session())
            while await database._ask(f"{database._position} SKIP LOCKED"):
                await asyncio.sleep(0.05)
            delivering = group.create_task(deliver())
            assert "ended while its transaction was open" in await awaited
            delivering.cancel()
    finally:
        await database.stop()


async def _forget_and_double(stage: Stage) -> None:
    """Once a new part is everywhere, the MES forgets all and gets the last one twice, and PostgreSQL loses all.

    MariaDB gets the last entry a second time, and goes away.
    """
    number = len(stage.measured)
    while len(stage.measured) <= number:
        await asyncio.sleep(0.05)
    part = set(stage.expected(number, number + 1))
    for name in stage.titles:
        while not part <= (await stage.held(name, number)).keys():
            await asyncio.sleep(0.05)
    mes = f"http://127.0.0.1:{stage.proxies['mes'].port}"
    async with httpx.AsyncClient(trust_env=False) as client:
        taken = (await client.get(f"{mes}/mes/received")).json()
        await client.delete(f"{mes}/mes/received")
        for key in ("one", "two"):
            headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
            await client.post(f"{mes}/x", content=taken[-1]["body"], headers=headers)
    postgres, mysql = stage.databases["postgres"], stage.databases["mysql"]
    with psycopg.connect(
        host="127.0.0.1", port=postgres.port, user="postgres", dbname="postgres", password=postgres.password
    ) as link:
        link.execute("DELETE FROM shopfloor.history")
    with (
        pymysql.connect(
            host="127.0.0.1", port=mysql.port, user="chaos", database="chaos", password=mysql.password, autocommit=True
        ) as other,
        other.cursor() as cursor,
    ):
        columns = ", ".join(HISTORY.names)
        last = "SELECT * FROM (SELECT MAX(entry) FROM shopfloor_history) AS last"
        cursor.execute(
            f"INSERT INTO shopfloor_history ({columns}) SELECT {columns} FROM shopfloor_history WHERE entry = ({last})"
        )
    await mysql.kill()


async def _come_back(stage: Stage) -> None:
    await stage.databases["mysql"].start()


async def test_a_loss_a_double_and_a_delay_are_seen(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the kit would find everything in order, always."""

    async def begin(stage: Stage) -> None:
        await _forget_and_double(stage)
        monkeypatch.setattr(experiment, "_PATIENCE", 3.0)  # what is lost does not come

    fault = Fault("forgets", "it forgets", begin, _come_back)
    async with contextlib.aclosing(experiments([fault], place / "stage", 0.1, 5, lambda _: None, KINDS)) as found:
        finding = await anext(found)
    mes, postgres, mysql = finding.counts
    assert mes.lost > 0
    assert mes.doubled >= 6, "a part is six samples"
    assert postgres.lost > 0
    assert postgres.doubled == 0
    assert mysql.doubled >= 6
    for one in finding.counts:
        assert one.held + one.lost == finding.measured
    assert finding.lost == sum(one.lost for one in finding.counts)
    assert finding.delayed > 0, "MariaDB was away, and nobody had said that it would be"
    assert not finding.sound


def test_the_verdict_says_what_is_wrong() -> None:
    counts = [Count("mes", "MES", 998, 2, 3), Count("postgres", "PostgreSQL", 1_000, 0, 0)]
    bad = Finding("x", "it breaks", 5.0, measured=1_000, lost=2, doubled=3, counts=counts, again=0, depth=40,
                  beside=0.1, delayed=4, recovery=1.5, recovered=False, seen=[])  # fmt: skip
    said = as_text([bad, msgspec.structs.replace(bad, name="y", lost=0, doubled=0, counts=counts[1:])])
    assert "Of 2,000 samples for 2 destinations 2 are lost and 3 counted more than once." in said
    assert "8 came late to those that were well" in said
    assert re.search(r"^  MES +2 +3$", said, re.MULTILINE)
    assert re.search(r"^x +1,000 +2 +3 +0 +40 +0.1 s +> 1.5 s$", said, re.MULTILINE)
    assert said.count("  PostgreSQL") == 0, "only a destination that was harmed has a line below the fault"
    assert re.search(r"^PostgreSQL +2,000 +2,000 +0 +0$", said, re.MULTILINE)
    assert "No experiment was ended." in as_text([])


def test_what_is_not_installed_is_said_and_the_rest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> None:
        raise NotInstalled("initdb is not installed", "apt-get install postgresql")

    monkeypatch.setattr(PostgreSql, "demand", nowhere)
    listed = CliRunner().invoke(shopfloor, ["chaos", "--list"]).output
    assert "PostgreSQL takes no part: initdb is not installed; install it with: apt-get install postgresql" in listed
    assert "Left out: postgres-killed, postgres-halted" in listed
    away = missing()
    names = [fault.name for fault in chosen((), away)]
    assert {"mes-killed", "cable-pulled"} <= set(names)
    assert not {"postgres-killed", "postgres-halted"} & set(names)
    wrong = CliRunner().invoke(shopfloor, ["chaos", "postgres-killed"], standalone_mode=False).exception
    assert isinstance(wrong, Misconfigured)
    assert "apt-get install postgresql" in str(wrong)


def test_the_faults_are_listed_and_named(tmp_path: Path) -> None:
    listed = CliRunner().invoke(shopfloor, ["chaos", "--list"]).output
    assert all(fault.name in listed and fault.title in listed for fault in FAULTS)
    wrong = CliRunner().invoke(shopfloor, ["chaos", "meteor"], standalone_mode=False).exception
    assert isinstance(wrong, Misconfigured)
    assert "mes-killed" in str(wrong)
    there = CliRunner().invoke(shopfloor, ["chaos", "--folder", str(tmp_path)], standalone_mode=False).exception
    assert isinstance(there, Misconfigured)
    assert "is there already" in str(there)
