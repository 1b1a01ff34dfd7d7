"""The MySQL sink into a table that the plant already has, in a real MariaDB."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from shopfloor.samples import Batch, Misconfigured, Rejected, Sample
from shopfloor.testing.contracts import EVERY_VALUE, same_samples
from shopfloor.testing.programs import MariaDb
from tests.sinks.mysql import NOW, Client

AT = datetime(2026, 1, 5, 6, 0, 0, 123456)  # noqa: DTZ001  # as the database gives it: UTC
LONG = {"ts": "{time}", "tag_name": "{tag}", "val": "{value}", "q": "{quality}", "seen": "{received}"}
WIDE = {"ts": "{time}", "cv": "press-1/CV", "pv": "press-1/PV", "motor": "press-1/Motor"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    """As old ones are set up: nothing is strict, another time zone, another character set. The session's own count."""
    options = ["--sql-mode=", "--default-time-zone=+05:00", "--character-set-server=latin1"]
    with MariaDb(tmp_path_factory.mktemp("mariadb"), options=options) as server:
        yield server


@pytest.fixture
def client(server: MariaDb) -> Client:
    client = Client(server.port)
    client.ask(
        "CREATE TABLE samples (id int AUTO_INCREMENT PRIMARY KEY, ts datetime(6) NOT NULL, "
        "tag_name varchar(40) NOT NULL, val decimal(6, 2) NULL, q smallint NOT NULL, "
        "seen timestamp(6) NULL, note text NULL)"
    )
    client.ask(
        "CREATE TABLE historian (ts datetime(6) NOT NULL, cv double NULL, pv double NULL, motor bool NULL, INDEX (ts))"
    )
    return client


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


async def test_a_row_a_sample(client: Client) -> None:
    async with client.config(table="samples", columns=LONG).build() as sink:
        await sink.write(1, batch(Sample("press-1/PV", NOW, 41.5), Sample("press-1/Motor", NOW + 1000, True, 64)))
    assert [(*map(str, row[:2]), *row[2:]) for row in client.ask("SELECT val, seen, ts, tag_name, q FROM samples")] == [
        ("41.50", str(AT + timedelta(hours=5)), AT, "press-1/PV", 192),  # a TIMESTAMP is shown in the reader's zone
        ("1.00", str(AT + timedelta(hours=5)), AT.replace(microsecond=123457), "press-1/Motor", 64),
    ]
    assert client.ask("SHOW TABLES LIKE 'shopfloor%'") == [("shopfloor_writer",)]


async def test_a_row_an_instant_has_what_the_others_had_last(client: Client) -> None:
    """Also after a restart; a late sample does not take what came after it, and a bad value is NULL."""
    config = client.config(table="historian", columns=WIDE)
    assert config.tags == ["press-1/CV", "press-1/PV", "press-1/Motor"]
    async with config.build() as sink:
        await sink.write(1, batch(Sample("press-1/CV", NOW, 1.0), Sample("press-1/PV", NOW, 41.5)))
        await sink.write(2, batch(Sample("press-1/Motor", NOW + 2000, True), Sample("press-1/PV", NOW + 1000, 42.0)))
    async with config.build() as sink:
        await sink.write(3, batch(Sample("press-1/CV", NOW + 3000, 2.0), Sample("press-1/PV", NOW - 1000, 40.0)))
        await sink.write(4, batch(Sample("press-1/PV", NOW + 4000, 99.0, 24)))
    rows = client.ask("SELECT MICROSECOND(ts) - 123456, cv, pv, motor FROM historian ORDER BY ts")
    assert rows == [
        (-1, None, 40.0, None),
        (0, 1.0, 41.5, None),
        (1, 1.0, 42.0, None),
        (2, 1.0, 42.0, 1),
        (3, 2.0, 42.0, 1),
        (4, 2.0, None, 1),
    ]


async def test_what_the_table_cannot_hold_is_rejected_and_the_rest_is_kept(client: Client) -> None:
    """Out of range, of another type, too long for the column, no number: each by its place, nothing is cut."""
    samples = [
        Sample("a", NOW, 1.0), Sample("a", NOW, 12345.0), Sample("a", NOW, "text"), Sample("a" * 41, NOW, 2.0),
        Sample("a", NOW, 3.0),
    ]  # fmt: skip
    async with client.config(table="samples", columns=LONG).build() as sink:
        with pytest.raises(Rejected, match="MySQL has no nan") as refused:
            await sink.write(1, batch(*samples, Sample("a", NOW, float("nan"))))
        assert refused.value.indices == [5]
        with pytest.raises(Rejected, match="Out of range value for column 'val'") as refused:
            await sink.write(1, batch(*samples))
        assert refused.value.indices == [1, 2, 3]
        assert client.ask("SELECT COUNT(*) FROM samples") == [(0,)]
        await sink.write(1, batch(*samples).select([0, 4]))
        await sink.write(1, batch(*samples).select([0, 4]))  # the same offset again
        assert await sink.held() == 1
    assert client.ask("SELECT val FROM samples ORDER BY id") == [(1,), (3,)]


async def test_shopfloors_own_tables_hold_everything_there_too(client: Client) -> None:
    samples = [Sample(f"a/{i}", NOW + i, value) for i, value in enumerate(EVERY_VALUE.values())]
    async with client.config().build() as sink:
        await sink.write(1, batch(*samples))
    assert same_samples(client.samples(), samples)


async def test_names_and_values_are_never_part_of_a_statement(client: Client) -> None:
    evil = "x'); DROP TABLE samples; -- `"
    client.ask("CREATE TABLE notes (ts datetime(6), tag_name text, val text)")
    columns = {"ts": "{time}", "tag_name": "{tag}", "val": "{value}"}
    async with client.config(table="notes", columns=columns).build() as sink:
        await sink.write(1, batch(Sample(evil, NOW, evil), Sample("%s %(x)s", NOW, "100 %")))
    assert client.ask("SELECT tag_name, val FROM notes") == [(evil, evil), ("%s %(x)s", "100 %")]


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (None, {"table": "nowhere", "columns": LONG}, "there is no table `nowhere`"),
        ("ALTER TABLE samples ENGINE=MyISAM", {"table": "samples", "columns": LONG}, "MyISAM, which knows no transac"),
        (
            "ALTER TABLE samples ADD wants int NOT NULL",
            {"table": "samples", "columns": LONG},
            "column wants needs a value",
        ),
        ("ALTER TABLE samples MODIFY ts bigint NOT NULL", {"table": "samples", "columns": LONG}, "ts is bigint, but"),
        ("ALTER TABLE samples DROP q", {"table": "samples", "columns": LONG}, "it has no column q"),
    ],
)
async def test_a_table_that_does_not_fit_is_told(
    change: str | None, options: dict[str, Any], why: str, client: Client
) -> None:
    """By the sink and by the probe."""
    if change is not None:
        client.ask(change)
    for connection in (client.config(**options).build(), client.config(**options).probe()):
        with pytest.raises(Misconfigured, match=why):
            async with connection:
                pass


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"table": "t"}, "belong together"),
        ({"columns": LONG}, "belong together"),
        ({"table": "t`", "columns": LONG}, "letters, digits"),
        ({"table": "t", "columns": {"a b": "{time}"}}, "letters, digits"),
        ({"table": "t", "columns": {"v": "{value}"}}, "a column must get {time}"),
        ({"table": "t", "columns": {"t": "{time}"}}, "a column must get {value}, or a tag each"),
        ({"table": "t", "columns": {"t": "{time}", "v": "{val}"}}, "{val} is none of"),
        ({"table": "t", "columns": {"t": "{time}", "v": "{value}", "w": "a/b"}}, "exclude each other"),
        ({"table": "t", "columns": {"t": "{time}", "v": "a/b", "w": "a/b"}}, "has two columns"),
    ],
)
def test_a_wrong_mapping_is_told_by_check(options: dict[str, Any], why: str, client: Client) -> None:
    with pytest.raises(ValidationError) as said:
        client.config(**options)
    assert why in str(said.value)


async def test_a_user_with_few_rights_is_enough(client: Client) -> None:
    """INSERT and SELECT on the table, and all on the writer's, which an administrator has made."""
    options: dict[str, Any] = {"table": "samples", "columns": LONG}
    async with client.config(**options).build():
        pass  # makes the writer's table, as root
    user = f"u_{client.database}"
    client.ask(f"CREATE USER {user}@'%'")
    client.ask(f"GRANT SELECT, INSERT ON {client.database}.samples TO {user}@'%'")
    config = client.config(dsn=f"mysql://{user}@127.0.0.1:{client.port}/{client.database}", **options)
    with pytest.raises(Misconfigured, match="lacks rights"):
        async with config.probe():
            pass
    client.ask(f"GRANT SELECT, INSERT, UPDATE ON {client.database}.shopfloor_writer TO {user}@'%'")
    async with config.probe(), config.build() as sink:
        await sink.write(1, batch(Sample("a", NOW, 1.0)))
    assert client.ask("SELECT COUNT(*) FROM samples") == [(1,)]
