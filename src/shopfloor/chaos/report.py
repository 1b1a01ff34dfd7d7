"""What people see of the experiments."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from shopfloor.chaos.experiment import Finding, experiments
from shopfloor.chaos.faults import Fault
from shopfloor.reports import table
from shopfloor.running import until_stopped
from shopfloor.samples import Misconfigured

_HEAD: Final = ("what happened", "for", "measured", "held", "lost", "doubled", "again", "most waiting", "recovery")


async def run(faults: Sequence[Fault], folder: Path | None, seconds: float, rate: float, *, as_json: bool) -> int:
    """Do it until the last fault or Ctrl-C; 0 when nothing was lost or doubled, else 1. Raises Unavailable."""
    with contextlib.ExitStack() as stack:
        place = _place(folder) if folder else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        if not as_json:
            click.echo(
                "A measuring machine, a Shopfloor and an MES, in processes of their own; nothing else is touched.\n"
                f"{len(faults)} fault{'' if len(faults) == 1 else 's'} of {seconds:g} s each.\n"
            )
        findings: list[Finding] = []
        work = asyncio.create_task(_all(faults, place, seconds, rate, findings, quiet=as_json), name="chaos")
        stopped = asyncio.create_task(until_stopped())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, stopped):
            task.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)
        if not work.cancelled():
            work.result()
    click.echo(msgspec.json.encode(findings).decode() if as_json else as_text(findings))
    return 0 if findings and all(finding.sound for finding in findings) else 1


async def _all(
    faults: Sequence[Fault], place: Path, seconds: float, rate: float, findings: list[Finding], *, quiet: bool
) -> None:
    def say(text: str) -> None:
        if not quiet and (not text.startswith(" ") or sys.stderr.isatty()):
            click.echo(text, err=True)

    async with contextlib.aclosing(experiments(faults, place, seconds, rate, say)) as found:
        async for finding in found:
            findings.append(finding)  # noqa: PERF401  # what was found is kept when the rest is cut off


def _place(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise Misconfigured(f"{folder} is there already; name a folder that is not, so that nothing is mixed") from None
    except OSError as error:
        raise Misconfigured(f"the folder {folder} cannot be made: {error.strerror}") from error
    return folder.resolve()


def as_text(findings: Sequence[Finding]) -> str:
    """A line a fault, then the verdict."""
    if not findings:
        return "No experiment was ended."
    rows = [
        (f.title, f"{f.seconds:.1f} s", f.measured, f.held, f.lost, f.doubled, f.again, f.depth, f"{f.recovery:.1f} s")
        for f in findings
    ]
    measured = sum(finding.measured for finding in findings)
    verdict = (
        f"All {measured:,} samples arrived, each counted once."
        if all(finding.sound for finding in findings)
        else f"Of {measured:,} samples {sum(f.lost for f in findings):,} are lost and "
        f"{sum(f.doubled for f in findings):,} counted more than once. This is a bug, please report it."
    )
    return f"\n{table(_HEAD, rows, right=(1, 8))}\n\n{verdict}"
