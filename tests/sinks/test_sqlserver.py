"""The SQL Server sink against a real server, where the environment names one, looked at by a connection of our own."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shopfloor.samples import Batch, Rejected, Sample, Unavailable, Value
from shopfloor.testing.contracts import SinkContract, SinkRig
from shopfloor.testing.contracts.values import EVERY_VALUE, same_samples
from shopfloor.testing.faults import FaultProxy
from tests.sinks.sqlserver import NOW, Client, server


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client(server())
    yield client
    client.drop()


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


class SqlServerRig(SinkRig):
    def __init__(self, proxy: FaultProxy, client: Client) -> None:
        super().__init__(client.config(proxy.port).build())
        self.proxy = proxy
        self.client = client

    async def content(self) -> Sequence[Sample]:
        return await asyncio.to_thread(self.client.samples)

    async def lose(self) -> None:
        self.proxy.reset()

    async def restore(self) -> None:
        self.proxy.heal()

    async def freeze(self) -> bool:
        self.proxy.black_hole()
        return True

    def rejected(self) -> tuple[Batch, set[int]] | None:
        odd: list[Value] = ["\ud800", 2**64]
        samples = [Sample("a/x", NOW, 1.0), *(Sample("a/y", NOW + i, value) for i, value in enumerate(odd))]
        return batch(*samples, Sample("a/\udfff", NOW, 2)), {1, 2, 3}


class TestSqlServer(SinkContract):
    exactly_once = True

    @pytest.fixture(autouse=True)
    def _server(self, client: Client) -> None:
        self.client = client

    @pytest.mark.parametrize("kind", EVERY_VALUE)
    async def test_every_value_survives(self, kind: str, tmp_path: Path) -> None:
        """Babelfish alone has no text with the character NUL: there it is refused, not cut."""
        if kind == "text" and self.client.babelfish:
            async with self.client.config().build() as sink:
                with pytest.raises(Rejected, match="NUL"):
                    await sink.write(1, batch(Sample("a", NOW, EVERY_VALUE[kind])))
            return
        await super().test_every_value_survives(kind, tmp_path)

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:  # noqa: ARG002  # the server has a folder of its own
        async with FaultProxy(self.client.host, self.client.port) as proxy:
            yield SqlServerRig(proxy, self.client)


# ---- what is stored ---------------------------------------------------------------------------------------


async def test_all_kinds_of_values_in_one_batch(client: Client) -> None:
    values = [value for kind, value in EVERY_VALUE.items() if kind != "text" or not client.babelfish]
    samples = [Sample("a/x", NOW + i, value, 192, i, NOW + 5 if i else 0) for i, value in enumerate(values)]
    async with client.config().build() as sink:
        await sink.write(1, batch(*samples))
    assert same_samples(client.samples(), samples)
    assert [(s.status, s.server_time) for s in client.samples()] == [(s.status, s.server_time) for s in samples]


async def test_text_comes_back_as_it_was(client: Client) -> None:
    """Also what JSON writes otherwise, a machine's figures for one: the soak found backslashes in Babelfish."""
    samples = [
        Sample("a/x", NOW + i, text) for i, text in enumerate(['{"oee":0.5}', "C:\\new\ttab", "two\r\nlines", "/ü🏭"])
    ]
    async with client.config().build() as sink:
        await sink.write(1, batch(*samples))
        for i, sample in enumerate(samples):
            await sink.write(2 + i, batch(sample))
    assert same_samples(client.samples(), samples * 2)


async def test_latest_is_the_newest_by_its_own_time(client: Client) -> None:
    """A late sample is in the history and takes nobody's place; of equal times the one that came last stays."""
    async with client.config().build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0), Sample("b", NOW, 1)))
        await sink.write(2, batch(Sample("a", NOW - 1, 2.0), Sample("b", NOW, "two")))
        await sink.write(3, batch(Sample("a", NOW + 1, None)))
    rows = client.ask("SELECT tag, nanos, double_value, text_value FROM shopfloor.current_sample ORDER BY tag")
    assert rows == [("a", 790, None, None), ("b", 789, None, "two")]


async def test_names_that_look_alike_are_different_tags(client: Client) -> None:
    names = ["Press/PV", "press/PV", "press/PV ", "préss/PV", "press/P\u200bV", "🏭" * 512]
    async with client.config().build() as sink:
        await sink.write(1, batch(*(Sample(name, NOW, float(i)) for i, name in enumerate(names))))
    async with client.config().build() as sink:
        await sink.write(2, batch(*(Sample(name, NOW + 1, float(i)) for i, name in enumerate(names))))
    assert [(s.tag, s.value) for s in client.samples()] == [(name, float(i)) for i, name in enumerate(names)] * 2


async def test_what_breaks_a_rule_of_the_plants_own_is_rejected_and_the_rest_is_kept(client: Client) -> None:
    """It is named, by place and reason."""
    async with client.config().build() as sink:
        client.ask("ALTER TABLE shopfloor.history ADD CONSTRAINT no_ghosts CHECK (double_value <= 100)")
        samples = [Sample("a", NOW + i, 200.0 if i in (3, 11) else float(i)) for i in range(20)]
        with pytest.raises(Rejected, match="no_ghosts") as refused:
            await sink.write(1, batch(*samples))
        assert refused.value.indices == [3, 11]
        assert not client.samples()
        rest = batch(*samples).select([i for i in range(20) if i not in (3, 11)])
        await sink.write(1, rest)
        assert list(client.samples()) == list(rest)


async def test_two_sinks_of_one_name_do_not_write_over_each_other(client: Client) -> None:
    """A second one waits while the first is there, and says who is."""
    first, second = client.config().build(), client.config().build()
    async with first:
        await first.write(1, batch(Sample("a", NOW, 1.0)))
        with pytest.raises(Unavailable, match=r"another Shopfloor \(.+\) writes there under the name 'archive'"):
            async with second:
                pass
        await first.write(2, batch(Sample("a", NOW + 1, 2.0)))
    async with second:
        assert await second.held() == 2


async def test_what_an_earlier_connection_left_under_way_cannot_be_committed(client: Client) -> None:
    """Somebody took the position over: then a write of the one before is refused, and nothing of it stays."""
    async with client.config().build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
        client.ask("UPDATE shopfloor.writer SET session = 'another'")
        with pytest.raises(Unavailable, match="changed by somebody else"):
            await sink.write(2, batch(Sample("a", NOW + 1, 2.0)))
    assert [s.value for s in client.samples()] == [1.0]
