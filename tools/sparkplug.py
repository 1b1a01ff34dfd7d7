"""Makes docs/sparkplug.md: each assertion of the Sparkplug specification, and the tests that show it.

The assertions, in our words, and the reasons why some do not concern Shopfloor are tables beside the tests. A
test names what it shows by ``@pytest.mark.sparkplug("tck-id-…")``; the marks are read from the source, none runs.
"""

import ast
import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from shopfloor.protocols.sparkplug import rules

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "sparkplug.md"
DATA: Final = ROOT / "tests" / "protocols"
ASSERTIONS: Final = DATA / "sparkplug-assertions.tsv"
REASONS: Final = DATA / "sparkplug-reasons.tsv"
UNMET: Final = DATA / "sparkplug-unmet.tsv"
FAULTS: Final = DATA / "sparkplug-peers.tsv"
MARKS: Final = ("pytest.mark.sparkplug", "mark.sparkplug")
GENERATED: Final = "<!-- written by `make docs`; change the marks of the tests or the tables beside them instead -->"
STATES: Final = ("tested", "not met", "does not apply", "not yet")
INTRODUCTION: Final = """\
What Sparkplug 3.0 (ISO/IEC 20237) demands, clause by clause, and what shows that Shopfloor does it.
The identifiers are the specification's own, the sentences are ours. *Tested* means that a test which can
fail names the clause; *not yet* means that nothing shows it, whatever the code does; *not met* says where
Shopfloor is known to do otherwise, even where tests show that it mostly does.
**L** marks what `shopfloor sparkplug listen` finds in the traffic of others: it names the clause that a
message breaks."""
CHAPTERS: Final = {
    "1": "Introduction",
    "2": "Principles",
    "3": "Components",
    "4": "Topics",
    "5": "Operational behaviour",
    "6": "Payloads",
    "10": "Conformance of brokers and hosts",
}


class Assertion(NamedTuple):
    """A demand of the specification."""

    id: str
    applies_to: str
    level: str
    sentence: str
    chapter: str


class Showing(NamedTuple):
    """A test, and what it says it shows."""

    file: Path
    test: str
    line: int
    ids: tuple[str, ...]


def assertions(file: Path = ASSERTIONS) -> dict[str, Assertion]:
    """All demands by id, in the order of the specification."""
    return {
        row["id"]: Assertion(
            row["id"], row["applies_to"], row["level"], row["paraphrase"], row["chapter_line"].partition("_")[0]
        )
        for row in _table(file)
    }


def reasons(file: Path) -> dict[str, str]:
    """Why a demand does not apply to Shopfloor (``REASONS``) or is known to be broken by it (``UNMET``), by id."""
    return {row["id"]: row["reason"] for row in _table(file)}


def _table(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def showings(folder: Path = ROOT / "tests") -> Iterator[Showing]:
    """The marks of all tests. Raises ValueError for a mark that stands elsewhere or is no plain text."""
    for file in sorted(folder.rglob("test_*.py")):
        text = file.read_text("utf-8")
        if "mark.sparkplug" in text:
            yield from _marked(file, ast.parse(text))


def _marked(file: Path, tree: ast.Module) -> Iterator[Showing]:
    taken: set[ast.AST] = set()
    for place, name in _tests(tree):
        for mark in (node for decorator in place.decorator_list for node in ast.walk(decorator) if _is_mark(node)):
            taken.add(mark)
            yield Showing(file, name, place.lineno, tuple(_ids(file, mark)))
    for node in ast.walk(tree):
        if _is_mark(node) and node not in taken:
            raise ValueError(f"{file}:{_line(node)}: write the mark as a decorator of the test that shows it")


def _tests(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, str]]:
    """Every function and class with its name as pytest shows it."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, node.name
        elif isinstance(node, ast.ClassDef):
            yield node, node.name
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield inner, f"{node.name}::{inner.name}"


def _is_mark(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in MARKS


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


def _ids(file: Path, mark: ast.AST) -> Iterator[str]:
    arguments = mark.args if isinstance(mark, ast.Call) else []
    for argument in arguments:
        match argument:
            case ast.Constant(value=str(name)):
                yield name
            case _:
                raise ValueError(f"{file}:{_line(mark)}: a mark names its assertions as plain texts")


class Evidence(NamedTuple):
    """What is known of the demands, each by its id."""

    tests: Mapping[str, Sequence[Showing]]
    unmet: Mapping[str, str]
    foreign: Mapping[str, str]
    """Those that do not apply."""

    def state(self, name: str) -> str:
        """One of ``STATES``. What is known to be broken counts for more than a test, a test for more than a reason."""
        if name in self.unmet:
            return "not met"
        if name in self.tests:
            return "tested"
        return "does not apply" if name in self.foreign else "not yet"


def evidence() -> Evidence:
    """What marks and tables say."""
    tests: dict[str, list[Showing]] = defaultdict(list)
    for one in showings():
        for name in dict.fromkeys(one.ids):
            tests[name].append(one)
    return Evidence(dict(tests), reasons(UNMET), reasons(REASONS))


def problems(known: Mapping[str, Assertion], said: Evidence) -> Iterator[str]:
    """What names no assertion that there is."""
    for name, shown in said.tests.items():
        yield from (f"{one.file}:{one.line}: {name} is no assertion" for one in shown if name not in known)
    yield from (f"{UNMET}: {name} is no assertion" for name in said.unmet if name not in known)
    yield from (f"{REASONS}: {name} is no assertion" for name in said.foreign if name not in known)
    yield from (f"rules.py: {name} is no assertion" for name in sorted(rules.ASSERTIONS) if name not in known)


def page() -> str:
    """The page's text. Raises ValueError when marks, reasons and assertions do not fit together."""
    known, said = assertions(), evidence()
    wrong = list(problems(known, said))
    if wrong:
        raise ValueError("\n".join(wrong))
    parts = ["# Sparkplug B", GENERATED, INTRODUCTION, _summary(known, said), _peers()]
    for number, title in CHAPTERS.items():
        rows = [_row(one, said) for one in known.values() if one.chapter == number]
        head = ("| clause | who | demand | shown by |", "|---|---|---|---|")
        parts.append("\n".join([f"## Chapter {number}: {title}", "", *head, *rows]))
    return "\n\n".join(parts) + "\n"


def _summary(known: Mapping[str, Assertion], said: Evidence) -> str:
    counts = Counter((one.applies_to, said.state(one.id)) for one in known.values())
    found = Counter(known[name].applies_to for name in rules.ASSERTIONS)
    who = sorted({one.applies_to for one in known.values()})
    lines = [(one, *(counts[one, state] for state in STATES), found[one]) for one in who]
    totals = (sum(counts[one, state] for one in who) for state in STATES)
    lines.append((f"**all {len(known)}**", *totals, found.total()))
    rows = [f"| {' | '.join(map(str, line))} |" for line in lines]
    return "\n".join([f"| who | {' | '.join(STATES)} | L |", "|---|---|---|---|---|---|", *rows])


def _row(one: Assertion, said: Evidence) -> str:
    clause = f"`{one.id.removeprefix('tck-id-')}`{' **L**' if one.id in rules.ASSERTIONS else ''}"
    who = one.applies_to if one.level == "MUST" else f"{one.applies_to} ({one.level})"
    shown = said.state(one.id)
    if shown == "tested":
        tests = said.tests[one.id]
        shown = ", ".join(f"[{each.test}](../{each.file.relative_to(ROOT).as_posix()})" for each in tests)
    elif one.id in said.unmet or one.id in said.foreign:
        shown = f"{shown}: {said.unmet.get(one.id) or said.foreign[one.id]}"
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (clause, who, one.sentence, shown)) + " |"


def _peers() -> str:
    """What other implementations do otherwise."""
    rows = [f"| {row['peer']} | {row['fault']} |" for row in _table(FAULTS)]
    said = (
        "Seen with `shopfloor sparkplug listen` at a Mosquitto between them, and in what they make of our messages.\n"
        "Tests show that [our host](../tests/sources/test_sparkplug_peers.py) and "
        "[our edge node](../tests/sinks/test_sparkplug_hosts.py) live with them."
    )
    return "\n".join(["## Faults of other implementations", "", said, "", "| what | fault |", "|---|---|", *rows])
