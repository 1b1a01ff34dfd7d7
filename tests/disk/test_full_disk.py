"""A file system that is really full: nothing that was acknowledged is lost, all goes on when there is room again.

Elsewhere a limit on the size of files stands for it (``RLIMIT_FSIZE``); here every write fails, also of a directory's
entry and of what is mapped into memory. Each case is a process with a disk of its own: some seconds.
"""

from pathlib import Path

import pytest

from tests.disk import small_disk

SCRIPT = Path(__file__).parent / "filling.py"


def test_the_journal_refuses_and_has_what_it_acknowledged(tmp_path: Path) -> None:
    """With each policy: `keep` is not reached, so nothing is dropped. Each says so once, and needs no salvage."""
    said = small_disk.run(SCRIPT, "journals", tmp_path, "24m")
    assert said.count("housekeeping failed") <= 3
    assert "drops" not in said


def test_a_journal_that_fills_its_disk_does_what_it_was_told_and_comes_back_by_itself(tmp_path: Path) -> None:
    """Its `keep` is larger than the disk: it refuses, or drops the oldest; what readers commit makes room again."""
    said = small_disk.run(SCRIPT, "itself", tmp_path, "56m")
    assert said.count("the journal's disk has no more room: sources are held back") == 1
    assert "drops its oldest entries" in said
    assert "housekeeping failed" not in said


@pytest.mark.parametrize(("what", "size"), [("audit", "8m"), ("files", "24m"), ("duckdb", "32m"), ("sqlite", "32m")])
def test_what_could_not_be_written_is_written_when_there_is_room_again(tmp_path: Path, what: str, size: str) -> None:
    """The audit record, the files sink, both embedded historians: each is whole, and has everything once."""
    small_disk.run(SCRIPT, what, tmp_path, size)
