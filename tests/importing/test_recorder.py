"""What the signal recorder kept in MongoDB becomes a plant file that is right, and nothing is left out silently."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from bson import ObjectId, encode
from hypothesis import given, settings, strategies as st
from pymongo import MongoClient

from shopfloor import plant
from shopfloor.importing import ENVIRONMENT, Documents, Imported, imported, pins, read, text, with_front_end
from shopfloor.journal import read_file
from shopfloor.protocols.s7_address import parse
from shopfloor.protocols.s7_values import Unfit
from shopfloor.samples import Misconfigured
from shopfloor.sinks.mongodb import MongoDbConfig
from shopfloor.sources.s7 import S7Config
from shopfloor.testing.databases import MongoPeer
from shopfloor.testing.programs import ServerProcess, free_port

RUN: Final = (sys.executable, "-m", "shopfloor")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server of MongoDB's wire protocol."""
    with MongoPeer() as peer:
        yield peer.url


def filled(server: str, name: str, **collections: list[dict[str, Any]]) -> str:
    """The address of a database with these documents."""
    with MongoClient[dict[str, Any]](server) as client:
        client.drop_database(name)
        for collection, documents in collections.items():
            client[name][collection].insert_many(documents)
    return f"{server}/{name}"


def recorders_own() -> dict[str, Any]:
    """Documents as the recorder's front end writes them."""
    press, saw, power, cycle, teeth = (ObjectId() for _ in range(5))
    return {
        "machines": [
            {"_id": press, "name": "Press 1", "description": "Left of the gate", "__v": 0},
            {"_id": saw, "name": "Säge", "departmentId": ObjectId(), "status": "running", "__v": 0},
        ],
        "sensors": [
            {"_id": power, "name": "Power", "machineId": press, "sensorType": "power", "isActive": True, "unit": "kW"},
            {"_id": cycle, "name": "Unit cycle", "machineId": press, "sensorType": "unit-cycle", "isActive": True},
            {"_id": teeth, "name": "Cut", "description": "A cut is done", "machineId": saw, "sensorType": "unit-cycle"},
        ],
        "sensorpinmappings": [
            {"_id": ObjectId(), "sensorId": power, "pinId": "AI.0", "isActive": True},
            {"_id": ObjectId(), "sensorId": cycle, "pinId": "DQ.3", "isActive": True},
            {"_id": ObjectId(), "sensorId": teeth, "pinId": "I0.1", "isActive": True},
        ],
    }


def documents(
    configuration: dict[str, Any] | None = None, name: str = "industrial_iot", **collections: list[dict[str, Any]]
) -> Documents:
    empty: dict[str, list[dict[str, Any]]] = {"sensorpinmappings": [], "sensors": [], "machines": []}
    given = {"plc": {"ip": "10.0.3.21"}} if configuration is None else configuration
    return Documents(origin="here", name=name, collections={**empty, **collections}, configuration=given)


def one(mapping: dict[str, Any], **sensor: Any) -> Imported:
    """An import of one sensor."""
    return imported(
        documents(
            machines=[{"_id": 1, "name": "m"}],
            sensors=[{"_id": 2, "name": "s", "machineId": 1, "sensorType": "power", **sensor}],
            sensorpinmappings=[{"_id": 3, "sensorId": 2, **mapping}],
        )
    )


def source(found: Imported) -> S7Config:
    """The only source of what was imported, as the plant file's own loader reads it."""
    (config,) = plant.parse(text(found), "imported", Path(), {}).sources
    assert isinstance(config, S7Config)
    return config


def shopfloor(*words: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *map(str, words)], capture_output=True, text=True, timeout=200, check=False, cwd=folder,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_what_is_imported_is_right_and_runs(server: str, tmp_path: Path) -> None:
    """From a database by way of the recorder's own configuration to samples of a PLC that its front end can read."""
    own = recorders_own()
    with ServerProcess([*RUN, "simulate", "s7", "--port", str(port := free_port())], port, within=200):
        configuration = tmp_path / "config.json"
        configuration.write_text(
            json.dumps({
                "plc": {"ip": f"127.0.0.1:{port}", "rack": 0, "slot": 1},
                "mongodb": {"connection_string": filled(server, "industrial_iot", **own)},
                "sampling": {"interval_seconds": 0.2},
            })
        )  # fmt: skip
        done = shopfloor("import", configuration, "--front-end", "--to", "plant.yaml", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "3 tags of 2 machines, written to plant.yaml" in done.stderr
        assert "DB2.DBW0 for every power sensor" in done.stderr
        assert "note: machines" in done.stderr, "a machine's description has no place"
        checked = shopfloor("check", "plant.yaml", folder=tmp_path)
        assert checked.returncode == 0, checked.stderr
        loaded = plant.load(tmp_path / "plant.yaml")
        (config,) = loaded.sources
        assert isinstance(config, S7Config)
        assert (config.rate, config.rack, config.slot, loaded.plant.site) == (200_000_000, 0, 1, "industrial_iot")
        assert [(tag.tag, tag.address, tag.unit) for tag in config.tags] == [
            ("press-1/power", "DB2,WORD0", "kW"),
            ("press-1/unit-cycle", "DB1,X0.3", ""),
            ("sage/cut", "I0.1", ""),
        ]
        assert [(machine.id, machine.title) for machine in loaded.machines] == [
            ("press-1", "Press 1"),
            ("sage", "Säge"),
        ]
        with (tmp_path / "plant.yaml").open("a") as file:
            file.write("console: null\n")
        journal = tmp_path / "data" / "journal.db"
        with ServerProcess(
            [*RUN, "run", "plant.yaml"], 0, folder=tmp_path, within=200,
            ready=lambda: written(server, "industrial_iot") >= {one["_id"] for one in own["sensors"]},
        ):  # fmt: skip
            pass
    assert received(journal) >= 3


def written(server: str, database: str) -> set[Any]:
    """Whose values there are in the recorder's collection, by the references that its front end follows."""
    with MongoClient[dict[str, Any]](server) as client:
        return set(client[database]["signaldatas"].distinct("sensorId"))


def received(journal: Path) -> int:
    """Samples of the PLC that the journal counted."""
    try:
        return sum(row.samples for row in read_file(journal) if (row.source, row.outcome) == ("plc", "received"))
    except Misconfigured:  # it is being made
        return 0


@pytest.mark.parametrize(
    ("pin", "kind", "address"),
    [
        ("DQ.0", "unit-cycle", "DB1,X0.0"),
        ("DQ7", "unit-cycle", "DB1,X0.7"),
        ("I0.0", "unit-cycle", "I0.0"),
        ("%I 1.7", "unit-cycle", "I1.7"),
        ("e0.3", "digital", "E0.3"),
        ("DB1.DBX0.1", "unit-cycle", "DB1.DBX0.1"),
        ({"type": "digital", "byte": 0, "bit": 1}, None, "I0.1"),
        ({"type": "digital", "db": 5, "byte": 2, "bit": 7}, None, "DB5,X2.7"),
        ({"area": "M", "byte": "10", "bit": "3"}, None, "M10.3"),
        ("AI.2", "power", "DB2,WORD0"),
        ("IW64", "power", "IW64"),
        ("PIW256", "analog", "PIW256"),
        ("DB2.DBW4", "power", "DB2.DBW4"),
        ("DB2,REAL4", "power", "DB2,REAL4"),
        ({"type": "analog", "word": 64}, None, "IW64"),
        ({"type": "analog", "area": "DB", "dbNumber": 2, "offset": 4}, None, "DB2.DBW4"),
        ({"type": "analog", "address": "IW66"}, None, "IW66"),
    ],
)
def test_a_pin_becomes_an_address_that_the_source_understands(pin: Any, kind: str | None, address: str) -> None:
    found = pins.pin(pin, pins.signal(kind))
    assert found.address == address
    parse(found.address, found.type)


@pytest.mark.parametrize(
    ("pin", "kind", "said"),
    [
        ("DQ.8", "unit-cycle", "DQ.0 to DQ.7 only"),
        ("banana", "unit-cycle", "is no address; write one like I0.0"),
        ("IW64", "unit-cycle", "is no bit; write an address like I0.0"),
        ("I0.0", "power", "is a bit; write an address like IW64"),
        (3, "unit-cycle", "is no pin; write an address like I0.0"),
        (None, "power", "is no pin; write an address like IW64"),
        ("I0.9", "unit-cycle", "is no address"),
        ({"type": "digital", "byte": 0}, None, "needs its `bit`"),
        ({"type": "digital", "byte": -1, "bit": 0}, None, "`byte` of the pin is -1"),
        ({"byte": 0, "bit": 1, "terminal": "X4"}, None, "parts that are not understood (terminal)"),
    ],
)
def test_a_pin_that_means_nothing_is_told_with_an_example(pin: Any, kind: str | None, said: str) -> None:
    with pytest.raises(Unfit) as error:
        pins.pin(pin, pins.signal(kind))
    assert said in str(error.value)


def test_an_analogue_input_is_signed_and_a_data_block_is_not() -> None:
    assert source(one({"pinId": "IW64"})).tags[0].type == "INT"
    assert source(one({"pinId": "DB2.DBW0"})).tags[0].type is None


@pytest.mark.parametrize(
    ("fields", "raw", "scaled"),
    [
        ({"rawMin": 0, "rawMax": 27648, "minValue": 0, "maxValue": 75}, (0, 27648), (0, 75)),
        ({"scale": {"raw": [0, 100], "scaled": [-5, 5.5]}}, (0, 100), (-5, 5.5)),
        ({"scaling": {"raw_min": "5530", "raw_max": 27648, "eng_min": 0, "eng_max": "16,5"}}, (5530, 27648), (0, 16.5)),
        ({"scale": 0.01}, (0, 27648), (0, 276.48)),
        ({"factor": 0.5, "offset": -10}, (0, 27648), (-10, 13814)),
        ({"offset": 3}, (0, 27648), (3, 27651)),
    ],
)  # fmt: skip
def test_a_scale_is_taken_over(fields: dict[str, Any], raw: tuple[float, float], scaled: tuple[float, float]) -> None:
    found = one({"pinId": "IW64"}, **fields)
    scale = source(found).tags[0].scale
    assert scale is not None
    assert (scale.raw, scale.scaled) == (raw, scaled)
    assert not found.findings


@pytest.mark.parametrize(
    ("fields", "said", "lost"),
    [
        ({"minValue": 0, "maxValue": 75}, "scaled: [0, 75]", False),
        ({"rawMin": 0, "rawMax": 0, "minValue": 0, "maxValue": 75}, "is no scale", True),
        ({"scale": "a lot"}, "is no scale", True),
        ({"factor": 0}, "is no scale", True),
        ({"threshold": 5}, "a plant file has no place for it", False),
        ({"interval": "often"}, "is no number of seconds", True),
    ],
)
def test_what_a_sensor_says_beyond_that_is_told_and_the_tag_is_there(
    fields: dict[str, Any], said: str, *, lost: bool
) -> None:
    found = one({"pinId": "IW64"}, **fields)
    assert [finding.lost for finding in found.findings] == [lost]
    assert said in str(found.findings[0])
    assert source(found).tags[0].scale is None
    assert f"# - {found.findings[0]}" in text(found)


def test_a_word_of_a_data_block_is_scaled_too() -> None:
    scale = source(one({"pinId": "DB2.DBW4"}, rawMin=0, rawMax=100, minValue=0, maxValue=1)).tags[0].scale
    assert scale is not None
    assert scale.scaled == (0, 1)


def test_a_unit_cycle_is_counted_and_two_of_a_machine_are_no_sum() -> None:
    """What the recorder counted by rising edges is a count from then on, and one for each hour."""
    found = imported(documents(**recorders_own()))
    loaded = plant.parse(text(found), "imported", Path(), {})
    (units,) = loaded.processors
    assert [info.tag for info in units.outputs()] == [
        "press-1/unit-cycle/units", "press-1/unit-cycle/hourly", "sage/cut/units", "sage/cut/hourly",
    ]  # fmt: skip
    assert [machine.good for machine in loaded.machines] == ["press-1/unit-cycle/units", "sage/cut/units"]
    twice = recorders_own()
    twice["sensors"][2]["machineId"] = "Press 1"
    assert [machine.good for machine in imported(documents(**twice)).machines] == [None, None]


def front_end(found: Imported) -> MongoDbConfig:
    """The sink for the recorder's front end, as the plant file's own loader reads it."""
    (sink,) = plant.parse(text(found), "imported", Path(), ENVIRONMENT).sinks
    assert isinstance(sink, MongoDbConfig)
    return sink


def test_the_front_ends_sink_is_there_only_where_it_is_asked_for() -> None:
    own = recorders_own()
    given = msgspec.structs.replace(documents(**own), address="mongodb://127.0.0.1:27017/industrial_iot")
    found = imported(given)
    assert not plant.parse(text(found), "imported", Path(), {}).sinks
    assert "--front-end" in text(found)
    asked = with_front_end(found, given)
    assert asked.findings == found.findings, "it all goes on there"
    recorder = front_end(asked).recorder
    assert recorder is not None
    press, saw = (str(one["_id"]) for one in own["machines"])
    assert [(one.tag, one.sensor, one.machine) for one in recorder.signals] == [
        (tag, str(sensor["_id"]), machine)
        for tag, sensor, machine in zip(
            ["press-1/power", "press-1/unit-cycle", "sage/cut"], own["sensors"], [press, press, saw], strict=True
        )
    ]
    assert [(one.tag, one.machine) for one in recorder.production] == [
        ("press-1/unit-cycle/hourly", press), ("sage/cut/hourly", saw),
    ]  # fmt: skip
    (config,) = plant.parse(text(asked), "imported", Path(), ENVIRONMENT).sources
    assert isinstance(config, S7Config)
    assert config.heartbeat == config.rate, "a document at each read"


@pytest.mark.parametrize(
    ("address", "password", "dsn", "line", "said"),
    [
        ("mongodb://localhost/iot", False, "mongodb://localhost/iot", None, None),
        ("mongodb://db/iot?ssl=true", False, "mongodb://db/iot?ssl=true", None, None),
        ("mongodb+srv://me@db.example/iot", True, "mongodb+srv://me@db.example/iot", "password: ${FRONT_END_PASSWORD}",
         "set the environment variable FRONT_END_PASSWORD"),
        ("mongodb://db/iot", False, "mongodb://db/iot?tls=false", None, "speaks without (tls=false)"),
        ("mongodb://a,b/iot?replicaSet=r", False, "mongodb://a,b/iot?replicaSet=r&tls=false", None, "(tls=false)"),
        (None, False, ENVIRONMENT["FRONT_END_DSN"], 'dsn: "${FRONT_END_DSN}"', "variable FRONT_END_DSN"),
        ("mongodb://me@db/iot?tlsCertificateKeyFilePassword=x", True, ENVIRONMENT["FRONT_END_DSN"],
         'dsn: "${FRONT_END_DSN}"', "variable FRONT_END_DSN"),
    ],
)  # fmt: skip
def test_the_front_ends_sink_finds_the_database_as_the_import_did(
    *, address: str | None, password: bool, dsn: str, line: str | None, said: str | None
) -> None:
    """Security is what the address has, said where it is less than the sink's own; no secret is in the plant file."""
    given = msgspec.structs.replace(documents(**recorders_own()), address=address, has_password=password)
    found = with_front_end(imported(given), given)
    assert front_end(found).dsn.get_secret_value() == dsn
    lines = [one.strip() for one in text(found).splitlines()]
    assert line is None or line in lines
    assert any(one.startswith("password:") for one in lines) == (line is not None and "PASSWORD" in line)
    notes = [str(finding) for finding in found.findings if finding.collection == "front end's database"]
    assert [said in note for note in notes if said] == ([True] if said else [])
    assert bool(notes) == bool(said)


def test_what_the_front_end_cannot_get_is_told() -> None:
    """Two counts of a machine, for which there is one record an hour; ids that are no reference."""
    own = recorders_own()
    own["sensors"][2]["machineId"] = "Press 1"
    own["sensors"].append({"_id": 4, "name": "Oil", "machineId": "Press 1", "sensorType": "power"})
    own["sensorpinmappings"].append({"_id": 5, "sensorId": 4, "pinId": "IW66"})
    given = documents(**own)
    found = with_front_end(imported(given), given)
    assert [(one.collection, one.field) for one in found.findings if one.lost] == [("sensors", "_id"), ("machines", "")]
    recorder = front_end(found).recorder
    assert recorder is not None
    assert [one.tag for one in recorder.signals] == ["press-1/power", "press-1/unit-cycle", "press-1/cut"]
    assert recorder.production == []


def test_references_by_name_and_other_spellings_are_followed() -> None:
    found = imported(
        documents(
            {},
            machines=[{"id": "M1", "label": "Press", "plc": {"ip": "10.0.0.1", "slot": 2}}],
            sensors=[
                {"sensor_name": "x", "name": "Power", "machine": "press", "signal_type": "analog", "units": "kW"},
                {
                    "_id": "s2",
                    "name": "Cycle",
                    "machine_id": {"_id": "M1"},
                    "sensor-type": "unit-cycle",
                    "ip": "10.0.0.2",
                },
            ],
            sensorpinmappings=[
                {"_id": "a", "sensor": "power", "pin": "IW64"},
                {"_id": "b", "sensor_id": {"_id": "s2", "name": "Cycle"}, "pin_id": "I0.1"},
            ],
        )
    )
    assert [(plc.host, plc.slot, [tag.tag for tag in tags]) for plc, tags in found.sources.items()] == [
        ("10.0.0.1", 2, ["press/power"]),
        ("10.0.0.2", None, ["press/cycle"]),
    ]
    assert [finding.field for finding in found.findings] == ["sensor_name"]
    assert [config.name for config in plant.parse(text(found), "x", Path(), {}).sources] == ["plc-1", "plc-2"]


def test_what_cannot_be_followed_is_told_by_id_and_field() -> None:
    found = imported(
        documents(
            machines=[{"_id": 1, "name": "m"}, {"_id": 9, "name": "twin"}, {"_id": 8, "name": "Twin"}],
            sensors=[
                {"_id": 2, "name": "good", "machineId": 1, "sensorType": "unit-cycle"},
                {"_id": 3, "name": "lost", "machineId": 77, "sensorType": "unit-cycle"},
                {"_id": 4, "name": "torn", "machineId": "twin", "sensorType": "unit-cycle"},
                {"_id": 5, "name": "idle", "machineId": 1, "sensorType": "unit-cycle", "isActive": False},
                {"_id": 6, "name": "bare", "machineId": 1, "sensorType": "unit-cycle"},
            ],
            sensorpinmappings=[
                {"_id": "p1", "sensorId": 2, "pinId": "DQ.0"},
                {"_id": "p2", "sensorId": 3, "pinId": "DQ.1"},
                {"_id": "p3", "sensorId": 4, "pinId": "DQ.2"},
                {"_id": "p4", "sensorId": 5, "pinId": "DQ.3"},
                {"_id": "p5", "sensorId": 55, "pinId": "DQ.4"},
                {"_id": "p6", "pinId": "DQ.5"},
                {"_id": "p7", "sensorId": 2, "pinId": "DQ.99"},
            ],
        )
    )
    assert [(f.collection, f.id, f.field, f.lost) for f in found.findings] == [
        ("sensors", "3", "machineId", True),
        ("sensors", "4", "machineId", True),
        ("sensors", "5", "isActive", False),
        ("sensorpinmappings", "p5", "sensorId", True),
        ("sensorpinmappings", "p6", "sensorid", True),
        ("sensorpinmappings", "p7", "pinId", True),
        ("sensors", "6", "", False),
    ]
    assert [tag.tag for tag in source(found).tags] == ["m/good"]


def test_two_of_one_name_are_both_there() -> None:
    found = imported(
        documents(
            machines=[{"_id": 1, "name": "Säge"}, {"_id": 2, "name": "sage"}, {"_id": 3, "name": "锯"}],
            sensors=[{"_id": n, "name": "P", "machineId": n, "sensorType": "unit-cycle"} for n in (1, 2, 3)]
            + [{"_id": 4, "name": "p", "machineId": 1, "sensorType": "unit-cycle"}],
            sensorpinmappings=[{"_id": n, "sensorId": n, "pinId": f"DQ.{n}"} for n in (1, 2, 3, 4)],
        )
    )
    assert [tag.tag for tag in source(found).tags] == ["sage/p", "sage-2/p", "3/p", "sage/p-2"]


def test_no_plc_is_an_error_with_the_remedy() -> None:
    with pytest.raises(Misconfigured, match=r"--plc 10\.0\.3\.21"):
        imported(documents({}, **recorders_own()))
    (plc,) = imported(documents({}, **recorders_own()), "10.0.3.9:1102").sources
    assert (plc.host, plc.port) == ("10.0.3.9", 1102)


@pytest.mark.parametrize("export", ["lines", "list", "compass", "dump"])
def test_a_folder_of_exports_needs_no_server(export: str, tmp_path: Path) -> None:
    """The tool mongoexport with and without --jsonArray, Compass, mongodump."""
    for name, found in recorders_own().items():
        written = [{key: {"$oid": str(v)} if isinstance(v, ObjectId) else v for key, v in one.items()} for one in found]
        if export == "lines":
            (tmp_path / f"{name}.json").write_text("\n".join(map(json.dumps, written)) + "\n")
        elif export == "dump":
            (tmp_path / f"{name}.bson").write_bytes(b"".join(map(encode, found)))
        else:
            prefix = "industrial_iot." if export == "compass" else ""
            (tmp_path / f"{prefix}{name}.json").write_text("\ufeff" + json.dumps(written, indent=2), "utf-8")
    (tmp_path / "config.yaml").write_text("plc: {ip: 10.0.3.21, rack: 0, slot: 1}\nsampling: {interval_seconds: 10}\n")
    config = source(imported(read(str(tmp_path))))
    assert (config.host, config.rate, len(config.tags)) == ("10.0.3.21", 10 * 10**9, 3)


def test_a_damaged_export_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "sensors.json").write_text('{"_id": 1}\n{"_id": {"$oid": "short"}}\n')
    with pytest.raises(Misconfigured, match=r"sensors\.json:2: no document as mongoexport writes it"):
        read(str(tmp_path))
    (tmp_path / "sensors.json").write_text('{"_id": 1}\n{"_id": 2')
    with pytest.raises(Misconfigured, match=r"sensors\.json:2"):
        read(str(tmp_path))


@pytest.mark.parametrize(
    ("origin", "code", "said"),
    [
        ("mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=200", 1, "the database cannot be read"),
        ("mongodb://127.0.0.1", 2, "write it like mongodb://host:27017/industrial_iot"),
        ("mongodb://127.0.0.1:port/x", 2, "the address of the database cannot be used"),
        ("nowhere", 2, "nowhere is not there; give mongodb://host/database"),
        (".", 2, "has none of sensorpinmappings.json"),
    ],
)
def test_what_cannot_be_read_is_told_without_a_traceback(origin: str, code: int, said: str, tmp_path: Path) -> None:
    done = shopfloor("import", origin, "--plc", "10.0.0.1", folder=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_without_the_collections_says_what_it_has(server: str) -> None:
    with pytest.raises(Misconfigured, match="it has: orders"):
        read(filled(server, "shop", orders=[{"_id": 1}]))


def test_a_plant_file_that_is_there_stays_unless_forced(server: str, tmp_path: Path) -> None:
    own = recorders_own()
    own["sensorpinmappings"].append({"_id": "bad", "sensorId": own["sensors"][0]["_id"], "pinId": "?"})
    url = filled(server, "kept", **own)
    path = tmp_path / "plant.yaml"
    path.write_text("mine")
    words = ("--plc", "10.0.0.1", "--to", "plant.yaml")
    done = shopfloor("import", url, *words, folder=tmp_path)
    assert (done.returncode, path.read_text()) == (2, "mine")
    assert "--force" in done.stderr
    done = shopfloor("import", *words, "--force", folder=tmp_path, SHOPFLOOR_IMPORT=url)
    assert done.returncode == 2, "a pin could not be mapped"
    assert "not imported: sensorpinmappings bad pinId:" in done.stderr
    assert "# - sensorpinmappings bad pinId:" in path.read_text("utf-8")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("host", ["127.0.0.1:1", "127.0.0.1:port", "[::"])
def test_a_password_is_not_told(host: str, tmp_path: Path) -> None:
    done = shopfloor("import", f"mongodb://me:hunter2@{host}/x?serverSelectionTimeoutMS=200", folder=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stderr
    assert "hunter2" not in done.stderr


ODD = st.text(max_size=8) | st.sampled_from(["${HOME}", "a: b # c", "*", "'\"\\", "\x7f\u2028", "😀", "$x", " "])
VALUE = st.none() | st.booleans() | st.integers() | st.floats() | ODD | st.lists(st.integers(), max_size=3)
FIELDS = st.dictionaries(
    st.sampled_from(["unit", "scale", "offset", "rawMin", "rawMax", "min", "max", "description", "interval", "ip"]),
    VALUE | st.dictionaries(ODD, VALUE, max_size=2), max_size=4,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    machine=ODD,
    sensor=ODD,
    site=ODD,
    fields=FIELDS,
    key=VALUE,
    pin=st.sampled_from(["DQ.1", "IW64", "AI.0", "x", None]) | VALUE,
)
def test_whatever_the_documents_say_the_plant_file_is_right(
    machine: str, sensor: str, site: str, fields: dict[str, Any], key: Any, pin: Any
) -> None:
    """Or there is an error that says why nothing could be imported."""
    odd = documents(
        name=site, machines=[{"_id": "m", "name": machine}],
        sensors=[{"_id": key, "name": sensor, "machineId": "m", "sensorType": "unit-cycle", **fields}],
        sensorpinmappings=[{"_id": 3, "sensorId": {"_id": key}, "pinId": pin}],
    )  # fmt: skip
    try:
        found = imported(odd)
    except Misconfigured as error:
        if "nothing could be imported" not in str(error):
            raise
        return
    assert [tag.tag for tag in source(found).tags] == [tag.tag for tags in found.sources.values() for tag in tags]
    plant.parse(text(with_front_end(found, odd)), "imported", Path(), ENVIRONMENT)
