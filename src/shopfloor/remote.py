"""The verbs that talk to a running plant over its HTTP API (docs/api.md)."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
import httpx

from shopfloor.plant import tag_pattern
from shopfloor.samples import Misconfigured, Unavailable

AT_ONCE: Final = 1_000
"""Dead letters that one request may name."""


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
    outcome = _asked("POST", f"{url}/api/commands", {"tag": tag, "value": parsed}).json()
    words = {True: "", False: "NOT written: ", None: "UNKNOWN, look at the machine: "}
    click.echo(f"{tag} = {value}: {words[outcome['done']]}{outcome['detail'].removeprefix('not written: ')}")
    return 0 if outcome["done"] else 1


def dead_letters(url: str) -> list[dict[str, Any]]:
    """What sinks of a running plant refused, as docs/api.md has it, newest first. Raises Unavailable."""
    found: list[dict[str, Any]] = _asked("GET", f"{url}/api/dead-letters?limit=10000").json()["letters"]
    return found


def decide(url: str, action: str, ids: Sequence[int]) -> int:
    """Have dead letters offered again (``retry``) or thrown away (``drop``); how many there were."""
    return sum(
        _asked("POST", f"{url}/api/dead-letters/{action}", {"ids": ids[start : start + AT_ONCE]}).json()["letters"]
        for start in range(0, len(ids), AT_ONCE)
    )


def _asked(method: str, address: str, body: Any = None) -> httpx.Response:
    try:
        answer = httpx.request(method, address, json=body, timeout=30)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        url = address.partition("/api/")[0]
        raise Unavailable(
            f"{url} does not answer: {error}; is the plant running, is --url the address of its console?"
        ) from error
    _demand(answer)
    return answer


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
