# mypy: disable-error-code="arg-type"
# asyncua types its fields by its own int and str classes and takes Python's.
"""Acknowledgements, gaps and sequence numbers, against a session that a test scripts."""

import asyncio
from collections import deque
from typing import Any, cast

import msgspec
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import struct_to_binary
from asyncua.ua.uaerrors import UaStatusCodeError

from shopfloor.protocols.opcua_session import Limits, Session
from shopfloor.protocols.opcua_structures import StructureTypes
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.sources.opcua_feed import Delivery, Item
from shopfloor.sources.opcua_subscription import Position, Settings, Subscription

SETTINGS = Settings(interval=10.0, linger=60.0, silence=30.0, retry=1000.0)


def message(sequence: int, *values: float) -> ua.NotificationMessage:
    made: Any = ua.NotificationMessage()
    made.SequenceNumber = sequence
    if values:
        changes: Any = ua.DataChangeNotification()
        changes.MonitoredItems = [
            ua.MonitoredItemNotification(0, ua.DataValue(ua.Variant(v, ua.VariantType.Double))) for v in values
        ]
        made.NotificationData = [changes]
    found: ua.NotificationMessage = made
    return found


def fault(code: int) -> Exception:
    return cast("Exception", UaStatusCodeError(code))  # type: ignore[no-untyped-call]  # asyncua's


class Scripted:
    """A session whose server publishes what the test says and notes what is acknowledged."""

    limits = Limits()
    product = ""
    resumed = False

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.held: dict[int, ua.NotificationMessage] = {}
        self.refused: dict[str, int] = {}
        self.gave_up = False
        self._waiting: deque[asyncio.Future[Buffer]] = deque()

    def publish(self, made: ua.NotificationMessage, subscription: int = 7) -> None:
        answer: Any = ua.PublishResponse()
        answer.Parameters.SubscriptionId = subscription
        answer.Parameters.AvailableSequenceNumbers = [*self.held, made.SequenceNumber]
        answer.Parameters.NotificationMessage = made
        self.answer(answer)

    def answer(self, answer: object) -> None:
        self._waiting.popleft().set_result(Buffer(struct_to_binary(answer)))

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def request(self, request: Any, timeout: float | None = None) -> Buffer:  # noqa: ASYNC109  # as the session's
        del timeout
        if isinstance(request, ua.RepublishRequest):
            number = request.Parameters.RetransmitSequenceNumber
            if number not in self.held:
                raise fault(StatusCodes.BadMessageNotAvailable)
            answer: Any = ua.RepublishResponse()
            answer.NotificationMessage = self.held[number]
            return Buffer(struct_to_binary(answer))
        assert isinstance(request, ua.PublishRequest)
        asked: Any = request.Parameters
        self.acknowledged += [a.SequenceNumber for a in asked.SubscriptionAcknowledgements]
        self._waiting.append(asyncio.get_running_loop().create_future())
        return await self._waiting[-1]

    async def call(self, request: Any, response: type[Any]) -> Any:
        name = type(request).__name__
        if name in self.refused:
            raise fault(self.refused[name])
        answer = response()
        if isinstance(request, ua.CreateSubscriptionRequest):
            answer.Parameters.SubscriptionId = 7
            answer.Parameters.RevisedPublishingInterval = 10.0
            answer.Parameters.RevisedMaxKeepAliveCount = 10
        elif isinstance(request, ua.CreateMonitoredItemsRequest):
            answer.Results = [ua.MonitoredItemCreateResult(MonitoredItemId=1)]
        elif isinstance(request, ua.TransferSubscriptionsRequest):
            answer.Parameters.Results = [ua.TransferResult(AvailableSequenceNumbers=list(self.held))]
        elif isinstance(request, ua.CallRequest):
            raise fault(StatusCodes.BadServiceUnsupported)
        return answer

    async def read(self, nodes: Any) -> list[ua.DataValue]:
        return [ua.DataValue() for _ in nodes]

    def explain(self, error: Any) -> Exception:
        return Unavailable(str(error))

    def give_up(self) -> None:
        self.gave_up = True


def subscription(session: Scripted, settings: Settings = SETTINGS) -> Subscription:
    stand_in = cast("Session", session)
    items = [Item(0, "PV", ua.NodeId("PV", 2), 0.0, 10)]
    return Subscription(stand_in, "opc.tcp://plc", items, settings, StructureTypes(stand_in))


async def opened(session: Scripted, settings: Settings = SETTINGS) -> Subscription:
    made = subscription(session, settings)
    await made.open(None)
    await asyncio.sleep(0)
    return made


async def following(made: Subscription) -> Delivery:
    return await asyncio.wait_for(made.next(), 60)


async def test_nothing_is_acknowledged_before_it_is_durable() -> None:
    """The acknowledgement goes with the publish request after the delivery was said to be durable."""
    session = Scripted()
    made = await opened(session)
    session.publish(message(1, 1.5, 2.5))
    session.publish(message(2, 3.5))
    delivery = await following(made)
    assert delivery.changes.values == [1.5, 2.5, 3.5]
    await asyncio.sleep(0.05)
    assert session.acknowledged == []
    made.acknowledge(delivery)
    await asyncio.sleep(0)
    assert session.acknowledged == [1, 2]
    await made.close()


async def test_a_slow_journal_slows_the_server_down() -> None:
    """Without an acknowledgement here the server gets no new publish request, so nothing piles up."""
    session = Scripted()
    made = await opened(session)
    window = session.waiting
    for number in range(1, window + 1):
        session.publish(message(number, float(number)))
    delivery = await following(made)
    await asyncio.sleep(0.05)
    assert (len(delivery.changes), session.waiting) == (window, 0)
    made.acknowledge(delivery)
    await asyncio.sleep(0)
    assert session.waiting == window
    await made.close()


@pytest.mark.parametrize("keep_alive", [False, True])
async def test_a_gap_is_asked_for_again(keep_alive: bool) -> None:  # noqa: FBT001  # pytest's
    """A message that did not arrive is had by Republish, in its place; a keep-alive shows the gap too."""
    session = Scripted()
    made = await opened(session)
    session.publish(message(1, 1.0))
    made.acknowledge(await following(made))
    await asyncio.sleep(0)
    session.held = {2: message(2, 2.0), 3: message(3, 3.0)}
    session.publish(message(4) if keep_alive else message(4, 4.0))
    delivery = await following(made)
    assert delivery.changes.values == ([2.0, 3.0] if keep_alive else [2.0, 3.0, 4.0])
    assert delivery.lost == 0
    made.acknowledge(delivery)
    if keep_alive:  # as many requests as agreed are with the server: the next one takes it along
        session.publish(message(4, 4.0))
        made.acknowledge(await following(made))
    await asyncio.sleep(0)
    assert session.acknowledged == [1, 2, 3, 4]
    await made.close()


async def test_a_message_that_the_server_no_longer_has_is_counted() -> None:
    session = Scripted()
    made = await opened(session)
    session.publish(message(3, 3.0))
    delivery = await following(made)
    assert (delivery.lost, delivery.changes.values) == (2, [3.0])
    await made.close()


async def test_sequence_numbers_wrap_around_to_one() -> None:
    session = Scripted()
    made = subscription(session)
    last = 2**32 - 1
    session.held = {last: message(last, 1.0), last - 1: message(last - 1, 0.0)}
    digest = made._digest
    await made.open(Position(7, last - 1, digest))
    await asyncio.sleep(0)
    session.publish(message(1, 2.0))
    values: list[object] = []
    while len(values) < 2:
        delivery = await following(made)
        values += delivery.changes.values
        assert delivery.lost == 0
        made.acknowledge(delivery)
    assert values == [1.0, 2.0]
    await asyncio.sleep(0)
    assert set(session.acknowledged) >= {last - 1, last}
    await made.close()


async def test_a_message_that_comes_twice_counts_once() -> None:
    session = Scripted()
    made = await opened(session)
    session.publish(message(1, 1.0))
    made.acknowledge(await following(made))
    await asyncio.sleep(0)
    session.publish(message(1, 1.0))
    session.publish(message(2, 2.0))
    assert (await following(made)).changes.values == [2.0]
    await made.close()


async def test_silence_is_unavailable() -> None:
    """The session is then left without a farewell, so that it can be taken up again."""
    session = Scripted()
    made = await opened(session, msgspec.structs.replace(SETTINGS, silence=0.01))
    with pytest.raises(Unavailable, match="said nothing"):
        await following(made)
    assert session.gave_up
    await made.close()


async def test_the_end_of_the_subscription_comes_after_its_last_values() -> None:
    session = Scripted()
    made = await opened(session)
    session.publish(message(1, 1.0))
    ended: Any = message(2)
    ended.NotificationData = [ua.StatusChangeNotification(Status=ua.StatusCode(ua.UInt32(StatusCodes.BadTimeout)))]
    session.publish(ended)
    delivery = await following(made)
    assert delivery.changes.values == [1.0]
    assert made.position_of(delivery) is None
    made.acknowledge(delivery)
    with pytest.raises(Unavailable, match="BadTimeout"):
        await following(made)
    await made.close()


@pytest.mark.parametrize("code", [StatusCodes.BadTimeout, StatusCodes.BadTooManyPublishRequests])
async def test_faults_of_a_publish_request_that_are_none(code: int) -> None:
    session = Scripted()
    made = await opened(session)
    bad: Any = ua.ServiceFault()
    bad.ResponseHeader.ServiceResult = ua.StatusCode(ua.UInt32(code))
    session.answer(bad)
    session.publish(message(1, 1.0))
    assert (await following(made)).changes.values == [1.0]
    await made.close()


async def test_a_server_without_subscriptions_says_what_to_do() -> None:
    session = Scripted()
    session.refused["CreateSubscriptionRequest"] = StatusCodes.BadServiceUnsupported
    with pytest.raises(Misconfigured, match="mode: poll"):
        await opened(session)
