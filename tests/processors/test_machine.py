"""The processor of machines' KPIs: figures out of samples, however they are cut and whenever they come."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from shopfloor import plant
from shopfloor.plant import PlantError
from shopfloor.samples import Batch, Quality, Sample
from shopfloor.seams import Processor
from shopfloor.testing.contracts import ProcessorContract

SECOND = 10**9
BEGIN = 1_767_571_200 * SECOND  # Monday 2026-01-05, 00:00 UTC
PLANT = """
plant: {site: test, timezone: UTC}
shifts:
  - {name: early, days: mon-fri, from: "06:00", to: "14:00", breaks: ["09:00-09:15"]}
  - {name: late, days: mon-fri, from: "14:00", to: "22:00"}
reasons:
  - {id: machine/hydraulics}
machines:
  - id: press-1
    ideal_cycle: 10 s
    state: press-1/state
    good: press-1/good
    scrap: press-1/scrap
    fault: press-1/fault
    reasons: {17: machine/hydraulics}
    scrap_reason: press-1/why
    scrap_reasons: {3: QUALITY/scratch}
sources:
  - name: plc
    type: opcua
    endpoint: opc.tcp://127.0.0.1:4840
    tags:
      - {tag: press-1/state, node: "ns=2;s=a"}
      - {tag: press-1/good, node: "ns=2;s=b"}
      - {tag: press-1/scrap, node: "ns=2;s=c"}
      - {tag: press-1/fault, node: "ns=2;s=d"}
      - {tag: press-1/why, node: "ns=2;s=e"}
processors:
  - {name: oee, type: machine}
"""


def built(text: str = PLANT) -> Processor:
    return plant.parse(text, "plant.yaml", Path("/nowhere"), {}).processors[0].build()


def at(clock: str) -> int:
    hours, minutes, *seconds = (int(part) for part in clock.split(":"))
    return BEGIN + (hours * 3600 + minutes * 60 + sum(seconds)) * SECOND


def day() -> Iterator[tuple[int, Sample]]:
    """A day of a press, as (arrival, sample): a unit every 10 s while it runs, a fault of 30 min, a minor stop."""
    good = scrap = 0
    said = [(at("06:00"), "state", 6), (at("07:00"), "state", 9), (at("07:00:01"), "fault", 17),
            (at("07:30"), "state", 6), (at("07:30"), "fault", 0), (at("08:00"), "state", 4), (at("08:02"), "state", 6),
            (at("09:00"), "state", 4), (at("09:15"), "state", 6), (at("14:00"), "state", 4)]  # fmt: skip
    for time, name, value in said:
        yield time, Sample(f"press-1/{name}", time, value)
    yield at("06:00"), Sample("press-1/good", at("06:00"), 0)
    yield at("06:00"), Sample("press-1/scrap", at("06:00"), 0)
    yield at("06:00"), Sample("press-1/why", at("06:00"), 3)
    for second in range(at("06:00") + 10 * SECOND, at("14:00"), 10 * SECOND):
        state = [value for time, name, value in said if name == "state" and time < second][-1]
        if state != 6:
            continue
        if (good + scrap) % 50 == 49:
            scrap += 1
            yield second, Sample("press-1/scrap", second, scrap)
        else:
            good += 1
            yield second, Sample("press-1/good", second, good)


def batches(samples: Sequence[tuple[int, Sample]], until: str = "15:00", every: int = 60) -> list[Batch]:
    """In the order of arrival, with a tick every ``every`` seconds."""
    ticks = [(time, Sample("$clock/tick", time, time)) for time in range(at("05:59"), at(until), every * SECOND)]
    arrivals = sorted([*samples, *ticks], key=lambda arrived: arrived[0])
    found: list[Batch] = []
    run: list[Sample] = []
    for _, sample in arrivals:
        if sample.tag == "$clock/tick":
            if run:
                found.append(Batch.of("plc", sample.time, run))
                run = []
            found.append(Batch.of("$clock", sample.time, [sample]))
        else:
            run.append(sample)
    return found


def given(processor: Processor, fed: Sequence[Batch]) -> list[Sample]:
    return [sample for batch in fed for sample in processor.process(batch)]


def records(samples: Sequence[Sample], window: str) -> list[dict[str, Any]]:
    return [json.loads(str(s.value)) for s in samples if s.tag == f"press-1/kpi/{window}"]


class TestMachine(ProcessorContract):
    splits = 5

    def build(self) -> Processor:
        return built()

    def batches(self) -> Sequence[Batch]:
        chance = random.Random(3)
        thin = [(time, s) for time, s in day() if s.tag != "press-1/good" or time % (90 * SECOND) == 0]
        samples = [(time + chance.choice([0, 0, 0, 40 * 60]) * SECOND, s) for time, s in thin]
        samples += [(at("08:30"), Sample("press-1/state", at("08:30"), None, Quality.BAD))]
        samples += [(at("08:40"), Sample("press-1/state", at("08:40"), 6))]
        cut = [batch for batch in batches(samples, every=600) if batch.times[0] < at("09:10")]
        lost = Batch.of("$source", at("08:50"), [Sample("$source/plc/connected", at("08:50"), False)])
        cut.insert(len(cut) // 2, lost)
        return cut


def test_a_shift_as_one_would_work_it_out_by_hand() -> None:
    """8 h less a break of 15 min: 465 min planned; 30 min fault, 2 min minor stop, so 433 min production."""
    said = given(built(), batches(list(day())))
    (shift,) = records(said, "shift")
    assert (shift["shift"], shift["day"]) == ("early", "2026-01-05")
    assert shift["seconds"] == {
        "not_scheduled": 0, "planned_stop": 900, "setup": 0, "production": 433 * 60, "minor_stop": 120,
        "unplanned_stop": 1800, "blocked": 0, "unknown": 0,
    }  # fmt: skip
    assert shift["planned_seconds"] == 465 * 60
    assert shift["losses"]["machine/hydraulics"] == {"count": 1, "seconds": 1800}
    produced = shift["good"] + shift["scrap"]
    assert shift["scrap_by_reason"] == {"QUALITY/scratch": shift["scrap"]}
    assert shift["availability"] == pytest.approx(shift["actual_seconds"] / (465 * 60))
    assert shift["performance"] == pytest.approx(produced * 10 / shift["actual_seconds"])
    assert shift["quality"] == pytest.approx(shift["good"] / produced)
    assert shift["oee"] == pytest.approx(shift["availability"] * shift["performance"] * shift["quality"])
    hours = records(said, "hour")
    assert [record["seconds"]["unplanned_stop"] for record in hours if record["start"].startswith("2026-01-05T07")] == [
        1800
    ]


def test_what_came_late_gives_the_same_figures_and_says_what_was() -> None:
    """The whole day comes at its end: what is said last of each window is what would have been said in time."""
    in_time = given(built(), batches(list(day())))
    late = given(
        built(),
        batches(
            [(at("14:30"), sample) for _, sample in day()] + [(at("06:00"), Sample("press-1/state", at("06:00"), 6))]
        ),
    )
    for window in ("hour", "shift"):
        last = {record["start"]: record for record in records(late, window)}
        for record in records(in_time, window):
            repaired = dict(last[record["start"]])
            for key in ("was", "why", "corrected", "revision"):
                record.pop(key, None), repaired.pop(key, None)
            assert repaired == record
    (first, *_, last_shift) = records(late, "shift")
    assert first["revision"] == 0
    assert last_shift["was"]["good"] == first["good"]
    assert last_shift["why"] == "late samples from plc"


def test_a_lost_source_is_unknown_time_and_the_figures_are_uncertain() -> None:
    fed = batches([pair for pair in day() if pair[0] < at("10:00")])
    lost = Batch.of("$source", at("10:00"), [Sample("$source/plc/connected", at("10:00"), False)])
    place = next(i for i, batch in enumerate(fed) if batch.times[0] > at("10:00"))
    said = given(built(), [*fed[:place], lost, *fed[place:]])
    (shift,) = records(said, "shift")
    assert shift["seconds"]["unknown"] == 4 * 3600
    assert shift["coverage"] == pytest.approx(1 - 4 * 3600 / (465 * 60))
    assert shift["oee_low"] < shift["oee"] < shift["oee_high"]
    oee = [sample for sample in said if sample.tag == "press-1/kpi/shift/oee"]
    assert [sample.quality for sample in oee] == [Quality.UNCERTAIN]


@pytest.mark.parametrize("complete", [True, False])
def test_a_source_that_kept_everything_leaves_no_gap(*, complete: bool) -> None:
    """From 10:00 to 11:00 the connection is out; what the other side had kept comes at 11:00."""
    samples = [(at("11:00") if at("10:00") <= time < at("11:00") else time, sample) for time, sample in day()]
    fed = batches(samples)
    events = [("10:00", "connected", False), ("10:20", "connected", True), ("10:20", "connected", False)]
    events += [("10:59", "connected", True)] + [("11:01", "complete", True)] * complete
    for clock, what, value in events:
        place = next(i for i, batch in enumerate(fed) if batch.times[0] > at(clock))
        fed.insert(place, Batch.of("$source", at(clock), [Sample(f"$source/plc/{what}", at(clock), value)]))
    (plain,) = records(given(built(), batches(list(day()))), "shift")
    *_, shift = records(given(built(), fed), "shift")
    assert (shift["oee"] == plain["oee"]) == complete
    assert (shift["coverage"] == 1) == complete
    hours = [record for record in records(given(built(), fed), "hour") if record["start"].startswith("2026-01-05T10")]
    assert hours[0]["seconds"]["unknown"] > 3590
    assert (hours[-1]["seconds"]["unknown"] == 0) == complete


def test_stops_are_told_when_they_are_incidents_and_when_they_are_over() -> None:
    stops = records(given(built(), batches(list(day()), until="13:00")), "stop")
    assert [(stop["start"][11:16], stop["end"] and stop["end"][11:16], stop["class"]) for stop in stops] == [
        ("07:00", None, "unplanned_stop"),
        ("07:00", "07:30", "unplanned_stop"),
        ("08:00", "08:02", "minor_stop"),
        ("09:00", None, "unplanned_stop"),
        ("09:00", "09:15", "unplanned_stop"),
    ]
    assert stops[1]["reasons"] == [
        {"reason": "machine/hydraulics", "start": "2026-01-05T07:00:00+00:00", "seconds": 1800}
    ]


def test_a_person_gives_the_reason_for_a_part_of_a_stop() -> None:
    edit = {"start": at("07:10"), "end": at("07:20"), "reason": "machine/tool", "by": "anna"}
    fed = batches(list(day()))
    place = next(i for i, batch in enumerate(fed) if batch.times[0] > at("10:00"))
    fed.insert(place, Batch.of("$edits", at("10:00"), [Sample("$edit/press-1", at("10:00"), json.dumps(edit))]))
    back = json.dumps(edit | {"reason": "", "start": at("07:15"), "by": "ben"})
    place = next(i for i, batch in enumerate(fed) if batch.times[0] > at("11:00"))
    fed.insert(place, Batch.of("$edits", at("11:00"), [Sample("$edit/press-1", at("11:00"), back)]))
    said = given(built(), fed)
    hours = [record for record in records(said, "hour") if record["start"].startswith("2026-01-05T07")]
    assert [record["losses"] for record in hours] == [
        {"machine/hydraulics": {"count": 1, "seconds": 1800}},
        {"machine/hydraulics": {"count": 2, "seconds": 1200}, "machine/tool": {"count": 1, "seconds": 600}},
        {"machine/hydraulics": {"count": 2, "seconds": 1500}, "machine/tool": {"count": 1, "seconds": 300}},
    ]
    assert [record.get("why") for record in hours] == [
        None,
        "anna gave the reason machine/tool",
        "ben gave the reason of the machine",
    ]
    assert len({record["oee"] for record in hours}) == 1
    last = [stop for stop in records(said, "stop") if stop["start"].startswith("2026-01-05T07")][-1]
    assert [(part["reason"], part["seconds"]) for part in last["reasons"]] == [
        ("machine/hydraulics", 600),
        ("machine/tool", 300),
        ("machine/hydraulics", 900),
    ]


def test_a_stop_that_late_data_shows_to_be_none_is_withdrawn() -> None:
    running = (at("12:00"), Sample("press-1/state", at("07:00"), 6))
    stops = records(given(built(), batches([*day(), running], until="13:00")), "stop")
    assert [stop for stop in stops if stop.get("withdrawn")] == [
        {"machine": "press-1", "start": "2026-01-05T07:00:00+00:00", "withdrawn": True}
    ]


def edited(*edits: tuple[str, dict[str, Any]], until: str = "16:00") -> list[Sample]:
    """What is given when people say these things at these times."""
    fed = batches(list(day()), until=until)
    for clock, edit in edits:
        place = next(i for i, batch in enumerate(fed) if batch.times[0] > at(clock))
        said = json.dumps({"by": "anna", "reason": "machine/tool"} | edit)
        fed.insert(place, Batch.of("$edit", at(clock), [Sample("$edit/press-1", at(clock), said)]))
    return given(built(), fed)


def parts(said: Sequence[Sample], start: str) -> list[tuple[str, float]]:
    """Reasons and seconds of a stop as it was given last."""
    stop = [stop for stop in records(said, "stop") if stop["start"][11:16] == start][-1]
    return [(part["reason"], part["seconds"]) for part in stop["reasons"]]


def test_a_reason_without_an_end_counts_until_the_stop_is_over() -> None:
    """Said at 07:10 while the machine stands, it goes on with the stop, and says nothing of the next one."""
    said = edited(("07:10", {"start": at("07:05"), "end": None}))
    assert parts(said, "07:00") == [("machine/hydraulics", 300), ("machine/tool", 1500)]
    assert parts(said, "08:00") == [("", 120)]
    assert parts(said, "14:00")[0][0] == ""


def test_what_was_said_last_can_be_taken_back_and_what_was_said_before_counts_again() -> None:
    first = ("09:30", {"start": at("07:00"), "end": None})
    second = ("10:00", {"start": at("07:10"), "end": at("07:20"), "reason": "machine/jam"})
    undo = ("11:00", {"start": at("07:10"), "end": at("07:20"), "undoes": at("10:00"), "by": "ben"})
    assert parts(edited(first, second), "07:00") == [("machine/tool", 600), ("machine/jam", 600), ("machine/tool", 600)]
    said = edited(first, second, undo)
    assert parts(said, "07:00") == parts(edited(first), "07:00") == [("machine/tool", 1800)]
    hour = [record for record in records(said, "hour") if record["start"].startswith("2026-01-05T07")][-1]
    assert (hour["why"], hour["corrected"][11:16]) == ("ben took back a reason", "11:01")
    never = ("11:30", {"start": at("07:10"), "end": at("07:20"), "undoes": at("10:01"), "by": "ben"})
    assert parts(edited(first, second, never), "07:00") == parts(edited(first, second), "07:00")


def test_a_stop_needs_a_reason_where_it_is_long_and_in_a_shift_and_nobody_knows_why() -> None:
    """Neither the minor stop at 08:00, nor the break at 09:00; the late shift's stop does from 14:05 on."""
    said = edited(until="15:00")
    wanted = {stop["start"][11:16]: stop["unexplained"] for stop in records(said, "stop")}
    assert wanted == {"07:00": False, "08:00": False, "09:00": False, "14:00": True}
    live = [json.loads(str(sample.value)) for sample in said if sample.tag == "press-1/kpi/live"]
    assert {record["unexplained"] for record in live if record["shift"] == "early"} == {0}
    assert live[-1]["unexplained"] == 1
    explained = edited(("14:30", {"start": at("14:00"), "end": None}), until="15:00")
    live = [json.loads(str(sample.value)) for sample in explained if sample.tag == "press-1/kpi/live"]
    assert live[-1]["unexplained"] == 0


def test_the_reason_of_a_stop_of_many_days_is_not_forgotten() -> None:
    """A stop that lasts longer than the past can be corrected keeps its reason; that of an earlier one is let go."""
    whole, hour = 24 * 3600 * SECOND, 3600 * SECOND
    processor = built()
    said: list[Sample] = []
    edits = {
        at("07:10"): {"start": at("07:00"), "end": None, "reason": "machine/early", "by": "anna"},
        at("15:00"): {"start": at("14:00"), "end": None, "reason": "machine/mothballed", "by": "anna"},
    }
    for batch in batches(list(day()), until="16:00"):
        said += processor.process(batch)
        for time in [time for time in edits if time <= batch.times[0]]:
            edit = Sample("$edit/press-1", time, json.dumps(edits.pop(time)))
            said += processor.process(Batch.of("$edit", time, [edit]))
    # It is asked every hour, and says the same: of its beginning nothing is left in the end.
    for time in range(at("16:00"), at("16:00") + 9 * whole, hour):
        said += processor.process(Batch.of("plc", time, [Sample("press-1/state", time, 4)]))
        said += processor.process(Batch.of("$clock", time, [Sample("$clock/tick", time, time)]))
    shifts = [record for record in records(said, "shift") if record["start"] > "2026-01-06"]
    assert len(shifts) > 10
    assert {reason for record in shifts for reason in record["losses"]} == {"machine/mothballed"}
    assert b"machine/early" not in processor.snapshot()


def test_a_value_that_the_plant_file_explains_by_now_is_strange_no_more() -> None:
    strange = [(at("06:30"), Sample("press-1/state", at("06:30"), value)) for value in ("Kaffeepause", "Pause")]
    before = built()
    given(before, batches([*day(), *strange], until="07:00"))
    after = built(PLANT.replace("    good:", "    states: {kaffeepause: planned}\n    good:"))
    after.restore(before.snapshot())
    (live, *_) = [sample for sample in given(after, batches([], until="07:30")) if sample.tag == "press-1/kpi/live"]
    assert json.loads(str(live.value))["unknown_states"] == {"Pause": 1}


@pytest.mark.parametrize("nonsense", ["{", "[]", '{"start": "x"}', 5, None, b"x"])
def test_an_edit_that_is_none_changes_nothing(nonsense: Any) -> None:
    fed = batches(list(day()), until="08:30")
    edits = Batch.of("$edits", at("08:30"), [Sample("$edit/press-1", at("08:30"), nonsense)])
    assert given(built(), [*fed, edits]) == given(built(), fed)


def test_values_that_no_mapping_knows_are_named() -> None:
    strange = [
        (at("06:30"), Sample("press-1/state", at("06:30"), "Kaffeepause")),
        (at("06:45"), Sample("press-1/state", at("06:45"), 6)),
    ]
    said = given(built(), batches([*day(), *strange]))
    (shift,) = records(said, "shift")
    assert shift["unknown_states"] == {"Kaffeepause": 1}
    assert shift["seconds"]["unknown"] == 15 * 60


def test_without_an_ideal_cycle_there_is_no_performance() -> None:
    said = given(built(PLANT.replace("    ideal_cycle: 10 s\n", "")), batches(list(day())))
    (shift,) = records(said, "shift")
    assert shift["performance"] is None
    assert shift["oee"] is None
    assert shift["availability"] is not None


def test_without_a_calendar_it_is_said() -> None:
    text = PLANT[: PLANT.index("shifts:")] + PLANT[PLANT.index("reasons:") :]
    said = given(built(text), batches(list(day())))
    assert records(said, "shift") == []
    assert {record["calendar"] for record in records(said, "hour")} == {"no calendar: 24 h assumed"}


def test_a_restart_with_another_plant_file_evaluates_the_past_anew() -> None:
    """A break was forgotten: the shift that was given already is corrected."""
    fed = batches(list(day()), until="14:30")
    before = built(PLANT.replace(', breaks: ["09:00-09:15"]', ""))
    wrong = records(given(before, fed), "shift")
    after = built()
    after.restore(before.snapshot())
    corrected = records(given(after, batches([], until="14:40")[-20:]), "shift")
    assert [record["seconds"]["planned_stop"] for record in wrong + corrected] == [0, 900]
    assert corrected[0]["why"] == "the plant file was changed"
    assert corrected[0]["revision"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("type: machine}", "type: machine, machines: [press-9]}"),
            "there is no machine 'press-9' in `machines`; it has: press-1",
        ),
        (("type: machine}", "type: machine, health: [1, 1, 1]}"), "must be three weights that sum to 1"),
        (("type: machine}", "type: machine, health: [2, -1, 0]}"), "must be three weights that sum to 1"),
        (("ideal_cycle: 10 s", "ideal_cycle: 0 s"), "is no ideal time for one unit; write one from 1 ms to 1 d"),
        (
            ("machine/hydraulics}\n    scrap", "machine/hydraulic}\n    scrap"),
            "there is no reason 'machine/hydraulic' in `reasons`; did you mean 'machine/hydraulics'?",
        ),
        (("    reasons: {17", "    states: {10: runing}\n    reasons: {17"), "must be one of"),
    ],
)
def test_what_is_wrong_in_the_plant_file_is_said(change: tuple[str, str], said: str) -> None:
    assert change[0] in PLANT
    with pytest.raises(PlantError) as caught:
        built(PLANT.replace(*change))
    assert said in str(caught.value)
