"""``shopfloor bench``: how fast it is here."""

import importlib
from typing import Final

import click

BENCHES: Final = (
    "journal",
    "historian",
    "opcua",
    "opcua-sink",
    "kpi",
    "s7",
    "modbus",
    "logix",
    "connections",
    "mqtt",
    "sparkplug",
    "recorder",
    "sinks",
    "backlog",
)


@click.command()
@click.argument("name", type=click.Choice([*BENCHES, "all"]))
@click.option("--type", "kind", type=click.Choice(["duckdb", "mysql", "postgres"]), help="Of `historian`: which one.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
@click.option("--thorough", is_flag=True, help="Longer and with more data.")
def bench(name: str, *, kind: str | None, as_json: bool, thorough: bool) -> None:
    """Measure on this machine. Figures are medians; ratios are to a limit measured in the same run."""
    if kind is not None and name != "historian":
        raise click.UsageError("`--type` goes with `historian` only: shopfloor bench historian --type postgres")
    from shopfloor import logs, reports  # noqa: PLC0415
    from shopfloor.samples import Misconfigured  # noqa: PLC0415

    logs.configure("warning")
    for one in BENCHES if name == "all" else (name,):
        try:
            if kind in ("mysql", "postgres"):
                results = importlib.import_module("shopfloor.bench.historian_tables").run(kind, thorough=thorough)
            else:
                results = importlib.import_module(f"shopfloor.bench.{one.replace('-', '_')}").run(thorough=thorough)
        except Misconfigured as error:
            if name != "all":
                raise
            click.echo(f"{one}: not measured: {error}", err=True)  # one that lacks a program must not cost the others
            continue
        click.echo(reports.bench_json(one, results) if as_json else reports.bench(one, results))
