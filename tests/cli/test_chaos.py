"""The chaos kit breaks real processes, and sees a loss and a double where there is one."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from shopfloor.chaos import FAULTS, Fault, experiment
from shopfloor.chaos.experiment import Finding, experiments
from shopfloor.chaos.report import as_text
from shopfloor.chaos.stage import Stage
from shopfloor.cli import shopfloor
from shopfloor.samples import Misconfigured

PATIENCE = 110.0


def test_what_is_killed_and_cut_off_loses_nothing(tmp_path: Path) -> None:
    """Three of the faults, as a user runs them; `shopfloor chaos` plays all."""
    names = ("both-killed", "answers-lost", "disk-full")
    done = subprocess.run(
        [sys.executable, "-m", "shopfloor", "chaos", *names, "--for", "1s", "--rate", "5", "--json"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    findings = json.loads(done.stdout)
    assert [one["name"] for one in findings] == list(names)
    for one in findings:
        assert one["measured"] == one["held"] > 0, one
        assert (one["lost"], one["doubled"]) == (0, 0)
        assert one["depth"] > 0, "something waited"
    assert findings[1]["again"] > 0, "what the MES had taken came again, and was counted once"
    assert not list(tmp_path.iterdir()), "it cleans up"


async def _forget_and_double(stage: Stage) -> None:
    """The MES loses what it took, and gets one sample of the next part twice."""
    mes = f"http://127.0.0.1:{stage.proxy.port}"
    async with httpx.AsyncClient(trust_env=False) as client:
        taken = (await client.get(f"{mes}/mes/received")).json()
        await client.delete(f"{mes}/mes/received")
        for key in ("one", "two"):
            headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
            await client.post(f"{mes}/x", content=taken[-1]["body"], headers=headers)


async def _nothing(_: Stage) -> None:
    pass


async def test_a_loss_and_a_double_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the kit would find everything in order, always."""
    monkeypatch.setattr(experiment, "_SETTLE", 2.0)
    fault = Fault("forgets", "the MES forgets", _forget_and_double, _nothing)
    async with contextlib.aclosing(experiments([fault], tmp_path / "stage", 0.1, 5, lambda _: None)) as found:
        monkeypatch.setattr(experiment, "_PATIENCE", 5.0)
        finding = await anext(found)
    assert finding.lost > 0
    assert finding.doubled == 6, "a part is six samples"
    assert finding.held + finding.lost == finding.measured
    assert not finding.sound


def test_the_verdict_says_what_is_wrong() -> None:
    bad = Finding("x", "it breaks", 5.0, measured=1_000, held=998, lost=2, doubled=3, again=0, depth=40, recovery=1.5)
    assert "Of 1,000 samples 2 are lost and 3 counted more than once" in as_text([bad])
    assert "No experiment was ended." in as_text([])


def test_the_faults_are_listed_and_named(tmp_path: Path) -> None:
    listed = CliRunner().invoke(shopfloor, ["chaos", "--list"]).output
    assert all(fault.name in listed and fault.title in listed for fault in FAULTS)
    wrong = CliRunner().invoke(shopfloor, ["chaos", "meteor"], standalone_mode=False).exception
    assert isinstance(wrong, Misconfigured)
    assert "mes-killed" in str(wrong)
    there = CliRunner().invoke(shopfloor, ["chaos", "--folder", str(tmp_path)], standalone_mode=False).exception
    assert isinstance(there, Misconfigured)
    assert "is there already" in str(there)
