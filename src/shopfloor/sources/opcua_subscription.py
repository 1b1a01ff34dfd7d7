# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One OPC UA subscription whose notifications are acknowledged only when they are durable.

The server keeps every notification message until it is acknowledged. So the order is: publish
response, journal, acknowledgement with the next publish request. A message that was not acknowledged
is asked for again (Republish) after a lost connection or a restart, for which the subscription is
transferred to the new session (TransferSubscriptions). A few publish requests are always with the
server; it gets new ones as the journal keeps up, so a slow disk slows the server's publishing down
and nothing piles up here.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError

from shopfloor.protocols.opcua_publish import Changes, Malformed, Publication, read, read_message
from shopfloor.protocols.opcua_session import Session, name_of
from shopfloor.protocols.opcua_structures import StructureTypes
from shopfloor.protocols.opcua_values import overflowed
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.sources.opcua_feed import Delivery, Item

_log: Final = logging.getLogger(__name__)

WINDOW: Final = 4
"""Publish requests that are with the server at a time."""
MOST: Final = 10_000
"""Values after which a delivery is not collected further."""
COALESCE: Final = 0.01
"""Seconds that further notifications are waited for when the server says that it has some."""
_VERIFIED: Final = 2000
"""Nodes that are looked after in one go, to find out whether they are still there."""
_NO_TRANSFER: Final = "urn:freeopcua"
"""Servers made with asyncua (2.1) say that they transferred, and then answer the old connection's requests."""
_LAST_SEQUENCE: Final = 2**32 - 1

_CODES: Final = StatusCodes
_FILTER_REFUSED: Final = frozenset(
    {
        _CODES.BadFilterNotAllowed,
        _CODES.BadMonitoredItemFilterUnsupported,
        _CODES.BadMonitoredItemFilterInvalid,
        _CODES.BadDeadbandFilterInvalid,
        _CODES.BadFilterOperandInvalid,
    }
)
_GONE: Final = frozenset({_CODES.BadNodeIdUnknown, _CODES.BadNodeIdInvalid, _CODES.BadMonitoredItemIdInvalid})
"""Statuses of a value after which the item is made anew: its node may come back as another one."""


class Position(msgspec.Struct, frozen=True):
    """Where to go on: everything of the subscription up to ``sequence`` is durable."""

    subscription: int
    sequence: int
    digest: bytes
    """Of everything that the items and their handles depend on: with another plant file it is no use."""
    refused: tuple[int, ...] = ()
    """Handles of items that the server has refused."""
    silence: float = 0.0
    """Seconds that the server may be silent: it has the last word on keep-alives."""


class Settings(msgspec.Struct, frozen=True):
    """How the subscription is asked for."""

    interval: float
    """Publishing interval in milliseconds."""
    linger: float
    """Seconds that the server keeps it when Shopfloor is away."""
    silence: float
    """Seconds without a sign of life after which the server counts as away."""
    retry: float
    """Seconds after which a tag that the server refused is tried again."""


class Subscription:
    """A subscription with all subscribed items of a source."""

    def __init__(
        self, session: Session, endpoint: str, items: Sequence[Item], settings: Settings, structures: StructureTypes
    ) -> None:
        """Asks the server for nothing yet."""
        self._session = session
        self.items = {item.handle: item for item in items}
        self._settings = settings
        self._structures = structures
        self._digest = _digest(endpoint, items, settings)
        self.id = 0
        """What the server calls it; 0 while there is none."""
        self._sequence = 0
        self.proven = True
        """False until a subscription from before has said something: not every server goes on with it."""
        self._returned = False
        """Whether one from before was taken over and has not said yet whether something is missing."""
        self._mute = False
        """Whether it said nothing although the connection held."""
        self.spoke = 0.0
        """When it last said something, by the event loop's clock."""
        self._silence = settings.silence
        self._window = WINDOW
        self._under_way: set[asyncio.Task[Buffer]] = set()
        self._arrived: deque[asyncio.Task[Buffer]] = deque()
        self._ready: deque[Publication] = deque()
        """Messages that the server published before, got by Republish."""
        self._acknowledge: list[int] = []
        self._wake = asyncio.Event()
        self._heard = 0.0
        self._lost = 0
        self._first = Changes()
        """Bad values of items that the server refused, for the next delivery."""
        self._anew: set[int] = set()
        """Handles of items that are to be made anew."""
        self._retry_at = 0.0
        self._verified = 0
        self._ended = ""
        """Why the server ended the subscription; "" while it lives."""

    async def open(self, position: Position | None, before: "Subscription | None" = None) -> None:
        """Go on with the subscription at ``position`` where the server still has it, else make a new one.

        ``before`` is the same subscription in an earlier connection of this process. Raises Unavailable,
        Misconfigured.
        """
        try:
            if position is None or position.digest != self._digest or not await self._go_on(position, before):
                await self._create()
        except UaStatusCodeError as error:
            raise self._session.explain(error) from error
        # That items were refused is told with the first delivery; where that was lost, they are tried at once.
        told = self._sequence or len(self._first)
        self._retry_at = self._now() + (self._settings.retry if told else 0.0)
        self._publish()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # --- making it

    async def _create(self) -> None:
        settings = self._settings
        request = ua.CreateSubscriptionRequest()
        asked = request.Parameters
        asked.RequestedPublishingInterval = settings.interval
        asked.RequestedMaxKeepAliveCount = max(1, int(settings.silence * 1000 / 3 / settings.interval))
        asked.RequestedLifetimeCount = max(
            3 * asked.RequestedMaxKeepAliveCount + 1, int(settings.linger * 1000 / settings.interval)
        )
        asked.MaxNotificationsPerPublish = MOST
        asked.PublishingEnabled = True
        try:
            given = (await self._session.call(request, ua.CreateSubscriptionResponse)).Parameters
        except UaStatusCodeError as error:
            if error.code in (_CODES.BadServiceUnsupported, _CODES.BadNotImplemented):
                raise Misconfigured(
                    f"the server has no subscriptions ({name_of(int(error.code))}); set `mode: poll`"
                ) from error
            raise
        self.id, self._sequence = given.SubscriptionId, 0
        self.proven, self.spoke = True, self._now()
        # A server may lengthen both; what it says then counts.
        alive = given.RevisedPublishingInterval * given.RevisedMaxKeepAliveCount / 1000
        self._silence = max(settings.silence, 1.5 * alive + 1)
        for item in self.items.values():
            item.server_id, item.status = None, 0
        await self._monitor(self.items.values())

    async def _monitor(self, items: Iterable[Item]) -> None:
        """Create monitored items; what the server refuses gets a bad value and is tried again later."""
        wanted = list(items)
        without: list[Item] = []
        for start in range(0, len(wanted), self._session.limits.monitor):
            some = wanted[start : start + self._session.limits.monitor]
            request = ua.CreateMonitoredItemsRequest()
            request.Parameters.SubscriptionId = self.id
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            request.Parameters.ItemsToCreate = [_asked(item) for item in some]
            answer = await self._session.call(request, ua.CreateMonitoredItemsResponse)
            for item, result in zip(some, answer.Results, strict=True):
                status = int(result.StatusCode.value)
                if status in _FILTER_REFUSED and item.deadband is not None and not item.unfiltered:
                    item.unfiltered = True
                    without.append(item)
                elif status >> 30:
                    self._refuse(item, status)
                else:
                    item.server_id, item.status = result.MonitoredItemId, 0
        if without:
            _log.warning(
                "the server refuses the deadband of %d tags, all their changes are recorded",
                len(without),
                extra={"tags": [item.tag for item in without[:20]]},
            )
            await self._monitor(without)

    def _refuse(self, item: Item, status: int) -> None:
        item.server_id = None
        if status != item.status:
            item.status = status
            self._first.add(item.handle, None, status, 0, 0)
            self._wake.set()
            _log.warning(
                "the server refuses the tag %s: %s; is its node right? It is bad and tried again",
                item.tag,
                name_of(status),
            )

    async def _retry(self) -> None:
        """Try refused and vanished items again."""
        self._retry_at = self._now() + self._settings.retry
        again = [item for item in self.items.values() if item.server_id is None or item.handle in self._anew]
        again += await self._vanished(item for item in self.items.values() if item not in again)
        self._anew.clear()
        if not again:
            return
        old = [item.server_id for item in again if item.server_id is not None]
        if old:
            request = ua.DeleteMonitoredItemsRequest()
            request.Parameters.SubscriptionId = self.id
            request.Parameters.MonitoredItemIds = old
            with contextlib.suppress(UaStatusCodeError):  # the server may have dropped them with their nodes
                await self._session.call(request, ua.DeleteMonitoredItemsResponse)
        for item in again:
            item.server_id = None
        await self._monitor(again)

    async def _vanished(self, watched: Iterable[Item]) -> list[Item]:
        """Items whose nodes are gone without a word: not every server says so. Some at a time, in turn."""
        items = list(watched)
        start = self._verified if self._verified < len(items) else 0
        some = items[start : start + _VERIFIED]
        self._verified = start + len(some)
        found = await self._session.read([(item.node, AttributeIds.NodeClass) for item in some])
        return [
            item
            for item, answer in zip(some, found, strict=True)
            if answer.StatusCode is not None and answer.StatusCode.value in _GONE
        ]

    # --- going on with one from before

    async def _go_on(self, position: Position, before: "Subscription | None") -> bool:
        """Take the subscription of an earlier connection over; False when that is not possible."""
        if before is not None and before.id == position.subscription and before.broken:
            return False  # it was tried and brought nothing
        self.id, self._sequence = position.subscription, position.sequence
        self._silence = max(self._settings.silence, position.silence)
        resumed = await (self._reclaim() if self._session.resumed else self._transfer())
        if not resumed:
            self.id = 0
            return False
        known = await self._monitored(before)
        refused = set(position.refused)
        for item in self.items.values():
            item.server_id, item.status = (None if item.handle in refused else known.get(item.handle, 0)), 0
        self.proven = False
        self._returned = True
        self.spoke = before.spoke if before is not None and before.id == self.id else self._now()
        return True

    async def _reclaim(self) -> bool:
        """After the session itself was taken up again: get what was published and not acknowledged."""
        step = self._sequence
        while True:
            step = step % _LAST_SEQUENCE + 1
            try:
                if not await self._again(step):
                    return True
            except UaStatusCodeError as error:
                _log.info("subscription not resumed: %s", name_of(int(error.code)))
                return False

    async def _transfer(self) -> bool:
        """Take the subscription over from an earlier session; False when the server does not do it."""
        if self._session.product.startswith(_NO_TRANSFER):
            return False
        request = ua.TransferSubscriptionsRequest()
        request.Parameters.SubscriptionIds = [self.id]
        request.Parameters.SendInitialValues = True
        try:
            (result,) = (await self._session.call(request, ua.TransferSubscriptionsResponse)).Parameters.Results
            result.StatusCode.check()
        except (UaStatusCodeError, ValueError) as error:
            _log.info("subscription not resumed: %s", error)
            return False
        for sequence in sorted(result.AvailableSequenceNumbers or [], key=self._ahead):
            if self._is_known(sequence):
                self._acknowledge.append(sequence)  # it is durable, only the server does not know yet
            elif not await self._again(sequence):
                self._lost += 1
        return True

    def _is_known(self, sequence: int) -> bool:
        return not 0 < self._ahead(sequence) <= _LAST_SEQUENCE // 2

    def _ahead(self, sequence: int) -> int:
        """How many messages a sequence number is behind the last one; they wrap around to 1."""
        return (sequence - self._sequence) % _LAST_SEQUENCE

    async def _monitored(self, before: "Subscription | None") -> dict[int, int]:
        """The server's ids of the subscription's items by their handle, as far as they can be known."""
        if before is not None and before.id == self.id:
            return {h: item.server_id for h, item in before.items.items() if item.server_id is not None}
        request = ua.CallRequest()
        call = ua.CallMethodRequest()
        call.ObjectId = ua.NodeId(ua.Int32(ObjectIds.Server))
        call.MethodId = ua.NodeId(ua.Int32(ObjectIds.Server_GetMonitoredItems))
        call.InputArguments = [ua.Variant(self.id, ua.VariantType.UInt32)]
        request.Parameters.MethodsToCall = [call]
        try:
            (result,) = (await self._session.call(request, ua.CallResponse)).Results
            result.StatusCode.check()
            servers, clients = (argument.Value or [] for argument in result.OutputArguments)
            return dict(zip(clients, servers, strict=True))
        except (UaStatusCodeError, ValueError):
            return {}  # an optional method; then a vanished item cannot be deleted, only made anew

    async def _again(self, sequence: int) -> bool:
        """Ask for a notification message again; False when the server no longer has it."""
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = self.id
        request.Parameters.RetransmitSequenceNumber = sequence
        try:
            found = read_message(await self._session.request(request), self._structures)
        except UaStatusCodeError as error:
            if error.code == _CODES.BadMessageNotAvailable:
                return False
            raise
        except Malformed:
            return False
        if found.sequence != sequence:
            return False
        self._ready.append(found)
        return True

    # --- publishing

    def _publish(self) -> None:
        """Have as many publish requests with the server as agreed; the first takes the acknowledgements along."""
        while len(self._under_way) + len(self._arrived) < self._window:
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements = [
                ua.SubscriptionAcknowledgement(SubscriptionId=self.id, SequenceNumber=sequence)
                for sequence in self._acknowledge
            ]
            self._acknowledge = []
            if not self._under_way:
                self._heard = self._now()
            task = asyncio.create_task(self._session.request(request, timeout=0))
            self._under_way.add(task)
            task.add_done_callback(self._arrive)

    def _arrive(self, task: asyncio.Task[Buffer]) -> None:
        if task in self._under_way:
            self._under_way.discard(task)
            self._arrived.append(task)
            self._heard = self._now()
            self._wake.set()

    async def next(self) -> Delivery:
        """The next changes; whole publish responses, several when they come close after each other."""
        try:
            return await self._collect()
        except UaStatusCodeError as error:
            raise self._session.explain(error) from error

    async def _collect(self) -> Delivery:
        delivery = Delivery(Changes())
        sequences: list[int] = []
        collect_until = 0.0
        while True:
            if self._now() >= self._retry_at:
                await self._retry()
            if len(self._first):
                _extend(delivery.changes, self._first)
                self._first = Changes()
            more = False
            while len(delivery.changes) < MOST and (publication := await self._received()) is not None:
                more = publication.more
                self._take(publication, delivery, sequences)
            if self._returned and self.proven:
                self._returned = False
                delivery.complete = not (delivery.lost or self._lost or any(map(overflowed, delivery.changes.statuses)))
                if not len(delivery.changes):
                    break
            if len(delivery.changes) or delivery.lost:
                collect_until = collect_until or self._now() + COALESCE
                complete = not more or not self._under_way or self._ended
                if complete or len(delivery.changes) >= MOST or self._now() >= collect_until:
                    break
            if self._ended:
                raise Unavailable(self._ended)
            await self._wait(collect_until)
        delivery.sequences = sequences
        delivery.checkpoint = msgspec.msgpack.encode(self.position)
        return delivery

    @property
    def position(self) -> Position:
        """Where to go on when everything that was delivered is durable."""
        refused = tuple(item.handle for item in self.items.values() if item.server_id is None)
        return Position(self.id, self._sequence, self._digest, refused, self._silence)

    async def _received(self) -> Publication | None:
        """The next notification message in the order of its sequence number, None when none is here."""
        while self._ready or self._arrived:
            if self._ready:
                return self._ready.popleft()
            publication = await self._read(self._arrived.popleft())
            if publication is None or publication.subscription != self.id:
                self._publish()
                continue
            self.proven, self.spoke = True, self._now()
            if not publication.keep_alive and self._is_known(publication.sequence):
                self._acknowledge.append(publication.sequence)  # known already
                self._publish()
                continue
            await self._fill(publication)
            if publication.keep_alive:
                self._publish()
                if not self._ready:
                    continue
            else:
                self._ready.append(publication)
        return None

    async def _read(self, task: asyncio.Task[Buffer]) -> Publication | None:
        """A publish response; None when it says nothing of a subscription."""
        try:
            body = task.result()
            publication = read(body.copy(), self._structures)
            if self._structures.wanted:
                await self._structures.learn()
                publication = read(body, self._structures)
            return publication  # noqa: TRY300  # short enough to see what may raise
        except UaStatusCodeError as error:
            if error.code == _CODES.BadTooManyPublishRequests:
                self._window = max(1, len(self._under_way))
            elif error.code != _CODES.BadTimeout:
                raise
        except Malformed as error:
            raise Unavailable(str(error)) from error
        return None

    async def _fill(self, publication: Publication) -> None:
        """Ask again for the messages between the last one and this one."""
        missing = self._ahead(publication.sequence) - 1
        if not 0 < missing < _LAST_SEQUENCE // 2:
            return
        held = set(publication.available)
        first = self._sequence
        for step in range(1, min(missing, 1000) + 1):
            sequence = (first + step - 1) % _LAST_SEQUENCE + 1
            if (held and sequence not in held) or not await self._again(sequence):
                self._lost += 1
        self._sequence = (first + missing - 1) % _LAST_SEQUENCE + 1

    def _take(self, publication: Publication, delivery: Delivery, sequences: list[int]) -> None:
        if publication.undecoded:
            _log.error("a notification cannot be read: %s", publication.undecoded)
            delivery.lost += 1
        delivery.lost += self._lost
        self._lost = 0
        sequences.append(publication.sequence)
        self._sequence = publication.sequence
        changes = publication.changes
        if any(changes.statuses):
            gone = (h for h, s in zip(changes.handles, changes.statuses, strict=True) if s & 0xFFFF0000 in _GONE)
            self._anew.update(h for h in gone if h in self.items)
        _extend(delivery.changes, changes)
        # That it was transferred is told to the session that lost it; one that really lost it hears nothing
        # more and finds out by that. Some servers tell it to the session that got it.
        if publication.status not in (0, _CODES.GoodSubscriptionTransferred):
            self._ended = f"the server has ended the subscription ({name_of(publication.status)})"

    async def _wait(self, until: float) -> None:
        """Until something arrives, a retry is due, or collecting ends. Raises Unavailable after silence."""
        now = self._now()
        silent_at = (self._heard if self._under_way else now) + self._silence
        deadline = min(until or silent_at, silent_at, self._retry_at)
        self._wake.clear()
        if self._arrived or self._ready or len(self._first):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()
            return
        if self._under_way and self._now() >= self._heard + self._silence:
            self._mute = not self.proven
            self._session.give_up()
            raise Unavailable(f"the server has said nothing for {self._silence:.1f} s")

    @property
    def broken(self) -> bool:
        """Whether there is no use in going on with it.

        A connection that breaks before the subscription said something proves nothing against it, until
        the server may have forgotten it.
        """
        forgotten = not self.proven and self._now() > self.spoke + self._settings.linger
        return self._mute or bool(self._ended) or forgotten

    def acknowledge(self, delivery: Delivery) -> None:
        """The delivery is durable: tell the server with the next publish request."""
        self._acknowledge += delivery.sequences
        self._publish()

    def position_of(self, delivery: Delivery) -> Position | None:
        """Where to go on behind this delivery; None when there is nothing to go on with."""
        if self._ended or delivery.checkpoint is None:
            return None
        return msgspec.msgpack.decode(delivery.checkpoint, type=Position)

    async def close(self) -> None:
        """Forget the publish requests; the subscription stays on the server for ``linger``."""
        under_way, self._under_way = self._under_way, set()
        for task in (*under_way, *self._arrived):
            task.cancel()
        results = await asyncio.gather(*under_way, *self._arrived, return_exceptions=True)
        del results  # what the server still sent was not acknowledged and comes again
        self._arrived.clear()


def _asked(item: Item) -> ua.MonitoredItemCreateRequest:
    asked = ua.MonitoredItemCreateRequest()
    asked.ItemToMonitor.NodeId = item.node
    asked.ItemToMonitor.AttributeId = AttributeIds.Value
    asked.MonitoringMode = ua.MonitoringMode.Reporting
    parameters = asked.RequestedParameters
    parameters.ClientHandle = item.handle
    parameters.SamplingInterval = item.sampling
    parameters.QueueSize = item.queue
    parameters.DiscardOldest = True
    if item.deadband is not None and not item.unfiltered:
        kind = ua.DeadbandType.Percent if item.deadband.percent else ua.DeadbandType.Absolute
        parameters.Filter = ua.DataChangeFilter(
            Trigger=ua.DataChangeTrigger.StatusValue, DeadbandType=kind.value, DeadbandValue=item.deadband.value
        )
    return asked


def _extend(all_changes: Changes, changes: Changes) -> None:
    all_changes.handles += changes.handles
    all_changes.values += changes.values
    all_changes.statuses += changes.statuses
    all_changes.times += changes.times
    all_changes.server_times += changes.server_times


def _digest(endpoint: str, items: Sequence[Item], settings: Settings) -> bytes:
    described = [
        (
            i.handle,
            i.tag,
            i.node.to_string(),
            i.sampling,
            i.queue,
            i.deadband and (i.deadband.value, i.deadband.percent),
        )
        for i in items
    ]
    content = msgspec.json.encode([endpoint, described, settings.interval, settings.linger])
    return hashlib.sha256(content).digest()[:16]
