"""The bench of the OPC UA sink counts what reaches its client, and sees when something does not."""

import pytest

from shopfloor.bench.opcua_sink import Kind, _measure
from shopfloor.bench.opcua_subscriber import WRAP, _Count
from tests.sinks.opcua_standard import standard_nodes

__all__ = ["standard_nodes"]  # a fixture


@pytest.mark.parametrize("kind", ["sink", "asyncua"])
async def test_every_value_reaches_the_client(kind: Kind) -> None:
    """Once and in order, else it raises; in this process here."""
    found = await _measure(kind, 100, "asyncua", 0.2)
    assert found.values > 0
    assert found.per_cpu_second > 0
    assert (found.stretch_longest > 0) == (kind == "sink")


def test_the_client_sees_what_is_missing_doubled_or_out_of_order(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (2.0, 0.0, 5.0):
        count = _Count(tags=2)
        count.take(("a", "b"), (WRAP - 2.0, WRAP - 2.0))
        assert capsys.readouterr().out == "ready\n"
        count.take(("a", "b", "a"), (WRAP - 1.0, WRAP - 1.0, 0.0))
        count.tell()
        assert capsys.readouterr().out == "3\n"
        with pytest.raises(SystemExit):
            count.take(("a",), (wrong,))
        assert capsys.readouterr().out == f"a was 0.0 and then {wrong}\n"
