"""The machines' figures over the API: what the real processor gave, out of a real historian."""

import csv
import json
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from shopfloor.console import models
from shopfloor.samples import Batch, Quality, Sample, Value
from tests.console.fakes import FakeRuntime
from tests.console.filler import BEGIN, LOST, MS, NOW
from tests.console.test_api import get, problem
from tests.console.worked import MINUTE, SECOND, SHIFT


async def test_the_running_shift_and_its_hours(asked: httpx.AsyncClient) -> None:
    answer = await get(asked, "/api/machines/filler-1/kpi")
    live = answer["live"]
    assert (live["window"], live["shift"], live["state"], live["until"]) == ("shift", "late", "running", NOW // MS)
    assert (live["start"], live["end"]) == ((BEGIN + SHIFT) // MS, (BEGIN + 2 * SHIFT) // MS)
    assert live["unknown_states"] == {"42": 2}
    assert live["coverage"] < 0.99
    assert live["oee_low"] < live["oee"]
    assert [record["start"] for record in answer["records"]] == [
        (BEGIN + SHIFT + hour * 60 * MINUTE) // MS for hour in range(5)
    ]
    assert 0 < live["good"] - sum(record["good"] for record in answer["records"]) <= 12  # of the last two minutes
    assert answer["reasons"]["machine/hydraulics"] == "Hydraulics"
    assert not answer["truncated"]


async def test_of_a_corrected_window_the_newest_revision_with_what_was(asked: httpx.AsyncClient) -> None:
    (early,) = (await get(asked, "/api/machines/filler-1/kpi", window="shift"))["records"]
    assert early["revision"] > 0
    assert early["why"] == "late samples from plc"
    assert early["was"]["good"] < early["good"]
    hours = await get(asked, "/api/machines/filler-1/kpi", **{"from": str(BEGIN), "to": str(BEGIN + SHIFT)})
    assert len(hours["records"]) == 8
    assert sum(hour["good"] for hour in hours["records"]) == early["good"]


async def test_a_cut_answer_leaves_out_the_window_that_it_may_have_cut(asked: httpx.AsyncClient) -> None:
    answer = await get(asked, "/api/machines/filler-1/kpi", limit=1)
    assert answer["truncated"]
    assert answer["records"] == []


async def test_what_is_no_record_of_figures_is_left_out(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    assert plant.historian is not None
    times = [BEGIN + hour * 60 * MINUTE for hour in range(4)]
    values: list[Value] = ["nonsense", '{"start": 7, "window": "hour"}', '{"oee": 1}', 3]
    await plant.historian.write(10**6, Batch("mqtt", NOW, ["filler-1/kpi/hour"] * 4, times, values))
    plant.give(Sample("filler-1/kpi/live", NOW + 1, "{}"))
    answer = await get(asked, "/api/machines/filler-1/kpi", **{"from": str(BEGIN)})
    assert answer["live"] is None
    assert min(record["start"] for record in answer["records"]) == (BEGIN + 4 * 60 * MINUTE) // MS
    assert (await get(asked, "/api/machines"))["machines"][0]["live"] is None


async def test_the_list_of_machines_has_the_main_figures(asked: httpx.AsyncClient) -> None:
    filler, dumb = (await get(asked, "/api/machines"))["machines"]
    live = (await get(asked, "/api/machines/filler-1/kpi"))["live"]
    assert filler["live"] == {name: live[name] for name in filler["live"]}
    assert filler["live"]["state"] == "running"
    assert dumb["live"] is None
    assert (await get(asked, "/api/machines/filler-1"))["live"] == filler["live"]


async def test_a_line_its_area_and_the_site_have_figures_of_their_own(asked: httpx.AsyncClient) -> None:
    """Of one machine the line is as that machine is, by every policy; only what it stood for comes to it."""
    line, area, site = (await get(asked, "/api/lines"))["lines"]
    assert [(one["level"], one["id"], one["title"]) for one in (line, area, site)] == [
        ("line", "bottling", "Bottling"), ("area", "hall-1", ""), ("site", "bremen", ""),
    ]  # fmt: skip
    assert (line["machines"], line["policy"], line["area"]) == (["filler-1"], "first_down", "hall-1")
    assert (area["lines"], site["lines"]) == (["bottling"], ["bottling"])
    filler = (await get(asked, "/api/machines/filler-1/kpi"))["live"]
    for one in (line, area, site):
        for name in ("oee", "availability", "performance", "quality", "good", "scrap", "seconds", "incidents"):
            assert one["live"][name] == filler[name], name
    stood = filler["seconds"]["minor_stop"] + filler["seconds"]["unplanned_stop"]
    assert line["live"]["lost_to"] == {
        "filler-1": {"count": filler["minor_stops"] + filler["incidents"], "seconds": pytest.approx(stood)}
    }
    assert line["live"]["target"] == {"quality": {"value": 0.9, "met": True}}
    assert filler["target"] == {"oee": {"value": 0.9, "met": False}}
    answer = await get(asked, "/api/lines/bottling/kpi", window="shift")
    (early,) = answer["records"]
    assert (answer["line"], answer["live"]["line"]) == ("bottling", "bottling")
    assert early["revision"] > 0
    assert early["why"] == "late samples from plc"


async def test_the_report_has_lines_and_their_sums(asked: httpx.AsyncClient) -> None:
    report = await get(asked, "/api/report")
    assert [(one["level"], one["id"]) for one in report["lines"]] == [
        ("line", "bottling"), ("area", "hall-1"), ("site", "bremen"),
    ]  # fmt: skip
    (filler,) = report["machines"]
    for one in report["lines"]:
        assert [record["good"] for record in one["shifts"]] == [record["good"] for record in filler["shifts"]]
    text = (await asked.get("/api/report.csv")).text
    rows = [(row["level"], row["line"], row["machine"], row["shift"]) for row in csv.DictReader(text.splitlines())]
    assert ("line", "bottling", "", "early") in rows
    assert ("site", "", "", "early") in rows
    assert ("machine", "bottling", "filler-1", "early") in rows


@pytest.mark.parametrize("name", ["nobody", "filler-1", "dumb-1"])
async def test_what_is_no_line_is_not_found(asked: httpx.AsyncClient, name: str) -> None:
    said = problem(await asked.get(f"/api/lines/{name}/kpi"), 404)
    assert (said["title"], name in said["detail"]) == ("There is no such line", True)


async def test_the_answers_are_as_openapi_describes_them(asked: httpx.AsyncClient) -> None:
    described: dict[str, type[BaseModel]] = {
        "/api/machines/filler-1/kpi?window=shift": models.Kpi,
        "/api/machines/filler-1/timeline": models.StateTimeline,
        "/api/report": models.Report,
        "/api/lines": models.Lines,
        "/api/lines/hall-1/kpi?window=shift": models.LineKpi,
        "/api/machines": models.Machines,
    }
    for path, model in described.items():
        model.model_validate(await get(asked, path), strict=True)


def lasted(timeline: Any, until: int) -> dict[str, float]:
    ends = [*timeline["starts"][1:], until]
    found: dict[str, float] = {}
    for name, start, end in zip(timeline["classes"], timeline["starts"], ends, strict=True):
        found[name] = found.get(name, 0) + (end - start) / 1000
    return found


async def test_the_timeline_says_the_same_as_the_figures(asked: httpx.AsyncClient) -> None:
    """The classes of the bar sum to those of the records: of the running shift, and of the corrected one."""
    live = (await get(asked, "/api/machines/filler-1/kpi"))["live"]
    timeline = await get(asked, "/api/machines/filler-1/timeline")
    assert (timeline["from"], timeline["to"], timeline["until"]) == (live["start"], live["end"], NOW // MS)
    assert lasted(timeline, timeline["until"]) == {name: s for name, s in live["seconds"].items() if s}
    assert (timeline["state"], timeline["since"]) == ("running", LOST[1] // MS)
    (early,) = (await get(asked, "/api/machines/filler-1/kpi", window="shift"))["records"]
    whole = await get(asked, "/api/machines/filler-1/timeline", **{"from": str(BEGIN), "to": str(BEGIN + SHIFT)})
    assert lasted(whole, whole["to"]) == {name: s for name, s in early["seconds"].items() if s}
    named = {reason for name, reason in zip(whole["classes"], whole["reasons"], strict=True) if name != "production"}
    assert {"machine/hydraulics", "fault 22"} < named


async def test_a_state_that_was_said_long_ago_still_holds(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    assert plant.historian is not None
    said_at = BEGIN - 20 * 24 * 60 * MINUTE
    await plant.historian.write(10**6, Batch.of("plc", NOW, [Sample("filler-1/state", said_at, 2)]))
    span = {"from": str(BEGIN - 60 * MINUTE), "to": str(BEGIN)}
    answer = await get(asked, "/api/machines/filler-1/timeline", **span)
    assert answer["state"] == "idle"
    assert answer["since"] == said_at // MS
    assert set(answer["classes"]) == {"unplanned_stop"}
    bad = Sample("filler-1/state", BEGIN - 30 * MINUTE, None, Quality.BAD)
    await plant.historian.write(10**6 + 1, Batch.of("plc", NOW, [bad]))
    answer = await get(asked, "/api/machines/filler-1/timeline", **span)
    assert answer["classes"] == ["unplanned_stop", "unknown"]


async def test_the_timeline_has_the_reason_that_a_person_gave(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    """It is in the stop's record, which the processor gives anew after each word about it."""
    assert plant.historian is not None
    start = BEGIN + SHIFT + 118 * MINUTE
    parts = [
        {"reason": "", "seconds": 60.0},
        {"reason": "MATERIAL/cap", "seconds": 60.0},
        {"reason": "", "seconds": 0.0},
    ]
    record = json.dumps({"class": "unplanned_stop", "reasons": parts})
    given = [Sample("filler-1/kpi/stop", start, record), Sample("filler-1/kpi/stop", start - 1, "nonsense")]
    await plant.historian.write(10**6, Batch.of("oee", NOW, given))
    timeline = await get(asked, "/api/machines/filler-1/timeline")
    rows = list(zip(timeline["starts"], timeline["classes"], timeline["reasons"], strict=True))
    assert (start // MS, "unplanned_stop", "") in rows
    assert ((start + MINUTE) // MS, "unplanned_stop", "MATERIAL/cap") in rows


async def test_what_a_source_made_up_for_is_not_unknown(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    assert plant.historian is not None
    before = lasted(await get(asked, "/api/machines/filler-1/timeline"), NOW // MS)
    complete = Sample("$source/plc/complete", LOST[1] + SECOND, True)
    await plant.historian.write(10**6, Batch.of("$source", NOW, [complete]))
    after = lasted(await get(asked, "/api/machines/filler-1/timeline"), NOW // MS)
    assert before["unknown"] - after["unknown"] == (LOST[1] - LOST[0]) / SECOND
    assert after["production"] - before["production"] == (LOST[1] - LOST[0]) / SECOND


async def test_a_machine_without_a_state_is_judged_by_its_units(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    filler = plant.plant.machines[0].model_copy(update={"state": None})
    plant.plant = plant.plant.model_copy(update={"machines": [filler]})
    whole = await get(asked, "/api/machines/filler-1/timeline", **{"from": str(BEGIN), "to": str(BEGIN + SHIFT)})
    assert {"production", "unplanned_stop", "planned_stop"} <= set(whole["classes"])
    assert sum(lasted(whole, whole["to"]).values()) == SHIFT / SECOND


async def test_a_day_as_a_report(asked: httpx.AsyncClient) -> None:
    report = await get(asked, "/api/report")
    assert (report["day"], report["today"]) == ("2026-01-05", "2026-01-05")
    (filler,) = report["machines"]
    assert [record["shift"] for record in filler["shifts"]] == ["early", "late"]
    assert ["until" in record for record in filler["shifts"]] == [False, True]
    assert filler["day"] is None
    assert (await get(asked, "/api/report", day="2026-01-04"))["machines"][0]["shifts"] == []


async def test_a_day_for_spreadsheets(asked: httpx.AsyncClient) -> None:
    answer = await asked.get("/api/report.csv", params={"day": "2026-01-05"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="shifts-2026-01-05.csv"'
    early, late = [row for row in csv.DictReader(answer.text.splitlines()) if row["level"] == "machine"]
    (record,) = (await get(asked, "/api/machines/filler-1/kpi", window="shift"))["records"]
    assert (early["machine"], early["shift"], early["closed"], late["closed"]) == ("filler-1", "early", "yes", "no")
    assert (early["start"], early["end"]) == ("2026-01-05T05:00:00Z", "2026-01-05T13:00:00Z")
    assert float(early["oee"]) == record["oee"]
    assert float(early["unplanned_stop_seconds"]) == record["seconds"]["unplanned_stop"]


async def test_a_name_is_no_formula_in_a_spreadsheet(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    titled = plant.plant.machines[0].model_copy(update={"title": "=1+1"})
    plant.plant = plant.plant.model_copy(update={"machines": [titled]})
    answer = await asked.get("/api/report.csv")
    rows = [row for row in csv.DictReader(answer.text.splitlines()) if row["level"] == "machine"]
    assert {row["title"] for row in rows} == {"'=1+1"}


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/machines/none/kpi", 404, "no machine has the id"),
        ("/api/machines/dumb-1/kpi", 404, "{name: oee, type: machine}"),
        ("/api/machines/dumb-1/timeline", 404, "`state`, or `good` or `total`"),
        ("/api/machines/filler-1/kpi?window=week", 422, "'hour', 'shift' or 'day'"),
        ("/api/machines/filler-1/kpi?from=soon", 422, "is no time"),
        ("/api/machines/filler-1/timeline?from=-40d", 422, "at most 31 days"),
        ("/api/report?day=2026-02-30", 422, "not in the calendar"),
        ("/api/report.csv?day=yesterday", 422, "day"),
    ],
)
async def test_a_question_without_an_answer_says_why(
    asked: httpx.AsyncClient, path: str, status: int, said: str
) -> None:
    assert said in problem(await asked.get(path), status)["detail"]


async def test_without_a_historian_or_a_processor_it_is_said(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    plant.historian = None
    for path in ("/api/machines/filler-1/kpi", "/api/machines/filler-1/timeline", "/api/report"):
        assert "is away" in problem(await asked.get(path), 503)["detail"]
    plant.plant = plant.plant.model_copy(update={"historian": None})
    assert "no historian" in problem(await asked.get("/api/report"), 503)["detail"]
    plant.plant = plant.plant.model_copy(update={"machines": []})
    assert "type: machine" in problem(await asked.get("/api/report"), 404)["detail"]
