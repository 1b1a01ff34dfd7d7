"""What is generated is up to date, every option is described, and every link leads somewhere.

That every public class and function is documented is ruff's to say (rules D1).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from shopfloor.chaos import FAULTS
from shopfloor.plant import Kind, config_class
from tests.soak.destinations import ALL
from tools import docs

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def test_generated_pages_are_up_to_date() -> None:
    """`make docs` writes them anew."""
    assert not "\n\n".join(docs.stale())


def fields(kind: Kind, name: str) -> Iterator[tuple[str, FieldInfo]]:
    yield from config_class(kind, name).model_fields.items()


@pytest.mark.parametrize(("kind", "name"), list(docs.own_types()))
def test_every_option_of_a_connector_is_described_and_its_default_is_allowed(kind: Kind, name: str) -> None:
    for option, field in fields(kind, name):
        assert field.description or option == "type", f"{name}.{option} has no description"
        if not field.is_required() and field.annotation is not None:
            TypeAdapter(field.annotation).validate_python(field.get_default(call_default_factory=True))


@pytest.mark.parametrize(("kind", "name"), list(docs.own_types()))
def test_every_connector_has_a_page_that_says_more_than_its_options(kind: Kind, name: str) -> None:
    text = docs.connector_page(kind, name).read_text("utf-8")
    before, _, rest = text.partition(docs.BEGIN)
    by_hand = before + rest.partition(docs.END)[2]
    assert len(by_hand.split()) > 60, "say what is promised, what is not, and give an example"


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for found in LINK.finditer(FENCE.sub("", page.read_text("utf-8"))):
        link = unquote(found[1] or found[2])
        if re.match(r"[a-z]+:", link):
            continue  # the world outside is not this test's business
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists():
            yield f"{page}: there is no {link}"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"{page}: {file or 'this page'} has no heading for #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert not "\n".join(broken_links(page))


DELIVERY = ROOT / "docs" / "specs" / "delivery.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DELIVERY.read_text("utf-8").partition("## Which test shows it")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ")
]
"""Of the table of sinks and faults; its head first."""


def named_tests(sink: str) -> str:
    """The text of all tests of a sink."""
    folder = ROOT / "tests" / ("historian" if sink == "historian" else "sinks")
    files = sorted(folder.glob("test_*.py" if sink == "historian" else f"test_{sink}*.py"))
    return "\n".join(file.read_text("utf-8") for file in files)


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: row[0])
def test_each_cell_of_delivery_names_a_test_that_there_is(row: Sequence[str]) -> None:
    """Or says that there is none: what is promised is shown, or it is known that it is not."""
    sink = row[0].rstrip("¹²")
    text = named_tests(sink)
    names = " ".join(re.findall(r"def (test_\w+)", text))
    faults = {fault.name for fault in FAULTS}
    assert len(row) == len(ROWS[0])
    for fault, cell in zip(ROWS[0][1:], row[1:], strict=True):
        named = re.findall(r"`([^`]+)`", cell)
        for words in named:
            assert words in faults or words in names, f"{sink}, {fault}: there is no test with {words} in its name"
        by_contract, by_soak = "contract" in cell, re.search(r"\bsoak\b", cell) is not None
        assert named or by_contract or by_soak or "no test: " in cell, f"{sink}, {fault}: {cell!r} names no test"
        assert not by_contract or "(SinkContract)" in text
        assert not by_contract or fault != "black-holed" or "async def freeze" in text, f"{sink}: its rig cuts no cable"
        assert not by_soak or sink in {one.name for one in ALL}, f"{sink} is not in the soak"


def test_each_sink_has_its_row_in_delivery() -> None:
    """A new one must say what happens to it."""
    sinks = {name for kind, name in docs.own_types() if kind == "sinks"}
    assert {row[0].rstrip("¹²") for row in ROWS[1:]} == {*sinks, "historian"}
