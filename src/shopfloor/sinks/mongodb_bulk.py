"""Writes of what follows from samples (newest values, figures, hours): what is refused of it costs nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from bson.errors import BSONError
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, DocumentTooLarge

from shopfloor.sinks.mongodb_errors import DUPLICATE, about_document, meant

logger: Final = structlog.get_logger("shopfloor.sinks.mongodb")
_MOST_SAID: Final = 100
_ID: Final = {"_id": 1}


async def bulk(
    database: AsyncDatabase[dict[str, Any]], name: str, writes: Sequence[Any], *, ordered: bool = False
) -> Mapping[int, str]:
    """Write; why the server refuses which for good. Ordered: the first of these, and nothing after it is written.

    Where it is not ordered, a doubled ``_id`` means that what is there is newer. Raises what holds up all.
    """
    try:
        await database[name].bulk_write(writes, ordered=ordered)
    except BulkWriteError as error:
        details: Mapping[str, Any] = error.details or {}
        errors: Sequence[Mapping[str, Any]] = details.get("writeErrors", [])
        if details.get("writeConcernErrors") or any(not about_document(one["code"]) for one in errors):
            raise meant(error) from error
        return {
            int(one["index"]): str(one.get("errmsg", one["code"]))
            for one in errors
            if ordered or one["code"] != DUPLICATE or one.get("keyPattern", _ID) != _ID
        }
    except (DocumentTooLarge, BSONError) as error:  # the driver says it of all, and sends none
        if len(writes) == 1:
            return {0: str(error)}
        middle = len(writes) // 2
        first = await bulk(database, name, writes[:middle], ordered=ordered)
        if ordered and first:
            return first
        rest = await bulk(database, name, writes[middle:], ordered=ordered)
        return {**first, **{middle + i: why for i, why in rest.items()}}
    return {}


class Missing:
    """Says what of a sink's derived documents the database refuses, while it has the samples that they follow from."""

    def __init__(self, sink: str) -> None:
        """``sink``: its name."""
        self._sink = sink
        self._documents: dict[str, int] = {}
        self._said: set[tuple[str, str]] = set()

    def add(self, collection: str, reasons: Sequence[str]) -> None:
        """Count them; each kind is said once."""
        if not reasons:
            return
        self._documents[collection] = self._documents.get(collection, 0) + len(reasons)
        for reason in dict.fromkeys(reasons):
            kind = (collection, reason.partition("{")[0])  # E11000 shows the key in braces, another one each time
            if kind not in self._said and len(self._said) < _MOST_SAID:
                self._said.add(kind)
                logger.warning(
                    f"{self._sink}: the database refuses documents of {collection}, the samples they follow from are "
                    f"stored; look at its validator and unique indexes: {reason}",
                    component=self._sink,
                    documents=len(reasons),
                )

    def leave(self) -> None:
        """Say how many it was on this connection."""
        for collection, documents in self._documents.items():
            logger.warning(
                f"{self._sink}: {collection} lacks documents that the database refused since it was connected",
                component=self._sink,
                documents=documents,
            )
        self._documents.clear()
        self._said.clear()
