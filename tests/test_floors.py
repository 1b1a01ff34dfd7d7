"""Imports only go down: a room knows the rooms below it, never one of its own floor or above."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import shopfloor

PACKAGE = Path(shopfloor.__file__).parent
FLOORS = (
    {"samples", "seams", "turns", "interpreter"},
    {"plant", "journal", "protocols"},
    {"historian", "commands", "importing", "kpi"},
    {"sources", "processors", "sinks", "simulators", "cluster"},
    {"pipeline"},
    {"console", "bench"},
    {"cli"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms} | {"__init__": 0, "testing": 4}
CLI = {
    "__main__",
    "browsing",
    "chaos",
    "demo",
    "kafka_topics",
    "listening",
    "load_test",
    "logs",
    "notify",
    "refused",
    "remote",
    "replaying",
    "reports",
    "running",
    "scenarios",
    "service",
}  # beside the command line
MAY_USE_TESTING = {"testing", "bench"}
SEAMS_KNOW = ("seams", "samples")  # the one import inside a floor: the seams speak of samples


def room_of(module: Path) -> str:
    return named(module.relative_to(PACKAGE).parts[0].removesuffix(".py"))


def named(part: str) -> str:
    return "cli" if part in CLI else part


def rooms_imported(module: Path) -> Iterator[tuple[str, int]]:
    """The rooms that a module imports, anywhere in it, with the line."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "shopfloor":
            names = [f"shopfloor.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import; name the module in full"
            names = [node.module or ""]
        else:
            continue
        yield from ((named(name.split(".")[1]), node.lineno) for name in names if name.startswith("shopfloor."))


def allowed(room: str, other: str) -> bool:
    if other == "testing":
        return room in MAY_USE_TESTING
    return room == other or (room, other) == SEAMS_KNOW or FLOOR[other] < FLOOR[room]


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(module: Path) -> None:
    room = room_of(module)
    assert room in FLOOR, f"{room} stands on no floor; the rooms are in docs/architecture.md"
    wrong = [f"{module}:{line}: {room} imports {other}" for other, line in rooms_imported(module)
             if not allowed(room, other)]  # fmt: skip
    assert not wrong, "\n".join(wrong)
