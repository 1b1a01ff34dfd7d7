"""A small disk of its own for a script: a tmpfs that only this process sees, and that goes with it.

Here a file system is really full: every file on it, its directory entries and what a database maps into memory.
"""

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from shopfloor.testing.programs import require_program

MOUNT: Final = 'mount -t tmpfs -o "size=$0" tmpfs "$1" && shift && exec "$@"'
"""For sh: the disk's size, where it is, the command."""


def run(script: Path, what: str, folder: Path, size: str) -> str:
    """Run ``script WHAT FOLDER`` with a disk of this size at ``folder``; what it printed.

    Skips the test where nobody may mount: in many containers, and then nothing can be installed that would help.
    """
    if (reason := _forbidden()) is not None:
        pytest.skip(f"no file system can be mounted here, so none is filled up: {reason}")
    done = subprocess.run(
        _with_disk(folder, size, [sys.executable, str(script), what, str(folder)]),
        capture_output=True, text=True, timeout=110, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _with_disk(folder: Path, size: str, command: list[str]) -> list[str]:
    """As root in a mount namespace, else in a user namespace where one is root."""
    unshare = require_program("unshare", "apt-get install util-linux")
    rights = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    return [unshare, *rights, "sh", "-c", MOUNT, size, str(folder), *command]


@cache
def _forbidden() -> str | None:
    """Why nothing can be mounted; None where it can."""
    command = _with_disk(Path(tempfile.gettempdir()), "64k", ["true"])  # seen by nobody else
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else tried.stderr.strip() or f"unshare ended with {tried.returncode}"
