"""The connection log and the audit log, with a search."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from wgpy.gateway.policy.connection_log import outcome
from wgpy.gateway.policy.sessions import Reason
from wgpy.gateway.store import audit, sessions
from wgpy.gateway.web.console.visit import Visit, page


def _connections(visit: Visit) -> Response:
    reason = visit.asked("reason")
    with visit.reading() as connection:
        found = sessions.page(connection, visit.number, visit.asked("search"), reason)
    reasons = [(each.value, each.value) for each in Reason]
    return visit.show("log.html", page=found, reasons=reasons, reason=reason, outcome=outcome)


def _changes(visit: Visit) -> Response:
    kind = visit.asked("kind")
    with visit.reading() as connection:
        found = audit.page(connection, visit.number, visit.asked("search"), kind)
        kinds = [(each, each) for each in audit.kinds(connection)]
    return visit.show("audit.html", page=found, kinds=kinds, kind=kind)


ROUTES: Final = (page("/log", _connections), page("/audit", _changes))
