"""Users: a list, and a page for each with groups, devices and what may be done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from starlette.responses import Response

from wgpy.errors import ConfigError, WgpyError
from wgpy.gateway.policy.people import LOCAL, User
from wgpy.gateway.policy.revision import revision
from wgpy.gateway.policy.texts import date, expiry
from wgpy.gateway.store import audit, credentials, devices, groups, logins, passkeys, sessions, users
from wgpy.gateway.web.console.visit import Visit, action, page, path_of


def _list(visit: Visit) -> Response:
    with visit.reading() as connection:
        found = users.page(connection, visit.number, visit.asked("search"), visit.asked("group"))
        every = groups.find_all(connection)
    return visit.show("users.html", page=found, groups=[(each.name, each.name) for each in every])


def _new(visit: Visit, error: WgpyError | None = None) -> Response:
    with visit.reading() as connection:
        every = groups.find_all(connection)
    return visit.show("user_new.html", error, groups=every, values=_typed(visit))


def _add(visit: Visit) -> Response:
    try:
        user = User(name=visit.form.text("name"), groups=_groups(visit), expires=_expires(visit))
        visit.check_groups((), user.groups)
        with visit.changing() as change:
            users.add(change, user)
    except WgpyError as error:
        return _new(visit, error)
    return visit.done(path_of("users", user.name), f"User {user.name} added.")


def _show(visit: Visit, error: WgpyError | None = None) -> Response:
    with visit.reading() as connection:
        user = users.find(connection, visit.name)
        every = groups.find_all(connection)
        own = devices.page(connection, 1, user=user.name)
        live = sessions.page_under_way(connection, 1, user=user.name)
        history = audit.of(connection, "user", user.name)
        known = credentials.find(connection, user.name)
        keys = passkeys.find_all(connection, user.name)
        browsers = [each for each in logins.find_all(connection, user.name) if not each.is_over(visit.wall)]
    values = _typed(visit) if error else {"groups": user.groups, "expires": _written(user.expires)}
    return visit.show(
        "user.html", error, person=user, groups=every, devices=own, live=live, history=history, values=values,
        expired=user.is_expired(visit.wall), revision=revision(user.json()), known=known, passkeys=keys,
        browsers=browsers,
    )  # fmt: skip


def _change(visit: Visit) -> Response:
    try:
        with visit.changing() as change:
            user = users.find(change.connection, visit.name)
            visit.check_unchanged(change.connection, "user", user.name, user.json())
            changed = replace(user, groups=_groups(visit)) if user.source == LOCAL else user
            visit.check_groups(user.groups, changed.groups)
            if visit.site.service.endpoint.admin_group not in changed.groups:
                _check_another(visit, "you would no longer be an administrator")
            if visit.form.text("expires") != _written(user.expires):  # a new date is a new decision
                changed = replace(changed, expires=_expires(visit), expired=False)
            users.replace(change, changed)
    except WgpyError as error:
        return _show(visit, error)
    return visit.done(path_of("users", visit.name), f"User {visit.name} changed.")


def _enable(visit: Visit) -> Response:
    enabled = visit.form.text("enabled") == "yes"
    _check_another(visit, "this is you")
    with visit.changing() as change:
        user = users.find(change.connection, visit.name)
        visit.check_groups(user.groups, ())
        users.replace(change, replace(user, enabled=enabled))
    said = "may connect again" if enabled else "is disabled: sessions end, and none begins"
    return visit.done(path_of("users", visit.name), f"User {visit.name} {said}.")


def _remove(visit: Visit) -> Response:
    _check_another(visit, "this is you")
    with visit.changing() as change:
        visit.check_groups(users.find(change.connection, visit.name).groups, ())
        users.remove(change, visit.name)
    return visit.done("/users", f"User {visit.name} removed, with all devices.")


def _check_another(visit: Visit, why: str) -> None:
    """Raises ConfigError if an administrator would shut out themselves."""
    if visit.name == visit.admin.name:
        raise ConfigError(f"user {visit.name}: {why}; another administrator has to do this")


def _typed(visit: Visit) -> dict[str, Any]:
    form = visit.form
    return {"name": form.text("name"), "groups": form.groups(), "expires": form.text("expires")}


def _groups(visit: Visit) -> frozenset[str]:
    return frozenset(visit.form.groups())


def _written(expires: float | None) -> str:
    return "" if expires is None else expiry(expires)


def _expires(visit: Visit) -> float | None:
    text = visit.form.text("expires")
    return date(text) if text else None


ROUTES: Final = (
    page("/users", _list),
    page("/add/user", _new),
    action("/add/user", _add),
    page("/users/{name}", _show),
    action("/users/{name}", _change),
    action("/users/{name}/enable", _enable),
    action("/users/{name}/remove", _remove),
)
