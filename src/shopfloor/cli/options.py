"""What verbs share: options that several have, texts that become numbers, and how work is run to its end."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import click

PLANT: Final = click.argument("plant", type=click.Path(path_type=Path))


def _base(_context: click.Context, _parameter: click.Parameter, url: str) -> str:
    """The address as the API's paths are put behind it; people leave ``http://`` out."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


URL: Final = click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    envvar="SHOPFLOOR_URL",
    callback=_base,
    help="The console of the plant.",
)


def execute(work: Coroutine[Any, Any, int | None]) -> None:
    """Run to the end on uvloop where there is one; a number that it returns is the exit code."""
    try:
        import uvloop  # noqa: PLC0415  # not on Windows
    except ImportError:
        code = asyncio.run(work)
    else:
        code = uvloop.run(work)
    if code:
        raise click.exceptions.Exit(code)


def seconds(duration: str | None) -> float | None:
    """What `--for` says, in seconds; None: without an end."""
    return None if duration is None else duration_ns(duration, "--for") / 1e9


def duration_ns(text: str, option: str) -> int:
    """A duration in ns."""
    from shopfloor.plant import parse_duration  # noqa: PLC0415

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error
