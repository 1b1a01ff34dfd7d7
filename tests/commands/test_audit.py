"""The audit record: every change to the past is found, whatever byte it is."""

import asyncio
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from shopfloor.commands import Audit, Entry, Record, audit_path, from_json, to_json, verify
from shopfloor.plant import Plant
from shopfloor.samples import INT_MAX, INT_MIN, Misconfigured, Unavailable, Value


def clock() -> int:
    return 1_763_683_200_000_000_000


async def written(path: Path, count: int = 5) -> list[Record]:
    async with Audit(path, clock) as audit:
        for i in range(count):
            await audit.append(Entry("control", "ada", "operator", detail=f"mqtt: pause {i}"))
        return await audit.records()


def tamper(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for trigger in ("audit_unchanged", "audit_undeleted"):
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute(statement)
        db.commit()


async def test_an_untouched_record_is_intact_and_its_head_is_the_newest_hash(tmp_path: Path) -> None:
    records = await written(tmp_path / "audit.db")
    found = verify(tmp_path / "audit.db")
    assert (found.intact, found.records, found.broken, found.head) == (True, 5, None, records[0].hash)


async def test_the_chain_goes_on_where_it_ended(tmp_path: Path) -> None:
    await written(tmp_path / "audit.db")
    await written(tmp_path / "audit.db")
    assert (verify(tmp_path / "audit.db").records, verify(tmp_path / "audit.db").intact) == (10, True)


async def test_two_writers_on_one_file_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    async with Audit(path, clock) as one, Audit(path, clock) as other:
        entries = [Entry("control", "ada", "operator", detail=str(i)) for i in range(20)]
        await asyncio.gather(*[(one if i % 2 else other).append(entry) for i, entry in enumerate(entries)])
    assert (verify(path).records, verify(path).intact) == (20, True)


@pytest.mark.parametrize(
    ("statement", "broken", "says"),
    [
        ("UPDATE audit SET record = replace(record, 'ada', 'bob') WHERE number = 3", 3, "was changed"),
        ("UPDATE audit SET record = record || ' ' WHERE number = 3", 3, "was changed"),
        ("UPDATE audit SET hash = zeroblob(32) WHERE number = 4", 4, "was changed"),
        ("DELETE FROM audit WHERE number = 2", 2, "record 2 is missing; the next one there is 3"),
        ("DELETE FROM audit WHERE number = 1", 1, "record 1 is missing"),
        ("UPDATE audit SET number = 9 WHERE number = 5", 5, "record 5 is missing"),
        ("INSERT INTO audit VALUES (6, '{}', zeroblob(32))", 6, "was changed"),
    ],
)
async def test_the_first_record_that_was_tampered_with_is_named(
    tmp_path: Path, statement: str, broken: int, says: str
) -> None:
    path = tmp_path / "audit.db"
    await written(path)
    tamper(path, statement)
    found = verify(path)
    assert not found.intact
    assert (found.broken, found.records) == (broken, broken - 1)
    assert says in found.detail


async def test_a_cut_off_end_shows_in_count_and_head_only(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    records = await written(path)
    tamper(path, "DELETE FROM audit WHERE number = 5")
    found = verify(path)
    assert (found.intact, found.records, found.head) == (True, 4, records[1].hash)


async def test_records_cannot_be_changed_or_deleted_by_accident(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    await written(path)
    with closing(sqlite3.connect(path)) as db:
        for statement in ("UPDATE audit SET record = '{}'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="only added"):
                db.execute(statement)


async def test_any_flipped_byte_of_a_record_is_found_and_nothing_raises(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    await written(path, 3)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode = DELETE")
    whole = path.read_bytes()
    start = whole.index(b'"mqtt: pause 1"')
    torn = tmp_path / "torn.db"
    for at in range(start - 150, start + 150):
        torn.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        assert not verify(torn).intact, at


async def test_a_file_cut_at_any_page_is_refused_or_found_broken(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    await written(path, 200)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode = DELETE")
    whole = path.read_bytes()
    for pages in range(1, len(whole) // 4096):
        torn = tmp_path / f"torn{pages}.db"
        torn.write_bytes(whole[: pages * 4096 - 7])
        assert not verify(torn).intact
        with pytest.raises(Misconfigured, match="is damaged"):
            await Audit(torn, clock).__aenter__()


async def test_a_foreign_or_unusable_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("no database at all, but long enough to be looked at " * 30)
    with pytest.raises(Misconfigured, match="move the file away"):
        await Audit(text, clock).__aenter__()
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE audit (number INTEGER)")
    with pytest.raises(Misconfigured, match="not an audit record of Shopfloor; move it away"):
        await Audit(other, clock).__aenter__()
    with pytest.raises(Misconfigured, match="not an audit record"):
        verify(other)
    newer = tmp_path / "newer.db"
    await written(newer)
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(Misconfigured, match="another version"):
        await Audit(newer, clock).__aenter__()
    with pytest.raises(Misconfigured, match="there is no audit record"):
        verify(tmp_path / "nothing.db")
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="cannot be opened"):
        await Audit(tmp_path / "file" / "audit.db", clock).__aenter__()


async def test_a_closed_record_says_so(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.db", clock)
    for _ in range(2):
        async with audit:
            await audit.append(Entry("control", "ada", "operator"))
        with pytest.raises(Unavailable, match="closed"):
            await audit.append(Entry("control", "ada", "operator"))
    assert verify(tmp_path / "audit.db").records == 2


async def test_records_are_paged_from_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    await written(path, 10)
    async with Audit(path, clock) as audit:
        first = await audit.records(4)
        second = await audit.records(4, before=first[-1].number)
    assert [r.number for r in (*first, *second)] == [10, 9, 8, 7, 6, 5, 4, 3]


@given(
    value=st.none()
    | st.booleans()
    | st.integers(INT_MIN, INT_MAX)
    | st.floats()
    | st.binary()
    | st.text(st.characters(codec="utf-8"))
)
def test_every_value_survives_json(value: Value) -> None:
    again = from_json(to_json(value))
    assert type(again) is type(value)
    assert again == value or (isinstance(value, float) and math.isnan(value))


@pytest.mark.parametrize("wrong", [
    {"int": 1}, {"int": "x"}, {"int": str(2**64)}, {"float": "nan"}, {"float": "1"}, {"bytes": "!"}, {"bytes": "ü"},
    {"int": "1", "float": "NaN"}, {}, {"text": "x"}, [1], 2**64, -(2**63) - 1,
])  # fmt: skip
def test_what_is_no_value_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"value|integer|Base64"):
        from_json(wrong)


async def test_any_text_can_be_recorded(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    nasty = "\x00\ud800\U0001f600\"'" + "x" * 5_000
    async with Audit(path, clock) as audit:
        await audit.append(Entry("refused", nasty, "operator", nasty, nasty, nasty, nasty))
        (record,) = await audit.records()
    assert len(record.detail) == 1_000
    assert verify(path).intact


def test_it_is_beside_the_journal() -> None:
    plant = Plant.model_validate({"plant": {"site": "bremen"}})
    assert audit_path(plant) == Path("data/audit.db")
