"""`kill -9` at random moments while everything is delivered to: what was journalled is everywhere, once.

A few lives by default; `make soak LIVES=1000 SEED=7` makes it a soak (docs/chaos.md).
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shopfloor.samples import Sample
from tests.soak.destinations import ALL
from tests.soak.soak import Found, soak
from tests.soak.verdict import differences

LIVES = int(os.environ.get("SHOPFLOOR_SOAK_LIVES", "16"))
SEED = int(os.environ.get("SHOPFLOOR_SOAK_SEED", "7"))
SECONDS = 60 * float(os.environ.get("SHOPFLOOR_SOAK_MINUTES", "10"))
ONLY = os.environ.get("SHOPFLOOR_SOAK_ONLY", "").split()


@pytest.mark.timeout(2 * SECONDS + 1800)  # counting all of it takes its time, too
async def test_what_was_journalled_is_everywhere_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Longer than other tests: a life takes as long as it takes to connect to all of them."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    quiet = "SHOPFLOOR_SOAK_LIVES" not in os.environ
    kinds = [kind for kind in ALL if (kind.name in ONLY if ONLY else kind.quick or (not quiet and kind.here()))]

    def said(line: str) -> None:
        with capfd.disabled():
            print(line, file=sys.stderr, flush=True)  # noqa: T201  # for who waits for a soak

    begun = time.monotonic()
    found = await soak(tmp_path, kinds, LIVES, SEED, SECONDS, (lambda _: None) if quiet else said)
    if not quiet:
        said(text(found, time.monotonic() - begun))
    assert not found.wrong, "\n".join(found.wrong)
    assert found.at_work > found.lives / 4, "what is killed must have been at work"
    assert set(found.moved) >= {kind.name for kind in kinds}, "every sink must have been at work in some life"


def text(found: Found, seconds: float) -> str:
    """What was done and what came of it."""
    moved = ", ".join(f"{name} {count}" for name, count in sorted(found.moved.items()))
    again = ", ".join(f"{name} {count:,}" for name, count in found.again.items()) or "none"
    return "\n".join(
        [
            f"{found.lives} lives in {seconds / 60:.1f} min, seed {SEED}; in {found.at_work} something was delivered",
            f"servers killed beside: {found.servers}",
            f"samples written {found.written:,}, in the journal {found.journalled:,}",
            f"lives in which a reader came on: {moved}",
            f"samples that came again, where that is allowed: {again}",
            *(found.wrong or ["every sample is where it was promised"]),
        ]
    )


ONE, TWO, THREE = (Sample("press/x", at, at) for at in (1, 2, 3))


@pytest.mark.parametrize(
    ("promise", "held", "words"),
    [
        ("once", [ONE, TWO], "1 of 3 lost"),
        ("once", [ONE, TWO, TWO, THREE], "1 of 3 too many"),
        ("once", [ONE, THREE, TWO], "out of order"),
        ("again", [ONE, TWO], "1 of 3 lost"),
        ("again", [ONE, THREE, TWO, TWO, THREE], "out of order"),
        ("again", [ONE, TWO, THREE, Sample("press/x", 3, 4)], "too many"),
        ("latest", [ONE, TWO], "1 of 3 lost"),
        ("once", [ONE, TWO, Sample("press/x", 3, 3.0)], "lost"),
        ("once", [ONE, TWO, Sample("press/x", 3, 3, 64)], "lost"),
        ("last", [TWO], "1 of 1 lost"),
        ("last", [THREE, TWO], "1 of 1 too many"),
        ("last", [], "1 of 1 lost"),
    ],
)
def test_the_count_sees_what_is_wrong(promise: str, held: list[Sample], words: str) -> None:
    """Else the soak would find everything in order, always."""
    judge: Callable[..., object] = differences
    assert words in str(judge("there", promise, [ONE, TWO, THREE], held))


def test_the_count_knows_what_is_allowed() -> None:
    """Samples that come again, and the last of several at one time."""
    again = differences("there", "again", [ONE, TWO, THREE], [ONE, TWO, ONE, TWO, THREE])
    assert (again.wrong, again.again) == ([], 2)
    assert not differences("there", "last", [ONE, TWO, THREE], [THREE, THREE]).wrong
    later = Sample("press/x", 1, 7)
    assert not differences("there", "latest", [ONE, TWO, later], [later, TWO]).wrong
    assert differences("there", "latest", [ONE, TWO, later], [ONE, TWO]).wrong
    assert not differences("there", "latest", [ONE, later, later], [later, later]).wrong  # of one entry
    assert differences("there", "latest", [later], [later, later]).wrong
    nothing = Sample("press/x", 1, None)
    assert not differences("there", "latest", [ONE, TWO, nothing], [ONE, TWO]).wrong
    assert differences("there", "latest", [nothing, TWO], [TWO]).wrong
