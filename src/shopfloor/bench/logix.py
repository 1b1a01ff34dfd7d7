# cm-ethernetip and pycomm3 carry no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
"""How many values of a Logix controller become durable, beside pycomm3's own driver that reads the same tags."""

import asyncio
from typing import Any, Final, cast

import numpy as np
from ethernetip.cip.identity_info import IdentityInfo
from ethernetip.protocol.eip_adapter import EipAdapter
from pycomm3 import LogixDriver

from shopfloor.bench import Result
from shopfloor.bench.polled import TAGS, Meter, Polled, Values, ready
from shopfloor.simulators.logix_controller import Controller, Program
from shopfloor.sources.logix import LogixConfig
from shopfloor.testing.programs import free_port

_NAMES: Final = [f"Value{n}" for n in range(TAGS)]
_IDENTITY: Final = IdentityInfo(
    product_code=55, device_type=14, major_revision=32, minor_revision=11, product_name="1756-L83E/B"
)


class _Restless(Controller):
    """Its tags hold other REALs each time the first one is read."""

    def __init__(self, values: Values) -> None:
        program = Program()
        for name in _NAMES:
            program.add(name, "REAL")
        super().__init__(_IDENTITY, program)
        self._values = values
        self._memory = [program.tags[name.lower()].data for name in _NAMES]

    def dispatch(self, service_code: int, path: Any, data: bytes) -> Any:
        if path.symbolic_name is not None and path.symbolic_name == _NAMES[0]:
            raw = np.frombuffer(self._values.change(), dtype=">f4").astype("<f4").tobytes()
            for n, memory in enumerate(self._memory):
                memory[:] = raw[4 * n : 4 * n + 4]
        return super().dispatch(service_code, path, data)


async def _serve(values: Values) -> None:
    adapter: Any = EipAdapter(_Restless(values), _IDENTITY)
    port = free_port()
    await adapter.listen("127.0.0.1", port)
    ready(port)
    await asyncio.Event().wait()


def _config(port: int) -> LogixConfig:
    tags = [{"tag": f"bench/{name}", "address": name} for name in _NAMES]
    return LogixConfig.model_validate(
        {"name": "bench", "host": "127.0.0.1", "port": port, "rate": "1 ms", "tags": tags}
    )


def _pycomm3(port: int, meter: Meter, decoded: bool) -> None:  # noqa: FBT001  # as ``Polled`` calls it
    """The library's own driver reads the same tags; it always decodes."""
    del decoded
    driver = cast("Any", LogixDriver(f"127.0.0.1:{port}/0"))
    driver.open()
    # Asked for by name, as the source does: by number in the tag list it would be faster, and wrong after a download.
    driver._cfg["use_instance_ids"] = False  # noqa: SLF001  # pycomm3 offers no other way
    values = TAGS
    while meter.count(values):
        values = len(driver.read(*_NAMES))
    driver.close()


_POLLED: Final = Polled(
    "shopfloor.bench.logix", _serve, _config, _pycomm3, "pycomm3's driver reading the same, nothing stored"
)


def run(thorough: bool) -> list[Result]:  # noqa: FBT001  # the signature of every bench
    """Values a second to durable, beside the bare driver, and what they cost."""
    return _POLLED.run(thorough=thorough)


if __name__ == "__main__":
    _POLLED.main()
