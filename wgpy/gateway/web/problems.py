"""Refusals, as problem details (RFC 9457): the same sentence that the command line prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from wgpy.config.redact import redacted

TYPE: Final = "application/problem+json"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says in one sentence what is wrong."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": redacted(detail)}
    return Response(json.dumps(content), status, headers, TYPE)
