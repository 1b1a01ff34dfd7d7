"""The console: the HTTP API of docs/api.md and the web app that uses it. It has no state of its own."""

from shopfloor.console.api import create_app
from shopfloor.console.person import Person
from shopfloor.console.server import serve, url
from shopfloor.console.view import Runtime

__all__ = ["Person", "Runtime", "create_app", "serve", "url"]
