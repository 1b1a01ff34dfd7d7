"""``shopfloor service``: a plant under systemd."""

from pathlib import Path
from typing import Final

import click

from shopfloor.cli.options import PLANT


@click.group()
def service() -> None:
    """A plant as a service of systemd, under a user of its own."""


NAME: Final = click.option("--name", default="shopfloor", show_default=True, help="What the service is called.")
ROOT: Final = click.option(
    "--root", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Not here: in the image of a system."
)


@service.command("install")
@PLANT
@NAME
@click.option("--user", default="shopfloor", show_default=True, help="As whom it runs; made when there is none.")
@click.option(
    "--environment", type=click.Path(path_type=Path), help="File with NAME=value lines: what ${NAME} stands for."
)
@ROOT
def service_install(plant: Path, name: str, user: str, environment: Path | None, root: Path | None) -> None:
    """Run a plant file as a service, now and at each boot. Needs root; docs/service.md says what it writes."""
    from shopfloor import service as services  # noqa: PLC0415

    services.install(plant, name, user, environment, root)


@service.command("uninstall")
@NAME
@ROOT
def service_uninstall(name: str, root: Path | None) -> None:
    """Stop the service and take it away; its user and data stay."""
    from shopfloor import service as services  # noqa: PLC0415

    services.uninstall(name, root)


@service.command("status")
@NAME
def service_status(name: str) -> None:
    """How the service is, and its newest log lines."""
    from shopfloor import service as services  # noqa: PLC0415

    raise click.exceptions.Exit(services.status(name))
