"""What the processor gives of products, orders and single cycles."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shopfloor import plant
from shopfloor.samples import Batch, Sample
from shopfloor.seams import Processor
from shopfloor.testing.contracts import ProcessorContract

SECOND = 10**9
BEGIN = 1_767_571_200 * SECOND  # Monday 2026-01-05, 00:00 UTC
PLANT = """
plant: {site: test, timezone: Europe/Berlin}
machines:
  - id: press-1
    products: {A17: 10 s, B9: 20 s}
    state: press-1/state
    good: press-1/good
    product: press-1/product
    order: press-1/order
    cycles: each
orders:
  - {id: "4711", product: A17, quantity: 500, machine: press-1, due: 2026-01-05 14:00}
  - {id: "4712", product: B9, ideal_cycle: 15 s}
sources:
  - name: plc
    type: mqtt
    servers: ["mqtt://127.0.0.1"]
    topics: [{topic: "#"}]
processors:
  - {name: oee, type: machine, remember: 1 d}
"""


def built(text: str = PLANT) -> Processor:
    return plant.parse(text, "plant.yaml", Path("/nowhere"), {}).processors[0].build()


def at(clock: str) -> int:
    hours, minutes, *seconds = (int(part) for part in clock.split(":"))
    return BEGIN + (hours * 3600 + minutes * 60 + sum(seconds)) * SECOND


def told(*samples: tuple[str, str, Any]) -> Batch:
    """Batch of (clock, tag of press-1, value)."""
    return Batch.of("plc", 0, [Sample(f"press-1/{tag}", at(clock), value) for clock, tag, value in samples])


def tick(clock: str) -> Batch:
    return Batch.of("$clock", at(clock), [Sample("$clock/tick", at(clock), at(clock))])


def given(processor: Processor, fed: Sequence[Batch], what: str) -> list[dict[str, Any]]:
    found = [sample for batch in fed for sample in processor.process(batch)]
    return [json.loads(str(sample.value)) for sample in found if sample.tag == f"press-1/kpi/{what}"]


HOUR = [
    told(
        ("06:00", "state", 6), ("06:00", "product", "A17"), ("06:00", "order", 4711), ("06:00", "good", 0),
        ("06:00:10", "good", 1), ("06:00:22", "good", 2), ("06:00:32", "good", 7), ("06:00:42", "good", 8),
    ),
    tick("06:01"),
    told(("06:01:02", "state", 9), ("06:01:12", "state", 6), ("06:01:22", "good", 9)),
    tick("06:02"),
    told(("06:10", "order", "4712"), ("06:10", "product", "B9"), ("06:10:15", "good", 10)),
    tick("06:11"),
]  # fmt: skip


class TestMaking(ProcessorContract):
    splits = 3

    def build(self) -> Processor:
        return built()

    def batches(self) -> Sequence[Batch]:
        late = told(("06:00:50", "good", 8), ("06:05", "product", "B9"), ("06:00:12", "good", 2))
        return [*HOUR, late, tick("06:12"), told(("06:30", "product", "X"), ("06:40", "good", 12)), tick("07:10")]


def test_each_cycle_is_given_once_it_is_over() -> None:
    """12 s; five at once, of which no single cycle is known; 10 s; one with a stop in it; one of the next order."""
    cycles = given(built(), HOUR, "cycle")
    assert [(c["end"][11:19], c["class"], c["seconds"], c["units"], c["ideal_seconds"]) for c in cycles] == [
        ("07:00:22", "cycle", 12, 1, 10),
        ("07:00:32", "several", None, 5, 10),
        ("07:00:42", "cycle", 10, 1, 10),
        ("07:01:22", "interrupted", None, 1, 10),
        ("07:10:15", "cycle", 533, 1, 15),
    ]
    assert {(c["order"], c["product"], c["good"], c["scrap"]) for c in cycles[2:]} == {
        ("4711", "A17", 1, 0),
        ("4712", "B9", 1, 0),
    }


def test_a_late_unit_withdraws_a_cycle_and_gives_two() -> None:
    processor = built()
    given(processor, HOUR, "cycle")
    anew = given(processor, [told(("06:00:16", "good", 2)), tick("06:12")], "cycle")
    assert [(c["end"][11:19], c.get("seconds"), "withdrawn" in c) for c in anew] == [
        ("07:00:16", 6, False),
        ("07:00:22", None, True),
        ("07:00:32", None, False),
    ]


def test_an_order_is_given_when_the_next_one_begins_and_anew_when_something_comes_late() -> None:
    processor = built()
    (order,) = given(processor, HOUR, "order")
    assert (order["order"], order["product"], order["start"][11:16], order["end"][11:16]) == (
        "4711", "A17", "07:00", "07:10",
    )  # fmt: skip
    assert (order["good"], order["planned_quantity"], order["due"]) == (9, 500, "2026-01-05T14:00:00+01:00")
    assert (order["ideal_seconds"], order["incidents"], order["minor_stops"]) == (90, 0, 1)
    assert order["cycles"]["count"] == 2
    (again,) = given(processor, [told(("06:05", "good", 10), ("06:10:15", "good", 11)), tick("06:12")], "order")
    assert (again["good"], again["revision"], again["was"]["good"]) == (10, 1, 9)
    assert again["why"] == "late samples from plc"
    # It was the next order's from the beginning: what was given is taken back.
    moved = given(processor, [told(("06:00", "order", 4712)), tick("06:13")], "order")
    assert [("withdrawn" in one, one["order"]) for one in moved] == [(True, "4711")]


def test_a_window_is_split_by_product_and_says_of_which_nobody_knows_how_fast_it_could_be() -> None:
    processor = built()
    more = [*HOUR, told(("06:30", "product", "X"), ("06:40", "good", 12)), tick("06:59")]
    live = given(processor, more, "live")[-1]
    assert (live["product"], live["order"], "without_ideal_cycle" in live) == ("X", "4712", False)
    assert live["products"].keys() == {"", "A17", "B9", "X"}
    assert "histogram" not in live["cycles"]
    hour = given(processor, [tick("07:01")], "hour")[-1]
    assert sum(part["good"] for part in hour["products"].values()) == hour["good"] == 12
    assert sum(part["seconds"]["production"] for part in hour["orders"].values()) == hour["seconds"]["production"]
    assert hour["cycles"]["histogram"]


def test_a_product_that_has_no_ideal_cycle_is_named_and_gives_no_performance() -> None:
    text = PLANT.replace(", ideal_cycle: 15 s", "")
    more = [*HOUR, told(("06:30", "product", "X"), ("06:40", "good", 12)), tick("07:01")]
    hour = given(built(text), more, "hour")[-1]
    assert (hour["performance"], hour["oee"], hour["without_ideal_cycle"]) == (None, None, ["X"])
    assert hour["products"]["A17"]["performance"] is not None


def test_an_order_that_lasts_longer_than_the_past_can_be_corrected_is_told_as_a_whole() -> None:
    """Five days, of which one can be corrected; in the middle everything is stored and read again."""
    processor = built()
    fed = [told(("06:00", "state", 6), ("06:00", "product", "A17"), ("06:00", "order", 4711), ("06:00", "good", 0))]
    for hour in range(7, 126):
        fed += [told((f"{hour:02}:00", "good", hour - 6), (f"{hour:02}:00", "order", 4711)), tick(f"{hour:02}:01")]
    assert not given(processor, fed[:150], "order")
    state = processor.snapshot()
    assert len(state) < 100_000
    processor = built()
    processor.restore(state)
    assert not given(processor, fed[150:], "order")
    (order,) = given(processor, [told(("126:00", "order", 4712)), tick("126:01")], "order")
    assert (order["good"], order["start"][:16], order["end"][:16]) == (119, "2026-01-05T07:00", "2026-01-10T07:00")
    assert sum(order["seconds"].values()) == 120 * 3600


def judged(clock: str, said: dict[str, Any]) -> Batch:
    known = {"start": at("06:00"), "end": at("07:00"), "into": "scrap", "reason": "QUALITY/scratch", "by": "anna"}
    return Batch.of("$edit", at(clock), [Sample("$edit/press-1/units", at(clock), json.dumps(known | said))])


def test_units_that_are_scrap_after_all_correct_the_hour_and_the_order() -> None:
    """Two of the nine of the first order; of ten others there is one, in the next order; in the end one is good."""
    processor = built()
    given(processor, [*HOUR, tick("07:01")], "hour")
    fed = [judged("07:02", {"quantity": 2}), tick("07:03")]
    found = [sample for batch in fed for sample in processor.process(batch)]
    last = {sample.tag: json.loads(str(sample.value)) for sample in found if sample.tag.count("/") == 2}
    hour, order = last["press-1/kpi/hour"], last["press-1/kpi/order"]
    assert (hour["good"], hour["scrap"], hour["scrap_by_reason"]) == (8, 2, {"QUALITY/scratch": 2})
    assert hour["rejudged"] == {"to_good": 0, "to_scrap": 2, "unmatched": 0}
    assert (hour["why"], hour["was"]["scrap"]) == ("anna says 2 units are scrap", 0)
    assert (order["good"], order["scrap"], order["revision"]) == (7, 2, 1)
    state = processor.snapshot()
    processor = built()
    processor.restore(state)
    more = [
        judged("07:04", {"quantity": 10, "start": at("06:10")}),
        judged("07:05", {"quantity": 1, "into": "good"}),
        tick("07:06"),
    ]
    hour = given(processor, more, "hour")[-1]
    assert (hour["good"], hour["scrap"], hour["rejudged"]["unmatched"]) == (8, 2, 9)
    assert hour["orders"]["4711"]["scrap"] == hour["orders"]["4712"]["scrap"] == 1


def test_what_is_no_judgement_changes_nothing() -> None:
    processor = built()
    given(processor, [*HOUR, tick("07:01")], "hour")
    wrong: list[dict[str, Any]] = [
        {"quantity": 0}, {"quantity": -1}, {"quantity": "2"}, {"quantity": 2, "into": "gold"},
        {"quantity": 2, "start": at("07:00")}, {},
    ]  # fmt: skip
    assert not given(processor, [*(judged("07:02", said) for said in wrong), tick("07:03")], "hour")
