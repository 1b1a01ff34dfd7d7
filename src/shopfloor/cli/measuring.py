"""``shopfloor bench``: how fast it is here."""

import importlib
from typing import Final

import click

BENCHES: Final = (
    "journal",
    "historian",
    "opcua",
    "kpi",
    "s7",
    "modbus",
    "logix",
    "connections",
    "mqtt",
    "sparkplug",
    "recorder",
    "sinks",
)


@click.command()
@click.argument("name", type=click.Choice([*BENCHES, "all"]))
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
@click.option("--thorough", is_flag=True, help="Longer and with more data.")
def bench(name: str, *, as_json: bool, thorough: bool) -> None:
    """Measure on this machine. Figures are medians; ratios are to a limit measured in the same run."""
    from shopfloor import reports  # noqa: PLC0415
    from shopfloor.samples import Misconfigured  # noqa: PLC0415

    for one in BENCHES if name == "all" else (name,):
        try:
            results = importlib.import_module(f"shopfloor.bench.{one}").run(thorough=thorough)
        except Misconfigured as error:
            if name != "all":
                raise
            click.echo(f"{one}: not measured: {error}", err=True)  # one that lacks a program must not cost the others
            continue
        click.echo(reports.bench_json(one, results) if as_json else reports.bench(one, results))
