"""A counter that speaks later than the state, or is away: what is said of such a shift, live, closed, and corrected."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from shopfloor.kpi.facts import pack, unpack
from shopfloor.samples import Batch, Quality, Sample
from shopfloor.seams import Processor
from shopfloor.testing.contracts import ProcessorContract
from tests.processors.test_machine import PLANT, SECOND, at, built, given, records

GATEWAY = PLANT.replace(
    '      - {tag: press-1/good, node: "ns=2;s=b"}\n', ""
).replace(
    "processors:",
    """  - {name: gateway, type: opcua, endpoint: "opc.tcp://127.0.0.1:4841",
     tags: [{tag: press-1/good, node: "ns=2;s=b"}]}
processors:""",
)  # fmt: skip
"""The counter of good units comes by a source of its own."""

Said = tuple[int, str, Sample]
"""When it arrives, and from which source."""


def early_shift(away: tuple[str, str] | None = None, first: str = "06:00") -> Iterator[Said]:
    """A unit every 10 s from 06:00 to 14:00; the counter is heard from ``first`` on, but not while it is away."""
    yield at("06:01"), "plc", Sample("press-1/state", at("06:00"), 6)
    yield at("14:00"), "plc", Sample("press-1/state", at("14:00"), 4)
    if away is not None:
        yield at(away[0]), "$source", Sample("$source/gateway/connected", at(away[0]), value=False)
        yield at(away[1]), "$source", Sample("$source/gateway/connected", at(away[1]), value=True)
    for minute in range(8 * 60):
        time = at("06:00") + 60 * SECOND * minute
        if time >= at(first) and not (away and at(away[0]) <= time < at(away[1])):
            yield time, "gateway", Sample("press-1/good", time, 6 * minute)


def fed(said: Sequence[Said], until: str = "14:30", every: int = 60) -> list[Batch]:
    """A batch a source between two ticks."""
    found: list[Batch] = []
    rest = sorted(said, key=lambda one: one[0])
    for tick in range(at("05:59"), at(until), every * SECOND):
        due, rest = [one for one in rest if one[0] <= tick], [one for one in rest if one[0] > tick]
        found += [
            Batch.of(source, tick, [sample for _, from_, sample in due if from_ == source])
            for source in dict.fromkeys(source for _, source, _ in due)
        ]
        found.append(Batch.of("$clock", tick, [Sample("$clock/tick", tick, tick)]))
    return found


def last(samples: Sequence[Sample], tag: str) -> Sample:
    return [sample for sample in samples if sample.tag == tag][-1]


class TestAway(ProcessorContract):
    """Crash and recovery before, in, and behind a gap of the counter, any cut into batches."""

    splits = 5

    def build(self) -> Processor:
        return built(GATEWAY)

    def batches(self) -> Sequence[Batch]:
        return fed(list(early_shift(("08:00", "09:10"))), until="10:10", every=600)


def test_of_a_first_shift_availability_is_known_before_the_counter_speaks() -> None:
    """The state is good from the beginning; performance and OEE begin with the counter, and are uncertain."""
    said = given(built(GATEWAY), fed(list(early_shift(first="08:00")), until="07:59"))
    live = json.loads(str(last(said, "press-1/kpi/live").value))
    assert (live["availability"], live["performance"], live["oee"], live["coverage"]) == (1.0, None, None, 0.0)
    assert live["uncounted_seconds"] == live["actual_seconds"] > 0
    hour = [sample for sample in said if sample.tag.startswith("press-1/kpi/hour") and sample.time == at("06:00")]
    assert {sample.tag.removeprefix("press-1/kpi/hour"): sample.quality for sample in hour} == {
        "": Quality.UNCERTAIN,
        "/oee": Quality.UNCERTAIN,
        "/availability": Quality.GOOD,
        "/performance": Quality.UNCERTAIN,
        "/quality": Quality.UNCERTAIN,
    }


def test_late_data_that_fills_the_gap_says_what_was_is_and_why() -> None:
    """Source and state are as before; the last records are those of a run without the outage."""
    whole = given(built(GATEWAY), fed(list(early_shift())))
    kept = [(at("10:30"), source, s) for _, source, s in early_shift() if at("08:00") <= s.time < at("10:20")]
    kept = [one for one in kept if one[1] == "gateway"]
    kept += [(at("10:31"), "$source", Sample("$source/gateway/complete", at("10:31"), value=True))]
    late = given(built(GATEWAY), fed([*early_shift(("08:00", "10:20")), *kept]))
    for window in ("hour", "shift"):
        found = {record["start"]: record for record in records(late, window)}
        for record in records(whole, window):
            final = found[record["start"]]
            assert {key: final[key] for key in record.keys() - {"revision"}} == {
                key: record[key] for key in record.keys() - {"revision"}
            }
    *_, hour = [record for record in records(late, "hour") if record["start"].startswith("2026-01-05T08")]
    assert (hour["was"]["performance"], hour["performance"], hour["revision"]) == (None, 1.0, 1)
    assert hour["why"] in ("late samples from gateway", "gateway had kept what happened")


def test_a_machine_that_counts_nothing_has_figures_as_before() -> None:
    text = PLANT.replace("    good: press-1/good\n    scrap: press-1/scrap\n", "").replace(
        "    ideal_cycle: 10 s\n", ""
    )
    said = given(built(text), fed([one for one in early_shift() if one[1] == "plc"]))
    (shift,) = records(said, "shift")
    assert (shift["availability"], shift["coverage"], shift["uncounted_seconds"]) == (1.0, 1.0, 0)


def older(state: bytes) -> bytes:
    """As the version before stored it, which knew one formula and no time without a counter."""

    def without(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: without(value) for key, value in part.items() if not str(key).startswith("uncounted")}
        return [without(one) for one in part] if isinstance(part, list) else part

    known = unpack(state)
    for machine in known["machines"].values():
        machine["windows"] = without(machine["windows"])
        machine["windows"]["plan"] = machine["windows"]["plan"].rpartition(" ")[2]
    return pack(known)


def test_figures_of_the_version_before_are_worked_out_anew() -> None:
    """What it had said too low is corrected, with the reason; what has no such time is not said again."""
    batches = fed(list(early_shift(first="08:00")), until="10:31")
    before = built(GATEWAY)
    given(before, batches)
    after = built(GATEWAY)
    after.restore(older(before.snapshot()))
    said = given(after, fed([], until="10:33")[-1:])
    corrected = [(record["start"][11:16], record["revision"], record["why"]) for record in records(said, "hour")]
    assert corrected == [(f"0{hour}:00", 1, "the formula is shopfloor-oee-2 now") for hour in (6, 7)]
    (hour, _) = records(said, "hour")
    assert (hour["performance"], hour["was"]["performance"], hour["formula"][:15]) == (None, 0.0, "shopfloor-oee-2")
    again = built(GATEWAY)
    again.restore(before.snapshot())
    assert not records(given(again, fed([], until="10:33")[-1:]), "hour")
