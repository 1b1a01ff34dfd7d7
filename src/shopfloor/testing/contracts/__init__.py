"""The rules of the seams as tests: inherit a class, fill in what is abstract, and pytest does the rest.

::

    class TestMySink(SinkContract):
        @asynccontextmanager
        async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:
            async with a_real_server(folder) as server:
                yield MySinkRig(server)

Every test states its rule in its name and its sentence. What a connector does not promise it says by
a class attribute or by a hook of its rig left alone; the tests for it are then skipped.
"""

from shopfloor.testing.contracts.journal import JournalContract
from shopfloor.testing.contracts.processor import ProcessorContract
from shopfloor.testing.contracts.sink import SinkContract, SinkRig
from shopfloor.testing.contracts.source import ProxiedRig, SourceContract, SourceRig
from shopfloor.testing.contracts.values import EVERY_VALUE, same, same_samples
from shopfloor.testing.contracts.waiting import Leftovers, until

__all__ = [
    "EVERY_VALUE",
    "JournalContract",
    "Leftovers",
    "ProcessorContract",
    "ProxiedRig",
    "SinkContract",
    "SinkRig",
    "SourceContract",
    "SourceRig",
    "same",
    "same_samples",
    "until",
]
