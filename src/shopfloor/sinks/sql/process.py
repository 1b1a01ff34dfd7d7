"""How a process names itself in a database, so that what it left behind there is told from somebody else's."""

import os
import re
import secrets
import socket
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import psutil

_MARK: Final = re.compile(r":(\d+) ([0-9a-f]{6})\.([0-9a-f]{8})$")
_TOKEN: Final = secrets.token_hex(4)
"""Of this process: its number alone is that of many, in containers mostly 1."""
_WHOLE_COMPUTER: Final = "pid:[4026531836]"
"""The namespace of processes that Linux begins with; a container has another one."""


def place() -> str:
    """Where a process's number is no other one's: this computer, or this container since it was started."""
    found = [socket.gethostname()]
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
        if space == _WHOLE_COMPUTER:
            found.append(Path("/etc/machine-id").read_text())
        else:  # two containers may have the same name, on two computers also the same number of their space
            found += [space, Path("/proc/sys/kernel/random/boot_id").read_text()]
    return sha256("\0".join(found).encode()).hexdigest()[:6]


def who(characters: int) -> str:
    """This process, as whoever meets what it holds is told; ``characters`` of the computer's name at most.

    ASCII, at most 24 characters longer than that.
    """
    host = socket.gethostname().encode("ascii", "replace").decode()[:characters]
    return f"{host}:{os.getpid()} {place()}.{_TOKEN}"


def is_remnant(holder: str) -> bool:
    """Whether ``holder``, which ends as ``who`` does, is this process, or one of this place that is gone.

    Not so when it cannot be known, as of a container that was started anew: the server ends what that one left.
    """
    found = _MARK.search(holder)
    if found is None:
        return False
    number, where, token = int(found[1]), found[2], found[3]
    if token == _TOKEN and number == os.getpid():
        return True
    return where == place() and not psutil.pid_exists(number)
