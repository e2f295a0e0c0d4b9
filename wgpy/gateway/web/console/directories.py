"""Directories: which there are, how they are set, whether they answer, and who comes from each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from wgpy.errors import ConfigError, WgpyError
from wgpy.gateway.identity import directory as identity
from wgpy.gateway.identity.certificates import facts
from wgpy.gateway.policy.oidc import callback_path
from wgpy.gateway.store import audit, directories, users
from wgpy.gateway.store.lookup import Conflict
from wgpy.gateway.web.console.visit import Visit, action, page


def _list(visit: Visit) -> Response:
    with visit.reading() as connection:
        found = directories.find_all(connection)
    return visit.show("directories.html", directories=found)


def _show(visit: Visit, error: WgpyError | None = None, findings: Mapping[str, Any] | None = None) -> Response:
    with visit.reading() as connection:
        directory = directories.find(connection, visit.name)
        people = users.page(connection, visit.number, source=directory.name)
        history = audit.of(connection, "directory", directory.name)
    settings = {**directory.settings, "ca": _subjects(directory.settings.get("ca", ""), visit.wall)}
    return visit.show(
        "directory.html", error, directory=directory, settings=settings, page=people, history=history,
        findings=findings,
        redirect_uri=f"{visit.site.url}{callback_path(directory.name)}" if directory.kind == "oidc" else "",
    )  # fmt: skip


def _check(visit: Visit) -> Response:
    """Ask the directory whether it can be used as it is set, and show what it says of itself."""
    with visit.reading() as connection:
        directory = directories.find(connection, visit.name)
        secret = directories.secret(connection, visit.database.vault, visit.name)
    try:
        return _show(visit, findings=identity.check(directory, secret))
    except WgpyError as error:
        return _show(visit, error)


def _remove(visit: Visit) -> Response:
    try:
        with visit.changing() as change:
            gone = directories.remove(change, visit.name, with_users=visit.form.text("with_users") == "yes")
    except Conflict as error:
        return _show(visit, error)
    users_too = f" Users removed with it: {len(gone)}." if gone else ""
    return visit.done("/directories", f"Directory {visit.name} removed.{users_too}")


def _subjects(pem: str, wall: float) -> str:
    """What certificates to trust are called."""
    try:
        return "; ".join(each.subject for each in facts(pem, None, wall)) if pem else ""
    except ConfigError as error:
        return str(error)


ROUTES: Final = (
    page("/directories", _list),
    page("/directories/{name}", _show),
    action("/directories/{name}/check", _check),
    action("/directories/{name}/remove", _remove, fresh=True),  # with the administrators who come from it
)
