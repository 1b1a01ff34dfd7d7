"""What the signal recorder's job costs: 16 sensors of an S7 every five seconds, into the journal and a historian.

Twelve of them are counted by their edges, too. Each Shopfloor is a whole ``shopfloor run`` in a process of its own,
beside the simulated PLC's: one with each historian and one without any, all at the same time. Every value is recorded
at every read, as the recorder did.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from shopfloor.bench import Result
from shopfloor.journal import read_file
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.testing.programs import answers, free_port

EVERY: Final = 5
"""Seconds from one read to the next."""
_ANALOG: Final = ("IW64", "IW66", "IW68", "QW80")
_DIGITAL: Final = tuple(f"I{byte}.{bit}" for byte in (0, 1) for bit in range(6))
SENSORS: Final = len(_ANALOG) + len(_DIGITAL)
HISTORIANS: Final = {
    "": "historian: {type: sqlite}\n",
    "_duckdb": "historian: {type: duckdb}\n",
    "_journal_only": "",
}
"""By what stands behind the names of their results."""
_WARM_UP: Final = 15.0
"""Seconds after the first samples: what starting cost is behind it."""
_LOOKS_EVERY: Final = 5.0
_READY_WITHIN: Final = 60.0
_MB: Final = 10**6


def run(thorough: bool) -> list[Result]:  # noqa: FBT001  # the signature of every bench
    """Memory and processor time of the whole process, over two minutes or ten. Raises Unavailable."""
    seconds = 600.0 if thorough else 120.0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        port = free_port()
        stack.enter_context(process("simulate", "s7", "--port", str(port)))
        _wait(lambda: answers("127.0.0.1", port), "the simulated PLC")
        recorders = [
            stack.enter_context(_recorder(Path(folder) / f"plant{name}", port, historian, name))
            for name, historian in HISTORIANS.items()
        ]
        for recorder in recorders:
            _wait(partial(_records, recorder), "the plant")
        time.sleep(_WARM_UP)
        for recorder in recorders:
            recorder.begin()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(_LOOKS_EVERY)
            for recorder in recorders:
                recorder.look()
        return [result for recorder in recorders for result in recorder.results()]


def _records(recorder: "_Recorder") -> bool:
    return recorder.received() >= SENSORS


class _Recorder:
    """A Shopfloor at work, and what it used so far."""

    def __init__(self, process: psutil.Process, journal: Path, name: str) -> None:
        self._process = process
        self._journal = journal
        self._name = name
        self._rss: list[float] = []
        self._pss: list[float] = []
        self._began = self._cpu = 0.0
        self._received = 0

    def received(self) -> int:
        """Samples of the PLC that are in the journal."""
        try:
            rows = read_file(self._journal)
        except (Misconfigured, Unavailable):
            return 0  # it is being made
        return sum(row.samples for row in rows if (row.source, row.outcome) == ("plc", "received"))

    def begin(self) -> None:
        """Count from now on."""
        self._began, self._cpu, self._received = time.monotonic(), self._used(), self.received()

    def look(self) -> None:
        """Note how much memory it has. Raises Unavailable when it is gone."""
        try:
            memory = self._process.memory_full_info()
        except psutil.Error as error:
            raise Unavailable(f"the plant{self._name} ended: {error}") from error
        self._rss.append(memory.rss / _MB)
        self._pss.append(memory.pss / _MB)

    def results(self) -> list[Result]:
        """The figures. Raises Unavailable when it did not record what it should have."""
        seconds = time.monotonic() - self._began
        cpu = 100 * (self._used() - self._cpu) / seconds
        recorded = self.received() - self._received
        due = SENSORS * (seconds / EVERY - 2)
        if recorded < due:
            raise Unavailable(f"only {recorded} of {due:.0f} samples were recorded: is this machine very busy?")
        return [
            _result(f"rss_mb{self._name}", self._rss),
            _result(f"pss_mb{self._name}", self._pss),
            Result(f"cpu_percent{self._name}", round(cpu, 2), "% of one core"),
        ]

    def _used(self) -> float:
        used = self._process.cpu_times()
        return used.user + used.system


def _result(name: str, values: Sequence[float]) -> Result:
    return Result(
        name, round(statistics.median(values), 1), "MB", min=round(min(values), 1), max=round(max(values), 1),
        runs=len(values),
    )  # fmt: skip


@contextmanager
def _recorder(folder: Path, port: int, historian: str, name: str) -> Generator[_Recorder]:
    folder.mkdir()
    plant = folder / "plant.yaml"
    plant.write_text(plant_text(port, historian), "utf-8")
    with process("run", str(plant), "--log-level", "warning") as child:
        yield _Recorder(psutil.Process(child.pid), folder / "data" / "journal.db", name)


def plant_text(port: int, historian: str) -> str:
    """The plant file of the recorder's job."""
    scale = "type: INT, scale: {raw: [0, 27648], scaled: [0, 75]}"
    tags = [f"{{tag: press/a{n}, address: {address}, {scale}}}" for n, address in enumerate(_ANALOG)]
    tags += [f"{{tag: press/d{n}, address: {address}}}" for n, address in enumerate(_DIGITAL)]
    lines = "".join(f"      - {tag}\n" for tag in tags)
    counted = [f"{{from: press/d{n}, hourly: press/d{n}/hourly}}" for n in range(len(_DIGITAL))]
    counting = "processors:\n  - name: units\n    type: edges\n    tags:\n" + "".join(f"      - {c}\n" for c in counted)
    return (
        f"plant: {{site: recorder}}\nconsole: null\n{historian}sources:\n  - name: plc\n    type: s7\n"
        f"    host: 127.0.0.1\n    port: {port}\n    rate: {EVERY} s\n    heartbeat: {EVERY - 1} s\n"
        f"    tags:\n{lines}{counting}"
    )


@contextmanager
def process(*words: str) -> Generator[subprocess.Popen[bytes]]:
    """A Shopfloor of its own, until it is left."""
    child = subprocess.Popen([sys.executable, "-m", "shopfloor", *words], stdout=subprocess.DEVNULL)  # noqa: S603  # ourselves
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _READY_WITHIN
    while not ready():
        if time.monotonic() > deadline:
            raise Unavailable(f"{what} was not there within {_READY_WITHIN:g} s; what it said stands above")
        time.sleep(0.2)
