"""The web app: files that the Vite build made, and its page for every route of the app itself."""

from pathlib import Path, PurePosixPath
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from shopfloor.console.problem import Problem

FOLDER: Final = Path(__file__).with_name("app")
"""Where `make web` puts the app."""
FOREVER: Final = "public, max-age=31536000, immutable"
ANEW: Final = "no-cache"
RESERVED: Final = frozenset({"api", "health", "ready", "metrics"})

_NOT_BUILT: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Shopfloor</title>
<h1>The console's app is not built</h1>
<p>Run <code>make web</code> and load this page again.</p>
<p>The API under <a href="api/openapi.json">/api/</a> works without it.</p>
"""


class Rest(Mount):
    """Everything that is no path of the API goes to the app; a wrong method of the API stays the API's matter."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the app answers this."""
        first = scope["path"].split("/", 2)[1] if scope["path"].startswith("/") else ""
        if scope["type"] != "http" or first in RESERVED:
            return Match.NONE, {}
        return super().matches(scope)


class WebApp(StaticFiles):
    """Serves the built app; says how to build it where it is not."""

    def __init__(self, folder: Path = FOLDER) -> None:
        super().__init__(directory=folder, check_dir=False)
        self._folder = folder

    async def check_config(self) -> None:
        """A missing folder is no error: the page says what to do."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or the page where the path is a route of the app (it has no dot in its last part)."""
        if not (self._folder / "index.html").is_file():
            return HTMLResponse(_NOT_BUILT, 503, {"Cache-Control": ANEW, "Retry-After": "5"})
        route = "." not in PurePosixPath(path).name
        if route and "/" in path:  # the page finds its files beside itself, so it is shown at the root only
            return RedirectResponse("../" * path.count("/"))
        try:
            response = await super().get_response("index.html" if route else path, scope)
        except (HTTPException, ValueError) as error:
            if isinstance(error, HTTPException) and error.status_code == 405:  # noqa: PLR2004  # HTTP's own number
                raise
            raise Problem(404, "There is no such thing", f"no file /{path[:100]}") from error
        response.headers["Cache-Control"] = FOREVER if path.startswith("assets/") else ANEW
        return response
