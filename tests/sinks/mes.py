"""A simulated MES as a process of its own, for the tests of the HTTP sink."""

import base64
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from shopfloor.samples import Sample, Value
from shopfloor.simulators.mes import OWN
from shopfloor.testing.clocks import instant
from shopfloor.testing.programs import ServerProcess, free_port

CLIENT = httpx.Client(verify=False, trust_env=False, timeout=30, limits=httpx.Limits(max_keepalive_connections=0))
"""Without certificates, which take long to read, and without connections that would look left behind."""
SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MesProcess(ServerProcess):
    """`shopfloor simulate mes` with a file, so that it remembers what it took over a kill."""

    def __init__(self, file: Path, *options: str) -> None:
        port = free_port()
        command = [sys.executable, "-m", "shopfloor", "simulate", "mes", "--port", str(port), "--file", str(file)]
        super().__init__([*command, *options], port)
        self.url = f"http://127.0.0.1:{port}"

    def state(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = CLIENT.get(f"{self.url}{OWN}/state").json()
        return found

    def requests(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = CLIENT.get(f"{self.url}{OWN}/received").json()
        return found

    def behave(self, **how: object) -> None:
        CLIENT.put(f"{self.url}{OWN}/behaviour", json=how).raise_for_status()

    def forget(self) -> None:
        CLIENT.delete(f"{self.url}{OWN}/received").raise_for_status()

    def said(self) -> list[dict[str, Any]]:
        """Every sample of bodies that no template made, in the order of their coming."""
        return [sample for request in self.requests() for sample in json.loads(request["body"])["samples"]]

    def samples(self) -> list[Sample]:
        return [sample_of(said) for said in self.said()]


def sample_of(said: Mapping[str, Any]) -> Sample:
    """A reader's understanding of the documented form."""
    value: Value = said["value"]
    if said.get("encoding") == "base64":
        assert isinstance(value, str)
        value = base64.b64decode(value)
    if "special" in said:
        assert value is None
        value = SPECIAL[said["special"]]
    seconds, _, digits = said["time"].removesuffix("Z").partition(".")
    return Sample(said["tag"], instant(seconds + "Z") + int(digits.ljust(9, "0")), value, said["quality"])
