"""Directories: which there are, how they are set, and who comes from each."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from wgpy.gateway.store import audit, directories, users
from wgpy.gateway.web.console.visit import Visit, page


def _list(visit: Visit) -> Response:
    with visit.reading() as connection:
        found = directories.find_all(connection)
    return visit.show("directories.html", directories=found)


def _show(visit: Visit) -> Response:
    with visit.reading() as connection:
        directory = directories.find(connection, visit.name)
        people = users.page(connection, visit.number, source=directory.name)
        history = audit.of(connection, "directory", directory.name)
    return visit.show("directory.html", directory=directory, page=people, history=history)


ROUTES: Final = (page("/directories", _list), page("/directories/{name}", _show))
