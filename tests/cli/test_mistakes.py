"""The command line says what is wrong in one message, never by a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["tap", "a/x", "--url", "http://127.0.0.1:99999"], 1),
        (["send", "a/x", "1", "--url", "http://127.0.0.1:99999"], 1),
        (["demo", "--folder", "FILE/demo", "--for", "1s"], 2),
    ],
)
def test_no_traceback(tmp_path: Path, arguments: list[str], code: int) -> None:
    (tmp_path / "FILE").write_text("a file where a folder should be")
    run = subprocess.run(  # ourselves
        [sys.executable, "-m", "shopfloor", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "Traceback" not in run.stderr
    assert run.returncode == code
