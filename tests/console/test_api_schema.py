"""Whatever the OpenAPI document allows or forbids is answered as it says, and never with 500."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from shopfloor.console import create_app, serve
from shopfloor.samples import Sample
from shopfloor.testing.programs import free_port
from tests.console.fakes import T0, FakeRuntime

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


SCHEMA = schemathesis.openapi.from_dict(create_app(FakeRuntime(Path("unused"))).openapi())
# The stream never ends; it has tests of its own.
api = SCHEMA.exclude(path="/api/live")


class Server(threading.Thread):
    """A console that listens, in a thread: schemathesis calls it from blocking code."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.listen = f"127.0.0.1:{free_port()}"
        self.up = threading.Event()
        self.stop = threading.Event()

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        runtime, up = FakeRuntime(self.folder), asyncio.Event()
        runtime.give(Sample("press-1/PV", T0, 41.5), Sample("press-1/good", T0, 2**63))
        async with runtime.commands:
            serving = asyncio.create_task(serve(runtime, self.listen, up))
            await up.wait()
            self.up.set()
            await asyncio.to_thread(self.stop.wait)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the console is."""
    server = Server(tmp_path_factory.mktemp("console"))
    server.start()
    assert server.up.wait(20)
    yield f"http://{server.listen}"
    server.stop.set()
    server.join(20)


@api.parametrize()
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_keeps_to_its_schema(case: schemathesis.Case[Any], base_url: str) -> None:
    case.call_and_validate(base_url=base_url, checks=CHECKS, timeout=60)
