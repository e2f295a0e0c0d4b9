"""Authorization rules: a list, a page for each, and the tester."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection
from starlette.responses import Response

from wgpy.errors import WgpyError
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.revision import revision
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.policy.tester import judge
from wgpy.gateway.store import audit, groups, rules, users
from wgpy.gateway.web.console.visit import Visit, action, page, path_of


def _list(visit: Visit) -> Response:
    with visit.reading() as connection:
        found = rules.page(connection, visit.number, visit.asked("search"))
    return visit.show("rules.html", page=found)


def _new(visit: Visit, error: WgpyError | None = None) -> Response:
    with visit.reading() as connection:
        every = groups.find_all(connection)
    return visit.show("rule_new.html", error, groups=every, values=_typed(visit))


def _add(visit: Visit) -> Response:
    try:
        rule = _given(visit, visit.form.text("name"))
        with visit.changing() as change:
            rules.add(change, rule)
    except WgpyError as error:
        return _new(visit, error)
    return visit.done(path_of("rules", rule.name), f"Rule {rule} added.")


def _show(visit: Visit, error: WgpyError | None = None) -> Response:
    with visit.reading() as connection:
        rule = rules.find(connection, visit.name)
        every = groups.find_all(connection)
        history = audit.of(connection, "rule", rule.name)
    values = _typed(visit) if error else rule.json()
    return visit.show(
        "rule.html", error, rule=rule, groups=every, history=history, values=values, revision=revision(rule.json())
    )


def _change(visit: Visit) -> Response:
    try:
        with visit.changing() as change:
            before = rules.find(change.connection, visit.name)
            visit.check_unchanged(change.connection, "rule", before.name, before.json())
            rule = _given(visit, before.name)
            rules.replace(change, rule)
    except WgpyError as error:
        return _show(visit, error)
    return visit.done(path_of("rules", rule.name), f"Rule {rule} changed.")


def _remove(visit: Visit) -> Response:
    with visit.changing() as change:
        rules.remove(change, visit.name)
    return visit.done("/rules", f"Rule {visit.name} removed: connections that it allowed are cut.")


def _test(visit: Visit) -> Response:
    """Judge as `wgpy gateway test` does. This changes nothing, so it is a page that can be linked to."""
    user, destination = visit.asked("user"), visit.asked("destination")
    verdict, error = None, None
    with visit.reading() as connection:
        if user or destination:
            try:
                verdict = _judged(visit, connection, user, destination)
            except WgpyError as wrong:
                error = wrong
        names = [each.name for each in users.page(connection, 1).rows]
    return visit.show("test.html", error, verdict=verdict, asked_user=user, destination=destination, names=names)


def _judged(visit: Visit, connection: Connection, user: str, destination: str) -> Any:
    return judge(rules.find_all(connection), users.find(connection, user), destination, visit.wall)


def _typed(visit: Visit) -> dict[str, Any]:
    form = visit.form
    return {
        "name": form.text("name"),
        "destination": form.text("destination"),
        "groups": form.groups(),
        "everyone": form.text("whom") == "everyone",
    }


def _given(visit: Visit, name: str) -> Rule:
    everyone = visit.form.text("whom") == "everyone"
    return Rule(
        name=name,
        destination=Destination.parse(visit.form.text("destination")),
        groups=frozenset() if everyone else frozenset(visit.form.groups()),
        everyone=everyone,
    )


ROUTES: Final = (
    page("/rules", _list),
    page("/add/rule", _new),
    action("/add/rule", _add),
    page("/rules/{name}", _show),
    action("/rules/{name}", _change),
    action("/rules/{name}/remove", _remove),
    page("/test", _test),
)
