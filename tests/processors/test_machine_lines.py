"""Lines, areas and targets out of the processor `machine`: a shift as one would work it out by hand."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shopfloor import plant
from shopfloor.plant import PlantError
from shopfloor.samples import Batch, Sample
from shopfloor.seams import Processor
from shopfloor.testing.contracts import ProcessorContract
from tests.processors.test_machine import SECOND, at, batches, given

NAMES = ("filler", "capper", "packer")
PLANT = """
plant: {site: bremen, timezone: UTC}
shifts:
  - {name: early, days: mon-fri, from: "06:00", to: "14:00", breaks: ["09:00-09:30"]}
machines:
  - {id: filler, ideal_cycle: 10 s, state: filler/state, good: filler/good, scrap: filler/scrap, fault: filler/fault}
  - {id: capper, ideal_cycle: 8 s, state: capper/state, good: capper/good, scrap: capper/scrap, targets: {oee: 0.5}}
  - {id: packer, ideal_cycle: 5 s, state: packer/state, good: packer/good}
  - {id: press, ideal_cycle: 30 s, state: press/state, good: press/good}
lines:
  - {id: bottling, area: hall, machines: [filler, capper, packer], POLICY, targets: {oee: 0.75, quality: 0.9}}
  - {id: stamping, area: hall, machines: [press]}
sources:
  - {name: plc, type: mqtt, servers: mqtt://127.0.0.1, topics: [{topic: "#"}]}
processors:
  - {name: oee, type: machine}
"""
STATES = {
    # Each stands once by itself; whoever waits for another is blocked or starved (PackML 5).
    "filler": [("06:00", 6), ("07:00", 9), ("07:30", 6), ("10:00", 5), ("10:40", 6)],
    "capper": [("06:00", 6), ("07:10", 5), ("07:30", 6), ("10:00", 9), ("10:40", 6)],
    "packer": [("06:00", 6), ("07:10", 9), ("07:40", 6), ("10:00", 5), ("10:40", 6), ("12:00", 4), ("12:02", 6)],
    "press": [("06:00", 6), ("11:00", 9), ("12:00", 6)],
}
MADE = {"filler": (2200, 20), "capper": (2160, 40), "packer": (2150, 0), "press": (600, 0)}
"""Good units and scrap of the shift."""


def built(policy: str = "policy: first_down, bottleneck: filler", change: tuple[str, str] = ("", "")) -> Processor:
    text = PLANT.replace("POLICY", policy).replace(*change)
    return plant.parse(text, "plant.yaml", Path("/nowhere"), {}).processors[0].build()


def shift() -> list[tuple[int, Sample]]:
    """The line's shift as (arrival, sample); counters say at 13:59 what was made."""
    said: list[tuple[int, Sample]] = []
    for name, states in STATES.items():
        said += [(at(clock), Sample(f"{name}/state", at(clock), value)) for clock, value in states]
        for role, made in zip(("good", "scrap"), MADE[name], strict=True):
            if role == "good" or made:
                said += [(at("06:00"), Sample(f"{name}/{role}", at("06:00"), 0))]
                said += [(at("13:59"), Sample(f"{name}/{role}", at("13:59"), made))]
    return said


def records(samples: Sequence[Sample], of: str, window: str = "shift") -> list[dict[str, Any]]:
    return [json.loads(str(s.value)) for s in samples if s.tag == f"{of}/kpi/{window}"]


def given_shift(policy: str) -> list[Sample]:
    return given(built(policy), batches(shift(), until="14:05"))


class TestLines(ProcessorContract):
    """Lines, areas and the site are in the processor's state, too."""

    splits = 5

    def build(self) -> Processor:
        return built()

    def batches(self) -> Sequence[Batch]:
        chance = random.Random(5)
        late = [(time + chance.choice([0, 0, 45 * 60]) * SECOND, sample) for time, sample in shift()]
        return [batch for batch in batches(late, until="09:30", every=600) if at("06:40") <= batch.times[0]]


def test_the_line_stands_with_the_first_machine_that_stands() -> None:
    """450 min planned. The filler stands 07:00-07:30, the packer to 07:40, the capper 10:00-10:40, the packer 2 min."""
    (line,) = records(given_shift("policy: first_down, bottleneck: filler"), "bottling")
    minutes = {name: seconds / 60 for name, seconds in line["seconds"].items() if seconds}
    assert minutes == {"production": 368, "unplanned_stop": 80, "minor_stop": 2, "planned_stop": 30}
    lost = {name: (loss["count"], loss["seconds"] / 60) for name, loss in line["lost_to"].items()}
    assert lost == {"filler": (1, 30), "capper": (1, 40), "packer": (2, 12)}
    assert (line["incidents"], line["minor_stops"], line["good"], line["scrap"]) == (3, 1, 2150, 60)
    # 370 of 450 min; 2220 bottles of 10 s each in 370 min; 2150 of 2210 are good.
    assert line["availability"] == pytest.approx(370 / 450)
    assert line["performance"] == pytest.approx(2220 * 10 / (370 * 60))
    assert line["quality"] == pytest.approx(2150 / 2210)
    assert line["machines"] == ["filler", "capper", "packer"]
    assert line["formula"] == "shopfloor-oee-2/minor stops: performance/line: first_down"


def test_the_line_is_as_its_bottleneck() -> None:
    """The filler stands 30 min and waits for others for 40: 380 of 450 min at work, 40 blocked."""
    (line,) = records(given_shift("policy: bottleneck, bottleneck: filler"), "bottling")
    minutes = {name: seconds / 60 for name, seconds in line["seconds"].items() if seconds}
    assert minutes == {"production": 380, "unplanned_stop": 30, "blocked": 40, "planned_stop": 30}
    assert line["lost_to"] == {"filler": {"count": 1, "seconds": 1800.0}}
    assert (line["good"], line["scrap"]) == (2150, 60)
    assert line["availability"] == pytest.approx(380 / 450)
    assert line["performance"] == pytest.approx(2220 * 10 / (380 * 60))
    assert line["quality"] == pytest.approx(2150 / 2210)
    assert line["formula"].endswith("/line: bottleneck filler")


def test_the_line_is_the_sum_of_its_machines() -> None:
    said = given_shift("policy: sum")
    (line,) = records(said, "bottling")
    machines = [records(said, name)[0] for name in NAMES]
    for key in ("good", "scrap", "incidents", "minor_stops", "planned_seconds", "ideal_seconds"):
        assert line[key] == sum(machine[key] for machine in machines), key
    for name, seconds in line["seconds"].items():
        assert seconds == sum(machine["seconds"][name] for machine in machines)
    # Never the mean of 0.84, 0.91 and so on.
    assert line["availability"] == pytest.approx((380 + 390 + 380) / 1350)


def test_an_area_and_the_site_are_the_sums_of_their_lines() -> None:
    said = given_shift("policy: bottleneck, bottleneck: filler")
    (hall,), (site,) = records(said, "hall"), records(said, "bremen")
    bottling, stamping = records(said, "bottling")[0], records(said, "stamping")[0]
    assert hall["good"] == bottling["good"] + stamping["good"] == 2750
    assert hall["planned_seconds"] == 2 * 450 * 60
    assert hall["seconds"] == site["seconds"]
    assert hall["lost_to"] == {
        "filler": {"count": 1, "seconds": 1800.0},
        "press": {"count": 1, "seconds": 3600.0},
    }
    assert (hall["area"], hall["lines"]) == ("hall", ["bottling", "stamping"])
    assert (site["site"], site["formula"]) == (
        "bremen",
        "shopfloor-oee-2/minor stops: performance/line: sum of lines",
    )


@pytest.mark.parametrize("policy", ["policy: sum", "policy: bottleneck, bottleneck: filler", "policy: first_down"])
def test_hours_sum_to_the_shift(policy: str) -> None:
    said = given_shift(policy)
    hours, (line,) = records(said, "bottling", "hour"), records(said, "bottling")
    for name, seconds in line["seconds"].items():
        if name != "not_scheduled":
            assert sum(hour["seconds"][name] for hour in hours) == pytest.approx(seconds), name
    assert sum(hour["incidents"] for hour in hours) == line["incidents"]
    assert sum(hour["good"] for hour in hours) == line["good"]


def test_late_samples_of_a_machine_correct_its_line() -> None:
    """The capper's stop is told an hour after the shift: the line had run, then it had not."""
    late = [
        (at("15:00") if s.tag == "capper/state" and at("10:00") <= s.time <= at("10:40") else arrives, s)
        for arrives, s in shift()
    ]
    said = given(built(), batches(late, until="15:05"))
    first, *corrections = records(said, "bottling")
    last = corrections[-1]
    assert (first["revision"], first["incidents"]) == (0, 2)
    assert last["lost_to"]["capper"] == {"count": 1, "seconds": 2400.0}
    assert last["was"]["oee"] == first["oee"]
    assert last["why"] == "late samples from plc"
    assert [record["revision"] for record in (first, *corrections)] == list(range(len(corrections) + 1))
    in_time = records(given_shift("policy: first_down, bottleneck: filler"), "bottling")[-1]
    assert {k: v for k, v in last.items() if k not in ("was", "why", "revision", "corrected")} == {
        k: v for k, v in in_time.items() if k != "revision"
    }


def test_the_running_line_says_for_whom_it_stands() -> None:
    said = [s for s in given(built(), batches(shift(), until="14:05")) if s.tag == "bottling/kpi/live"]
    at_once = {s.time: json.loads(str(s.value)) for s in said}
    assert at_once[at("07:20")]["stands_for"] == "filler"
    assert at_once[at("07:20")]["states"] == {"filler": "down", "capper": "blocked", "packer": "down"}
    assert at_once[at("07:35")]["stands_for"] == "packer"
    assert (at_once[at("08:01")]["state"], at_once[at("08:01")]["stands_for"]) == ("running", None)


def test_targets_are_compared_where_there_are_some() -> None:
    said = given_shift("policy: bottleneck, bottleneck: filler")
    (line,), (capper,), (packer,) = (records(said, name) for name in ("bottling", "capper", "packer"))
    assert line["oee"] > 0.75
    assert line["target"] == {"oee": {"value": 0.75, "met": True}, "quality": {"value": 0.9, "met": True}}
    assert capper["target"]["oee"] == {"value": 0.5, "met": True}
    assert "target" not in packer
    night = records(said, "bottling", "hour")[0]
    assert (night["oee"], night["target"]["oee"]["met"]) == (None, None)


def test_a_line_that_is_new_in_the_plant_file_has_figures_of_what_is_kept() -> None:
    before = built("policy: sum", ("  - {id: stamping, area: hall, machines: [press]}\n", ""))
    given(before, batches(shift(), until="14:05"))
    after = built("policy: sum")
    after.restore(before.snapshot())
    said = given(after, batches([], until="14:07")[-1:])
    (shift_,) = records(said, "stamping")
    assert (shift_["good"], shift_["revision"]) == (600, 0)
    changed = built("policy: bottleneck, bottleneck: filler")
    changed.restore(after.snapshot())
    said = given(changed, batches([], until="14:08")[-1:])
    (corrected,) = records(said, "bottling")
    assert (corrected["why"], corrected["revision"]) == ("the plant file was changed", 1)
    assert records(said, "stamping") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("type: machine}", "type: machine, machines: [filler, press]}"),
            "the line 'bottling' needs capper, packer, too",
        ),
        (
            ("bottleneck: filler", "bottleneck: press"),
            "the machine 'press' is not of this line; it has: filler, capper",
        ),
        (("ideal_cycle: 10 s, ", ""), "the machine 'filler' sets the pace of the line, but has no `ideal_cycle`"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(change: tuple[str, str], said: str) -> None:
    with pytest.raises(PlantError) as caught:
        built("policy: bottleneck, bottleneck: filler", change)
    assert said in str(caught.value)
