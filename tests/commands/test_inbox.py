"""Commands that come as messages: late ones are refused, a press is a lease, letting go needs nothing."""

import pytest

from shopfloor.commands import CommandInbox
from shopfloor.commands.inbox import AT_ONCE
from shopfloor.plant import ByMessage
from shopfloor.samples import Answer, Request
from tests.commands.shop import SECOND, Shop, settle

MS = 10**6
START = "press-1/Start"
SP = "press-1/SP"


class Phone:
    """Sends messages and keeps the answers."""

    def __init__(self, shop: Shop, **config: object) -> None:
        self.shop = shop
        self.answers: list[Answer] = []
        config_ = ByMessage.model_validate({"who": "phone", **config})
        self.inbox = CommandInbox(shop.commands, config_, "cloud", shop.clock)

    async def say(self, tag: str, value: object, **more: object) -> Answer | None:
        """Send one message, let it be worked on, and give the newest answer if there is a new one."""
        before = len(self.answers)
        self.inbox.put(Request(tag, value, **more), self.answers.append)  # type: ignore[arg-type]  # as a message would
        await settle()
        return self.answers[-1] if len(self.answers) > before else None

    def writes(self, tag: str = START) -> list[object]:
        return [value for written, value in self.shop.machine.writes if written == tag]


@pytest.fixture
def phone(shop: Shop) -> Phone:
    return Phone(shop)


async def test_a_value_is_written_once_and_answered(phone: Phone, shop: Shop) -> None:
    answer = await phone.say(SP, 42.5, id="a1")
    assert answer == Answer("a1", SP, "set", 42.5, done=True, detail="read back 42.5")
    again = await phone.say(SP, 42.5, id="a1")
    assert again is not None
    assert again.done
    assert phone.writes(SP) == [42.5]
    assert await shop.events() == [("issued", SP, 42.5), ("done", SP, 42.5)]
    assert (await shop.commands.audit(1))[0].who == "phone"


async def test_values_for_one_tag_are_written_in_the_order_of_their_messages(phone: Phone, shop: Shop) -> None:
    for value in range(30):
        phone.inbox.put(Request(SP, value), phone.answers.append)
    await shop.clock.advance(SECOND)
    assert phone.writes(SP) == list(range(30))


@pytest.mark.parametrize(
    ("tag", "value", "title"),
    [
        (SP, 81, "The value is out of range"),
        (SP, True, "This is not a number"),
        (SP, None, "There is no value"),
        ("press-1/PV", 1, "This cannot be written"),
        ("press-1/Mode", 1, "You may not do this"),
        (START, 1, "This is a button"),
        (START, "true", "This is a button"),
    ],
)
async def test_what_may_not_be_is_refused_said_and_recorded(
    phone: Phone, shop: Shop, tag: str, value: object, title: str
) -> None:
    answer = await phone.say(tag, value, id="a1")
    assert answer is not None
    assert (answer.event, answer.done, answer.reason, answer.id) == ("refused", False, title, "a1")
    assert shop.machine.commands == []
    assert await shop.events() == [("refused", tag, value)]


async def test_the_role_of_the_plant_file_counts(shop: Shop) -> None:
    engineer = Phone(shop, role="engineer")
    answer = await engineer.say("press-1/Mode", 1)
    assert answer is not None
    assert answer.done


@pytest.mark.parametrize("offset", [-11 * SECOND, 11 * SECOND])
async def test_a_message_of_another_time_is_refused(phone: Phone, shop: Shop, offset: int) -> None:
    """Nobody knows what kept it, or whose clock is wrong."""
    for tag, value in ((SP, 1), (START, True)):
        answer = await phone.say(tag, value, sent=shop.clock.utc + offset)
        assert answer is not None
        assert (answer.event, answer.reason) == ("refused", "The message is not of now")
        assert "11 s" in answer.detail
        assert "max_age" in answer.detail
    assert shop.machine.commands == []


async def test_a_message_that_is_older_than_the_command_may_become_is_not_carried_out(phone: Phone, shop: Shop) -> None:
    """Within ``max_age``, but longer on its way than ``expires`` of the tag allows (5 s)."""
    answer = await phone.say(SP, 1, sent=shop.clock.utc - 6 * SECOND)
    assert answer is not None
    assert (answer.event, answer.reason) == ("refused", "The time to live is over")
    answer = await phone.say(SP, 1, sent=shop.clock.utc - 4 * SECOND)
    assert answer is not None
    assert answer.done
    assert shop.machine.commands[0].expires == shop.clock.utc + SECOND


async def test_a_press_ends_with_its_lease(phone: Phone, shop: Shop) -> None:
    answer = await phone.say(START, True, id="p1")
    assert answer is not None
    assert (answer.event, answer.done) == ("press", True)
    await shop.clock.advance(SECOND // 2)
    assert phone.writes() == [True, False]
    assert phone.answers[-1] == Answer("p1", START, "release", value=False, done=True, detail="read back False",
                                       reason="lease ended")  # fmt: skip


@pytest.mark.parametrize("press_id", ["", "p1"])
async def test_repeating_it_keeps_it_and_false_lets_go(phone: Phone, shop: Shop, press_id: str) -> None:
    await phone.say(START, True, id=press_id)
    for _ in range(5):
        await shop.clock.advance(400 * MS)
        assert await phone.say(START, True, id=press_id) is None
    assert phone.writes() == [True]
    answer = await phone.say(START, False, id=press_id)
    assert answer is not None
    assert (answer.event, answer.reason, answer.done) == ("release", "released", True)
    assert phone.writes() == [True, False]


async def test_renewals_with_numbers_must_grow(phone: Phone, shop: Shop) -> None:
    await phone.say(START, True, id="p1", sequence=1)
    await shop.clock.advance(300 * MS)
    await phone.say(START, True, id="p1", sequence=2)
    await shop.clock.advance(300 * MS)
    await phone.say(START, True, id="p1", sequence=2)  # late: it came twice
    await shop.clock.advance(300 * MS)
    assert phone.writes() == [True, False]
    answer = await phone.say(START, True, id="p1", sequence=3)
    assert answer is not None
    assert answer.event == "refused"
    assert phone.writes() == [True, False]


async def test_a_short_tap_is_carried_out_whole(phone: Phone, shop: Shop) -> None:
    phone.inbox.put(Request(START, True), phone.answers.append)
    phone.inbox.put(Request(START, False), phone.answers.append)
    await shop.clock.advance(SECOND)
    assert phone.writes() == [True, False]
    assert [a.event for a in phone.answers] == ["press", "release"]


async def test_another_press_neither_takes_nor_ends_it(phone: Phone, shop: Shop) -> None:
    await phone.say(START, True, id="p1")
    taken = await phone.say(START, True, id="p2")
    assert taken is not None
    assert (taken.event, taken.reason) == ("refused", "Somebody else holds it")
    gone = await phone.say(START, False, id="p2")
    assert gone is not None
    assert (gone.reason, gone.done) == ("gone", False)
    assert phone.writes() == [True]
    other = Phone(shop, who="tablet")
    answer = await other.say(START, True)
    assert answer is not None
    assert answer.event == "refused"
    assert phone.writes() == [True]


async def test_letting_go_needs_no_time_and_no_room(phone: Phone, shop: Shop) -> None:
    """It is the safe direction: an old message lets go too, also when too much is under way."""
    await phone.say(START, True)
    shop.machine.hangs.clear()
    for number in range(AT_ONCE):
        phone.inbox.put(Request(SP, number % 80), phone.answers.append)
    await settle()
    too_much = await phone.say(SP, 1)
    assert too_much is not None
    assert too_much.reason == "Too much is asked for at once"
    shop.machine.hangs.set()
    await phone.say(START, False, sent=shop.clock.utc - 3600 * SECOND)
    assert phone.writes() == [True, False]


async def test_a_lost_connection_lets_go(phone: Phone, shop: Shop) -> None:
    await phone.say(START, True)
    await phone.say("press-1/Stop", True)
    phone.inbox.lost()
    await settle()
    assert sorted(shop.machine.writes) == sorted(
        [(START, True), (START, False), ("press-1/Stop", True), ("press-1/Stop", False)]
    )
    assert {a.reason for a in phone.answers if a.event == "release"} == {"connection lost"}


async def test_a_tap_of_somebody_who_is_gone_is_not_carried_out(phone: Phone, shop: Shop) -> None:
    """Other than a short tap: its false says that nobody is there any more."""
    phone.inbox.put(Request(START, True, id="p1"), phone.answers.append)
    phone.inbox.put(Request(START, False, id="p1", left=True), phone.answers.append)
    await shop.clock.advance(SECOND)
    assert True not in phone.writes()
    await phone.say("press-1/Stop", True, id="p2")
    await phone.say("press-1/Stop", False, id="p2", left=True)
    assert phone.writes("press-1/Stop") == [True, False]
    assert phone.answers[-1].reason == "session ended"


async def test_it_can_be_pressed_again_at_once(phone: Phone) -> None:
    for _ in range(3):
        await phone.say(START, True)
        await phone.say(START, False)
    assert phone.writes() == [True, False] * 3


async def test_a_release_of_nothing_says_so(phone: Phone) -> None:
    answer = await phone.say(START, False)
    assert answer is not None
    assert (answer.event, answer.reason) == ("release", "gone")
    assert phone.writes() == []


async def test_what_is_not_understood_is_answered_and_recorded(phone: Phone, shop: Shop) -> None:
    phone.inbox.refuse(Request(SP, None, "a1"), "It is no JSON", "expected `:` at byte 3", phone.answers.append)
    await settle()
    assert phone.answers[-1].reason == "It is no JSON"
    assert (await shop.events())[-1] == ("refused", SP, None)


def test_it_knows_what_may_be_asked_for(phone: Phone) -> None:
    assert phone.inbox.tags == ["press-1/SP", "press-1/Mode", "press-1/Start", "press-1/Stop"]
