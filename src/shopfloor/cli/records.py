"""Verbs of what is recorded: the ledger of samples, and the audit trail of commands."""

from pathlib import Path
from typing import Final

import click

from shopfloor.cli.options import URL, execute


@click.group(invoke_without_command=True)
@click.option("--plant", type=click.Path(path_type=Path), help="The plant file; the demo's data by default.")
@click.option("--json", "as_json", is_flag=True, help="Every row as JSON.")
@click.pass_context
def ledger(context: click.Context, plant: Path | None, *, as_json: bool) -> None:
    """What was received and what became of it. Exit 1 when it does not balance."""
    from shopfloor import demo as demonstration, journal, plant as plants, reports  # noqa: PLC0415

    path = plants.load(plant).journal.path if plant else demonstration.journal_path()
    context.obj = path
    if context.invoked_subcommand is None:
        rows = journal.read_file(path)
        if plant is None:
            click.echo("The demo's ledger; of a plant of your own: shopfloor ledger --plant plant.yaml\n", err=True)
        click.echo(reports.ledger_json(rows) if as_json else reports.ledger(rows))
        raise click.exceptions.Exit(0 if reports.balanced(rows) else 1)


@ledger.command("forget")
@click.argument("reader")
@click.pass_obj
def ledger_forget(path: Path, reader: str) -> None:
    """Forget READER: what waits in the journal for it is thrown away. Stop the plant first."""
    from shopfloor import reports  # noqa: PLC0415

    execute(reports.forget(path, reader))


@click.group("dead-letters")
def dead_letters() -> None:
    """What sinks refused: see it, have it offered again, or throw it away.

    Asks the running plant; of one that is stopped give the plant file by --plant.
    """


STOPPED: Final = click.option(
    "--plant", type=click.Path(path_type=Path), help="The plant file of a plant that does not run."
)
READER: Final = click.option("--reader", help="Only what this sink refused.")
IDS: Final = click.argument("ids", nargs=-1, metavar="ID...", type=click.IntRange(min=1))
ALL: Final = click.option("--all", "every", is_flag=True, help="All of them, or with --reader all of this sink.")


@dead_letters.command("list")
@READER
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@URL
@STOPPED
def dead_letters_list(reader: str | None, url: str, plant: Path | None, *, as_json: bool) -> None:
    """Which there are, the newest first, with the reason that the sink gave."""
    from shopfloor import refused  # noqa: PLC0415

    refused.show(refused.letters(url, plant, reader), as_json=as_json)


@dead_letters.command("retry")
@IDS
@READER
@ALL
@URL
@STOPPED
def dead_letters_retry(ids: tuple[int, ...], reader: str | None, url: str, plant: Path | None, *, every: bool) -> None:
    """Offer them again, each to the sink that refused it: after its table, its rights or its limits were mended."""
    from shopfloor import refused  # noqa: PLC0415

    refused.decide("retry", url, plant, _chosen(ids, reader, url, plant, every=every))


@dead_letters.command("drop")
@IDS
@READER
@ALL
@URL
@STOPPED
def dead_letters_drop(ids: tuple[int, ...], reader: str | None, url: str, plant: Path | None, *, every: bool) -> None:
    """Throw them away for good; the ledger goes on counting them as rejected."""
    from shopfloor import refused  # noqa: PLC0415

    refused.decide("drop", url, plant, _chosen(ids, reader, url, plant, every=every))


def _chosen(ids: tuple[int, ...], reader: str | None, url: str, plant: Path | None, *, every: bool) -> list[int]:
    from shopfloor import refused  # noqa: PLC0415

    if every == bool(ids):
        raise click.UsageError("name dead letters by their ids, or --all; `shopfloor dead-letters list` shows them")
    there = [letter["id"] for letter in refused.letters(url, plant, reader)]
    if every:
        return there
    if gone := sorted(set(ids) - set(there)):
        raise click.UsageError(f"there is no dead letter {', '.join(map(str, gone))}; nothing was done")
    return sorted(set(ids))


@click.group()
def audit() -> None:
    """The record of who wrote what to which machine."""


@audit.command("verify")
@click.option("--plant", type=click.Path(path_type=Path), help="The plant file; the demo's data by default.")
def audit_verify(plant: Path | None) -> None:
    """Check that no record was changed or taken out. Exit 1 when one was."""
    from shopfloor import commands, demo as demonstration, plant as plants  # noqa: PLC0415

    path = commands.audit_path(plants.load(plant)) if plant else demonstration.journal_path().with_name("audit.db")
    found = commands.verify(path)
    click.echo(f"{path}: {found.records} records, {found.detail or 'the chain is whole'}; head {found.head}")
    raise click.exceptions.Exit(0 if found.intact else 1)
