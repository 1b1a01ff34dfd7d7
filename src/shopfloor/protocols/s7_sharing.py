"""Sources for the same S7 share one connection: a PLC has few."""

from contextlib import AbstractAsyncContextManager

from shopfloor.protocols import sharing
from shopfloor.protocols.s7_session import Plc, Session


def shared(plc: Plc) -> AbstractAsyncContextManager[Session]:
    """A connection to this PLC, opened by the first who wants it and closed by the last. Raises Unavailable."""
    return sharing.shared(plc, lambda: Session(plc))
