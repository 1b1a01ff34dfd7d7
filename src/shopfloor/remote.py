"""The verbs that talk to a running plant over its HTTP API (docs/api.md)."""

import json
from datetime import UTC, datetime
from typing import Any

import click
import httpx

from shopfloor.plant import tag_pattern
from shopfloor.samples import Misconfigured, Unavailable


def tap(url: str, tag: str) -> None:
    """Print every change of the tags that match, until Ctrl-C or the plant stops. Raises Unavailable."""
    matches = tag_pattern(tag).fullmatch
    names: list[str] = []
    seen = False
    try:
        with httpx.stream("GET", f"{url}/api/live", timeout=httpx.Timeout(10, read=15)) as answer:
            _demand(answer)
            for line in answer.iter_lines():
                if not line.startswith("data:"):
                    continue
                event = json.loads(line[5:])
                if "tags" not in event and "values" in event:
                    names.clear()
                    event["tags"] = range(len(event["names"]))
                names.extend(event.get("names", ()))
                if not seen and names and not any(map(matches, names)):
                    raise Misconfigured(f"the plant at {url} has no tag {tag!r}; GET {url}/api/tags lists them")
                seen = seen or bool(names)
                _print_changes(event, names, matches)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"{url} does not answer: {error}; is the plant running, is --url right?") from error


def _print_changes(event: dict[str, Any], names: list[str], matches: Any) -> None:
    columns = (event.get(name, ()) for name in ("tags", "values", "times", "qualities"))
    for index, value, at, quality in zip(*columns, strict=True):
        if at is not None and matches(names[index]):
            moment = datetime.fromtimestamp(at / 1e3, UTC).isoformat(timespec="milliseconds")
            click.echo(f"{moment}  {names[index]}  {json.dumps(value, ensure_ascii=False)}  quality {quality}")


def send(url: str, tag: str, value: str) -> int:
    """Write once; prints what became of it. The exit code: 0 done, 1 not done or unknown. Raises Misconfigured."""
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    try:
        answer = httpx.post(f"{url}/api/commands", json={"tag": tag, "value": parsed}, timeout=30)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"{url} does not answer: {error}; is the plant running, is --url right?") from error
    _demand(answer)
    outcome = answer.json()
    words = {True: "", False: "NOT written: ", None: "UNKNOWN, look at the machine: "}
    click.echo(f"{tag} = {value}: {words[outcome['done']]}{outcome['detail'].removeprefix('not written: ')}")
    return 0 if outcome["done"] else 1


def _demand(answer: httpx.Response) -> None:
    """Raise what a problem document says."""
    if answer.is_success:
        return
    answer.read()
    try:
        problem = answer.json()
        text = f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError):
        text = f"HTTP {answer.status_code}"
    if answer.is_server_error:
        raise Unavailable(text)
    raise Misconfigured(text)
