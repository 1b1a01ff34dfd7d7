"""What people say of a machine's units over the API: good after all, or scrap."""

import json
from typing import Any

import httpx
import msgspec
import pytest

from shopfloor.console import unit_models as models
from shopfloor.processors.machine import UnitsEdit
from tests.console.fakes import FakeRuntime
from tests.console.filler import MS, NOW
from tests.console.test_api import problem
from tests.console.worked import MINUTE

HOUR = 60 * MINUTE
PATH = "/api/machines/filler-1/units"


def body(**change: Any) -> dict[str, Any]:
    known = {
        "from": (NOW - HOUR) // MS,
        "to": NOW // MS,
        "quantity": 3,
        "into": "scrap",
        "reason": "QUALITY/underfilled",
    }
    return known | change


async def test_units_that_are_scrap_after_all_are_journalled_and_it_is_recorded_who_said_so(
    asked: httpx.AsyncClient, plant: FakeRuntime
) -> None:
    answer = await asked.post(PATH, json=body(comment=" sampled "))
    assert answer.status_code == 200
    models.UnitsJudged.model_validate(answer.json())
    ((machine, edit),) = plant.edits
    said = msgspec.json.decode(edit, type=UnitsEdit)
    assert (machine, said.start, said.end) == ("filler-1/units", NOW - HOUR, NOW)
    assert (said.quantity, said.into, said.reason, said.comment) == (3, "scrap", "QUALITY/underfilled", "sampled")
    (record,) = await plant.commands.audit(1)
    assert record.who == said.by == answer.json()["by"]
    assert record.detail.startswith("filler-1: 3 units from ")
    assert record.detail.endswith(" are scrap QUALITY/underfilled sampled")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"to": (NOW - 2 * HOUR) // MS}, "to: must be later than `from`"),
        ({"to": NOW // MS + 1000}, "to: lies in the future"),
        ({"from": NOW // MS - 90_000_000}, "at most 24 h at once"),
        ({"from": NOW // MS - 300_000_000, "to": NOW // MS - 290_000_000}, "the processor oee corrects 3 d back"),
        ({"quantity": 0}, "quantity"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": "3"}, "quantity"),
        ({"into": "gold"}, "into"),
        ({"into": "good"}, "reason: is for scrap"),
        ({"reason": "a//b"}, "reason"),
        ({"reason": "QUALITY/scratch"}, "is none of the machine's `scrap_reasons`: MATERIAL/cap"),
        ({"by": "me"}, "by"),
    ],
)
async def test_what_cannot_be_said_of_units_is_refused(
    asked: httpx.AsyncClient, plant: FakeRuntime, change: dict[str, Any], said: str
) -> None:
    assert said in json.dumps(problem(await asked.post(PATH, json=body(**change)), 422), ensure_ascii=False)
    assert plant.edits == []


async def test_what_cannot_become_durable_is_not_taken(asked: httpx.AsyncClient, plant: FakeRuntime) -> None:
    plant.connected = False
    problem(await asked.post(PATH, json=body()), 503)
    (record,) = await plant.commands.audit(1)
    assert record.detail.endswith("not taken, the disk is full")
    problem(await asked.post("/api/machines/nobody/units", json=body()), 404)
