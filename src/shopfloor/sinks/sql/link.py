"""What the SQL sinks whose connection blocks ask of it alike."""

from collections.abc import Sequence
from typing import Any, Protocol


class Link(Protocol):
    """A connection; each statement belongs to the transaction that is open. It raises the driver's errors."""

    def change(self, statement: str, values: Sequence[object]) -> int:
        """Run a statement; returns how many rows it changed."""
        ...

    def value(self, statement: str, values: Sequence[object] = ()) -> Any:
        """The first column of the first row; None: there is no row."""
        ...

    def commit(self) -> None:
        """Make the transaction durable."""
        ...
