"""Logs: one JSON object a line on stderr, or the human form on a terminal."""

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final


@contextmanager
def _absent(name: str) -> Generator[None]:
    """Let what is imported in the block not find a package that is optional to it."""
    held = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # so the import system says that there is none
    try:
        yield
    finally:
        del sys.modules[name]
        if held is not None:
            sys.modules[name] = held


with _absent("rich"):
    # Where rich is installed structlog loads it to colour tracebacks: 5 MB and 0.1 s in each process, and such
    # tracebacks show the values of variables, secrets among them. `shopfloor run` imports this module first.
    import structlog

LEVELS: Final = ("debug", "info", "warning", "error")
QUIET: Final = (
    "asyncua",
    "httpx",
    "httpcore",
    "pycomm3",
    "psycopg",
    "pymodbus",
    "gmqtt",
    "amqtt",
    "transitions",
    "uvicorn",
    "asyncio",
)
"""Libraries whose own words are only wanted when they are desperate: the pipeline says it better, and once."""


def _in_order(_logger: object, _name: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """What every line has first, so that people find it."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "logger", "message") if key in event}
    return {**first, **event}


def configure(level: str = "info") -> None:
    """Send structlog's and the standard library's records to stderr in one form.

    Fields of the JSON form: timestamp (ISO 8601, UTC), level, logger, message, and what the record adds.
    """
    terminal = sys.stderr.isatty()
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal, key="timestamp"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=True)]
        if terminal
        else [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            _in_order,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL if level != "debug" else logging.DEBUG)
