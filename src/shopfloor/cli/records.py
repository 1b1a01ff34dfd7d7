"""Verbs of what is recorded: the ledger of samples, and the audit trail of commands."""

from pathlib import Path

import click

from shopfloor.cli.options import execute


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
        click.echo(reports.ledger_json(rows) if as_json else reports.ledger(rows))
        raise click.exceptions.Exit(0 if reports.balanced(rows) else 1)


@ledger.command("forget")
@click.argument("reader")
@click.pass_obj
def ledger_forget(path: Path, reader: str) -> None:
    """Forget READER: what waits in the journal for it is thrown away. Stop the plant first."""
    from shopfloor import reports  # noqa: PLC0415

    execute(reports.forget(path, reader))


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
