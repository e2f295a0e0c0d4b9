"""The web application: the REST API and the pages, below one `Guard`.

A part of the site is a package with a function `routes()`, which returns Starlette's routes, and has a line in `PARTS`.
Its handlers are plain functions, which run in threads and so may use the database, or, for a form, what
`wgpy.gateway.web.security.posted` makes of one. What they work with is `site_of(request)`. Whom a request is of, they
learn from `wgpy.gateway.web.logins`. They raise WgpyError or Starlette's HTTPException for what they refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib import import_module
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from wgpy.config.redact import redacted
from wgpy.errors import ConfigError, WgpyError
from wgpy.gateway.web import pages
from wgpy.gateway.web.pages import render
from wgpy.gateway.web.problems import problem
from wgpy.gateway.web.security import Guard
from wgpy.gateway.web.site import Site

PARTS: Final[tuple[str, ...]] = (
    "wgpy.gateway.web.enrolment",
    "wgpy.gateway.web.api.app",
    "wgpy.gateway.web.sign_in",
    "wgpy.gateway.web.portal",
    "wgpy.gateway.web.console",
)


def application(site: Site, parts: Iterable[str] = PARTS) -> ASGIApp:
    """The ASGI application that `wgpy.gateway.web.server` serves."""
    routes: list[BaseRoute] = [Route("/static/{name}", pages.static_file)]
    for part in parts:
        routes += import_module(part).routes()
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refused, WgpyError: _failed})
    return Guard(app, site)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(request, error.status_code, error.detail, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return _answer(request, 400 if isinstance(error, ConfigError) else 503, str(error))


def _answer(request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A page for a browser, which asks for one, and problem details for programs."""
    if status < 400 or "text/html" not in request.headers.get("accept", ""):
        return problem(status, detail, headers)
    title, text = HTTPStatus(status).phrase, redacted(detail)
    answer = render(request, "error.html", status=status, title=title, detail=text)
    answer.headers.update(headers or {})
    return answer
