"""The embedded historian keeps what every sink promises, exactly once and with every value."""

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar

import duckdb

from shopfloor.historian.duck import DuckDbConfig
from shopfloor.historian.embedded import DuckDbHistorian
from shopfloor.samples import Batch, Sample
from shopfloor.testing.contracts.sink import SinkContract, SinkRig

EVER = (-(2**63), 2**63 - 1)


class Rig(SinkRig):
    """The other side of an embedded historian is its file, which another process may have taken."""

    def __init__(self, path: Path) -> None:
        self.historian = DuckDbHistorian(DuckDbConfig(path=path))
        super().__init__(self.historian)
        self.path = path
        self.thief: subprocess.Popen[str] | None = None

    async def content(self) -> Sequence[Sample]:
        found: list[Sample] = []
        for tag in await self.historian.tags():
            found += [sample for _, sample in await self.historian.records(tag, *EVER)]
        return found

    async def lose(self) -> None:
        connection = self.historian._database._connection
        assert isinstance(connection, duckdb.DuckDBPyConnection)
        connection.close()
        code = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
        self.thief = subprocess.Popen(  # noqa: ASYNC220  # it starts at once; the test has nothing else to do
            [sys.executable, "-c", code, str(self.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.thief.stdout is not None
        assert self.thief.stdout.readline() == "open\n"

    async def restore(self) -> None:
        if self.thief is not None:
            self.thief.communicate()
            self.thief = None

    def rejected(self) -> tuple[Batch, set[int]] | None:
        samples = [Sample("a/x", 1_700_000_000 * 10**9 + i, value) for i, value in enumerate([1, 2**70, 2.0])]
        return Batch.of("line", 1_700_000_000 * 10**9, samples), {1}


class TestDuckDb(SinkContract):
    exactly_once: ClassVar[bool] = True

    def rig(self, folder: Path) -> AbstractAsyncContextManager[SinkRig]:
        return self._rig(folder)

    @asynccontextmanager
    async def _rig(self, folder: Path) -> AsyncIterator[SinkRig]:
        rig = Rig(folder / "history.duckdb")
        try:
            yield rig
        finally:
            await rig.restore()
