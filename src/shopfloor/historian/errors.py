"""Errors of DuckDB and the file system, as what the pipeline can act on."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from shopfloor.samples import Misconfigured, Unavailable

_NO_ROOM: Final = ("no space left", "disk quota", "file too large", "could not write all bytes", "out of disk")
_PASSING: Final = ("cannot open file", "too many open files", "input/output error", "cannot allocate", "interrupted")
"""Words of errors that are the system's, not the file's: they pass, or a person sees to the disk."""


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Errors of DuckDB and the file system as what the pipeline can act on."""
    try:
        yield
    except (duckdb.Error, OSError, MemoryError) as error:
        raise _meaning(path, error) from error


def _meaning(path: Path, error: Exception) -> Exception:
    text = str(error)
    low, said = text.lower(), first_line(text)
    if any(words in low for words in _NO_ROOM):
        return Unavailable(f"no room on the disk of {path}: free some, or lower `keep` or `keep_size` of the historian")
    if "could not set lock" in low or "conflicting lock" in low or "being used by another process" in low:
        return Unavailable(f"{path} is open in another process; stop that one (a second Shopfloor?): {said}")
    if isinstance(error, PermissionError) or "permission denied" in low or "read-only file system" in low:
        return Misconfigured(
            f"{path} may not be written by this user: give it the folder (chown), or set another `path`: {said}"
        )
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException):
        return Unavailable(f"the historian needs more memory: raise its `memory`: {said}")
    if isinstance(error, NotADirectoryError | IsADirectoryError | FileExistsError) or "is a directory" in low:
        return Misconfigured(f"the historian's `path` must name a file in a folder: {said}")
    return Unavailable(f"the historian's database {path} fails: {said}")


def first_line(text: str) -> str:
    """What DuckDB says before its explanations."""
    return text.strip().partition("\n")[0]


def is_damage(error: BaseException) -> bool:
    """Whether an error of an open database says that its content is not what was written."""
    low = str(error).lower()
    return isinstance(error, duckdb.Error) and any(
        words in low for words in ("checksum", "corrupt", "failed to deserialize")
    )


def is_unreadable(error: duckdb.Error) -> bool:
    """Whether a database that does not open is damaged, rather than busy, forbidden, full or of a newer DuckDB."""
    if "newer version" in str(error).lower() or "storage version" in str(error).lower():
        raise Misconfigured(
            f"the historian's database was written by another version of DuckDB: {first_line(str(error))}"
        ) from error
    if any(words in str(error).lower() for words in _PASSING):
        return False
    meaning = _meaning(Path(), error)
    return isinstance(meaning, Unavailable) and str(meaning).startswith("the historian's database")
