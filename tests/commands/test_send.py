"""One command: who may, what fits, once, never late, and what is known afterwards."""

import asyncio
import json
import math

import pytest

from shopfloor.commands import Refused, verify
from shopfloor.samples import Command, Misconfigured, Outcome, Rejected, Sample, Unavailable, Value
from tests.commands.shop import Shop

SECOND = 10**9


async def send(shop: Shop, tag: str = "press-1/SP", value: Value = 45.0, **more: object) -> Outcome:
    options: dict[str, object] = {"issued_by": "ada", "role": "operator", **more}
    return await shop.commands.send(tag, value, **options)  # type: ignore[arg-type]  # a test's shorthand


async def refused(shop: Shop, **what: object) -> Refused:
    with pytest.raises(Refused) as caught:
        await send(shop, **what)  # type: ignore[arg-type]  # a test's shorthand
    return caught.value


async def test_a_command_is_recorded_then_written_then_its_outcome_recorded(shop: Shop) -> None:
    seen_at_execution: list[object] = []
    execute = shop.machine.execute

    async def watching(command: Command) -> Outcome:
        seen_at_execution.append(await shop.events())
        return await execute(command)

    shop.commands._execution._execute = watching
    outcome = await send(shop)
    assert (outcome.done, outcome.detail) == (True, "read back 45.0")
    assert seen_at_execution == [[("issued", "press-1/SP", 45.0)]]
    assert await shop.events() == [("issued", "press-1/SP", 45.0), ("done", "press-1/SP", 45.0)]
    assert shop.machine.writes == [("press-1/SP", 45.0)]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"tag": "press-1/PV"}, "not_allowed"),
        ({"tag": ""}, "not_allowed"),
        ({"tag": "x\ud800" * 9999}, "not_allowed"),
        ({"role": "viewer"}, "role"),
        ({"tag": "press-1/Mode", "value": 1}, "role"),
        ({"value": 80.1}, "range"),
        ({"value": -1}, "range"),
        ({"value": 2**80}, "range"),
        ({"value": math.nan}, "type"),
        ({"value": math.inf}, "type"),
        ({"value": True}, "type"),
        ({"value": "45"}, "type"),
        ({"value": b"45"}, "type"),
        ({"value": None}, "type"),
        ({"tag": "press-1/Mode", "value": "x" * 65_537, "role": "admin"}, "range"),
        ({"tag": "press-1/Start", "value": True}, "momentary"),
        ({"command_id": "a b"}, "id"),
        ({"command_id": ""}, "id"),
        ({"command_id": "x" * 65}, "id"),
        ({"expires_in": 0}, "range"),
    ],
)
async def test_what_must_not_be_written_is_refused_recorded_and_not_executed(
    shop: Shop, what: dict[str, object], reason: str
) -> None:
    refusal = await refused(shop, **what)
    assert refusal.reason == reason
    assert refusal.title
    assert str(refusal)
    assert [event for event, _, _ in await shop.events()] == ["refused"]
    assert shop.machine.commands == []


@pytest.mark.parametrize(("role", "may"), [("viewer", False), ("operator", False), ("engineer", True), ("admin", True)])
async def test_roles_are_ordered(shop: Shop, role: str, *, may: bool) -> None:
    if may:
        assert (await send(shop, "press-1/Mode", 2, role=role)).done
    else:
        assert (await refused(shop, tag="press-1/Mode", value=2, role=role)).reason == "role"


@pytest.mark.parametrize(("known", "value", "fits"), [
    (True, False, True), (True, 0, False), (3, 4.5, True), (3, True, False), ("a", "b", True), ("a", 1, False),
    (None, "b", True),
])  # fmt: skip
async def test_a_value_of_another_kind_than_the_tag_has_now_is_refused(
    shop: Shop, known: Value, value: Value, *, fits: bool
) -> None:
    shop.commands._current = lambda tag: Sample(tag, 1, known)
    if fits:
        assert (await send(shop, "press-1/Mode", value, role="engineer")).done
    else:
        assert (await refused(shop, tag="press-1/Mode", value=value, role="engineer")).reason == "type"


async def test_limits_of_the_range_are_inside(shop: Shop) -> None:
    assert (await send(shop, value=0)).done
    assert (await send(shop, value=80)).done


async def test_the_same_id_is_executed_once_also_at_the_same_time_and_after_a_restart(shop: Shop) -> None:
    shop.machine.hangs.clear()
    both = [asyncio.ensure_future(send(shop, command_id="one")) for _ in range(2)]
    await asyncio.sleep(0)
    shop.machine.hangs.set()
    first, second = await asyncio.gather(*both)
    assert first == second
    assert await send(shop, command_id="one") == first
    await shop.restart()
    assert await send(shop, command_id="one") == first
    assert len(shop.machine.commands) == 1


@pytest.mark.parametrize(
    "other", [{"value": 46.0}, {"value": 45}, {"tag": "press-1/Mode", "role": "admin"}, {"issued_by": "bob"}]
)
async def test_an_id_stands_for_one_command_only(shop: Shop, other: dict[str, object]) -> None:
    await send(shop, command_id="one")
    assert (await refused(shop, **{"command_id": "one", **other})).reason == "conflict"
    assert len(shop.machine.commands) == 1


async def test_an_id_that_was_refused_may_be_used_again(shop: Shop) -> None:
    await refused(shop, command_id="one", value=99)
    assert (await send(shop, command_id="one", value=9)).done


async def test_a_failure_is_answered_the_same_way_again(shop: Shop) -> None:
    shop.machine.connected = False
    first = await send(shop, command_id="one")
    assert (first.done, first.detail) == (False, "the source is not connected")
    shop.machine.connected = True
    assert await send(shop, command_id="one") == first
    assert shop.machine.writes == []


async def test_a_long_value_is_recorded_cut_and_its_id_still_recognised(shop: Shop) -> None:
    long = "ü" * 5_000
    first = await send(shop, "press-1/Mode", long, role="admin", command_id="long")
    assert (await send(shop, "press-1/Mode", long, role="admin", command_id="long")).done is first.done is True
    assert (
        await refused(shop, tag="press-1/Mode", value=long + "!", role="admin", command_id="long")
    ).reason == "conflict"
    record = (await shop.commands.audit(1, before=2))[0]
    assert isinstance(record.value, dict)
    assert record.value["length"] == 5_000


@pytest.mark.parametrize(
    ("error", "done"),
    [
        (RuntimeError("bug"), None),
        (Unavailable("gone"), None),
        (Misconfigured("no node"), False),
        (Rejected("no"), False),
    ],
)
async def test_an_error_of_the_source_is_unknown_unless_it_says_that_nothing_was_written(
    shop: Shop, error: Exception, *, done: bool | None
) -> None:
    shop.machine.error = error
    outcome = await send(shop)
    assert outcome.done is done
    assert str(error) in outcome.detail
    assert (await shop.events())[-1][0] == ("unknown" if done is None else "failed")


async def test_a_source_that_never_answers_ends_as_unknown(shop: Shop) -> None:
    shop.machine.hangs.clear()
    sending = asyncio.ensure_future(send(shop))
    await shop.clock.advance(9 * SECOND)
    assert not sending.done()
    await shop.clock.advance(3 * SECOND)
    assert (await sending).done is None
    assert shop.machine.writes == []


async def test_commands_to_one_tag_go_one_after_the_other_and_expire_while_they_wait(shop: Shop) -> None:
    shop.machine.hangs.clear()
    first = asyncio.ensure_future(send(shop, value=1))
    await shop.clock.advance(SECOND)
    second = asyncio.ensure_future(send(shop, value=2))
    third = asyncio.ensure_future(send(shop, value=3, expires_in=SECOND))
    await shop.clock.advance(2 * SECOND)
    shop.machine.hangs.set()
    assert (await first).done
    assert (await second).done
    late = await third
    assert (late.done, "expired" in late.detail) == (False, True)
    assert shop.machine.writes == [("press-1/SP", 1), ("press-1/SP", 2)]


@pytest.mark.parametrize("jump", [-3600 * SECOND, 3600 * SECOND])
async def test_a_wall_clock_that_jumps_never_makes_a_command_live_longer(shop: Shop, jump: int) -> None:
    shop.machine.hangs.clear()
    first = asyncio.ensure_future(send(shop, value=1))
    second = asyncio.ensure_future(send(shop, value=2, expires_in=SECOND))
    await shop.clock.advance(2 * SECOND)
    shop.clock.utc += jump
    shop.machine.hangs.set()
    await first
    assert (await second).done is False
    assert shop.machine.writes == [("press-1/SP", 1)]


async def test_an_expiry_is_the_plant_files_or_shorter(shop: Shop) -> None:
    await send(shop, expires_in=3600 * SECOND)
    await send(shop, expires_in=SECOND)
    assert [c.expires - shop.clock.now() for c in shop.machine.commands] == [5 * SECOND, SECOND]


async def test_a_caller_that_goes_away_neither_stops_nor_repeats_a_command(shop: Shop) -> None:
    shop.machine.hangs.clear()
    sending = asyncio.ensure_future(send(shop, command_id="one"))
    await shop.clock.advance(0)
    sending.cancel()
    await shop.clock.advance(0)
    shop.machine.hangs.set()
    assert (await send(shop, command_id="one")).done
    assert len(shop.machine.commands) == 1


async def test_nothing_is_written_when_it_cannot_be_recorded(shop: Shop) -> None:
    assert shop.commands._audit._db is not None
    shop.commands._audit._db.execute("PRAGMA query_only = 1")
    with pytest.raises(Unavailable, match="cannot be written"):
        await send(shop)
    assert shop.machine.commands == []


async def test_an_outcome_that_cannot_be_recorded_is_still_answered_and_unknown_after_a_restart(shop: Shop) -> None:
    execute = shop.machine.execute

    async def breaks_the_disk(command: Command) -> Outcome:
        assert shop.commands._audit._db is not None
        shop.commands._audit._db.execute("PRAGMA query_only = 1")
        return await execute(command)

    shop.commands._execution._execute = breaks_the_disk
    outcome = await send(shop, command_id="one")
    assert outcome.done
    assert "could not be recorded" in outcome.detail
    await shop.restart()
    assert (await send(shop, command_id="one")).done is None
    assert len(shop.machine.commands) == 1


async def test_an_issued_command_without_outcome_is_unknown_after_a_crash_and_never_sent_again(shop: Shop) -> None:
    shop.machine.hangs.clear()
    sending = asyncio.ensure_future(send(shop, command_id="one"))
    await shop.clock.advance(0)
    await shop.restart()
    shop.machine.hangs.set()
    assert [event for event, _, _ in await shop.events()] == ["issued", "unknown"]
    assert (await send(shop, command_id="one")).done is None
    await shop.restart()
    assert [event for event, _, _ in await shop.events()] == ["issued", "unknown"]
    assert shop.machine.writes == []
    sending.cancel()


async def test_commands_are_refused_while_stopping(shop: Shop) -> None:
    shop.commands._closed = True
    assert (await refused(shop)).reason == "closed"


async def test_who_paused_a_component_is_recorded(shop: Shop) -> None:
    await shop.commands.record_control("ada", "operator", "mqtt: pause")
    (record,) = await shop.commands.audit()
    assert (record.event, record.who, record.detail) == ("control", "ada", "mqtt: pause")
    assert json.loads(json.dumps(verify(shop.path).records)) == 1
