"""What is generated is up to date, every option is described, and every link leads somewhere.

That every public class and function is documented is ruff's to say (rules D1).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from shopfloor.plant import Kind, config_class
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
