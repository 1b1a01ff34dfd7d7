"""Writes the pages of docs/ that come from the code: `tools/docs.py`, or `--check` whether they are up to date.

The command line's page comes from click's help. The tables of options come from the config models by
way of the plant file's JSON Schema; they stand between two marks, the text round them is written by hand.
"""

import difflib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

from shopfloor.cli import shopfloor
from shopfloor.plant import schema, types
from shopfloor.plant.components import Kind, config_class

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a program has its own folder on the path, not the checkout

from tools import sparkplug  # noqa: E402  # found by the line above

DOCS: Final = ROOT / "docs"
BEGIN: Final = "<!-- options:begin -->"
END: Final = "<!-- options:end -->"
GENERATED: Final = "<!-- written by `make docs`; change the code instead -->"
KINDS: Final[dict[Kind, str]] = {
    "sources": "Sources",
    "processors": "Processors",
    "sinks": "Sinks",
    "historians": "Historians",
}
WORDS: Final = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "string": "text",
    "shopfloor-duration": "duration",
    "shopfloor-size": "size",
    "path": "path",
}
BOUNDS: Final = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}

Schema: TypeAlias = dict[str, Any]


def pages() -> dict[Path, str]:
    """Every page that is generated, in whole or in part, as it should be."""
    plant = schema()
    found = {
        DOCS / "cli.md": cli_page(),
        DOCS / "plant-file.md": with_options(DOCS / "plant-file.md", sections(plant)),
        DOCS / "connectors" / "README.md": connectors(),
        sparkplug.PAGE: sparkplug.page(),
    }
    for kind, name in own_types():
        page = connector_page(kind, name)
        model = config_class(kind, name)
        heading = f"# {name}\n\n{first_sentence(model.__doc__ or '')}\n\n## Options\n{BEGIN}\n{END}\n"
        found[page] = with_options(page, options(plant, plant["$defs"][model.__name__], 3), heading)
    return found


def own_types() -> Iterator[tuple[Kind, str]]:
    """The connectors that Shopfloor brings itself; outsiders' document themselves."""
    for kind in KINDS:
        yield from ((kind, name) for name, value in types(kind).items() if value.startswith("shopfloor."))


def connector_page(kind: Kind, name: str) -> Path:
    """Where a connector is documented. One that is both source and sink has a page for each."""
    both = [other for other, of_that_name in own_types() if of_that_name == name]
    return DOCS / "connectors" / (f"{name}-{kind.removesuffix('s')}.md" if len(both) > 1 else f"{name}.md")


def with_options(page: Path, table: str, new: str = f"{BEGIN}\n{END}\n") -> str:
    """The page's text with the table between its marks; ``new`` is the text of a page that is not there yet."""
    text = page.read_text("utf-8") if page.exists() else new
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"{page}: put the two lines {BEGIN} and {END} where the table of options belongs")
    return f"{before}{BEGIN}\n{GENERATED}\n\n{table.strip()}\n\n{END}{after}"


def cli_page() -> str:
    """Every verb's own help."""
    parts = [
        "# The command line",
        GENERATED,
        "Exit code 0: done. 1: it failed. 2: you must change something; the message says what.",
    ]
    parts += [f"## {name}\n\n```\n{text}\n```" for name, text in helps(shopfloor, "shopfloor")]
    return "\n\n".join(parts) + "\n"


def helps(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """The help of a command and of everything below it, by full name."""
    settings = {"terminal_width": 100, **command.context_settings}
    context = click.Context(command, parent, info_name=name.rpartition(" ")[2], **settings)
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            inner = command.get_command(context, verb)
            if inner is not None:
                yield from helps(inner, f"{name} {verb}", context)


def connectors() -> str:
    """The list of all connectors, with a sentence and the page of each."""
    parts = ["# Connectors", GENERATED, "What a plant file's `type` can be. Each page says what is promised."]
    for kind, title in KINDS.items():
        names = [name for of_kind, name in own_types() if of_kind == kind]
        said = {name: first_sentence(config_class(kind, name).__doc__ or "") for name in names}
        rows = [f"| [{name}]({connector_page(kind, name).name}) | {said[name]} |" for name in names]
        parts.append("\n".join([f"## {title}", "", "| type | what it is |", "|---|---|", *rows]))
    parts.append(
        "## Your own\n\nA package that registers a config model under the entry point `shopfloor.sources`, "
        "`shopfloor.processors`,\n`shopfloor.sinks` or `shopfloor.historians` adds a type; "
        "`shopfloor schema` and `shopfloor check` then know it too."
    )
    return "\n\n".join(parts) + "\n"


def sections(plant: Schema) -> str:
    """The plant file's own sections; a component's options are on its connector's page."""
    own = {"sources": "source", "processors": "processor", "sinks": "sink"}
    rows: list[str] = []
    for key, part in plant["properties"].items():
        what = f"list of {own[key]}s, see [connectors](connectors/README.md)" if key in own else in_words(part)
        what = "options of its [connector](connectors/README.md)" if key == "historian" else what
        inner = next(references(part), None) if part.get("type") != "array" else None
        described = {"description": first_sentence(plant["$defs"][inner]["description"])} if inner else {}
        rows.append(row(key, described | part, what, required=key in plant["required"]))
    parts = ["\n".join([*HEAD, *rows])]
    for key, part in plant["properties"].items():
        if key not in own and key != "historian":
            parts.append(nested(plant, key, part, 3))
    return "\n\n".join(parts)


HEAD: Final = ("| key | what | default | meaning |", "|---|---|---|---|")


def options(plant: Schema, model: Schema, level: int) -> str:
    """The table of a model's options, followed by those of the models in it."""
    required = model.get("required", [])
    properties = {key: part for key, part in model["properties"].items() if "const" not in part}
    rows = [row(key, part, in_words(part), required=key in required) for key, part in properties.items()]
    inner = [nested(plant, key, part, level) for key, part in properties.items()]
    return "\n\n".join(["\n".join([*HEAD, *rows]), *filter(None, inner)])


def nested(plant: Schema, key: str, part: Schema, level: int) -> str:
    """The tables of the models that an option holds."""
    found = [plant["$defs"][name] for name in references(part) if name != "Variable"]
    title = f"each of `{key}`" if part.get("type") == "array" else f"`{key}`"
    return "\n\n".join(
        f"{'#' * level} {title}\n\n{first_sentence(model.get('description', ''))}\n\n{options(plant, model, level + 1)}"
        for model in found
        if "properties" in model
    )


def row(key: str, part: Schema, what: str, *, required: bool) -> str:
    """One line of a table."""
    default = part.get("default")
    if required:
        shown = "required"
    elif default is None or isinstance(default, dict):
        shown = "none"
    else:
        shown = f"`{default if isinstance(default, str) and default else json.dumps(default)}`"
    cells = (f"`{key}`", what, shown, part.get("description", ""))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def in_words(part: Schema) -> str:
    """What kind of value an option takes."""
    alternatives = part.get("anyOf") or part.get("oneOf")
    if alternatives:
        text = " or ".join(dict.fromkeys(filter(None, map(in_words, alternatives))))
    elif "$ref" in part:
        text = "" if part["$ref"].endswith("/Variable") else "options, see below"
    elif "enum" in part:
        text = ", ".join(f"`{word}`" for word in part["enum"])
    elif "const" in part:
        text = f"`{part['const']}`"
    elif part.get("type") == "array":
        text = list_in_words(part)
    elif part.get("type") == "object":
        text = f"mapping of names to {in_words(part.get('additionalProperties') or {}) or 'values'}"
    else:
        text = scalar_in_words(part)
    return text


def scalar_in_words(part: Schema) -> str:
    """What kind of single value it is, and its bounds."""
    if part.get("writeOnly"):
        return "secret, `${NAME}`"
    word = WORDS.get(part.get("format", ""), WORDS.get(part.get("type", ""), ""))
    bounds = [f"{said} {part[key]}" for key, said in BOUNDS.items() if key in part and "format" not in part]
    return " ".join([word, *bounds])


def list_in_words(part: Schema) -> str:
    """What a list holds."""
    if "prefixItems" in part:
        return f"[{', '.join(in_words(item) for item in part['prefixItems'])}]"
    return f"list of {in_words(part.get('items', {})) or 'values'}"


def references(part: Any) -> Iterator[str]:
    """The names of the definitions that a schema refers to, directly or in its lists and alternatives."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].rpartition("/")[2]
        for key in ("items", "anyOf", "oneOf", "prefixItems", "additionalProperties"):
            yield from references(part.get(key))
    elif isinstance(part, list):
        for item in part:
            yield from references(item)


def first_sentence(text: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


def stale() -> Iterator[str]:
    """For each page that is not up to date: what differs."""
    for page, text in pages().items():
        written = page.read_text("utf-8") if page.exists() else ""
        if written != text:
            lines = difflib.unified_diff(written.splitlines(), text.splitlines(), "written", "generated", "", "", 0, "")
            yield "\n".join([f"{page.relative_to(ROOT)} is not up to date; run `make docs`", *list(lines)[:10]])


def main() -> None:
    """Write the pages, or say which are not up to date."""
    if "--check" in sys.argv[1:]:
        problems = list(stale())
        sys.exit("\n".join(problems) if problems else 0)
    for page, text in pages().items():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
