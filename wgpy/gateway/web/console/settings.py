"""The endpoint's settings: a form of those that may be changed in a browser, and the others to be seen."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from wgpy.errors import ConfigError, WgpyError
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.problems import Problems
from wgpy.gateway.policy.revision import revision
from wgpy.gateway.policy.texts import address, network
from wgpy.gateway.service import settings
from wgpy.gateway.store import audit, endpoint
from wgpy.gateway.web.console.fields import (
    Field,
    Sections,
    each_of,
    lines,
    number,
    read,
    switch,
    text,
    time,
    typed,
    written,
)
from wgpy.gateway.web.console.visit import Visit, action, page
from wgpy.gateway.web.logins import require_fresh

SECTIONS: Final[Sections] = {
    "Where clients find the gateway": (
        Field("host", "Host", "The name or address that clients connect to. Files that were made keep the old one."),
        number("port", "UDP port"),
        Field("url", "Address of these pages", "Such as https://vpn.example.org: browsers must use exactly this."),
    ),
    "What clients get": (
        lines("pools", "Pools", "Networks for clients' addresses, one a line.", lambda text: network("pool", text)),
        lines("dns", "Name servers", "Addresses, one a line.", lambda text: address("dns", text)),
        lines("search", "Search domains", "One a line."),
        switch("full_tunnel", "Full tunnel", "Clients send everything through the tunnel, not only what routes name."),
        number("mtu", "MTU", "Bytes; empty leaves it to the clients."),
        text("banner", "Banner", "A text for the top of clients' files."),
    ),
    "Sessions": (
        time("session_max", "Longest session", "Such as 8h. It applies to sessions that are under way, too."),
        time("idle_max", "Idle limit", "Such as 30m: sessions without a packet for so long end. 0 is no limit."),
        switch("sign_in", "Sign-in before each session", "A device's key is not enough: its person must sign in."),
        switch("flow_log", "Flow log", "Log the connections that pass, and the packets that are denied."),
    ),
    "People": (
        number("devices_max", "Devices that a person may add", "Administrators may add more."),
        switch("second_factor", "Second factor", "Local users need more than a password: a code or a passkey."),
        Field("admin_group", "Group of the administrators", "Its members may use this console."),
    ),
}  # fmt: skip
OF_ROOT: Final = {
    "interface": "Interface",
    "data_plane": "Data plane",
    "handler": "Program that is asked before each session",
    "handler_user": "User whom that runs as",
}
"""Settings with which one could run programs as the gateway's user: only the host's administrator changes them."""


def _show(visit: Visit, error: WgpyError | None = None) -> Response:
    with visit.reading() as connection:
        present = endpoint.find(connection)
        history = audit.of(connection, "endpoint", present.interface)
    return visit.show(
        "settings.html", error, sections=SECTIONS, values=typed(SECTIONS, visit.form) if error else _written(present),
        of_root={label: getattr(present, name) for name, label in OF_ROOT.items()},
        history=history, revision=revision(present.json()),
    )  # fmt: skip


def _change(visit: Visit) -> Response:
    try:
        problems = Problems()
        given = read(SECTIONS, visit.form, problems)
        for name in ("port", "devices_max"):
            if given.get(name) is None:
                problems.add(name, f"{name}: is missing; give a number")
        problems.check()
        with visit.changing() as change:
            present = endpoint.find(change.connection)
            visit.check_unchanged(change.connection, "endpoint", present.interface, present.json())
            if given["admin_group"] not in visit.admin.groups:
                raise ConfigError(f"admin_group {given['admin_group']}: you are not in it, and would shut yourself out")
            is_weaker = any(getattr(present, name) > given[name] for name in ("second_factor", "sign_in"))
            if is_weaker or any(given[name] != getattr(present, name) for name in ("admin_group", "url")):
                require_fresh(visit.request)
            settings.change(change, given)
    except WgpyError as error:
        return _show(visit, error)
    return visit.done("/settings", "Settings changed.")


def _written(present: Endpoint) -> dict[str, Any]:
    return written(SECTIONS, {each.name: getattr(present, each.name) for each in each_of(SECTIONS)})


ROUTES: Final = (page("/settings", _show), action("/settings", _change))
