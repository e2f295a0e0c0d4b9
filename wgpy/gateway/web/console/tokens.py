"""Tokens of the API: a list, and how to make and remove them."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from wgpy.errors import WgpyError
from wgpy.gateway.policy.texts import date
from wgpy.gateway.policy.tokens import SCOPES, Token
from wgpy.gateway.store import tokens
from wgpy.gateway.web.console.visit import Visit, action, page


def _list(visit: Visit) -> Response:
    with visit.reading() as connection:
        found = tokens.find_all(connection)
    return visit.show("tokens.html", tokens=found)


def _new(visit: Visit, error: WgpyError | None = None) -> Response:
    form = visit.form
    values = {"name": form.text("name"), "scopes": form.chosen("scope"), "expires": form.text("expires")}
    return visit.show("token_new.html", error, values=values, scopes=SCOPES)


def _add(visit: Visit) -> Response:
    """Make a token, and show it at once: it cannot be found again."""
    form = visit.form
    try:
        expires = date(form.text("expires")) if form.text("expires") else None
        scopes = frozenset(form.chosen("scope"))
        token = Token(name=form.text("name"), scopes=scopes, made_at=visit.wall, expires=expires)
        with visit.changing() as change:
            text = tokens.add(change, token)
    except WgpyError as error:
        return _new(visit, error)
    return visit.show("token_added.html", token=token, text=text)


def _remove(visit: Visit) -> Response:
    with visit.changing() as change:
        tokens.remove(change, visit.name)
    return visit.done("/tokens", f"Token {visit.name} removed: it is of no use from now on.")


ROUTES: Final = (
    page("/tokens", _list),
    page("/add/token", _new),
    action("/add/token", _add, fresh=True),
    action("/tokens/{name}/remove", _remove),
)
