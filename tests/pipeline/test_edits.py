"""What people say of stops goes through the journal to the historian, under the time that names it."""

from pathlib import Path

from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from shopfloor.testing.programs import free_port
from tests.pipeline import victim
from tests.pipeline.hands import until


async def test_what_was_said_is_kept_and_can_be_found_by_its_time(tmp_path: Path) -> None:
    """Also while the machine's PLC is away. That the ledger balances shows that nobody counts it twice."""
    plant = victim.described(tmp_path, f"opc.tcp://127.0.0.1:{free_port()}")
    async with Pipeline(plant) as pipeline:
        await until(lambda: pipeline.historian is not None, "the historian")
        first = await pipeline.edit_stops("press", '{"start": 1, "end": 2, "reason": "a", "by": "anna"}')
        second = await pipeline.edit_stops("press", '{"start": 1, "end": null, "reason": "b", "by": "ben"}')
        await until(lambda: all(not c.lag_entries for c in pipeline.components()), "everything delivered")
        assert pipeline.historian is not None
        kept = await pipeline.historian.history("$edit/press", first, second + 1)
        assert list(kept.times) == [first, second]
        assert ["ben" in str(value) for value in kept.values] == [False, True]
        assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]
