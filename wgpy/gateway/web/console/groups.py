"""Groups: a list, and a page for each with its members and rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from starlette.responses import Response

from wgpy.errors import WgpyError
from wgpy.gateway.policy.people import Group
from wgpy.gateway.policy.revision import revision
from wgpy.gateway.store import audit, groups, rules, users
from wgpy.gateway.web.console.visit import Visit, action, page, path_of


def _list(visit: Visit) -> Response:
    with visit.reading() as connection:
        found = groups.page(connection, visit.number, visit.asked("search"))
    return visit.show("groups.html", page=found)


def _new(visit: Visit, error: WgpyError | None = None) -> Response:
    return visit.show("group_new.html", error, values=_typed(visit))


def _add(visit: Visit) -> Response:
    try:
        group = Group(name=visit.form.text("name"), description=visit.form.text("description"))
        with visit.changing() as change:
            groups.add(change, group)
    except WgpyError as error:
        return _new(visit, error)
    return visit.done(path_of("groups", group.name), f"Group {group.name} added.")


def _show(visit: Visit, error: WgpyError | None = None) -> Response:
    with visit.reading() as connection:
        group = groups.find(connection, visit.name)
        members = users.page(connection, 1, group=group.name)
        of_rules = [rule for rule in rules.find_all(connection) if group.name in rule.groups]
        history = audit.of(connection, "group", group.name)
    values = _typed(visit) if error else group.json()
    return visit.show(
        "group.html", error, group=group, members=members, rules=of_rules, history=history, values=values,
        revision=revision(group.json()),
    )  # fmt: skip


def _change(visit: Visit) -> Response:
    try:
        with visit.changing() as change:
            group = groups.find(change.connection, visit.name)
            visit.check_unchanged(change.connection, "group", group.name, group.json())
            groups.replace(change, replace(group, description=visit.form.text("description")))
    except WgpyError as error:
        return _show(visit, error)
    return visit.done(path_of("groups", visit.name), f"Group {visit.name} changed.")


def _remove(visit: Visit) -> Response:
    with visit.changing() as change:
        groups.remove(change, visit.name)
    return visit.done("/groups", f"Group {visit.name} removed.")


def _typed(visit: Visit) -> dict[str, Any]:
    return {"name": visit.form.text("name"), "description": visit.form.text("description")}


ROUTES: Final = (
    page("/groups", _list),
    page("/add/group", _new),
    action("/add/group", _add),
    page("/groups/{name}", _show),
    action("/groups/{name}", _change),
    action("/groups/{name}/remove", _remove),
)
