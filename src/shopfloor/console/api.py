"""Puts the console together: routes, errors, what stands before them, and the app."""

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from shopfloor.commands import Refused
from shopfloor.console import dead, events, figures, models, reading, stops, units, writing
from shopfloor.console.guard import Guard
from shopfloor.console.health import metrics, readiness
from shopfloor.console.person import Identify, anybody
from shopfloor.console.problem import SCHEMA, Json, Problem
from shopfloor.console.state import Console, ConsoleState
from shopfloor.console.static import FOLDER, Rest, WebApp
from shopfloor.console.view import VERSION, Runtime
from shopfloor.samples import Misconfigured, Unavailable

SHOWN: Final = 20
"""Errors of single fields that a problem document lists at most."""

operations = APIRouter(tags=["operations"], default_response_class=Json)


@operations.get("/health", response_model=models.Alive)
async def health() -> Json:
    """Whether the process runs its event loop."""
    return Json({"status": "alive", "version": VERSION})


@operations.get(
    "/ready",
    response_model=models.Readiness,
    responses={503: {"model": models.Readiness, "description": "Some required component does not run"}},
)
async def ready(console: Console) -> Json:
    """Whether every required component runs."""
    found = readiness(console.runtime.components())
    return Json(found, 200 if found["ready"] else 503)


@operations.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def prometheus(console: Console, request: Request) -> Response:
    """The figures for Prometheus."""
    body, media_type = await metrics(console.runtime, len(console.stream), request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


def create_app(
    pipeline: Runtime,
    *,
    hosts: Iterable[str] = (),
    identify: Identify = anybody,
    now: Callable[[], int] = time.time_ns,
    folder: Path = FOLDER,
) -> FastAPI:
    """The console of a running plant as an ASGI application.

    ``hosts`` are names under which browsers reach it, besides its addresses and this computer's own
    names. ``identify`` says who sends a request. ``folder`` holds the built web app.
    """
    app = FastAPI(
        title="Shopfloor",
        version=VERSION,
        description="The HTTP API of a running plant; docs/api.md explains it with examples.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            Problem: _problem,
            Refused: _refused,
            Unavailable: _unavailable,
            Misconfigured: _unavailable,
            RequestValidationError: _invalid,
            HTTPException: _http,
        },
    )
    app.state.console = ConsoleState(pipeline, now)
    app.state.stream = app.state.console.stream
    app.state.identify = identify
    app.include_router(operations)
    app.include_router(reading.router)
    app.include_router(figures.router)
    app.include_router(stops.router)
    app.include_router(units.router)
    app.include_router(events.router)
    app.include_router(dead.router)
    app.include_router(writing.router)
    app.include_router(writing.sockets)
    app.router.routes.append(Rest("/", WebApp(folder)))
    app.add_middleware(Guard, hosts=list(hosts))
    _complete(app)
    return app


def _complete(app: FastAPI) -> None:
    """Put what every operation may answer into the OpenAPI document."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = dict(SCHEMA)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101  # FastAPI picks the handler by type
    return error.response()


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101  # FastAPI picks the handler by type
    return Problem.of(error).response()


async def _unavailable(_: Request, error: Exception) -> Response:
    return Problem(503, "This cannot be reached now", str(error), headers={"Retry-After": "5"}).response()


async def _invalid(_: Request, error: Exception) -> Response:
    """400 for what cannot be read, 422 for what can but is not acceptable."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # FastAPI picks the handler by type
    found = error.errors()
    fields = [
        {"field": ".".join(str(step) for step in one["loc"][1:]) or str(one["loc"][0]), "detail": str(one["msg"])}
        for one in found[:SHOWN]
    ]
    if any(one["type"] == "json_invalid" for one in found):
        return Problem(400, "The request cannot be read", "the body is not JSON", errors=fields).response()
    first = f"{fields[0]['field']}: {fields[0]['detail']}" if fields else "the request does not fit"
    return Problem(422, "The request does not fit", first, errors=fields).response()


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # FastAPI picks the handler by type
    title = HTTPStatus(error.status_code).phrase
    detail = (
        error.detail if error.detail != title else f"{request.method} {request.url.path[:200]}: see /api/openapi.json"
    )
    return Problem(error.status_code, title, detail, headers=error.headers).response()
