"""The MySQL sink against a real MariaDB, looked at by a connection of the test's own."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shopfloor.samples import Batch, Rejected, Sample, Value
from shopfloor.testing.contracts import SinkContract, SinkRig
from shopfloor.testing.contracts.values import EVERY_VALUE, same_samples
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import MariaDb
from tests.sinks.mysql import NOW, Client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    with MariaDb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def client(server: MariaDb) -> Client:
    return Client(server.port)


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


class MysqlRig(SinkRig):
    def __init__(self, proxy: FaultProxy, client: Client, timeout: str) -> None:
        super().__init__(client.config(proxy.port, timeout=timeout).build())
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
        odd: list[Value] = ["\ud800", 2**64, b"x" * 2**23]
        samples = [Sample("a/x", NOW, 1.0), *(Sample("a/y", NOW + i, value) for i, value in enumerate(odd))]
        return batch(*samples, Sample("a/\udfff", NOW, 2)), {1, 2, 3, 4}


class TestMysql(SinkContract):
    exactly_once = True

    @pytest.fixture(autouse=True)
    def _server(self, client: Client) -> None:
        self.client = client

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:  # noqa: ARG002  # the server has a folder of its own
        async with FaultProxy("127.0.0.1", self.client.port) as proxy:
            yield MysqlRig(proxy, self.client, "5 s" if self.hasty else "30 s")


# ---- what is stored ---------------------------------------------------------------------------------------


async def test_a_server_that_forbids_load_data_gets_the_same_rows(client: Client) -> None:
    samples = [
        Sample("a/x", NOW + i, value, 192, i, NOW + 5 if i else 0) for i, value in enumerate(EVERY_VALUE.values())
    ]
    client.ask("SET GLOBAL local_infile = 0")
    try:
        async with client.config().build() as sink:
            await sink.write(1, batch(*samples))
    finally:
        client.ask("SET GLOBAL local_infile = 1")
    assert same_samples(client.samples(), samples)
    assert [(s.status, s.server_time) for s in client.samples()] == [(s.status, s.server_time) for s in samples]


async def test_status_and_server_time_are_kept(client: Client) -> None:
    samples = [
        Sample("a", NOW, 1.0, 24, 0x80310000, NOW + 1),
        Sample("a", NOW + 1, 2.0),
        Sample("b", NOW, "x", 0, 7, 0),
    ]
    async with client.config().build() as sink:
        await sink.write(1, batch(*samples))
    assert sorted(client.samples(), key=lambda s: (s.tag, s.time)) == samples
    assert client.ask("SELECT COUNT(status), COUNT(server_time) FROM shopfloor_history") == [(2, 1)]


async def test_latest_is_the_newest_by_its_own_time(client: Client) -> None:
    """A late sample is in the history and takes nobody's place; of equal times the one that came last stays."""
    async with client.config().build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0), Sample("b", NOW, 1)))
        await sink.write(2, batch(Sample("a", NOW - 1, 2.0), Sample("b", NOW, "two")))
        await sink.write(3, batch(Sample("a", NOW + 1, None)))
    rows = client.ask("SELECT tag, nanos, double_value, text_value FROM shopfloor_current_sample ORDER BY tag")
    assert rows == [("a", 790, None, None), ("b", 789, None, "two")]


async def test_names_that_look_alike_are_different_tags(client: Client) -> None:
    names = ["Press/PV", "press/PV", "press/PV ", "préss/PV", "press/P\u200bV"]
    async with client.config().build() as sink:
        await sink.write(1, batch(*(Sample(name, NOW, float(i)) for i, name in enumerate(names))))
    assert [(s.tag, s.value) for s in client.samples()] == [(name, float(i)) for i, name in enumerate(names)]


async def test_a_row_that_a_trigger_refuses_is_rejected_and_the_rest_is_kept(client: Client) -> None:
    """Whatever rules the plant put on the table: what breaks them is named, by place and reason."""
    async with client.config().build() as sink:
        client.ask(
            "CREATE TRIGGER no_ghosts BEFORE INSERT ON shopfloor_history FOR EACH ROW IF NEW.double_value > 100 "
            "THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'nothing is above 100'; END IF"
        )
        samples = [Sample("a", NOW + i, 200.0 if i in (3, 11) else float(i)) for i in range(20)]
        with pytest.raises(Rejected, match="nothing is above 100") as refused:
            await sink.write(1, batch(*samples))
        assert refused.value.indices == [3, 11]
        assert not client.samples()
        rest = batch(*samples).select([i for i in range(20) if i not in (3, 11)])
        await sink.write(1, rest)
        assert list(client.samples()) == list(rest)


async def test_what_a_table_cuts_is_not_stored_cut(client: Client) -> None:
    """LOAD DATA LOCAL would cut a text with a warning only; the row is refused instead."""
    async with client.config().build() as sink:
        client.ask("ALTER TABLE shopfloor_history MODIFY text_value varchar(5) COLLATE utf8mb4_nopad_bin")
        with pytest.raises(Rejected, match="text_value") as refused:
            await sink.write(1, batch(Sample("a", NOW, "short"), Sample("a", NOW + 1, "longer")))
        assert refused.value.indices == [1]


async def test_two_sinks_of_one_name_do_not_write_over_each_other(client: Client) -> None:
    """A second one takes a remnant's place; what the first one still has under way cannot be committed."""
    first, second = client.config().build(), client.config().build()
    async with first:
        await first.write(1, batch(Sample("a", NOW, 1.0)))
        async with second:
            assert await second.held() == 1
            await second.write(2, batch(Sample("a", NOW + 1, 2.0)))
            with pytest.raises(Exception, match=r"connection|ended"):
                await first.write(2, batch(Sample("a", NOW + 1, 2.0)))
    assert [s.value for s in client.samples()] == [1.0, 2.0]
