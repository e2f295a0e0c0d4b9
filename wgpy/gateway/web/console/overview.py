"""The overview: whether the gateway is well, what passes now, who is connected, and what is left to be set up."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from wgpy.gateway.policy.traffic import SPAN, Rate
from wgpy.gateway.service.status import status
from wgpy.gateway.store import endpoint, lookup, schema, sessions
from wgpy.gateway.web import pages
from wgpy.gateway.web.console.visit import Visit, page

_DAY: Final = 24 * 3600.0  # seconds
_NEWEST: Final = 10  # sessions that are shown
_WIDTH, _HEIGHT = 600, 80  # units of the drawing


def _show(visit: Visit) -> Response:
    known = status(visit.database)
    with visit.reading() as connection:
        left = _left_to_do(connection)
        reasons = sessions.reasons(connection, visit.wall - _DAY)
        newest = sessions.page_under_way(connection, 1, size=_NEWEST)
    return visit.show(
        "overview.html", known=known, left=left, reasons=reasons, live=newest, texts=_texts(visit, newest.total),
        width=_WIDTH, height=_HEIGHT,
    )  # fmt: skip


def _now(visit: Visit) -> Response:
    """What `console.js` asks for every few seconds. It reads no more than the newest sessions."""
    with visit.reading() as connection:
        newest = sessions.page_under_way(connection, 1, size=_NEWEST)
    rows = pages.fragment("console/session_rows.html", live=newest)
    return JSONResponse({"texts": _texts(visit, newest.total), "rows": rows})


def _texts(visit: Visit, active: int) -> dict[str, str]:
    """The texts of the overview that change by themselves, by name."""
    service = visit.site.service
    rates = service.rates()
    latest = rates[-1] if rates else Rate(0.0, 0.0, 0.0)
    ingress, egress = [each.ingress for each in rates], [each.egress for each in rates]
    most = max([*ingress, *egress], default=0.0)
    return {
        "health": f"not well: {service.ailment}" if service.ailment else "well",
        "sessions": str(active),
        "ingress": f"{pages.size(latest.ingress)}/s",
        "egress": f"{pages.size(latest.egress)}/s",
        "ingress-most": f"{pages.size(max(ingress, default=0.0))}/s",
        "egress-most": f"{pages.size(max(egress, default=0.0))}/s",
        "ingress-line": _line([(each.ago, each.ingress) for each in rates], most),
        "egress-line": _line([(each.ago, each.egress) for each in rates], most),
    }


def _line(points: list[tuple[float, float]], most: float) -> str:
    """The points of a polyline (SVG 2, section 10.6): seconds before now, and values up to `most`."""
    return " ".join(
        f"{_WIDTH * (1 - ago / SPAN):.0f},{_HEIGHT - (_HEIGHT - 2) * (value / most if most else 0) - 1:.0f}"
        for ago, value in points
    )


def _left_to_do(connection: Connection) -> list[tuple[str, str]]:
    """What a new gateway lacks: where to do it, and what."""
    admins = endpoint.find(connection).admin_group
    steps: dict[tuple[str, str], Any] = {
        ("/add/route", "Add a route: a network behind the gateway"): lookup.count(connection, schema.routes),
        ("/add/group", "Add a group of people who may reach the same"): lookup.count(
            connection, schema.groups, schema.groups.c.name != admins
        ),
        ("/add/rule", "Add a rule: what a group may reach. Without one, nobody reaches anything"): lookup.count(
            connection, schema.rules
        ),
        ("/add/user", "Add a user"): lookup.count(connection, schema.users) > 1,
        ("/add/device", "Add a device: a user's phone or laptop"): lookup.count(connection, schema.devices),
    }
    return [step for step, done in steps.items() if not done]


ROUTES: Final = (page("", _show), page("/now", _now, unattended=True))
