"""A browser on the console's pages: what the tests of the pages have in common."""

import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from playwright.sync_api import BrowserContext, Locator, Page, expect

from shopfloor.testing.programs import ServerProcess, free_port, missing

T = TypeVar("T")

ROOT: Final = Path(__file__).parents[2]
APP: Final = ROOT / "src" / "shopfloor" / "console" / "app"
AXE: Final = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
PATIENCE: Final = 30_000
"""ms that a page may take to show what it must."""
PAGES: Final = {
    "overview": "#/",
    "tags": "#/tags",
    "trend": "#/trend?tag=press-1/PV&tag=press-1/SP&range=5m",
    "buckets": "#/trend?tag=press-1/PV&tag=oven-2/Temperature&range=24h",
    "machine": "#/machines/press-1",
    "components": "#/components",
}


class Stage(ServerProcess):
    """The console of a plant that acts, in a process of its own."""

    def __init__(self, folder: Path, sensors: int, *actors: str) -> None:
        port = free_port()
        program = Path(__file__).with_name("stage.py")
        super().__init__([sys.executable, program, str(port), folder, str(sensors), *actors], port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def audit(self, after: int = 0) -> list[tuple[str, str, str]]:
        """Event, tag and detail of the records behind a number, oldest first."""
        records = self.ask("api/audit?limit=1000")["records"]
        return [(r["event"], r["tag"], r["detail"]) for r in reversed(records) if r["number"] > after]

    def last_record(self) -> int:
        records = self.ask("api/audit?limit=1")["records"]
        return int(records[0]["number"]) if records else 0


def until(question: Callable[[], T], seconds: float = 30) -> T:
    """Ask until the answer is true; the last answer when time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


class Watched:
    """A page and everything that went wrong on it."""

    def __init__(self, context: BrowserContext) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def open(self, stage: Stage, address: str) -> Page:
        self.page.goto(stage.url + address)
        expect(self.page.locator(".stream")).to_have_text("Live")
        return self.page


def picture(page: Page, name: str) -> None:
    """Keeps what the page looks like where SHOPFLOOR_PICTURES names a folder, to be looked at."""
    if folder := os.environ.get("SHOPFLOOR_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def settled(page: Page) -> None:
    """Wait for what the pages show first."""
    expect(page.locator("h1")).to_be_visible()
    page.wait_for_function("document.querySelectorAll('main .card, main table, main [role=table]').length > 0")


def violations(page: Page) -> list[str]:
    """What axe finds wrong: rule and place."""
    if not AXE.is_file():
        missing("axe-core is not installed", "npm ci in web/, as make web does")
    page.evaluate(AXE.read_text())
    found: list[dict[str, Any]] = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)"
    )
    return [f"{v['id']}: {node['target']} {node['failureSummary']}" for v in found for node in v["nodes"]]


def row(page: Page, tag: str) -> Locator:
    return page.locator(f'[role="row"][data-tag="{tag}"]')
