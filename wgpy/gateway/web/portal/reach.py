"""What a person may reach, and what goes through the tunnel."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from wgpy.gateway.policy.overview import reached
from wgpy.gateway.store import endpoint, routes, rules, users
from wgpy.gateway.web.logins import require_login
from wgpy.gateway.web.pages import render
from wgpy.gateway.web.site import site_of


def show(request: Request) -> Response:
    login, site = require_login(request), site_of(request)
    with site.database.read() as connection:
        settings, groups = endpoint.find(connection), users.find(connection, login.user).groups
        found, behind = reached(rules.find_all(connection), groups), routes.find_all(connection)
    return render(
        request,
        "portal/reach.html",
        reached=found,
        full_tunnel=settings.full_tunnel,
        networks=[*settings.pools, *(route.network for route in behind if route.network.prefixlen)],
        dns=settings.dns,
        groups=sorted(groups),
    )
