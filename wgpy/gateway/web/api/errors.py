"""What the API answers if it refuses: problem details (RFC 9457) with one sentence."""

from __future__ import annotations

from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from wgpy.errors import ConfigError, KeyFormatError, WgpyError
from wgpy.gateway.store.lookup import Conflict, Missing
from wgpy.gateway.web.problems import TYPE, problem

_STATUSES: Final = {
    "400": "A value cannot be used.",
    "401": "There is no token, or it is not valid.",
    "403": "The token's scopes do not include this, or it can be done at the unix socket only.",
    "404": "There is no such object.",
    "409": "What is there already is in the way.",
    "413": "The body is too long.",
    "429": "There were too many requests with wrong tokens from this address.",
    "503": "The gateway's database or host is in the way.",
}
_PROBLEM: Final = {
    "type": "object",
    "title": "Problem",
    "properties": {
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer", "description": "The status."},
        "detail": {"type": "string", "description": "What is wrong, and what to do about it."},
    },
    "required": ["title", "status", "detail"],
}


async def failed(request: Request, error: Exception) -> Response:
    """The answer to what wgpy refuses, or cannot do."""
    return problem(_status(request, error), str(error))


async def refused(request: Request, error: Exception) -> Response:
    """The answer to what the framework or a handler refuses."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, error.headers)


async def invalid(request: Request, error: Exception) -> Response:
    """The answer to a request that is not as the description says: a sentence about the first mistake."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["loc"] == ("body",) and not isinstance(error.body, dict):
        return problem(400, "body: expected one JSON object, with the header `Content-Type: application/json`")
    where = ".".join(str(part) for part in first["loc"][1:]) or first["loc"][0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, WgpyError):
        return await failed(request, cause)
    return problem(400, f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}")


def describe(schema: dict[str, Any]) -> None:
    """Put these answers into the OpenAPI document, in the place of those of the framework."""
    schemas = schema["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    content = {TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for status, description in _STATUSES.items():
                operation["responses"][status] = {"description": description, "content": content}


def _status(request: Request, error: Exception) -> int:
    if isinstance(error, Conflict):
        return 409
    if isinstance(error, Missing):  # and not what a body names
        return 404 if error.name in ("", *request.path_params.values()) else 400
    return 400 if isinstance(error, ConfigError | KeyFormatError) else 503
