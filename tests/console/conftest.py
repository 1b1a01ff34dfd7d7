"""A console over a fake plant: as an application, and as a server on a free port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from shopfloor.console import create_app, serve
from shopfloor.testing.programs import free_port
from tests.console.fakes import FakeRuntime


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[FakeRuntime]:
    """The fake plant, its commands open."""
    runtime = FakeRuntime(tmp_path)
    async with runtime.commands:
        yield runtime


@pytest.fixture
def app(runtime: FakeRuntime, tmp_path: Path) -> FastAPI:
    """The console with a small built app."""
    folder = tmp_path / "app"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>the app</title>")
    (folder / "sw.js").write_text("//")
    (folder / "assets" / "index-abc.js").write_text("console.log(1)")
    (tmp_path / "secret.txt").write_text("secret")
    return create_app(runtime, hosts=["console.plant.example"], folder=folder)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Asks the application directly."""
    transport = httpx.ASGITransport(app, client=("10.0.3.7", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client


@pytest.fixture
async def address(runtime: FakeRuntime) -> AsyncIterator[str]:
    """``host:port`` of a console that really listens."""
    listen = f"127.0.0.1:{free_port()}"
    ready = asyncio.Event()
    serving = asyncio.create_task(serve(runtime, listen, ready))
    async with asyncio.timeout(10):
        await ready.wait()
    yield listen
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
