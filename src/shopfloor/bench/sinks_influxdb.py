"""InfluxDB 1 for ``shopfloor bench sinks``: the sink beside requests of finished lines."""

import gzip
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from shopfloor.plant import SinkConfig
from shopfloor.samples import Batch, Misconfigured
from shopfloor.sinks.influxdb import InfluxDbConfig
from shopfloor.sinks.line_protocol import Lines
from shopfloor.sinks.tag_facts import TagFacts
from shopfloor.testing.databases import InfluxDb

_LINES: Final = 5000
"""In a request: as many as the sink puts into one."""


class InfluxDbBench:
    """A server as it is after its installation."""

    name: str = "influxdb"
    bulk: str = "POST of finished lines"
    share: float = 0.5

    def __init__(self) -> None:
        """Nothing is started yet. Raises Misconfigured when InfluxDB is not installed."""
        if not shutil.which("influxd"):
            raise Misconfigured(f"InfluxDB is not installed; install it with: {InfluxDb.HOW_TO_INSTALL}")
        self._home = tempfile.TemporaryDirectory(prefix="shopfloor-bench-")
        self._server = InfluxDb(Path(self._home.name))
        self._client = httpx.Client(trust_env=False, timeout=60)
        self._requests: list[bytes] = []
        self._run = 0

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._client.close()
        self._server.stop(30)
        self._home.cleanup()

    def config(self, run: int) -> SinkConfig:
        """A sink with a database of its own."""
        return InfluxDbConfig.model_validate(
            {"name": f"influxdb-{run}", "url": self._server.url, "version": 1, "database": f"sink_{run}"}
        )

    def prepare(self, run: int, groups: Sequence[Sequence[Batch]]) -> None:
        """Make another database, and finished requests."""
        self._run = run
        self._client.post(f"{self._server.url}/query", params={"q": f"CREATE DATABASE bulk_{run}"}).raise_for_status()
        if not self._requests:
            make = Lines(
                TagFacts(), measurement="shopfloor", tag_set=["source", "unit", "machine"], labels={}, by_type=True,
                unsigned=False,
            )  # fmt: skip
            lines = [make.line(one, batch.source, 0) for group in groups for batch in group for one in batch]
            parts = [lines[at : at + _LINES] for at in range(0, len(lines), _LINES)]
            self._requests = [gzip.compress(b"\n".join(part), 1) for part in parts]

    def load(self) -> None:
        """One request after the other."""
        headers = {"Content-Encoding": "gzip"}
        where = {"db": f"bulk_{self._run}", "precision": "ns"}
        for request in self._requests:
            self._client.post(
                f"{self._server.url}/write", params=where, content=request, headers=headers
            ).raise_for_status()

    def counted(self, run: int) -> tuple[int, int]:
        """How many points each database has."""
        return self._count(f"sink_{run}"), self._count(f"bulk_{run}")

    def _count(self, database: str) -> int:
        query = {"q": "SELECT count(quality) FROM shopfloor", "db": database}
        answer = self._client.get(f"{self._server.url}/query", params=query).json()
        count: int = answer["results"][0]["series"][0]["values"][0][1]
        return count
