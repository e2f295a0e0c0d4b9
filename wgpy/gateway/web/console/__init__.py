"""Pages for administrators: everything that the command line can do, but for what only the host's root may."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from starlette.routing import BaseRoute

OBJECTS: Final = (
    "overview", "users", "credentials", "groups", "devices", "rules", "network_routes", "sessions", "logs",
    "settings", "tokens", "directories", "directory_forms", "certificates", "transfer",
)  # fmt: skip


def routes() -> list[BaseRoute]:
    """All routes of the console."""
    return [route for name in OBJECTS for route in import_module(f"wgpy.gateway.web.console.{name}").ROUTES]
