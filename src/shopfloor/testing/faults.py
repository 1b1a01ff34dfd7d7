"""Networks that break, for tests: the same as ``shopfloor chaos`` uses."""

from shopfloor.simulators.network import FaultProxy

__all__ = ["FaultProxy"]
