# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false
"""What a subscription watches: asyncua's, but a client's wish can neither stop the server nor take all its memory.

asyncua reckons a deadband also of a value that is no number, takes any queue that is asked for later, and keeps for who
never asks as much as all the queues hold together.
"""

from typing import Final

from asyncua import ua
from asyncua.server.address_space import AddressSpace
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.monitored_item_service import MonitoredItemService, MonitoredItemValues
from asyncua.ua.status_codes import StatusCodes

SHORTEST_INTERVAL: Final = 50.0
"""Milliseconds between two publications."""
MOST_KEPT: Final = 100_000
"""Values of one subscription that may wait to be published: some 35 MB."""


class Monitoring(MonitoredItemService):
    """The items of one subscription."""

    def __init__(self, subscription: InternalSubscription, aspace: AddressSpace) -> None:
        super().__init__(subscription, aspace)
        self._queue: object = None
        self._waiting = 0
        self._enqueue = subscription.enqueue_datachange_event
        # asyncua makes the subscription itself and takes no other class for it
        subscription.enqueue_datachange_event = self._enqueue_within  # type: ignore[method-assign]

    async def _enqueue_within(self, mid: int, eventdata: ua.MonitoredItemNotification, maxsize: int) -> None:
        """Keep it for the next publication; where too much waits, instead of the item's oldest."""
        queue = self.isub._triggered_datachanges  # noqa: SLF001  # it tells it to nobody
        if queue is not self._queue:  # a publication has taken all of it
            self._queue, self._waiting = queue, 0
        if self._waiting >= MOST_KEPT:
            maxsize = 1
        elif len(queue.get(mid, ())) < maxsize:
            self._waiting += 1
        await self._enqueue(mid, eventdata, maxsize)

    def _modify_monitored_item(self, params: ua.MonitoredItemModifyRequest) -> ua.MonitoredItemModifyResult:
        if params.MonitoredItemId not in self._monitored_items:
            return ua.MonitoredItemModifyResult(StatusCode=_code(StatusCodes.BadMonitoredItemIdInvalid))
        wanted = params.RequestedParameters
        if not _filters_data(wanted):
            return ua.MonitoredItemModifyResult(StatusCode=_code(StatusCodes.BadMonitoredItemFilterUnsupported))
        wanted.QueueSize = ua.UInt32(self._revise_queue_size(wanted.QueueSize))
        return super()._modify_monitored_item(params)

    async def _create_data_change_monitored_item(
        self, params: ua.MonitoredItemCreateRequest
    ) -> ua.MonitoredItemCreateResult:
        if not _filters_data(params.RequestedParameters):
            return ua.MonitoredItemCreateResult(StatusCode=_code(StatusCodes.BadMonitoredItemFilterUnsupported))
        return await super()._create_data_change_monitored_item(params)

    def _is_deadband_exceeded(self, values: MonitoredItemValues, flt: ua.DataChangeFilter) -> bool:
        """Of a value that is no number there is none: a client is told of it, and of the number behind it."""
        both = (values.get_current_datavalue(), values.get_old_datavalue())
        if not all(isinstance(_plain(value), int | float) for value in both):
            return True
        return super()._is_deadband_exceeded(values, flt)


def monitored(subscription: InternalSubscription) -> None:
    """Have it watch in our way; before it has any item."""
    subscription.monitored_item_srv = Monitoring(subscription, subscription.monitored_item_srv.aspace)


def _filters_data(wanted: ua.MonitoringParameters) -> bool:
    """Whether its filter is one for data, or none: then it is None from now on."""
    if isinstance(wanted.Filter, ua.ExtensionObject) and wanted.Filter.TypeId.is_null():
        wanted.Filter = None
    # By what it has: asyncua has two classes of each name once it has made its own of a server's description.
    return wanted.Filter is None or hasattr(wanted.Filter, "DeadbandType")


def _plain(value: ua.DataValue | None) -> object:
    return None if value is None or value.Value is None else value.Value.Value


def _code(number: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(number))
