"""A server of MongoDB's wire protocol (OP_MSG) that answers what a test tells it, and remembers what it was asked."""

import asyncio
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import bson

Document = dict[str, Any]
Script = Callable[[str, Document], Document | None]
"""The answer to a command (by its name, with its documents beside); None: the usual one."""

_HEADER: Final = struct.Struct("<iiii")
_OP_REPLY: Final = 1
_OP_QUERY: Final = 2004
_OP_MSG: Final = 2013
_SEQUENCE: Final = 1
HELLO: Final = {
    "ismaster": True, "isWritablePrimary": True, "maxBsonObjectSize": 16 * 2**20, "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000, "minWireVersion": 0, "maxWireVersion": 21, "readOnly": False, "ok": 1.0,
}  # fmt: skip


class ScriptedMongo:
    """Serves on a free port of loopback, with TLS where a context is given, until it is left."""

    def __init__(self, script: Script, *, hello: Document | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, Document]] = []
        self._script = script
        self._hello = HELLO | (hello or {})
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def commands(self, name: str) -> list[Document]:
        """What was asked by this command."""
        return [asked for command, asked in self.asked if command == name]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    length, number, _, kind = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                    if kind not in (_OP_QUERY, _OP_MSG):
                        return  # not our protocol; a real one leaves, too
                    body = await reader.readexactly(length - _HEADER.size)
                    writer.write(self._answered(number, kind, body))
                    await writer.drain()
        finally:
            writer.transport.abort()

    def _answered(self, number: int, kind: int, body: bytes) -> bytes:
        if kind == _OP_QUERY:  # the greeting of a client that does not know us yet
            said = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(self._hello)
            return _HEADER.pack(_HEADER.size + len(said), 0, number, _OP_REPLY) + said
        asked = _message(body)
        name = next(iter(asked))
        self.asked.append((name, asked))
        said = struct.pack("<iB", 0, 0) + bson.encode(self._script(name, asked) or self._usual(name))
        return _HEADER.pack(_HEADER.size + len(said), 0, number, _OP_MSG) + said

    def _usual(self, name: str) -> Document:
        if name.lower() in ("hello", "ismaster"):
            return self._hello
        if name in ("listCollections", "find"):
            return {"cursor": {"id": 0, "ns": "plant.x", "firstBatch": []}, "ok": 1.0}
        return {"ok": 1.0, "n": 0, "nModified": 0}


def _message(body: bytes) -> Document:
    """The document of an OP_MSG, with what came in sequences of documents as its fields."""
    at, found, sequences = 4, {}, {}
    while at < len(body):
        kind, size = body[at], int.from_bytes(body[at + 1 : at + 5], "little")
        section = body[at + 1 : at + 1 + size]
        if kind == _SEQUENCE:
            name, _, documents = section[4:].partition(b"\0")
            sequences[name.decode()] = bson.decode_all(documents)
        else:
            found = bson.decode(section)
        at += 1 + size
    return found | sequences
