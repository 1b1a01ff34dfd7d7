"""The bench of a backlog delivers all that waited, and sees live data meanwhile."""

from pathlib import Path

import pytest

from shopfloor.bench import backlog


def test_all_that_waited_goes_out_beside_live_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small: it is about the way, not the figure."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(backlog, "WAITING", 50_000)
    monkeypatch.setattr(backlog, "ALONE", 0.5)
    found = {result.name: result for result in backlog.run()}
    assert found["files_flushed"].value > 0
    assert found["files_live_p99_ms"].value > 0
    assert found["files_live_longest_ms"].runs > 0
    assert not list(tmp_path.iterdir()), "it cleans up"
