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

from shopfloor.chaos.databases import KINDS, Database
from shopfloor.chaos.experiment import Finding, experiments
from shopfloor.chaos.faults import FAULTS, Fault, chosen, left_out, missing
from shopfloor.reports import table
from shopfloor.running import until_stopped
from shopfloor.samples import Misconfigured

_HEAD: Final = ("fault", "measured", "lost", "doubled", "again", "waiting", "beside", "recovery")
_TOTALS: Final = ("destination", "measured", "held", "lost", "doubled")


async def run(names: Sequence[str], folder: Path | None, seconds: float, rate: float, *, as_json: bool) -> int:
    """Do it until the last fault or Ctrl-C; 0 when all is sound, else 1. Raises Unavailable, Misconfigured."""
    away = missing()
    faults, kinds = chosen(names, away), [kind for kind in KINDS if kind.name not in away]
    with contextlib.ExitStack() as stack:
        place = _place(folder) if folder else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        if not as_json:
            cast = ["A measuring machine", "a Shopfloor", "an MES", *(f"a {kind.title}" for kind in kinds)]
            click.echo(
                f"{', '.join(cast[:-1])} and {cast[-1]}:\nall in processes of their own; nothing else is touched.\n"
                f"{len(faults)} fault{'' if len(faults) == 1 else 's'} of {seconds:g} s each.\n"
            )
        if away:
            click.echo("\n".join([*left_out(away), ""]), err=as_json)
        findings: list[Finding] = []
        work = asyncio.create_task(_all(faults, kinds, place, seconds, rate, findings, quiet=as_json), name="chaos")
        stopped = asyncio.create_task(until_stopped())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, stopped):
            task.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)
    click.echo(msgspec.json.encode(findings).decode() if as_json else as_text(findings))
    if not work.cancelled():
        work.result()  # raises what broke it off, below what was found until then
    return 0 if findings and all(finding.sound for finding in findings) else 1


async def _all(  # what a run is made of
    faults: Sequence[Fault],
    kinds: Sequence[type[Database]],
    place: Path,
    seconds: float,
    rate: float,
    findings: list[Finding],
    *,
    quiet: bool,
) -> None:
    def say(text: str) -> None:
        if not quiet and (not text.startswith(" ") or sys.stderr.isatty()):
            click.echo(text, err=True)

    async with contextlib.aclosing(experiments(faults, place, seconds, rate, say, kinds)) as found:
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


def as_list() -> str:
    """The faults that there are, and what cannot be done here."""
    away = missing()
    return "\n".join([table(("fault", "what happens"), [(one.name, one.title) for one in FAULTS]), *left_out(away)])


def as_text(findings: Sequence[Finding]) -> str:
    """A line a fault, and one for each destination that it harmed; the destinations' sums; the verdict."""
    if not findings:
        return "No experiment was ended."
    rows: list[Sequence[object]] = []
    for one in findings:
        beside = "–" if one.beside is None else f"{one.beside:.1f} s"
        counted = (f"{number:,}" for number in (one.measured, one.lost, one.doubled, one.again, one.depth))
        rows.append((one.name, *counted, beside, f"{'' if one.recovered else '> '}{one.recovery:.1f} s"))
        rows += [
            (f"  {count.title}", "", f"{count.lost:,}", f"{count.doubled:,}", "", "", "", "")
            for count in one.counts
            if count.lost or count.doubled
        ]
    numbers = range(1, len(_HEAD))
    return f"\n{table(_HEAD, rows, right=numbers)}\n\n{table(_TOTALS, _totals(findings))}\n\n{_verdict(findings)}"


def _totals(findings: Sequence[Finding]) -> Sequence[Sequence[object]]:
    of = {count.title: [one for f in findings for one in f.counts if one.title == count.title]
          for f in findings for count in f.counts}  # fmt: skip
    return [
        (title, sum(c.held + c.lost for c in all_), sum(c.held for c in all_), sum(c.lost for c in all_),
         sum(c.doubled for c in all_))
        for title, all_ in of.items()
    ]  # fmt: skip


def _verdict(findings: Sequence[Finding]) -> str:
    measured, destinations = sum(one.measured for one in findings), len(findings[0].counts)
    lost, doubled, delayed = (sum(getattr(f, what) for f in findings) for what in ("lost", "doubled", "delayed"))
    if not (lost or doubled or delayed):
        where = "" if destinations == 1 else f" in each of the {destinations} destinations"
        return f"All {measured:,} samples arrived{where}, each counted once."
    said = [f"Of {measured:,} samples for {destinations} destinations"]
    if lost or doubled:
        said.append(f"{lost:,} are lost and {doubled:,} counted more than once.\nThis is a bug, please report it.")
    if delayed:
        said.append(
            f"{delayed:,} came late to those that were well.\nThis is a bug, or more is measured than this computer "
            "delivers: try a lower --rate."
        )
    return " ".join(said)
