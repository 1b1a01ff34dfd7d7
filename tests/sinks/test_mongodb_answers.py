"""What a MongoDB answers that the peer of test_mongodb.py cannot: refusals, rights, replica sets, TLS."""

import gc
import re
import ssl
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from pymongo.helpers_shared import _RETRYABLE_ERROR_CODES

from shopfloor.plant.components import FromEnvironment
from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Unavailable
from shopfloor.sinks.mongodb import MongoDbConfig
from shopfloor.sinks.mongodb_errors import about_document
from shopfloor.testing.certificates import Authority
from shopfloor.testing.contracts import until
from tests.sinks.mongo_scripted import Document, Script, ScriptedMongo

NOW: Final = 1_767_592_800_123_456_789
OFFERED: Final = Batch.of("press", NOW, [Sample("a", NOW + i, i) for i in range(10)])


def config(port: int, options: str = "", **more: object) -> MongoDbConfig:
    dsn = f"mongodb://127.0.0.1:{port}/plant{options}"
    return MongoDbConfig.model_validate({"name": "archive", "type": "mongodb", "dsn": dsn, "timeout": "30 s", **more})


def inserting(answer: Document) -> Script:
    """To every insert this answer, to all others the usual one."""
    return lambda name, _: {"ok": 1.0, "n": 0, **answer} if name == "insert" else None


async def refused(script: Script, batch: Batch = OFFERED, **options: object) -> Exception:
    async with ScriptedMongo(script) as server, config(server.port, **options).build() as sink:  # type: ignore[arg-type]
        with pytest.raises((Rejected, Unavailable, Misconfigured)) as raised:
            await sink.write(1, batch)
    return raised.value


async def test_what_a_validator_refuses_is_named_and_the_rest_is_held_once() -> None:
    """By its place in what was offered, over several commands; what was taken is not written again."""
    batch = Batch.of("press", NOW, [Sample("a", NOW + i, i) for i in range(1200)])
    bad = {3, 501, 1199}
    taken: list[int] = []

    def script(name: str, asked: Document) -> Document | None:
        if name != "insert":
            return None
        values: Sequence[int] = [one["value"] for one in asked["documents"]]
        taken.extend(value for value in values if value not in bad)
        errors = [
            {"index": i, "code": 121, "errmsg": "Document failed validation"}
            for i, value in enumerate(values) if value in bad
        ]  # fmt: skip
        return {"ok": 1.0, "n": len(values) - len(errors), "writeErrors": errors}

    async with ScriptedMongo(script) as server, config(server.port).build() as sink:
        with pytest.raises(Rejected, match="Document failed validation") as raised:
            await sink.write_many([(1, batch), (2, Batch.of("press", NOW, [Sample("b", NOW, 3000)]))])
        with pytest.raises(Rejected, match="Document failed validation") as raised:
            await sink.write(1, batch)
        assert set(raised.value.indices or ()) == bad
        await sink.write(1, batch.select([i for i in range(1200) if i not in bad]))
        await sink.write(2, Batch.of("press", NOW, [Sample("b", NOW, 3000)]))
        assert sorted(taken) == [*(i for i in range(1200) if i not in bad), 3000]


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (121, Rejected, "said why"),
        (11000, Rejected, "said why"),  # an index of the administrator's: nothing stands under this _id
        (10334, Rejected, "said why"),
        (189, Unavailable, "takes no writes now"),
        (14031, Unavailable, "disk of the database is full"),
        (91, Unavailable, "is shut down"),
        (112, Unavailable, "another write was in the way"),
        (6, Unavailable, "another one that it asks"),  # mongos says it of each document, for its shard
        (133, Unavailable, "another one that it asks"),
        (202, Unavailable, "another one that it asks"),
        (215, Unavailable, "is being dropped"),
        (365, Unavailable, "another one that it asks"),
        (371, Unavailable, "has blocked all writes"),
    ],
)
async def test_what_an_error_of_a_document_means(code: int, error: type[Exception], words: str) -> None:
    """One that holds up all is none of a document's, whatever stands beside it."""
    errors = [{"index": 2, "code": code, "errmsg": "said why"}]
    raised = await refused(inserting({"n": 9, "writeErrors": errors}))
    assert type(raised) is error
    assert words in str(raised)
    if isinstance(raised, Rejected):
        assert raised.indices == [2]
        both = await refused(inserting({"writeErrors": [*errors, {"index": 3, "code": 189, "errmsg": "stepped down"}]}))
        assert type(both) is Unavailable


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (13, Misconfigured, "may not write there; grant the role readWrite"),
        (10107, Unavailable, "takes no writes now"),
        (11600, Unavailable, "is shut down"),
        (50, Unavailable, "too slow"),
        (100, Misconfigured, "write one that its members can meet"),
        (14031, Unavailable, "the journal keeps what comes"),
        (99999, Unavailable, r"the database refuses (said why)"),
    ],
)
async def test_what_an_error_of_a_command_means(code: int, error: type[Exception], words: str) -> None:
    said = {"ok": 0.0, "code": code, "errmsg": "said why"}
    raised = await refused(inserting(said))
    assert type(raised) is error
    assert words in str(raised)
    async with ScriptedMongo(lambda name, _: said if name == "update" else None) as server:
        with pytest.raises(error):  # it is said before anything is written
            await config(server.port).build().__aenter__()


async def test_a_majority_that_does_not_confirm_is_no_success() -> None:
    """The documents are there, perhaps for a moment only: they are written again, and count once."""
    concern = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out"}
    raised = await refused(inserting({"n": 10, "writeConcernError": concern}))
    assert isinstance(raised, Unavailable)
    assert "not enough members of the replica set have confirmed" in str(raised)
    latest = {"ok": 1.0, "n": 1, "nModified": 1, "writeConcernError": concern}
    raised = await refused(
        lambda name, asked: latest if name == "update" and len(asked["updates"][0]["q"]) > 1 else None
    )
    assert isinstance(raised, Unavailable)


async def test_a_write_concern_that_is_not_met_is_never_a_documents_fault() -> None:
    """Whatever its code: the documents are stored, so none of them may become a dead letter."""
    for code in (262, 121, 99999):
        raised = await refused(inserting({"n": 10, "writeConcernError": {"code": code, "errmsg": "no majority"}}))
        assert type(raised) is Unavailable
        assert "no majority" in str(raised)


def test_what_the_driver_tries_again_is_no_documents_fault() -> None:
    assert _RETRYABLE_ERROR_CODES
    assert [code for code in _RETRYABLE_ERROR_CODES if about_document(code)] == []


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("you are over your space quota, using 513 MB of 512 MB", Unavailable, "free room there"),
        ("bad auth : authentication failed", Misconfigured, "refuses user or password"),
        ("user is not allowed to do action [insert] on [plant.samples]", Misconfigured, "readWrite"),
        ("something else", Unavailable, "the database refuses"),
    ],
)
async def test_atlas_has_one_code_for_several_things(said: str, error: type[Exception], words: str) -> None:
    raised = await refused(inserting({"ok": 0.0, "code": 8000, "errmsg": said}))
    assert type(raised) is error
    assert words in str(raised)


async def test_what_is_there_already_is_asked_of_the_primary() -> None:
    """Whatever `readPreference` says: a secondary that lags would not know it, and good samples be refused."""
    held: list[Document] = []

    def script(name: str, asked: Document) -> Document | None:
        if name == "insert":
            held.extend(asked["documents"])
            return {"ok": 1.0, "n": 0, "writeErrors": [{"index": i, "code": 11000, "errmsg": "E11000"} for i in (0, 1)]}
        if name == "find":
            preference = asked.get("$readPreference", {"mode": "primary"})["mode"]
            here = held if preference == "primary" else []
            return {"cursor": {"id": 0, "ns": "plant.samples", "firstBatch": here}, "ok": 1.0}
        return None

    async with (
        ScriptedMongo(script, hello={"msg": "isdbgrid"}) as server,  # mongos: it is told what is preferred
        config(server.port, "?readPreference=secondaryPreferred").build() as sink,
    ):
        await sink.write(1, OFFERED.select([0, 1]))
    assert len(server.commands("find")) == 1


def refusing(collection: str, code: int, **more: object) -> Script:
    """Every update in this collection but the asking before the first one."""

    def script(name: str, asked: Document) -> Document | None:
        if name != "update" or asked["update"] != collection or "asked" in asked["updates"][0]["u"].get("$set", {}):
            return None
        many = range(1 if asked["ordered"] else len(asked["updates"]))
        errors = [{"index": i, "code": code, "errmsg": "refused", **more} for i in many]
        return {"ok": 1.0, "n": 0, "nModified": 0, "writeErrors": errors}

    return script


@pytest.mark.parametrize("collection", ["latest", "stop_event"])
async def test_a_derived_document_that_is_refused_costs_no_sample(
    collection: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said once, with the numbers; a unique index of the administrator's is no newer document."""
    stop = '{"class": "unplanned", "state": "stopped"}'
    offered = Batch.of("press", NOW, [Sample("a", NOW, 1), Sample("press/kpi/stop", NOW, stop)])
    for script in (refusing(collection, 121), refusing(collection, 11000, keyPattern={"shift": 1})):
        async with ScriptedMongo(script) as server:
            async with config(server.port).build() as sink:
                await sink.write(1, offered)
                await sink.write(2, offered)
            assert len(server.commands("insert")) == 2
            assert server.commands("update")[-1]["update"] == "stop_event", "what comes after it is written"
        said = capsys.readouterr().out
        assert said.count(f"the database refuses documents of {collection}") == 1
        assert said.count(f"{collection} lacks documents") == 1


async def test_an_hour_that_is_refused_is_its_samples_and_the_other_hours_are_written() -> None:
    """Nothing else holds it; the bulk is ordered, so what stands behind it is sent again."""
    hour = 3600 * 10**9
    begin = NOW // hour * hour
    recorder = {"production": [{"tag": "press/hourly", "machine": "m"}]}
    offered = Batch.of("press", NOW, [Sample("press/hourly", begin + i * hour, i) for i in range(4)])
    written: list[int] = []

    def script(name: str, asked: Document) -> Document | None:
        if name != "update" or "asked" in asked["updates"][0]["u"].get("$set", {}):
            return None
        for i, one in enumerate(asked["updates"]):
            units = one["u"]["$set"].get("unitsProduced")
            if units == 1:
                error = {"index": i, "code": 11000, "errmsg": "E11000 by hand"}
                return {"ok": 1.0, "n": i, "nModified": 0, "writeErrors": [error]}
            if units is not None:
                written.append(units)
        return {"ok": 1.0, "n": len(asked["updates"]), "nModified": 0}

    async with ScriptedMongo(script) as server, config(server.port, recorder=recorder).build() as sink:
        with pytest.raises(Rejected, match="E11000 by hand") as raised:
            await sink.write(1, offered)
        assert raised.value.indices == [1]
        assert written == [0, 2, 3]
        await sink.write(1, offered.select([0, 2, 3]))


async def test_what_is_written_waits_for_the_journal_of_a_majority() -> None:
    """Unless the plant file asks for something else; not to wait at all cannot be asked for."""
    for options, expected in (("", ("majority", True)), ("?w=1&journal=false", (1, False))):
        async with ScriptedMongo(lambda *_: None) as server, config(server.port, options).build() as sink:
            await sink.write(1, OFFERED)
            (asked,) = server.commands("insert")
            assert (asked["writeConcern"]["w"], asked["writeConcern"]["j"]) == expected
            assert (asked["ordered"], len(asked["documents"])) == (False, 10)


async def test_a_secondary_is_no_server_to_write_to() -> None:
    hello = {"ismaster": False, "isWritablePrimary": False, "secondary": True, "setName": "rs0"}
    async with ScriptedMongo(lambda *_: None, hello=hello) as server:
        alone = config(server.port, "?replicaSet=rs0&directConnection=false", timeout="300 ms")
        with pytest.raises(Unavailable, match="no server that takes writes was found"):
            await alone.build().__aenter__()


async def test_a_wrong_password_is_told_from_a_missing_right() -> None:
    said = {"ok": 0.0, "code": 18, "codeName": "AuthenticationFailed", "errmsg": "Authentication failed."}
    async with ScriptedMongo(lambda name, _: said if name.startswith("sasl") else None) as server:
        user = MongoDbConfig.model_validate({
            "name": "archive", "type": "mongodb", "dsn": f"mongodb://edge@127.0.0.1:{server.port}/plant",
            "password": FromEnvironment("wr0ng"),
        })  # fmt: skip
        with pytest.raises(Misconfigured, match="refuses user or password; put them right in `dsn`") as raised:
            await user.build().__aenter__()
        assert "wr0ng" not in str(raised.value)


async def test_an_old_server_is_named() -> None:
    async with ScriptedMongo(lambda *_: None, hello={"maxWireVersion": 4}) as server:
        with pytest.raises(Misconfigured, match=r"use MongoDB 4\.4 or newer"):
            await config(server.port).build().__aenter__()


async def test_tls_with_an_authority_that_is_known_and_one_that_is_not(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    identity = authority.server()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(identity.certificate, identity.key)
    async with ScriptedMongo(lambda *_: None, tls=context) as server:
        async with config(server.port, "?tls=true", ca_file=authority.certificate).build() as sink:
            await sink.write(1, OFFERED)
        stranger = config(server.port, "?tls=true", ca_file=other.certificate, timeout="1 s")
        await kept_out(
            stranger, Misconfigured, r"^the server's certificate is not trusted .*; write the file of its authority"
        )
    async with ScriptedMongo(lambda *_: None) as server:
        await kept_out(
            config(server.port, "?tls=true", ca_file=authority.certificate, timeout="1 s"), Exception, r"TLS|SSL"
        )


async def kept_out(one: MongoDbConfig, kind: type[Exception], words: str) -> None:
    """It is not entered and says why, once the little time that it has was enough for a handshake."""

    async def said() -> bool:
        try:
            await one.build().__aenter__()
        except (Misconfigured, Unavailable) as error:
            return isinstance(error, kind) and re.search(words, str(error)) is not None
        pytest.fail("it was entered")

    await until(said, words)
    # The driver, closed while it connects, leaves that socket to the collector: let it be here, not in another test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def test_a_time_series_collection_is_made_and_what_it_confirmed_is_not_written_again() -> None:
    """It has no _id that is unique: a sample that it holds must not be offered to it twice."""
    made: list[Document] = []
    counted: list[int] = []

    def script(name: str, asked: Document) -> Document | None:
        if name == "create":
            made.append(asked)
        if name != "insert":
            return None
        if asked["documents"][0]["value"] == 250 and -1 not in counted:
            return {"ok": 0.0, "code": 189, "errmsg": "stepped down"}
        counted.extend(one["value"] for one in asked["documents"])
        return {"ok": 1.0, "n": len(asked["documents"])}

    batch = Batch.of("press", NOW, [Sample("a", NOW + i, i) for i in range(600)])
    async with ScriptedMongo(script) as server:
        series = config(server.port, time_series=True)
        async with series.build() as sink:
            with pytest.raises(Unavailable):
                await sink.write(1, batch)
        assert made[0]["timeseries"] == {"timeField": "time", "metaField": "tag"}
        counted.append(-1)  # from now on everything is taken
        async with series.build() as sink:
            await sink.write(1, batch)
            big = Batch.of("press", NOW, [Sample("b", NOW, "x" * 5 * 2**20)])
            with pytest.raises(Rejected, match="longer than"):
                await sink.write(2, big)
    assert sorted(counted) == [-1, *range(600)]


async def test_a_time_series_collection_that_is_there_is_not_taken_for_another() -> None:
    there = {"name": "samples", "type": "timeseries", "options": {"timeseries": {"timeField": "t"}}}
    listed = {"cursor": {"id": 0, "ns": "plant.$cmd", "firstBatch": [there]}, "ok": 1.0}
    async with ScriptedMongo(lambda name, _: listed if name == "listCollections" else None) as server:
        with pytest.raises(Misconfigured, match="as a time series collection; write `time_series: true`"):
            await config(server.port).build().__aenter__()


async def test_an_index_of_the_administrators_stays() -> None:
    conflict = {"ok": 0.0, "code": 85, "errmsg": "Index already exists with a different name"}
    async with (
        ScriptedMongo(lambda name, _: conflict if name == "createIndexes" else None) as server,
        config(server.port).build() as sink,
    ):
        await sink.write(1, OFFERED)
