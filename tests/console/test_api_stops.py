"""The machines' stops over the API: what people say of them, and all that happened."""

import json
from itertools import count
from typing import Any, Final

import httpx
import msgspec
import pytest

from shopfloor.console import stop_models as models
from shopfloor.processors.machine import StopEdit
from shopfloor.samples import Batch, Sample, Value
from tests.console.fakes import FakeRuntime
from tests.console.filler import BEGIN, LOST, MS, NOW, PLANT, journalled
from tests.console.test_api import get, problem
from tests.console.worked import MINUTE, SECOND, SHIFT, processor

HYDRAULICS = BEGIN + SHIFT + 70 * MINUTE
"""A stop of 28 min of the running shift, of which the machine says why."""
UNSAID = BEGIN + SHIFT + 118 * MINUTE
"""One of 17 min, of which nobody says why, the last 15 of them in a break."""


OFFSETS: Final = count(10**7)


async def say(plant: FakeRuntime, at: int, **edit: Any) -> None:
    """The historian has what somebody said at a time."""
    assert plant.historian is not None
    new = {"start": UNSAID, "end": None, "reason": "MATERIAL/cap", "by": "anna", "comment": "bent"} | edit
    value = msgspec.json.encode(new).decode()
    await plant.historian.write(next(OFFSETS), Batch.of("$edit", at, [Sample("$edit/filler-1", at, value)]))


async def heard(plant: FakeRuntime) -> None:
    """The processor and the historian get what was given to the console."""
    for place, (_, edit) in enumerate(plant.edits):
        await say(plant, NOW - SECOND + place, **msgspec.json.decode(edit))


def body(**change: Any) -> dict[str, Any]:
    return {"from": UNSAID // MS, "to": (UNSAID + 17 * MINUTE) // MS, "reason": "machine/hydraulics"} | change


async def test_the_stops_of_a_shift_as_wholes_with_their_reasons(asked: httpx.AsyncClient) -> None:
    answer = await get(asked, "/api/machines/filler-1/stops", **{"from": str(BEGIN + SHIFT), "to": str(NOW)})
    models.Stops.model_validate(answer, strict=True)
    found = [
        ((stop["start"] - (BEGIN + SHIFT) // MS) // 60_000, (stop["end"] - stop["start"]) // 60_000, stop["class"])
        for stop in answer["stops"]
    ]
    assert found == [
        (70, 28, "unplanned_stop"),
        (118, 17, "unplanned_stop"),
        (220, 12, "unplanned_stop"),
        (250, 2, "minor_stop"),
        (260, 1, "minor_stop"),
        (271, 2, "minor_stop"),
    ]
    assert [stop["state"] for stop in answer["stops"]] == ["down", "idle", "down", "idle", "idle", "idle"]
    assert [stop["unexplained"] for stop in answer["stops"]] == [False, True, False, False, False, False]
    first = answer["stops"][0]
    by_machine = {"by": "", "comment": ""}
    assert first["reasons"] == [
        {"reason": "machine/hydraulics", "start": first["start"], "seconds": 28 * 60, **by_machine}
    ]


async def test_a_stop_that_began_before_and_lasts_into_the_time_is_among_them(asked: httpx.AsyncClient) -> None:
    within = {"from": str(HYDRAULICS + MINUTE), "to": str(HYDRAULICS + 2 * MINUTE)}
    (stop,) = (await get(asked, "/api/machines/filler-1/stops", **within))["stops"]
    assert stop["start"] == HYDRAULICS // MS
    behind = {"from": str(HYDRAULICS + 30 * MINUTE), "to": str(HYDRAULICS + 40 * MINUTE)}
    assert (await get(asked, "/api/machines/filler-1/stops", **behind))["stops"] == []


async def test_what_is_no_stop_and_what_was_withdrawn_is_left_out(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    assert plant.historian is not None
    before = (await get(asked, "/api/machines/filler-1/stops"))["stops"]
    withdrawn = json.dumps({"machine": "filler-1", "start": "x", "withdrawn": True})
    tags = ["filler-1/kpi/stop"] * 4
    values: list[Value] = [withdrawn, "nonsense", "{}", 3]
    times = [before[0]["start"] * MS, NOW - 3, NOW - 2, NOW - 1]
    await plant.historian.write(10**6, Batch("oee", NOW, tags, times, values))
    assert (await get(asked, "/api/machines/filler-1/stops"))["stops"] == before[1:]


async def test_a_person_gives_the_reason_of_a_stop(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    """It goes into the journal as the processor reads it, and on record with who said it."""
    answer = await asked.post("/api/machines/filler-1/reasons", json=body(comment=" hose "))
    assert answer.status_code == 200, answer.text
    ((machine, edit),) = plant.edits
    said = msgspec.json.decode(edit, type=StopEdit)
    assert (machine, said.start, said.end) == ("filler-1", UNSAID, UNSAID + 17 * MINUTE)
    assert (said.reason, said.by, said.comment) == ("machine/hydraulics", answer.json()["by"], "hose")
    (record,) = await plant.commands.audit(1)
    assert record.who == said.by
    assert "filler-1: machine/hydraulics from " in record.detail
    assert record.detail.endswith(" hose")


async def test_a_time_of_json_means_the_begin_and_the_end_of_a_stop(
    asked: httpx.AsyncClient, plant: FakeRuntime
) -> None:
    """A float of ms misses by some hundred ns: a sliver of the stop would stay without a reason."""
    near = body(**{"from": UNSAID / MS - 0.0003, "to": (UNSAID + 17 * MINUTE) / MS + 0.0003})
    assert (await asked.post("/api/machines/filler-1/reasons", json=near)).status_code == 200
    split = body(to=(UNSAID + 5 * MINUTE) // MS)
    assert (await asked.post("/api/machines/filler-1/reasons", json=split)).status_code == 200
    spans = [(said.start, said.end) for _, edit in plant.edits if (said := msgspec.json.decode(edit, type=StopEdit))]
    assert spans == [(UNSAID, UNSAID + 17 * MINUTE), (UNSAID, UNSAID + 5 * MINUTE)]


async def test_a_reason_to_the_end_of_the_stop(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    answer = await asked.post("/api/machines/filler-1/reasons", json=body(to=None))
    assert answer.json()["to"] is None
    ((_, edit),) = plant.edits
    assert msgspec.json.decode(edit)["end"] is None
    (record,) = await plant.commands.audit(1)
    assert "to the end of the stop" in record.detail


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"to": BEGIN // MS}, "to: must be later than `from`"),
        ({"from": NOW // MS + 1, "to": NOW // MS + 2}, "from: lies in the future"),
        ({"to": NOW // MS + 60_000}, "to: lies in the future; null is the end of the stop"),
        ({"from": NOW // MS - 40 * 86_400_000}, "at most 31 days at once"),
        ({"from": NOW // MS - 400_000_000, "to": NOW // MS - 300_000_000}, "the processor oee corrects 3 d back"),
        ({"from": (NOW - 5 * MINUTE) // MS, "to": (NOW - MINUTE) // MS}, "the machine did not stand between"),
        ({"from": (NOW - 5 * MINUTE) // MS, "to": None}, "the machine did not stand then"),
        ({"reason": "machine/hydraulic"}, "is not in the plant file's `reasons`"),
        ({"reason": "a//b"}, "reason"),
        ({"reason": "MATERIAL/cap", "comment": " "}, "comment: the reason MATERIAL/cap needs a comment"),
        ({"by": "me"}, "by"),
        ({"from": "yesterday"}, "from"),
    ],
)
async def test_a_reason_that_cannot_be_given_is_refused(
    asked: httpx.AsyncClient, plant: FakeRuntime, change: dict[str, Any], said: str
) -> None:
    strict = plant.plant.reasons[2].model_copy(update={"comment": True})
    plant.plant = plant.plant.model_copy(update={"reasons": [*plant.plant.reasons[:2], strict]})
    document = problem(await asked.post("/api/machines/filler-1/reasons", json=body(**change)), 422)
    assert said in json.dumps(document)
    assert plant.edits == []


async def test_a_reason_that_cannot_become_durable_is_not_taken(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    plant.connected = False
    problem(await asked.post("/api/machines/filler-1/reasons", json=body()), 503)
    (record,) = await plant.commands.audit(1)
    assert record.detail.endswith("not taken, the disk is full")
    problem(await asked.post("/api/machines/nobody/reasons", json=body()), 404)


async def test_without_the_historian_a_reason_is_taken_all_the_same(
    asked: httpx.AsyncClient, plant: FakeRuntime
) -> None:
    """Whether there was a stop only the historian knows; a reason for what was none changes nothing."""
    plant.historian = None
    assert (await asked.post("/api/machines/filler-1/reasons", json=body())).status_code == 200
    assert len(plant.edits) == 1


async def test_of_a_part_is_said_who_gave_its_reason_and_of_the_rest_what_was_said(
    asked: httpx.AsyncClient, plant: FakeRuntime
) -> None:
    assert plant.historian is not None
    await say(plant, NOW - 3 * SECOND)
    await say(
        plant, NOW - 2 * SECOND, start=UNSAID + MINUTE, end=UNSAID + 2 * MINUTE, reason="machine/hydraulics", by="ben"
    )
    answer = await get(asked, "/api/machines/filler-1/stops")
    stop = next(stop for stop in answer["stops"] if stop["start"] == UNSAID // MS)
    assert [part["by"] for part in stop["reasons"]] == [""]  # the processor has not heard of it yet
    parts = [
        {"reason": reason, "start": answer_start, "seconds": seconds}
        for reason, answer_start, seconds in (
            ("MATERIAL/cap", "2026-01-05T15:58:00+01:00", 60.0),
            ("machine/hydraulics", "2026-01-05T15:59:00+01:00", 60.0),
            ("MATERIAL/cap", "2026-01-05T16:00:00+01:00", 900.0),
        )
    ]
    record = {"class": "unplanned_stop", "state": "idle", "end": "2026-01-05T16:15:00+01:00", "reasons": parts}
    await plant.historian.write(
        next(OFFSETS), Batch.of("oee", NOW, [Sample("filler-1/kpi/stop", UNSAID, json.dumps(record))])
    )
    answer = await get(asked, "/api/machines/filler-1/stops")
    stop = next(stop for stop in answer["stops"] if stop["start"] == UNSAID // MS)
    assert [(part["by"], part["comment"]) for part in stop["reasons"]] == [
        ("anna", "bent"),
        ("ben", "bent"),
        ("anna", "bent"),
    ]
    assert [(edit["by"], edit["to"], edit["undone"]) for edit in answer["edits"]] == [
        ("ben", (UNSAID + 2 * MINUTE) // MS, None),
        ("anna", None, None),
    ]


async def test_what_was_said_is_taken_back_once(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    at = NOW - 3 * SECOND
    await say(plant, at)
    answer = await asked.post("/api/machines/filler-1/reasons/undo", json={"id": str(at)})
    assert answer.status_code == 200, answer.text
    ((_, edit),) = plant.edits
    said = msgspec.json.decode(edit, type=StopEdit)
    assert (said.undoes, said.start, said.end, said.reason) == (at, UNSAID, None, "MATERIAL/cap")
    (record,) = await plant.commands.audit(1)
    assert "takes back MATERIAL/cap from " in record.detail
    await heard(plant)
    (edit,) = (await get(asked, "/api/machines/filler-1/stops"))["edits"]
    assert edit["undone"] == {"time": (NOW - SECOND) // MS, "by": answer.json()["by"]}
    again = await asked.post("/api/machines/filler-1/reasons/undo", json={"id": str(at)})
    assert "nothing was changed" in problem(again, 409)["detail"]
    none = await asked.post("/api/machines/filler-1/reasons/undo", json={"id": str(at + 1)})
    assert "nothing was said" in problem(none, 404)["detail"]
    assert len(plant.edits) == 1


async def test_the_reasons_that_can_be_given_and_how_often_they_were(
    asked: httpx.AsyncClient, plant: FakeRuntime
) -> None:
    for back in range(3):
        await say(plant, NOW - back * SECOND - 1)
    await say(plant, NOW - 31 * 86_400 * SECOND)
    await say(plant, NOW - 5, undoes=NOW - 1)
    answer = await get(asked, "/api/machines/filler-1/reasons")
    models.Reasons.model_validate(answer, strict=True)
    assert {reason["id"]: (reason["title"], reason["used"]) for reason in answer["reasons"][:3]} == {
        "machine/hydraulics": ("Hydraulics", 0),
        "QUALITY/underfilled": ("Underfilled", 0),
        "MATERIAL/cap": ("Cap missing", 2),
    }


# ---- events -----------------------------------------------------------------------------------------------


async def happened(asked: httpx.AsyncClient, **query: Any) -> Any:
    answer = await get(asked, "/api/events", **({"from": str(BEGIN), "to": str(NOW), "limit": 1000} | query))
    models.Events.model_validate(answer, strict=True)
    return answer


async def test_all_that_happened_in_order(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    await say(plant, NOW - 3 * SECOND)
    answer = await happened(asked)
    events = answer["events"]
    assert [event["time"] for event in events] == sorted((event["time"] for event in events), reverse=True)
    assert {event["kind"] for event in events} == set(models.KINDS)
    (edit, *_) = events
    assert (edit["kind"], edit["machine"], edit["reason"], edit["by"]) == ("edit", "filler-1", "MATERIAL/cap", "anna")
    assert answer["next"] is None
    assert answer["reasons"]["MATERIAL/cap"] == "Cap missing"


async def test_stops_as_they_were_given_last(asked: httpx.AsyncClient) -> None:
    stops = (await get(asked, "/api/machines/filler-1/stops", **{"from": str(BEGIN)}))["stops"]
    events = (await happened(asked, kind="stop"))["events"]
    assert [{name: event[name] for name in stops[0]} for event in reversed(events)] == stops


async def test_a_corrected_window_with_what_was_and_is_and_why(asked: httpx.AsyncClient) -> None:
    """The shift's last hour came an hour late: the hour and the shift were corrected when it came, minutes later."""
    events = [e for e in (await happened(asked, kind="correction"))["events"] if e["why"] == "late samples from plc"]
    assert {event["window"] for event in events} == {"hour", "shift"}
    came = (BEGIN + SHIFT + 60 * MINUTE) // MS
    assert all(came <= event["time"] <= came + 60_000 for event in events)
    (shift,) = (event for event in events if event["window"] == "shift")
    (early,) = (await get(asked, "/api/machines/filler-1/kpi", window="shift"))["records"]
    assert shift["was"]["good"] < shift["is"]["good"] == early["good"]
    assert (shift["start"], shift["shift"]) == (BEGIN // MS, "early")


async def test_a_source_that_was_away(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    assert plant.historian is not None
    (loss,) = (await happened(asked, kind="loss"))["events"]
    assert (loss["source"], loss["time"], loss["until"]) == ("plc", LOST[0] // MS, LOST[1] // MS)
    assert (loss["machines"], loss["complete"]) == (["filler-1"], False)
    told = [("complete", LOST[1] + SECOND, True), ("connected", NOW - SECOND, False)]
    samples = [Sample(f"$source/plc/{what}", time, value) for what, time, value in told]
    await plant.historian.write(10**6, Batch.of("$source", NOW, samples))
    second, first = (await happened(asked, kind="loss"))["events"]
    assert (first["complete"], second["complete"]) == (True, False)
    assert (second["time"], second["until"]) == ((NOW - SECOND) // MS, None)


async def test_where_a_machine_gave_a_state_that_nobody_explained(asked: httpx.AsyncClient) -> None:
    events = (await happened(asked, kind="unknown_state", machine="filler-1"))["events"]
    assert [(event["time"], event["value"]) for event in events] == [
        ((BEGIN + SHIFT + 180 * MINUTE) // MS, 42),
        ((BEGIN + 180 * MINUTE) // MS, 42),
    ]


async def test_events_come_page_by_page_without_a_gap(asked: httpx.AsyncClient) -> None:
    whole = (await happened(asked))["events"]
    found: list[Any] = []
    to: str | None = str(NOW)
    while to is not None:
        page = await happened(asked, to=to, limit=3)
        found += page["events"]
        to = page["next"]
    assert found == whole


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({"machine": "none"}, 404, "no machine has the id"),
        ({"machine": "dumb-1"}, 404, "{name: oee, type: machine}"),
        ({"kind": "gossip"}, 422, "'stop', 'correction', 'edit', 'loss' or 'unknown_state'"),
        ({"from": "-40d"}, 422, "at most 31 days"),
        ({"limit": 0}, 422, "limit"),
    ],
)
async def test_a_question_for_events_without_an_answer_says_why(
    asked: httpx.AsyncClient, query: dict[str, Any], status: int, said: str
) -> None:
    assert said in problem(await asked.get("/api/events", params=query), status)["detail"]


async def test_what_the_real_processor_makes_of_what_was_given(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    """From the door to the figures: said, split and taken back by HTTP; the stop's record says it each time."""
    _, oee = processor(PLANT)
    for batch in journalled():
        if batch.source != "oee":
            oee.process(batch)
    moments = count(NOW + MINUTE, MINUTE)

    async def given(path: str, new: dict[str, Any]) -> list[tuple[str, float]]:
        """The reasons of the stop a minute after this was sent."""
        answer = await asked.post(f"/api/machines/filler-1/{path}", json=new)
        assert answer.status_code == 200, answer.text
        at, tick = next(moments), next(moments)
        machine, edit = plant.edits.pop()
        made = oee.process(Batch.of("$edit", at, [Sample(f"$edit/{machine}", at, edit)]))
        made += oee.process(Batch.of("$clock", tick, [Sample("$clock/tick", tick, tick)]))
        assert plant.historian is not None
        kept = [Sample(f"$edit/{machine}", at, edit)]
        await plant.historian.write_many([(next(OFFSETS), Batch.of("", at, each)) for each in (kept, made)])
        record = json.loads([str(s.value) for s in made if s.tag == "filler-1/kpi/stop" and s.time == UNSAID][-1])
        return [(part["reason"], part["seconds"]) for part in record["reasons"]]

    assert await given("reasons", body(to=None)) == [("machine/hydraulics", 17 * 60)]
    split = body(**{"from": (UNSAID + MINUTE) // MS, "to": None, "reason": "MATERIAL/cap"})
    assert await given("reasons", split) == [("machine/hydraulics", 60), ("MATERIAL/cap", 16 * 60)]
    merged = body(reason="MATERIAL/cap")
    assert await given("reasons", merged) == [("MATERIAL/cap", 17 * 60)]
    plant.clock = next(moments)
    last, *_ = (await get(asked, "/api/machines/filler-1/stops"))["edits"]
    assert await given("reasons/undo", {"id": last["id"]}) == [("machine/hydraulics", 60), ("MATERIAL/cap", 16 * 60)]
