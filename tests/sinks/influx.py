"""Real servers that take InfluxDB's line protocol, and what they hold as samples."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from shopfloor.samples import Sample, Value
from shopfloor.testing.databases import InfluxDb
from shopfloor.testing.programs import ServerProcess, free_port, require_program

CLIENT = httpx.Client(verify=False, trust_env=False, timeout=30, limits=httpx.Limits(max_keepalive_connections=0))
"""Without certificates, which take long to read, and without connections that would look left behind."""
FIELDS = ("value", "value_int", "value_bool", "value_text", "value_base64")


class Influxd(InfluxDb):
    """InfluxDB 1 on a free port, with its files in a folder, and what it answers."""

    def query(self, text: str, **options: str) -> list[dict[str, Any]]:
        """The series of an answer, in nanoseconds."""
        answer = CLIENT.post(f"{self.url}/query", params={"q": text, "epoch": "ns", **options})
        said = json.loads(answer.text, parse_int=lambda digits: -0.0 if digits == "-0" else int(digits))
        assert "error" not in said, said
        found: list[dict[str, Any]] = said["results"][0].get("series", [])
        return found

    def rows(self, database: str, measurement: str = "shopfloor") -> list[dict[str, Any]]:
        """Every row, the columns that it has by name."""
        series = self.query(f'SELECT * FROM "{measurement}"', db=database)  # the test's own name
        return [
            {key: value for key, value in zip(one["columns"], row, strict=True) if value is not None}
            for one in series
            for row in one["values"]
        ]

    def writes(self) -> int:
        """How many requests to write it has had since its start."""
        counted: int = CLIENT.get(f"{self.url}/debug/vars").json()[f"httpd:127.0.0.1:{self.port}"]["values"]["writeReq"]
        return counted

    def samples(self, database: str) -> Sequence[Sample]:
        """Every sample, in the order of the times, and of arrival where these are the same."""
        rows = sorted(self.rows(database), key=lambda row: (row["time"], int(row.get("repeat", 0))))
        return [sample_of(row) for row in rows]


class VictoriaMetrics(ServerProcess):
    """VictoriaMetrics on a free port, with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        program = require_program("victoria-metrics", "apt-get install victoria-metrics")
        port = free_port()
        options = [f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}", "-retentionPeriod=100y"]
        super().__init__([program, *options], port)
        self.url = f"http://127.0.0.1:{port}"

    def series(self, match: str) -> list[dict[str, Any]]:
        """What it holds: `metric` (names), `values`, `timestamps` in ms."""
        CLIENT.get(f"{self.url}/internal/force_flush")
        said = CLIENT.get(f"{self.url}/api/v1/export", params={"match[]": match}).text
        return [json.loads(line) for line in said.splitlines()]


def sample_of(row: Mapping[str, Any]) -> Sample:
    """A reader's understanding of the documented form."""
    name = next((field for field in FIELDS if field in row), None)
    value: Value = None if name is None else row[name]
    match name:
        case "value":
            value = float(row["value"])
        case "value_base64":
            value = base64.b64decode(row["value_base64"])
    return Sample(row["tag"], row["time"], value, row["quality"], row.get("status", 0))
