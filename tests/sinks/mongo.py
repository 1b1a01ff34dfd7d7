"""A server of MongoDB's wire protocol that stores, and what it holds as samples."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson import Decimal128, ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from pymongo import MongoClient

from shopfloor.samples import Sample
from shopfloor.testing.databases import MongoPeer

CODEC: Final = CodecOptions[dict[str, Any]](datetime_conversion=DatetimeConversion.DATETIME_MS)


class Mongo(MongoPeer):
    """mongo-java-server on a free port, and what it holds."""

    def found(self, database: str, collection: str, **query: Any) -> list[dict[str, Any]]:
        """The documents of a collection."""
        with MongoClient[dict[str, Any]](self.url, serverSelectionTimeoutMS=30_000) as client:
            # In pieces, as a real server gives them: this one would send all in a message that is too long.
            return list(client.get_database(database, CODEC)[collection].find(query, batch_size=10_000))

    def count(self, database: str, collection: str) -> int:
        """How many documents a collection has."""
        with MongoClient[dict[str, Any]](self.url, serverSelectionTimeoutMS=30_000) as client:
            return client[database][collection].count_documents({})

    def put(self, database: str, collection: str, *documents: dict[str, Any]) -> None:
        with MongoClient[dict[str, Any]](self.url, serverSelectionTimeoutMS=30_000) as client:
            client[database][collection].insert_many(documents)

    def change(self, database: str, collection: str, fields: dict[str, Any]) -> None:
        """Set these fields of all documents, as somebody else would."""
        with MongoClient[dict[str, Any]](self.url, serverSelectionTimeoutMS=30_000) as client:
            client[database][collection].update_many({}, {"$set": fields})

    @staticmethod
    def date(milliseconds: int) -> DatetimeMS:
        return DatetimeMS(milliseconds)

    def collections(self, database: str) -> list[str]:
        with MongoClient[dict[str, Any]](self.url, serverSelectionTimeoutMS=30_000) as client:
            return sorted(client[database].list_collection_names())

    def samples(self, database: str, collection: str = "samples") -> Sequence[Sample]:
        """Every sample, in the order of the times, and of arrival where these are the same."""
        rows = self.found(database, collection)
        rows.sort(key=lambda row: (int(row["time"]), row["nanos"], row["entry"], row["place"]))
        assert all(isinstance(row["_id"], ObjectId) for row in rows)
        return [sample_of(row) for row in rows]


def sample_of(row: Mapping[str, Any]) -> Sample:
    """A reader's understanding of the documented form."""
    value = row["value"]
    if isinstance(value, Decimal128):
        value = int(value.to_decimal())
    elif isinstance(value, int) and not isinstance(value, bool):
        value = int(value)  # bson's own type of a long one
    server = int(row["server_time"]) * 10**6 + row["server_nanos"] if "server_time" in row else 0
    time = int(row["time"]) * 10**6 + row["nanos"]
    return Sample(row["tag"], time, value, row["quality"], row.get("status", 0), server)
