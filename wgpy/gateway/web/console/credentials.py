"""What a user signs in with: a link to choose a password, and what helps when a phone or a password is lost."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from wgpy.gateway.identity import administration
from wgpy.gateway.store import logins, users
from wgpy.gateway.web.console.visit import Visit, action, path_of


def _invite(visit: Visit) -> Response:
    with visit.changing() as change:
        invitation = administration.invite(change, visit.name)
    return visit.show("user_invited.html", name=visit.name, invitation=invitation)


def _sign_out(visit: Visit) -> Response:
    with visit.changing() as change:
        name = users.find(change.connection, visit.name).name
        number = logins.end_all(change, name)
    return visit.done(path_of("users", name), f"{name} is signed out in {number} browser{'s' if number != 1 else ''}.")


def _reset(visit: Visit) -> Response:
    with visit.changing() as change:
        administration.reset(change, visit.name)
    return visit.done(path_of("users", visit.name), f"{visit.name} has nothing to sign in with now; make a link.")


ROUTES: Final = (
    action("/users/{name}/invite", _invite, fresh=True),
    action("/users/{name}/sign-out", _sign_out),
    action("/users/{name}/reset", _reset, fresh=True),
)
