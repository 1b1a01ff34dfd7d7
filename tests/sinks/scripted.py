"""An HTTP server that answers what a test tells it and remembers what it was asked."""

import asyncio
import gzip
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

import h11


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Said(NamedTuple):
    """An answer."""

    status: int = 204
    body: bytes = b""
    headers: Mapping[str, str] = {}


Script = Callable[[Asked], Said | Awaitable[Said]]


class Scripted:
    """Serves on a free port of loopback, with TLS where a context is given, until it is left."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.asked: list[Asked] = []
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

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def posts(self) -> list[Asked]:
        """What was asked but for greetings."""
        return [asked for asked in self.asked if asked.method not in ("OPTIONS", "GET") and asked.body]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, h11.RemoteProtocolError):
                await self._converse(reader, writer)
        finally:
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER)
        head: h11.Request | None = None
        body = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                writer.write(await self._answer(http, head, body))
                await writer.drain()
                http.start_next_cycle()
            else:
                return

    async def _answer(self, http: h11.Connection, head: h11.Request, body: bytes) -> bytes:
        headers = {name.decode().lower(): value.decode() for name, value in head.headers}
        plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        asked = Asked(head.method.decode(), head.target.decode(), headers, plain)
        self.asked.append(asked)
        said = self.script(asked)
        said = said if isinstance(said, Said) else await said
        length = [] if said.status == 204 else [("Content-Length", str(len(said.body)))]
        parts = [
            http.send(h11.Response(status_code=said.status, headers=[*length, *said.headers.items()])),
            http.send(h11.Data(data=said.body)) if said.status != 204 else b"",
            http.send(h11.EndOfMessage()),
        ]
        return b"".join(part or b"" for part in parts)
