"""What a power cut may leave of what a process wrote: all that was synced, and any part of what was not.

The model of ALICE (Pillai and others, OSDI 2014), as far as it can be had from a trace. What a file was given since its
last fsync is there or not, write by write, torn at sectors, in any order; a size that was cut is, too. Names (made,
renamed, removed) become durable in their order, as journalling file systems keep it, at the latest by an fsync of their
folder: a file's own fsync brings its content to disk, not its name.
"""

import random
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Final, NamedTuple

SECTOR: Final = 512


class Write(NamedTuple):
    """Bytes at a place of a file."""

    offset: int
    content: bytes


class Cut(NamedTuple):
    """A file's new size."""

    size: int


class Inode:
    """A file's content, on disk and under way."""

    def __init__(self) -> None:
        self.durable = b""
        self.pending: list[Write | Cut] = []

    def sync(self) -> None:
        """All of it is on disk."""
        self.durable, self.pending = bytes(_written(self.durable, self.pending)), []

    def left(self, chosen: random.Random) -> bytes:
        """What a power cut may leave of it."""
        some = list(self.pending)
        match chosen.choice(("all", "none", "first", "any", "torn")):
            case "none":
                some = []
            case "first":
                some = some[: chosen.randint(0, len(some))]
            case "any":
                some = [one for one in some if chosen.random() < 0.5]
            case "torn":
                some = [part for one in some if chosen.random() < 0.7 for part in _torn(one, chosen)]
            case _:
                pass
        return bytes(_written(self.durable, some))


class Disk:
    """Files by their names, now and on disk."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self._durable: dict[str, Inode] = {}
        self._pending: list[tuple[str, Inode | None]] = []
        """Names since the last fsync of a folder, in order: what each stands for then."""

    def name(self, path: str, inode: Inode | None) -> None:
        """From now on the name stands for this file, or for none."""
        if inode is None:
            self.names.pop(path, None)
        else:
            self.names[path] = inode
        self._pending.append((path, inode))

    def rename(self, old: str, new: str) -> None:
        """Both names in one step."""
        inode = self.names.pop(old)
        self.names[new] = inode
        self._pending.append((f"{old}\0{new}", inode))

    def sync_names(self) -> None:
        """All of them are on disk."""
        self._durable, self._pending = self._named(len(self._pending)), []

    def _named(self, steps: int) -> dict[str, Inode]:
        found = copy(self._durable)
        for path, inode in self._pending[:steps]:
            old, _, new = path.partition("\0")
            if new and inode is not None:
                found.pop(old, None)
                found[new] = inode
            elif inode is None:
                found.pop(old, None)
            else:
                found[old] = inode
        return found

    def after_power_cut(self, chosen: random.Random) -> Mapping[str, bytes]:
        """A disk as it may be found."""
        steps = chosen.choice((0, len(self._pending), chosen.randint(0, len(self._pending))))
        return {path: inode.left(chosen) for path, inode in self._named(steps).items()}


def _torn(one: Write | Cut, chosen: random.Random) -> list[Write | Cut]:
    if isinstance(one, Cut):
        return [one]
    sectors = range(0, len(one.content), SECTOR)
    return [Write(one.offset + at, one.content[at : at + SECTOR]) for at in sectors if chosen.random() < 0.5]


def _written(content: bytes, some: list[Write | Cut]) -> bytearray:
    found = bytearray(content)
    for one in some:
        if isinstance(one, Cut):
            del found[one.size :]
            found.extend(bytes(one.size - len(found)))
        else:
            found.extend(bytes(max(0, one.offset - len(found))))
            found[one.offset : one.offset + len(one.content)] = one.content
    return found


def put(image: Mapping[str, bytes], root: str, folder: Path) -> None:
    """Make the files of a disk; SQLite makes its shared memory anew."""
    for path, content in image.items():
        if not path.endswith("-shm"):
            target = folder / Path(path).relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
