"""A server that speaks as much of TDS (MS-TDS) as a client needs to log in and to be told an error; it stores nothing.

What it answers is given by the test: a list of rules, each a pattern of a statement and what comes back.
"""

import asyncio
import re
import ssl
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

from tests.sinks.tds_types import COLLATION, Table, short

_BATCH: Final = 0x01
_CALL: Final = 0x03
_PREPARE: Final = b"\x0b\x00"
"""The call by which a client has a statement prepared and not carried out; it gets no handle, so it sends it again."""
_ANSWER: Final = 0x04
_PRELOGIN: Final = 0x12
_ENCRYPTED: Final = b"\x01"
_NO_TLS: Final = b"\x02"


class Said(NamedTuple):
    """An error as the server says it."""

    number: int
    text: str
    level: int = 16


class Rows(NamedTuple):
    """One column of whole numbers or texts."""

    values: Sequence[int | str | None]


class Cut:
    """The connection is reset."""


class Silence:
    """No answer comes; it is sent again when the client calls the statement off, but that is not answered either."""


Answer = Said | Rows | Table | Cut | Silence


def _error(said: Said) -> bytes:
    text = said.text.encode("utf-16-le")
    body = struct.pack("<iBBH", said.number, 1, said.level, len(said.text)) + text + short("scripted") + short("")
    body += struct.pack("<i", 1)
    return b"\xaa" + struct.pack("<H", len(body)) + body


def _done(status: int = 0, count: int = 0, token: int = 0xFD) -> bytes:
    return bytes([token]) + struct.pack("<HHQ", status, 0, count)


def _change(kind: int, new: bytes, old: bytes = b"\x00") -> bytes:
    body = bytes([kind]) + new + old
    return b"\xe3" + struct.pack("<H", len(body)) + body


def _rows(rows: Rows) -> bytes:
    text = any(isinstance(value, str) for value in rows.values)
    kind = b"\xe7" + struct.pack("<H", 8000) + COLLATION if text else b"\x26\x08"
    found = b"\x81" + struct.pack("<HIH", 1, 0, 0x09) + kind + short("a")
    for value in rows.values:
        found += b"\xd1"
        if value is None:
            found += b"\xff\xff" if text else b"\x00"
        elif isinstance(value, str):
            data = value.encode("utf-16-le")
            found += struct.pack("<H", len(data)) + data
        else:
            found += b"\x08" + struct.pack("<q", value)
    return found + _done(0x10, len(rows.values))


def _logged_in(database: str) -> bytes:
    name = short("Scripted")
    body = b"\x01" + bytes.fromhex("74000004") + name + bytes([16, 0, 0, 0])
    return (
        _change(1, short(database), short("master"))
        + _change(7, b"\x05" + COLLATION)
        + b"\xad" + struct.pack("<H", len(body)) + body
        + _change(4, short("4096"), short("4096"))
        + _done()
    )  # fmt: skip


def _prelogin(encryption: bytes) -> bytes:
    options = {0: bytes([16, 0, 0x03, 0xE8, 0, 0]), 1: encryption, 2: b"\x00", 3: b"", 4: b"\x00"}
    at = 5 * len(options) + 1
    head, body = b"", b""
    for token, value in options.items():
        head += struct.pack(">BHH", token, at + len(body), len(value))
        body += value
    return head + b"\xff" + body


class Login(NamedTuple):
    """What a client said when it came."""

    user: str
    password: str
    application: str
    database: str
    encrypted: bool


def _login(body: bytes, *, encrypted: bool) -> Login:
    def text(at: int) -> bytes:
        begin, length = struct.unpack_from("<HH", body, at)
        return body[begin : begin + 2 * length]

    clear = bytes((((byte ^ 0xA5) << 4) & 0xF0) | ((byte ^ 0xA5) >> 4) for byte in text(44))
    user, application, database = (text(at).decode("utf-16-le") for at in (40, 48, 68))
    return Login(user, clear.decode("utf-16-le"), application, database, encrypted)


class TdsServer:
    """Enter it to listen on ``port``."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        strict: bool = False,
        login: Said | Silence | None = None,
        first: bool = True,
    ) -> None:
        """``strict``: TLS before the first packet (TDS 8), else inside the first ones.

        ``login``: with what it refuses everybody; ``first``: whether it answers at all.
        """
        self.hangs = 0.0
        """Seconds between two packets of an answer."""
        self.tls = tls
        self.strict = strict
        self.login = login
        self.first = first
        self.rules: list[tuple[str, Answer]] = []
        self.heard: list[str] = []
        """Statements, and the names of what else was asked."""
        self.logins: list[Login] = []
        self.port = 0
        self._transactions = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls if self.strict else None)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            await self._talk(Line(reader, writer))
        self._open.discard(writer)
        writer.transport.abort()

    async def _talk(self, line: "Line") -> None:
        stays = True
        while stays:
            kind, body = await line.take()
            if not self.first:
                self.heard.append("unanswered")
                continue
            match kind:
                case 0x12:
                    await line.give(_prelogin(_NO_TLS if self.tls is None else _ENCRYPTED))
                    if self.tls is not None and not self.strict:
                        await line.secure(self.tls)
                case 0x10:
                    stays = await self._greet(line, body)
                case 0x06:
                    self.heard.append("attention")
                    await line.give(_done(0x20))
                case 0x0E:
                    await self._transaction(line, body)
                case _:
                    stays = await self._answer(line, kind, body)

    async def _greet(self, line: "Line", body: bytes) -> bool:
        said = _login(body, encrypted=self.tls is not None)
        self.logins.append(said)
        if isinstance(self.login, Said):
            await line.give(_error(self.login) + _done(2))
            return False
        if self.login is None:
            await line.give(_logged_in(said.database))
        return True

    async def _transaction(self, line: "Line", body: bytes) -> None:
        what = struct.unpack_from("<H", body, struct.unpack_from("<I", body)[0])[0]
        self.heard.append({5: "begin", 7: "commit", 8: "roll back"}.get(what, str(what)))
        self._transactions += 1
        number = b"\x08" + struct.pack("<Q", self._transactions)
        changes = {5: _change(8, number), 7: _change(9, b"\x00", number), 8: _change(10, b"\x00", number)}
        await line.give(changes.get(what, b"") + _done())

    def answer(self, statement: str, call: bytes) -> Answer | None:
        """What a statement gives, None: it changes one row; ``call`` has its parameters."""
        del call
        return next((answer for pattern, answer in self.rules if re.search(pattern, statement)), None)

    async def _answer(self, line: "Line", kind: int, body: bytes) -> bool:
        """Whether the connection stays."""
        text = body[struct.unpack_from("<I", body)[0] :]
        statement = text.decode("utf-16-le") if kind == _BATCH else " ".join(_words(text))
        self.heard.append(statement)
        end = 0xFE if kind == _CALL else 0xFD
        if kind == _CALL and text[2:4] == _PREPARE:
            await line.give(_done(0, 0, end))
            return True
        answer = self.answer(statement, text if kind == _CALL else b"")
        match answer:
            case None:
                await line.give(_done(0x10, 1, end))
            case Said():
                await line.give(_error(answer) + _done(2, 0, end))
                return answer.level < 20
            case Rows():
                await line.give(_rows(answer) + (_done(0, 0, end) if kind == _CALL else b""))
            case Table():
                await line.give(answer.written() + _done(0x10, len(answer.rows), end), pause=self.hangs)
            case Cut():
                return False
            case Silence():
                pass
        return True


def _words(body: bytes) -> Iterator[str]:
    """Runs of text in a call: statements and parameters, without understanding its types."""
    for found in re.finditer(rb"(?:[\x09\x0a\x20-\x7e]\x00){4,}", body):
        yield found[0].decode("utf-16-le")


class Line:
    """Packets of one connection, in clear or inside TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._tls: ssl.SSLObject | None = None
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()

    async def take(self) -> tuple[int, bytes]:
        """The next message: its type and content."""
        content = b""
        while True:
            kind, status, length = struct.unpack(">BBH4x", await self._bytes(8))
            content += await self._bytes(length - 8)
            if status & 1:
                return kind, content

    async def give(self, content: bytes, kind: int = _ANSWER, pause: float = 0.0) -> None:
        """Send a message in packets of 4096 bytes; without a pause in seconds all of them at once.

        In rows with a column without a limit the client waits with Python's lock, so that this loop could not go on.
        """
        parts = [content[at : at + 4088] for at in range(0, len(content), 4088)] or [b""]
        packets = bytearray()
        for number, part in enumerate(parts, 1):
            head = struct.pack(">BBHHBB", kind, number == len(parts), len(part) + 8, 51, number % 256, 0)
            if self._tls is None:
                packets += head + part
            else:
                self._tls.write(head + part)
                packets += self._out.read()
            if pause and number < len(parts):
                self._writer.write(packets)
                packets.clear()
                await self._writer.drain()
                await asyncio.sleep(pause)
        self._writer.write(packets)
        await self._writer.drain()

    async def secure(self, context: ssl.SSLContext) -> None:
        """The handshake, whose records travel inside packets."""
        tls = context.wrap_bio(self._in, self._out, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                if out := self._out.read():
                    await self.give(out, _PRELOGIN)
                _, content = await self.take()
                self._in.write(content)
            else:
                break
        if out := self._out.read():
            await self.give(out, _PRELOGIN)
        self._tls = tls

    async def _bytes(self, size: int) -> bytes:
        if self._tls is None:
            return await self._reader.readexactly(size)
        found = b""
        while len(found) < size:
            try:
                found += self._tls.read(size - len(found))
            except ssl.SSLWantReadError:
                more = await self._reader.read(65536)
                if not more:
                    raise asyncio.IncompleteReadError(found, size) from None
                self._in.write(more)
        return found
