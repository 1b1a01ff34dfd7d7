"""Errors as problem documents (RFC 9457)."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import JSONResponse, Response

from shopfloor.commands import Reason, Refused

MEDIA_TYPE: Final = "application/problem+json"

SCHEMA: Final[Mapping[str, Any]] = {
    "title": "Problem",
    "description": "RFC 9457: what went wrong, for the shift lead (title) and for the engineer (detail).",
    "type": "object",
    "required": ["type", "status", "title", "detail", "errors"],
    "properties": {
        "type": {"type": "string"},
        "status": {"type": "integer"},
        "title": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "held_by": {"type": "string", "description": "Who holds the button, where that is the reason."},
    },
}

REFUSALS: Final[Mapping[Reason, int]] = {
    "not_allowed": 403,
    "role": 403,
    "type": 422,
    "range": 422,
    "momentary": 422,
    "not_momentary": 422,
    "id": 422,
    "conflict": 409,
    "held": 409,
    "closed": 503,
    "late": 422,
    "malformed": 422,
    "busy": 429,
}


class Problem(Exception):
    """Ends a request with a problem document."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """``title`` is for the shift lead, ``detail`` for the engineer, ``errors`` for single fields."""
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors
        self.headers = headers
        self.extra: dict[str, str] = {}

    @classmethod
    def of(cls, refusal: Refused) -> "Problem":
        """The problem that a refused command is."""
        problem = cls(REFUSALS[refusal.reason], refusal.title, str(refusal))
        if refusal.held_by is not None:
            problem.extra["held_by"] = refusal.held_by
        return problem

    def response(self) -> Response:
        """The document."""
        body = {
            "type": "about:blank",
            "status": self.status,
            "title": self.title,
            "detail": self.detail,
            "errors": self.errors,
            **self.extra,
        }
        return Response(dumps(body), self.status, self.headers, MEDIA_TYPE)


class Json(JSONResponse):
    """A JSON answer, never kept by a cache: it is about now."""

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """``content`` is what orjson takes."""
        super().__init__(content, status_code, {"Cache-Control": "no-store", **(headers or {})})

    def render(self, content: Any) -> bytes:
        """Encode it."""
        return dumps(content)


def dumps(content: Any) -> bytes:
    """JSON in UTF-8; text with lone surrogates, which UTF-8 cannot hold, is escaped."""
    try:
        return orjson.dumps(content)
    except TypeError:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an operation may answer, for OpenAPI."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {code: {"description": HTTPStatus(code).phrase, "content": content} for code in codes}
