"""The API as an ASGI application: its routers, and how all of it is described."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Mount

from wgpy import __version__
from wgpy.errors import WgpyError
from wgpy.gateway.web.api import errors
from wgpy.gateway.web.api.access import Access

PREFIX: Final = "/api/v1"
OBJECTS: Final = (
    "endpoint", "users", "credentials", "groups", "directories", "certificates", "devices", "routes", "rules",
    "sessions", "logs", "status", "tokens", "transfer",
)  # fmt: skip
_DESCRIPTION: Final = """\
Every object and verb of `wgpy gateway`. Who asks at the unix socket is an administrator. Over HTTPS, send a token of
`wgpy gateway token add` as the header `Authorization: Bearer TOKEN`; its scopes say what it may do.

What is refused is answered with problem details (RFC 9457), whose `detail` is the sentence that the command line
prints, and then nothing is changed: 400 for values that cannot be used, 404 if there is no such object, 409 if what is
there already is in the way, 503 if the gateway's database or host is in the way. Times are in seconds since 1970, and
fields that are not in a PATCH keep their value."""


def routes() -> list[BaseRoute]:
    """The part of the site that is the API."""
    return [Mount(PREFIX, Access(application()))]


def application() -> FastAPI:
    """The API without its access control."""
    app = FastAPI(
        title="wgpy gateway",
        version=__version__,
        description=_DESCRIPTION,
        servers=[{"url": PREFIX}],
        root_path_in_servers=False,
        docs_url=None,  # the page would be loaded from elsewhere
        redoc_url=None,
        exception_handlers={
            WgpyError: errors.failed,
            HTTPException: errors.refused,
            RequestValidationError: errors.invalid,
        },
    )
    for name in OBJECTS:
        app.include_router(import_module(f"{__package__}.{name}").router, tags=[name])
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            errors.describe(described())
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app
