"""A console over a fake plant: as an application, as a server on a free port, and in a browser over one that acts."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from shopfloor.console import create_app, serve
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.testing.programs import free_port, missing, require_program
from tests.console.fakes import FakeHistorianConfig, FakeRuntime
from tests.console.filler import NOW, PLANT, Filler, journalled
from tests.console.pages import APP, FLAGS, PATIENCE, Stage, Watched
from tests.console.worked import processor


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
async def plant(tmp_path: Path) -> AsyncIterator[FakeRuntime]:
    """The console's plant after that day, with all of it in a real historian."""
    runtime = FakeRuntime(tmp_path)
    config, _ = processor(PLANT)
    runtime.plant = PLANT.model_copy(
        update={
            "sources": [Filler(name="plc", type="fake")],
            "processors": [config],
            "historian": FakeHistorianConfig(type="fake"),
        }
    )
    async with DuckDbConfig(type="duckdb", path=tmp_path / "h.duckdb").build() as store, runtime.commands:
        await store.write_many([(offset, batch) for offset, batch in enumerate(journalled(), 1) if len(batch)])
        for batch in journalled():
            runtime.live.take(batch)
        runtime.historian = store
        runtime.clock = NOW
        yield runtime


@pytest.fixture
async def asked(plant: FakeRuntime, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Asks the console of the filler."""
    transport = httpx.ASGITransport(create_app(plant, now=lambda: plant.clock, folder=tmp_path / "app"))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client


@pytest.fixture
async def address(runtime: FakeRuntime) -> AsyncIterator[str]:
    """``host:port`` of a console that really listens."""
    listen = f"127.0.0.1:{free_port()}"
    ready = asyncio.Event()
    serving = asyncio.create_task(serve(runtime, listen, ready))
    async with asyncio.timeout(60):
        await ready.wait()
    yield listen
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        expect.set_options(timeout=PATIENCE)
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    program = require_program("chromium", "apt-get install chromium")
    if not (APP / "index.html").is_file():
        missing("the web app is not built", "make web")
    browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage"), 1_000) as stage:
        yield stage


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The console of a plant file that declares nothing."""
    with Stage(tmp_path_factory.mktemp("empty"), -1) as stage:
        yield stage


@pytest.fixture
def desktop(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    yield Watched(context)
    context.close()


@pytest.fixture
def phone(playwright: Playwright, browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(**playwright.devices["Pixel 7"])
    yield Watched(context)
    context.close()
