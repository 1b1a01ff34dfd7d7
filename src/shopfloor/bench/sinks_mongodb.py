"""MongoDB's protocol for ``shopfloor bench sinks``: the sink beside insert_many of finished documents.

The server is mongo-java-server, not MongoDB: what the figures say is what the sink costs, not what a MongoDB takes.
"""

import shutil
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from pymongo import MongoClient

from shopfloor.plant import SinkConfig
from shopfloor.samples import Batch, Misconfigured
from shopfloor.sinks import mongodb_documents as documents
from shopfloor.sinks.mongodb import MongoDbConfig
from shopfloor.sinks.offers import Offer
from shopfloor.testing.databases import MongoPeer

_DOCUMENTS: Final = 5000
"""In a call; the driver makes as many commands of it as the server wants."""


class MongoDbBench:
    """A peer that stores in memory."""

    name: str = "mongodb_peer"
    bulk: str = "insert_many"
    share: float = 0.03

    def __init__(self) -> None:
        """Nothing is started yet. Raises Misconfigured where there is no Java, or the peer is not built."""
        if not shutil.which("java") or not (MongoPeer.BUILT / "classes").is_dir():
            raise Misconfigured(f"the peer of MongoDB is not there; build it with: {MongoPeer.HOW_TO_INSTALL}")
        self._server = MongoPeer(memory="1g")
        self._client: MongoClient[dict[str, Any]] | None = None
        self._documents: list[dict[str, Any]] = []
        self._run = 0

    def __enter__(self) -> Self:
        self._server.start()
        self._client = MongoClient(self._server.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._client is not None:
            self._client.close()
        self._server.stop()

    def config(self, run: int) -> SinkConfig:
        """A sink with a database of its own."""
        return MongoDbConfig.model_validate({"name": f"mongodb-{run}", "dsn": f"{self._server.url}/sink_{run}"})

    def prepare(self, run: int, groups: Sequence[Sequence[Batch]]) -> None:
        """Make finished documents, and the same index in another database."""
        self._run = run
        self._open()[f"bulk_{run}"]["samples"].create_index([("tag", 1), ("time", 1)])
        if not self._documents:
            for number, batch in enumerate((batch for group in groups for batch in group), 1):
                offer = Offer(len(batch))
                offer.number(batch)
                made = documents.stored("bench", number, batch, offer, documents.sample)
                self._documents += [one.document for one in made]

    def load(self) -> None:
        """One call after the other."""
        samples = self._open()[f"bulk_{self._run}"]["samples"]
        for at in range(0, len(self._documents), _DOCUMENTS):
            samples.insert_many(self._documents[at : at + _DOCUMENTS], ordered=False)

    def counted(self, run: int) -> tuple[int, int]:
        """How many documents each database has; gives them up, since they lie in memory."""
        client = self._open()
        found = (
            client[f"sink_{run}"]["samples"].count_documents({}),
            client[f"bulk_{run}"]["samples"].count_documents({}),
        )
        for name in (f"sink_{run}", f"bulk_{run}"):
            client.drop_database(name)
        return found

    def _open(self) -> MongoClient[dict[str, Any]]:
        if self._client is None:
            raise RuntimeError("it is not entered")
        return self._client
