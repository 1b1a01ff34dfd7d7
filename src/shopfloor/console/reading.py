"""What can be asked: the plant, its tags, their history, machines, components, the ledger, the audit record."""

import asyncio
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from shopfloor.commands import Record, column_to_json
from shopfloor.console import models
from shopfloor.console.live import LiveResponse
from shopfloor.console.person import Person
from shopfloor.console.problem import Json, Problem, answers
from shopfloor.console.records import summary
from shopfloor.console.state import Console, ConsoleState, Me
from shopfloor.console.times import LATEST, parse_bucket, parse_instant
from shopfloor.console.view import VERSION, component_json, journal_json, ledger_json, milliseconds, permission_json
from shopfloor.historian.base import Aggregate, Historian, Series
from shopfloor.plant import Machine, tag_pattern

MOST_POINTS: Final = 100_000
MACHINES_AT_ONCE: Final = 50

Tag = Annotated[str, Query(min_length=1, max_length=255, description="The tag.")]
Instant = Annotated[str, Query(max_length=64, description="ISO 8601, ns since 1970, `now`, or relative: `-1h`.")]

router = APIRouter(prefix="/api", default_response_class=Json, tags=["reading"])


@router.get("/plant", response_model=models.Site)
async def plant(console: Console) -> Json:
    """Which plant this is."""
    runtime = console.runtime
    site = runtime.plant.plant
    return Json(
        {
            "site": site.site,
            "timezone": site.timezone,
            "version": VERSION,
            "started": milliseconds(runtime.started),
            "now": milliseconds(console.now()),
            "historian": runtime.plant.historian is not None,
        }
    )


@router.get("/me", response_model=models.Me)
async def me(person: Me) -> Json:
    """Who one is here."""
    return Json({"name": person.name, "role": person.role})


@router.get("/tags", response_model=models.Tags, responses=answers(422))
async def tags(
    console: Console,
    person: Me,
    match: Annotated[str, Query(max_length=255, description="A name, or a pattern with `*`.")] = "*",
) -> Json:
    """All tags with their newest values, sorted by name."""
    matches = tag_pattern(match).fullmatch
    rows = await console.view.rows([tag for tag in console.view.known() if matches(tag)], person.role)
    return Json({"now": milliseconds(console.now()), "tags": rows})


@router.get("/tags/{tag:path}", response_model=models.TagDetail, responses=answers(404, 422))
async def tag(
    console: Console, person: Me, tag: Annotated[str, Path(description="The tag, slashes included.")]
) -> Json:
    """All that is known of one tag."""
    if tag not in console.catalogue and console.runtime.live.get(tag) is None:
        raise _no_tag(tag)
    return Json(console.view.detail(tag, person.role))


@router.get("/history", response_model=models.Series, responses=answers(404, 422, 503))
async def history(  # noqa: PLR0913, PLR0917  # a query has these parts
    console: Console,
    tag: Tag,
    from_: Annotated[Instant, Query(alias="from")] = "-1h",
    to: Instant = "now",
    every: Annotated[str | None, Query(max_length=64, description="Length of a bucket: `1 min`, or ns.")] = None,
    aggregate: Annotated[Aggregate | None, Query(description="How a bucket is summed up.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_POINTS, description="The most raw samples.")] = 20_000,
    time: Annotated[Literal["ms", "ns"], Query(description="Unit of all times in the answer.")] = "ms",
) -> Json:
    """One tag's samples, raw or one value a bucket."""
    start, end = interval(console, from_, to)
    bucket = _bucket(every, aggregate, end - start)
    store = demand_historian(console)
    try:
        if bucket is None:
            series = await store.history(tag, start, end, limit)
        else:
            zone = console.runtime.plant.plant.timezone
            series = await store.aggregate(tag, start, end, bucket, aggregate or "avg", zone)
    except ValueError as error:
        raise Problem(422, "This cannot be summed up so", str(error)) from error
    if not series.times and not await _is_known(console, store, tag):
        raise _no_tag(tag)
    unit = console.catalogue.info(tag).unit
    head = {"tag": tag, "unit": unit, "from": start, "to": end, "every": bucket}
    # In a thread: 100,000 points would hold up everything else for some 50 ms.
    return await asyncio.to_thread(_answer, head, series, aggregate or ("avg" if bucket else None), time)


@router.get("/machines", response_model=models.Machines)
async def machines(console: Console, person: Me) -> Json:
    """Every machine of the plant file."""
    plant = console.runtime.plant
    found: list[Any] = []
    for count, machine in enumerate(plant.machines, 1):
        found.append(_machine(console, person, machine))
        if count % MACHINES_AT_ONCE == 0:
            await asyncio.sleep(0)  # others get their turn
    return Json({"machines": found})


@router.get("/machines/{id}", response_model=models.MachineDetail, responses=answers(404, 422))
async def machine(console: Console, person: Me, id: Annotated[str, Path(description="The machine's id.")]) -> Json:  # noqa: A002  # the API's word
    """One machine with the newest values of its tags."""
    found = machine_of(console, id)
    content = _machine(console, person, found)
    shown = dict.fromkeys([*content["tags"], *(command["tag"] for command in content["commands"])])
    rows = await console.view.rows(shown, person.role)
    return Json({**content, "now": milliseconds(console.now()), "samples": rows})


@router.get("/components", response_model=models.Components)
async def components(console: Console) -> Json:
    """Every source, processor, sink and the historian as it stands, and the journal."""
    return Json(
        {
            "now": milliseconds(console.now()),
            "components": [component_json(status) for status in console.runtime.components()],
            "journal": journal_json(await console.runtime.journal_state()),
        }
    )


@router.get("/ledger", response_model=models.Ledger)
async def ledger(console: Console) -> Json:
    """Every sum of the loss ledger."""
    return Json({"rows": [ledger_json(row) for row in await console.runtime.ledger()]})


@router.get("/audit", response_model=models.AuditRecords, responses=answers(422, 503))
async def audit(
    console: Console,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=LATEST, description="Records with smaller numbers.")] = None,
) -> Json:
    """Who wrote what, the newest first."""
    records = await console.runtime.commands.audit(limit, before)
    return Json({"records": [_record(record) for record in records]})


@router.get("/audit/verify", response_model=models.Verification, responses=answers(503))
async def verify(console: Console) -> Json:
    """Whether the audit record is as it was written."""
    found = await console.runtime.commands.verify()
    return Json(
        {
            "records": found.records,
            "intact": found.intact,
            "broken": found.broken,
            "detail": found.detail,
            "head": found.head,
        }
    )


@router.get("/commands", response_model=models.Permissions)
async def commands(console: Console, person: Me) -> Json:
    """What may be written."""
    return Json({"commands": [permission_json(p, person.role) for p in console.runtime.commands.permissions]})


@router.get(
    "/live",
    response_class=Response,
    responses={200: {"description": "Events, see docs/api.md", "content": {"text/event-stream": {}}}, **answers(503)},
)
async def live(console: Console) -> Response:
    """The live stream: a state, then what changes, as server-sent events."""
    console.stream.demand_room()
    return LiveResponse(console.stream)


def _machine(console: ConsoleState, person: Person, machine: Machine) -> dict[str, Any]:
    """A machine with its line and its running shift."""
    return {
        **console.view.machine(machine, person.role),
        "line": console.lines.of(machine),
        "live": summary(console.runtime.live, machine.id),
    }


def machine_of(console: ConsoleState, name: str) -> Machine:
    """The machine of this id. Raises Problem when there is none."""
    found = next((machine for machine in console.runtime.plant.machines if machine.id == name), None)
    if found is None:
        raise Problem(
            404, "There is no such machine", f"no machine has the id {name[:100]!r}; GET /api/machines lists them"
        )
    return found


def interval(console: ConsoleState, from_: str, to: str) -> tuple[int, int]:
    """Ns UTC of two times of a query. Raises Problem when they cannot be read, or are in the wrong order."""
    zone, now = ZoneInfo(console.runtime.plant.plant.timezone), console.now()
    wrong: list[dict[str, str]] = []
    instants: list[int] = []
    for field, text in (("from", from_), ("to", to)):
        try:
            instants.append(parse_instant(text, now, zone))
        except ValueError as error:
            wrong.append({"field": field, "detail": str(error)})
    if wrong:
        raise Problem(422, "The time is not understood", wrong[0]["detail"], errors=wrong)
    start, end = instants
    if start >= end:
        raise Problem(422, "The times are in the wrong order", "`from` must be before `to`")
    return start, end


def _bucket(every: str | None, aggregate: Aggregate | None, span: int) -> int | None:
    if every is None:
        if aggregate is not None:
            raise Problem(422, "A bucket length is missing", "`aggregate` goes with `every`, such as every=1min")
        return None
    try:
        bucket = parse_bucket(every)
    except ValueError as error:
        raise Problem(422, "The bucket length is not understood", f"every: {error}") from error
    if bucket < 10**6:  # 1 ms
        raise Problem(422, "The buckets are too short", "`every` is at least 1 ms")
    if span // bucket > MOST_POINTS:
        raise Problem(
            422, "Too many values", f"{span // bucket + 1} buckets; at most {MOST_POINTS}: make `every` longer"
        )
    return bucket


def demand_historian(console: ConsoleState) -> Historian:
    """The historian. Raises Problem when the plant has none, and while it does not run."""
    if console.runtime.plant.historian is None:
        raise Problem(503, "Nothing is kept here", "the plant file has no historian; add one to see the past")
    store = console.runtime.historian
    if store is None:
        raise Problem(
            503,
            "The past cannot be shown now",
            "the historian is away; what comes waits in the journal and is stored later. Components "
            "(GET /api/components) says why",
            headers={"Retry-After": "5"},
        )
    return store


async def _is_known(console: ConsoleState, store: Historian, tag: str) -> bool:
    return tag in console.catalogue or console.runtime.live.get(tag) is not None or tag in await store.tags()


def _no_tag(tag: str) -> Problem:
    return Problem(404, "There is no such tag", f"nobody knows the tag {tag[:100]!r}; GET /api/tags lists them")


def _answer(head: dict[str, Any], series: Series, aggregate: str | None, unit: Literal["ms", "ns"]) -> Json:
    times: list[Any] = series.times.tolist()
    if unit == "ms":
        times = [time / 1e6 if time % 1_000_000 else time // 1_000_000 for time in times]
        head |= {name: None if head[name] is None else milliseconds(head[name]) for name in ("from", "to", "every")}
    return Json(
        {
            **head,
            "aggregate": aggregate,
            "times": times,
            "values": column_to_json(series.values),
            "qualities": series.qualities.tolist(),
            "truncated": series.truncated,
        }
    )


def _record(record: Record) -> dict[str, Any]:
    return {
        "number": record.number,
        "time": milliseconds(record.time),
        "event": record.event,
        "who": record.who,
        "role": record.role,
        "tag": record.tag,
        "value": record.value,
        "id": record.id,
        "detail": record.detail,
        "hash": record.hash,
    }
