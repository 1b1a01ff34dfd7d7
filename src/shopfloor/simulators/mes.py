"""An MES that takes samples by HTTP: remembers each key, may be slow, refuse, be away, and be killed.

What it has answered with 2xx is on disk where it was given a file, so after a kill it still knows the keys: a sample
that came twice shows as a double and is counted once.
"""

import asyncio
import gzip
import json
import os
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from shopfloor.samples import Misconfigured

OWN: Final = "/mes"
"""The path below which the simulation itself is asked and told; everything else takes samples."""


class Behaviour(msgspec.Struct, forbid_unknown_fields=True):
    """How it answers; can be changed while it runs (PUT /mes/behaviour)."""

    status: int = 0
    """Answer this instead of taking anything; 0: take."""
    retry_after: str = ""
    """The header Retry-After beside ``status``."""
    delay: float = 0.0
    """Seconds before each answer."""
    refuse: str = ""
    """Samples of tags that match this pattern are refused (``oven/*``); the others of the request, too."""
    partial: bool = False
    """Take the others of such a request and answer 207 with the list of those refused."""
    lose_answers: bool = False
    """Take what comes, but break the connection instead of answering."""


class Received(msgspec.Struct):
    """A request that was taken."""

    path: str
    key: str
    body: str


class Mes:
    """What it has received, and how it behaves."""

    def __init__(self, file: Path | None = None, behaviour: Behaviour | None = None) -> None:
        """Take up what stands in ``file``, where there is one. Raises Misconfigured when it cannot be used."""
        self.behaviour = behaviour or Behaviour()
        self.received: list[Received] = []
        self.times = Counter[str]()
        """How often each request's key came with an answer of 2xx."""
        self.refused = 0
        self._file: IO[bytes] | None = None
        if file is not None:
            try:
                self._take_up(file)
            except OSError as error:
                raise Misconfigured(f"{file} cannot be used: {error.strerror}; give another --file") from error

    def _take_up(self, file: Path) -> None:
        self._file = file.open("a+b")
        self._file.seek(0)
        whole = 0
        for line in self._file:
            try:
                self._count(msgspec.json.decode(line, type=Received))
            except msgspec.DecodeError:
                break  # cut off by a kill: it was not answered
            whole += len(line)
        self._file.truncate(whole)

    def take(self, path: str, key: str, body: bytes) -> tuple[int, object]:
        """Status and answer for a request; what is answered with 2xx is kept."""
        if self.behaviour.status:
            return self.behaviour.status, {"title": "as it was told", "detail": f"answers {self.behaviour.status}"}
        text = body.decode("utf-8", "replace")
        errors = self._errors(text)
        if errors and not self.behaviour.partial:
            self.refused += 1
            return 422, {"title": "Unprocessable", "detail": errors[0]["message"]}
        taken = Received(path, key, text)
        if key in self.times:
            self.times[key] += 1
            return 200, {"taken": 0, "double": True, "errors": errors}
        if self._file is not None:
            self._file.write(msgspec.json.encode(taken) + b"\n")
            self._file.flush()
            os.fdatasync(self._file.fileno())
        self._count(taken)
        return (207 if errors else 201), {"taken": 1, "double": False, "errors": errors}

    def forget(self) -> None:
        """Be empty again, and well."""
        self.received.clear()
        self.times.clear()
        self.refused = 0
        self.behaviour = Behaviour()
        if self._file is not None:
            self._file.truncate(0)

    def state(self) -> dict[str, object]:
        """What it counted."""
        return {
            "requests": len(self.received),
            "doubles": sum(times - 1 for times in self.times.values()),
            "refused": self.refused,
            "keys": dict(self.times),
        }

    def _count(self, taken: Received) -> None:
        self.received.append(taken)
        self.times[taken.key or f"#{len(self.received)}"] += 1

    def _errors(self, text: str) -> list[dict[str, Any]]:
        """Which of the samples of a body it refuses: those of the form that Shopfloor sends without a template."""
        if not self.behaviour.refuse:
            return []
        try:
            samples: list[dict[str, Any]] = json.loads(text)["samples"]
        except (ValueError, KeyError, TypeError):
            samples = [{"tag": text}]
        tags = [str(sample.get("tag", "")) for sample in samples]
        return [
            {"index": i, "message": f"{tag} is not known here"}
            for i, tag in enumerate(tags)
            if fnmatchcase(tag, self.behaviour.refuse)
        ]


def application(mes: Mes) -> Starlette:
    """The MES as a web application."""

    async def take(request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        await asyncio.sleep(mes.behaviour.delay)
        path: str = request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else "")
        status, said = mes.take(path, request.headers.get("idempotency-key", ""), body)
        if mes.behaviour.lose_answers and status < 300:  # noqa: PLR2004  # HTTP's own
            request.scope["state"]["abort"]()
        headers = {"Retry-After": mes.behaviour.retry_after} if status > 400 and mes.behaviour.retry_after else {}  # noqa: PLR2004
        return JSONResponse(said, status, headers)

    async def state(_: Request) -> Response:
        return JSONResponse(mes.state())

    async def received(request: Request) -> Response:
        if request.method == "DELETE":
            mes.forget()
            return Response(status_code=204)
        return Response(msgspec.json.encode(mes.received), media_type="application/json")

    async def behaviour(request: Request) -> Response:
        try:
            mes.behaviour = msgspec.json.decode(await request.body(), type=Behaviour)
        except msgspec.DecodeError as error:
            return JSONResponse({"detail": str(error)}, 400)
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route(f"{OWN}/state", state),
            Route(f"{OWN}/received", received, methods=["GET", "DELETE"]),
            Route(f"{OWN}/behaviour", behaviour, methods=["PUT"]),
            Route("/{path:path}", take, methods=["POST", "PUT", "PATCH"]),
        ]
    )


class _Protocol(H11Protocol):
    """Hands every request the way to drop its connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}


class _Server(uvicorn.Server):
    """Leaves the signals alone."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # narrower than a generator
        return nullcontext()


async def serve(host: str, port: int, mes: Mes, ready: Callable[[], None] | None = None) -> None:
    """Run until cancelled; ``ready`` is called once it answers. Raises Misconfigured when it cannot listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise Misconfigured(f"cannot listen at {host}:{port}: {error.strerror}; choose another --port") from error
        listening.setblocking(False)
        listening.listen(128)
        config = uvicorn.Config(
            application(mes), http=_Protocol, lifespan="off", log_config=None, access_log=False, server_header=False,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listening]), name="mes")
        try:
            if ready is not None:
                ready()  # the socket listens already: who comes now waits for the first turn of the server
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = True
            await serving
            raise
