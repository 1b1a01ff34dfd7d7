"""A simulated Logix controller in this process, with the tags that a test wants."""

from types import TracebackType
from typing import Any, Self

from ethernetip.cip.identity_info import IdentityInfo
from ethernetip.protocol.eip_adapter import EipAdapter

from shopfloor.simulators.logix_controller import Controller, Member, Program
from shopfloor.testing.programs import free_port


def program(*extra: tuple[str, str, int]) -> Program:
    """Tags of every kind; ``extra`` are name, type and elements (0: no array)."""
    made = Program()
    made.structure(
        "Tool", Member("Id", "DINT"), Member("Worn", "BOOL"), Member("Sharp", "BOOL"), Member("Wear", "REAL", 3)
    )
    made.structure(
        "Line", Member("Running", "BOOL"), Member("PV", "REAL"), Member("Tools", "Tool", 2), Member("Name", "STRING")
    )
    for name, kind in (
        ("PV", "REAL"), ("SP", "REAL"), ("Count", "DINT"), ("Big", "LINT"), ("Small", "SINT"), ("Word", "INT"),
        ("Run", "BOOL"), ("Order", "STRING"), ("Press", "Line"), ("Program:Main.Step", "INT"),
    ):  # fmt: skip
        made.add(name, kind)
    made.add("Counts", "DINT", 300)
    made.add("Flags", "DWORD", 2)
    made.add("Fixed", "INT", writable=False)
    for name, kind, count in extra:
        made.add(name, kind, count)
    return made


class Plc:
    """Listens on a free port while it is entered."""

    def __init__(self, loaded: Program | None = None, product: str = "1756-L83E/B") -> None:
        identity = IdentityInfo(
            product_code=55, device_type=14, major_revision=32, minor_revision=11, product_name=product
        )
        self.written: list[str] = []
        self.controller = Controller(identity, loaded or program(), self.written.append)
        self._adapter: Any = EipAdapter(self.controller, identity)
        self.port = free_port()

    def put(self, name: str, value: object) -> None:
        self.controller.program.put(name, value)

    def get(self, name: str) -> Any:
        return self.controller.program.get(name)

    async def __aenter__(self) -> Self:
        await self._adapter.listen("127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._adapter.close()
