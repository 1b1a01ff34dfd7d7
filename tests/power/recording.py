"""Everything that a process does to the files of a folder, in order, by strace."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from shopfloor.testing.programs import missing, require_program
from tests.power.disk import Cut, Disk, Inode, Write

CALLS: Final = (
    "openat,open,creat,close,write,pwrite64,writev,pwritev,pwritev2,lseek,truncate,ftruncate,fallocate,fsync,fdatasync,"
    "sync_file_range,sync,syncfs,msync,rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,copy_file_range,sendfile"
)
_UNFINISHED: Final = " <unfinished ...>"
_RESUMED: Final = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FILE: Final = re.compile(r"^(\d+)<((?:\\x[0-9a-f]{2})*)(?:\\x[0-9a-f]{2})*>?")
_RESULT: Final = re.compile(r"\) += (-?\d+)")
_NUMBERS: Final = re.compile(r"(-?\d+)(?:, |\))")


class Call(NamedTuple):
    """A system call that has ended."""

    name: str
    arguments: str
    result: int


def recorded(script: Path, folder: Path, trace: Path, *options: str) -> Path:
    """Run a script with the folder as its argument, under strace. Skips the test where it cannot be had."""
    program = require_program("strace", "apt-get install strace")
    done = subprocess.run(
        [program, "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}", "-o", trace,
         sys.executable, script, folder, *options],
        capture_output=True, text=True, timeout=240, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    if "Operation not permitted" in done.stderr and "ptrace" in done.stderr:
        missing("strace may not trace processes here", "--cap-add=SYS_PTRACE where this is a container")
    assert done.returncode == 0, done.stderr[-3000:]
    return trace


class Replay:
    """A trace, step by step, on a disk of the model."""

    def __init__(self, trace: Path, root: Path) -> None:
        self.disk = Disk()
        self.said: list[str] = []
        """The lines that the process has written to its standard output."""
        self._trace = trace
        self._root = str(root)
        self._places: dict[int, int] = {}

    def steps(self) -> Iterator[str]:
        """Do one call after the other; gives the name of each that changed something."""
        for call in self._calls():
            if call.result >= 0 and self._do(call):
                yield call.name

    def _calls(self) -> Iterator[Call]:
        begun: dict[str, str] = {}
        with self._trace.open(encoding="ascii") as lines:
            for line in lines:
                thread, _, rest = line.rstrip("\n").partition(" ")
                rest = rest.lstrip()
                if (resumed := _RESUMED.match(rest)) is not None:
                    rest = begun.pop(thread) + resumed[2]
                elif rest.endswith(_UNFINISHED):
                    begun[thread] = rest.removesuffix(_UNFINISHED)
                    continue
                name, _, arguments = rest.partition("(")
                # Behind what was written, which may be long.
                if (result := _RESULT.search(arguments, arguments.rfind('"') + 1)) is not None:
                    yield Call(name, arguments, int(result[1]))

    def _do(self, call: Call) -> bool:
        name = call.name
        if name in ("openat", "open", "creat"):
            return self._open(call)
        if name.startswith(("rename", "unlink")):
            return self._rename([_plain(text) for text in _TEXT.findall(call.arguments)])
        file = _FILE.match(call.arguments)
        if file is None:
            return False
        number, path = int(file[1]), _plain(file[2])
        if name == "write" and number == 1:
            self.said += _bytes(call.arguments).decode().splitlines()
        return path.startswith(self._root) and self._change(call, number, path)

    def _rename(self, paths: list[str]) -> bool:
        """Or take the name away, where there is no second one."""
        if not paths[0].startswith(self._root):
            return False
        if len(paths) > 1:
            self.disk.rename(*paths)
        else:
            self.disk.name(paths[0], None)
        return True

    def _open(self, call: Call) -> bool:
        path = _plain(_TEXT.findall(call.arguments)[0])
        if not path.startswith(self._root):
            return False
        flags = call.arguments
        self._places[call.result] = 0
        if "O_CREAT" in flags and path not in self.disk.names:
            self.disk.name(path, Inode())
        elif "O_TRUNC" in flags:
            self.disk.names[path].pending.append(Cut(0))
        else:
            return False
        assert "O_APPEND" not in flags, "the model does not follow appending"
        return True

    def _change(self, call: Call, number: int, path: str) -> bool:
        if call.name in ("fsync", "fdatasync"):
            if path in self.disk.names:
                self.disk.names[path].sync()
            else:
                self.disk.sync_names()  # a folder
            return True
        inode = self.disk.names.get(path)
        if call.name == "close" or inode is None:
            return False
        numbers = [int(one) for one in _NUMBERS.findall(call.arguments, max(call.arguments.rfind('"'), 0))]
        match call.name:
            case "pwrite64":
                inode.pending.append(Write(numbers[1], _bytes(call.arguments)[: call.result]))
            case "write":
                place = self._places.get(number, 0)
                inode.pending.append(Write(place, _bytes(call.arguments)[: call.result]))
                self._places[number] = place + call.result
            case "lseek":
                self._places[number] = call.result
                return False
            case "ftruncate":
                inode.pending.append(Cut(numbers[0]))
            case _:
                raise AssertionError(f"the model does not follow {call.name}")
        return True


def _bytes(arguments: str) -> bytes:
    begin, end = arguments.find('"') + 1, arguments.rfind('"')
    return bytes.fromhex(arguments[begin:end].replace("\\x", "")) if begin else b""


def _plain(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode()
