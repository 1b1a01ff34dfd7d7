"""A plant of components that a test holds in its hand."""

from pathlib import Path

import pytest

from tests.pipeline.hands import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
