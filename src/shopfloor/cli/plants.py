"""Verbs of a plant file: make one, check it, try it, run it, and work figures out anew."""

import json
import os
import sys
from pathlib import Path
from time import time_ns

import click

from shopfloor.cli.options import PLANT, execute, seconds


@click.command()
@PLANT
@click.option("--for", "duration", help="Stop by itself after this time, e.g. 30s.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def run(plant: Path, duration: str | None, log_level: str) -> None:
    """Run a plant file until it is stopped by Ctrl-C or SIGTERM."""
    from shopfloor import logs, plant as plants, running  # noqa: PLC0415

    logs.configure(log_level)
    loaded = plants.load(plant)
    execute(running.run(loaded, seconds(duration)))


@click.command()
@PLANT
def check(plant: Path) -> None:
    """Check a plant file without touching the network."""
    from shopfloor import logs, plant as plants, reports  # noqa: PLC0415

    logs.configure("error")
    click.echo(reports.plant(plants.load(plant)))


@click.command()
@PLANT
def probe(plant: Path) -> None:
    """Try every connection of a plant file once, and what the sources would acquire; writes nothing."""
    from shopfloor import logs, plant as plants, reports  # noqa: PLC0415

    logs.configure("error")
    execute(reports.probe(plants.load(plant)))


@click.command()
@PLANT
@click.argument("source")
@click.option(
    "--filter", "pattern", default="*", show_default=True, help="Only tags or addresses that match; * is any text."
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write to this file instead of the terminal.")
def browse(plant: Path, source: str, pattern: str, output: Path | None) -> None:
    """List what SOURCE offers, as lines for the plant file: put them below the source."""
    from shopfloor import browsing, logs, plant as plants  # noqa: PLC0415

    logs.configure("error")
    execute(browsing.browse(plants.load(plant), source, pattern, output))


@click.command()
@PLANT
@click.option("--from", "first", required=True, help="Where to begin, 2026-11-20 or 2026-11-20T06:00, site time.")
@click.option("--to", "last", help="Where to end; now by default.")
@click.option("--processor", help="Which processor of type machine, if there are several.")
def replay(plant: Path, first: str, last: str | None, processor: str | None) -> None:
    """Work machines' figures out anew from the historian's samples, and show what differs; changes nothing."""
    from shopfloor import logs, plant as plants, replaying, reports  # noqa: PLC0415

    logs.configure("error")

    async def shown() -> int:
        found = await replaying.replayed(plants.load(plant), first, last, processor, time_ns())
        click.echo(reports.replayed(found))
        return 1 if found.differences else 0

    execute(shown())


@click.command("test")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
def test(files: tuple[Path, ...]) -> None:
    """Play scenarios: what machines do, and which figures must come of it.

    docs/scenarios.md is the notation. Exit 1 when a figure is not as expected; it is said with file and line.
    """
    from shopfloor.scenarios import notation, playing  # noqa: PLC0415

    played = [playing.play(file) for file in notation.read_all(files)]
    failures = [failure for one in played for failure in one.failures]
    for failure in failures:
        click.echo(str(failure))
    click.echo(playing.summary(played))
    raise click.exceptions.Exit(1 if failures else 0)


@click.command("import")
@click.argument("origin", metavar="FROM", envvar="SHOPFLOOR_IMPORT")
@click.option("--plc", help="Where the PLC is, host or host:port, when FROM does not say it.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write to this file, not to the terminal.")
@click.option(
    "--front-end",
    is_flag=True,
    help="Also a sink that writes signaldatas and productionrecords on, for those who read them.",
)
@click.option("--force", is_flag=True, help="Write over the file that is there.")
def import_(origin: str, plc: str | None, target: Path | None, *, front_end: bool, force: bool) -> None:
    """Make a plant file of what the signal recorder has in MongoDB: its sensors, pins and machines.

    FROM is mongodb://host/database, a folder of exports (mongoexport, mongodump), or the recorder's config.json.
    An address with a password is better put into the environment variable SHOPFLOOR_IMPORT. What could not be
    mapped is said, also in the file; the exit code is then 2. Nothing is written into the database, unless
    --front-end asks for a sink that does.
    """
    from shopfloor import importing, plant as plants, reports  # noqa: PLC0415

    if target is not None and target.exists() and not force:
        raise click.UsageError(f"{target} is there already; give another name, or --force to write over it")
    documents = importing.read(origin)
    found = importing.imported(documents, plc)
    if front_end:
        found = importing.with_front_end(found, documents)
    text = importing.text(found)
    folder = (target or Path("plant.yaml")).resolve().parent
    plants.parse(text, "the imported plant file", folder, {**importing.ENVIRONMENT, **os.environ})
    reports.imported(found, text, target)
    raise click.exceptions.Exit(2 if any(finding.lost for finding in found.findings) else 0)


@click.command()
@click.option("--for", "duration", help="End by itself after this time, e.g. 30s.")
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="Address of the console.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where it keeps its data; used again by the next start."
)
@click.option("--show", is_flag=True, help="Print the demo's plant file and end.")
def demo(duration: str | None, listen: str, folder: Path | None, *, show: bool) -> None:
    """Run a simulated plant over real protocols: presses, fillers, a fleet, a measuring machine."""
    from shopfloor import demo as demonstration, logs  # noqa: PLC0415

    if show:
        click.echo(demonstration.plant_text(), nl=False)
        return
    logs.configure("info" if sys.stderr.isatty() else "warning")
    execute(demonstration.run(listen, folder, seconds(duration)))


@click.command()
def schema() -> None:
    """Print the JSON Schema of the plant file, for editors."""
    from shopfloor import plant as plants  # noqa: PLC0415

    click.echo(json.dumps(plants.schema(), indent=2))
