"""The sessions that are under way, and how to end them."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from wgpy.gateway.store import sessions
from wgpy.gateway.web.console.visit import Visit, action, page


def _list(visit: Visit) -> Response:
    with visit.reading() as connection:
        found = sessions.page_under_way(connection, visit.number, visit.asked("search"))
    return visit.show("sessions.html", page=found)


def _show(visit: Visit) -> Response:
    """A session, and the question whether to end it."""
    with visit.reading() as connection:
        entry = sessions.find_under_way(connection, visit.name)
    return visit.show("session.html", id=visit.name, entry=entry)


def _terminate(visit: Visit) -> Response:
    with visit.changing() as change:
        ended = sessions.terminate(change, visit.name)
    said = "1 session ends" if len(ended) == 1 else f"{len(ended)} sessions end"
    return visit.done("/sessions", f"{said} within a second.")


ROUTES: Final = (
    page("/sessions", _list),
    page("/sessions/{name}", _show),
    action("/sessions/{name}/terminate", _terminate),
)
