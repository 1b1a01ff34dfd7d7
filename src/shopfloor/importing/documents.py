"""The signal recorder's documents: from its MongoDB, from a folder of exports, or by way of its own configuration."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import yaml

from shopfloor.samples import Misconfigured, Unavailable

COLLECTIONS: Final = ("sensorpinmappings", "sensors", "machines")
SCHEMES: Final = ("mongodb://", "mongodb+srv://")
_CONFIGURATIONS: Final = ("config.json", "config.yaml", "config.yml")
_EXPORTS: Final = (".json", ".jsonl", ".ndjson", ".bson")
_PASSWORD: Final = re.compile(r"(?<=://)([^:@/?]*):[^@/?]*@")
"""User and password in an address: what is special in them is escaped there, or nothing would have been read."""
_WITHIN: Final = 5000
"""Milliseconds until a server that does not answer counts as away."""
_REFUSED: Final = (13, 18, 8000)
"""MongoDB's codes for: not allowed, who are you, and the same of its cloud."""


class Documents(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, as it stands there."""

    origin: str
    """Where it was read, without user and password."""
    name: str
    """The database, or the folder."""
    collections: Mapping[str, Sequence[Mapping[str, Any]]]
    """Each of COLLECTIONS; those that are not there are empty."""
    configuration: Mapping[str, Any] = {}
    """The recorder's own configuration, where it was given: the PLC and how often it is read."""
    address: str | None = None
    """The mongodb:// address by which it was read, with its options, without the password; None: from files."""
    has_password: bool = False
    """Whether one stood in it."""


def read(origin: str) -> Documents:
    """The documents at a mongodb:// address, in a folder of exports, or in the database that a config.json names.

    Raises Misconfigured and Unavailable.
    """
    if origin.startswith(SCHEMES):
        return _database(origin, {})
    path = Path(origin)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise Misconfigured(
            f"{origin} is not there; give mongodb://host/database, a folder with the exports of "
            f"{', '.join(COLLECTIONS)}, or the recorder's config.json"
        )
    configuration = _configuration(path)
    url = (inner(configuration.get("mongodb")) or {}).get("connection_string")
    if not isinstance(url, str) or not url.startswith(SCHEMES):
        raise Misconfigured(
            f"{path} names no database; write it as mongodb: connection_string: mongodb://host/database"
        )
    return _database(url, configuration)


def inner(value: object) -> Mapping[str, Any] | None:
    """A value that is a document itself, else None."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None


def _configuration(path: Path) -> Mapping[str, Any]:
    """The recorder's configuration, JSON or YAML."""
    text = _text(path)
    try:
        found = inner(json.loads(text) if path.suffix == ".json" else yaml.safe_load(text))
    except (ValueError, yaml.YAMLError) as error:
        raise Misconfigured(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if found is None:
        raise Misconfigured(f"{path} is no configuration of the recorder: it has `plc` and `mongodb` sections")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path} is not UTF-8 text; export it again") from error
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error


def _database(url: str, configuration: Mapping[str, Any]) -> Documents:
    # pymongo takes 0.2 s to import, and only this verb needs it
    from bson.codec_options import CodecOptions  # noqa: PLC0415
    from pymongo import MongoClient  # noqa: PLC0415
    from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError  # noqa: PLC0415

    try:
        with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=_WITHIN) as client:
            named = client.get_default_database()
            lenient = CodecOptions[dict[str, Any]](unicode_decode_error_handler="replace")
            database = client.get_database(named.name, codec_options=lenient)
            found = {name: list(database[name].find()) for name in COLLECTIONS}
            hosts = ",".join(f"{host}:{port}" for host, port in sorted(client.nodes)) or "its servers"
            if not any(found.values()):
                there = ", ".join(sorted(database.list_collection_names())) or "nothing"
                raise Misconfigured(
                    f"the database {named.name!r} has none of {', '.join(COLLECTIONS)}; it has: {there}"
                )
            return Documents(
                origin=f"mongodb://{hosts}/{named.name}", name=named.name, collections=found,
                configuration=configuration, address=_PASSWORD.sub(r"\1@", url),
                has_password=_PASSWORD.search(url) is not None,
            )  # fmt: skip
    except (InvalidURI, ConfigurationError, UnicodeError) as error:
        if "wire version" in str(error):
            raise Misconfigured(
                f"{error} Export the collections by its own mongoexport into a folder, and import that"
            ) from error
        raise Misconfigured(
            f"the address of the database cannot be used: {error}; write it like mongodb://host:27017/industrial_iot"
        ) from error
    except OperationFailure as error:
        if error.code in _REFUSED:
            raise Misconfigured(
                "the database refuses; give a user who may read it: mongodb://user:password@host/database?authSource=admin"
            ) from error
        raise Unavailable(f"the database failed: {error}") from error
    except ValueError as error:  # a port that is no number
        raise Misconfigured(f"the address of the database cannot be used: {error}") from error
    except PyMongoError as error:
        reason = str(error).split(", Timeout:", maxsplit=1)[0]
        raise Unavailable(
            f"the database cannot be read: {reason}; does it run, and does a firewall let through?"
        ) from error


def _folder(folder: Path) -> Documents:
    """What mongoexport, mongodump or Compass wrote there: NAME.json or DATABASE.NAME.json for each collection."""
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in COLLECTIONS}
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _EXPORTS)
    except OSError as error:
        raise Misconfigured(f"{folder} cannot be read: {error.strerror}") from error
    for path in files:
        collection = path.stem.rpartition(".")[2].lower().replace("_", "").replace("-", "")
        if collection in found:
            found[collection] += _dumped(path) if path.suffix == ".bson" else list(_exported(path))
    if not any(found.values()):
        there = ", ".join(path.name for path in files) or "no such files"
        raise Misconfigured(
            f"{folder} has none of {', '.join(f'{name}.json' for name in COLLECTIONS)}; it has: {there}. "
            "Write them with mongoexport --db DATABASE --collection NAME --out NAME.json"
        )
    configurations = [folder / name for name in _CONFIGURATIONS if (folder / name).is_file()]
    return Documents(
        origin=str(folder), name=folder.resolve().name, collections=found,
        configuration=_configuration(configurations[0]) if configurations else {},
    )  # fmt: skip


def _dumped(path: Path) -> list[Mapping[str, Any]]:
    """The documents of a file of mongodump."""
    from bson import decode_file_iter  # noqa: PLC0415  # see _database
    from bson.errors import BSONError  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            return list(decode_file_iter(file))
    except (BSONError, OSError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}; dump it again") from error


def _exported(path: Path) -> Iterator[Mapping[str, Any]]:
    """The documents of an export: one a line, one after the other, or all in a list."""
    from bson import json_util  # noqa: PLC0415  # see _database

    def hook(found: dict[str, Any]) -> Any:
        return json_util.object_hook(found, json_util.RELAXED_JSON_OPTIONS)

    text = _text(path)
    decoder = json.JSONDecoder(object_hook=hook)
    place = 0
    while (place := _start(text, place)) < len(text):
        try:
            document: object
            document, place = decoder.raw_decode(text, place)
        except Exception as error:  # a mangled $oid or $date raises whatever bson's types raise
            line = text.count("\n", 0, place) + 1
            reason = " ".join(str(error).split())
            raise Misconfigured(
                f"{path}:{line}: no document as mongoexport writes it: {reason}; export it again"
            ) from error
        for one in cast("list[object]", document) if isinstance(document, list) else [document]:
            found = inner(one)
            if found is None:
                line = text.count("\n", 0, place) + 1
                raise Misconfigured(f"{path}:{line}: {one!r} is no document; export it again")
            yield found


def _start(text: str, place: int) -> int:
    """Where the next document begins."""
    while place < len(text) and text[place] in " \t\r\n,":
        place += 1
    return place


def number(value: object) -> float | None:
    """A finite number that a document gives as a number or as text, else None."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(str(value).replace(",", "."))
    except ValueError:
        return None
    return found if math.isfinite(found) else None
