"""The signal recorder's front end goes on: a sink that writes what it reads, ``signaldatas`` and ``productionrecords``.

Only where a person asks for it: it writes into a database that others use.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from shopfloor.importing.documents import Documents
from shopfloor.importing.recorder import Finding, FrontEnd, Imported

DSN: Final = "FRONT_END_DSN"
PASSWORD: Final = "FRONT_END_PASSWORD"  # noqa: S105  # a name
ENVIRONMENT: Final[Mapping[str, str]] = {DSN: "mongodb://127.0.0.1:27017/industrial_iot", PASSWORD: "unknown"}
"""What may stand for the variables in a plant file while nobody has set them."""

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_LONGEST: Final = 100
"""Characters of an _id that the sink takes."""


def with_front_end(found: Imported, documents: Documents) -> Imported:
    """The import with a sink into the recorder's collections, and a Finding for all that cannot go on there."""
    dsn, findings = _dsn(documents)
    unfit = {name: _unfit(documents, name) for name in ("sensors", "machines")}
    findings += [
        Finding(
            collection=name, id=one, field="_id",
            text="the sink for the front end writes ObjectIds and text only, so nothing is written for it",
        )
        for name, used in (
            ("sensors", [tag.sensor for machine in found.machines for tag in machine.tags]),
            ("machines", [machine.document for machine in found.machines if machine.tags]),
        )
        for one in used if one in unfit[name]
    ]  # fmt: skip
    machines = [machine for machine in found.machines if machine.document not in unfit["machines"]]
    signals = [
        (tag.tag, tag.sensor, machine.document)
        for machine in machines for tag in machine.tags if tag.sensor not in unfit["sensors"]
    ]  # fmt: skip
    production: list[tuple[str, str]] = []
    for machine in machines:
        counting = [tag for tag in machine.tags if tag.counts]
        if len(counting) == 1:
            production.append((counting[0].hourly, machine.document))
        elif counting:
            findings.append(
                Finding(
                    collection="machines", id=machine.document, field="",
                    text=f"{len(counting)} sensors count its units ({', '.join(tag.tag for tag in counting)}), but "
                    "productionrecords has one number for a machine and hour; write one of them below `production`",
                )
            )  # fmt: skip
    kept = FrontEnd(
        dsn=dsn, wants_password=documents.has_password and not dsn.startswith("${"), signals=signals,
        production=production,
    )  # fmt: skip
    return msgspec.structs.replace(
        found, front_end=kept if signals or production else None, findings=[*found.findings, *findings]
    )


def _dsn(documents: Documents) -> tuple[str, list[Finding]]:
    """Where the collections are, as the sink takes it, and what a person should know of it."""
    from pymongo.uri_parser import parse_uri  # noqa: PLC0415  # see documents

    address = documents.address
    if address is None or "${" in address or any(word in address.lower() for word in ("password=", "properties=")):
        return f"${{{DSN}}}", [_note(f"set the environment variable {DSN} to its address, like {ENVIRONMENT[DSN]}")]
    notes: list[Finding] = []
    if documents.has_password:
        notes.append(_note(f"set the environment variable {PASSWORD} to the password of its user, without % escapes"))
    if address.startswith("mongodb+srv://"):  # TLS by itself; the server's name would be looked up
        return address, notes
    parsed: Mapping[str, Any] = parse_uri(address, warn=False)
    if "tls" not in parsed["options"] and any(host not in _LOCAL for host, _ in parsed["nodelist"]):
        address += f"{'&' if '?' in address else '?'}tls=false"
        notes.append(_note("its address has no TLS, so the sink speaks without (tls=false); better turn it on there"))
    return address, notes


def _note(text: str) -> Finding:
    return Finding(collection="front end's database", id="", field="", text=text, lost=False)


def _unfit(documents: Documents, collection: str) -> set[str]:
    """The ids that the sink could not write as they are."""
    return set(_strange(documents.collections[collection]))


def _strange(documents: Any) -> Iterator[str]:
    from bson import ObjectId  # noqa: PLC0415  # see documents

    for document in documents:
        key = document.get("_id")
        if isinstance(key, ObjectId) or (isinstance(key, str) and 0 < len(key) <= _LONGEST and "${" not in key):
            continue
        yield str(document.get("_id", document.get("id", "without _id")))
