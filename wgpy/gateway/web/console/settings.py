"""The endpoint's settings: a form of those that may be changed in a browser, and the others to be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from wgpy.errors import ConfigError, WgpyError
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.revision import revision
from wgpy.gateway.policy.texts import address, duration, network, span
from wgpy.gateway.service import settings
from wgpy.gateway.store import audit, endpoint
from wgpy.gateway.web.console.visit import Form, Visit, action, page
from wgpy.gateway.web.logins import require_fresh


class Setting(NamedTuple):
    """A field of the form: which setting, what people read, and how a value is read and written."""

    name: str
    label: str
    hint: str
    kind: str  # "line", "lines" or "choice"
    read: Callable[[Form, str], Any]
    write: Callable[[Any], Any]


def _number(form: Form, name: str) -> int | None:
    text = form.text(name)
    if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConfigError(f"{name} {text!a}: expected a number")
    return int(text) if text else None


def _line(name: str, label: str, hint: str) -> Setting:
    return Setting(name, label, hint, "line", Form.text, str)


def _time(name: str, label: str, hint: str) -> Setting:
    return Setting(name, label, hint, "line", lambda form, name: duration(form.text(name)), span)


def _switch(name: str, label: str, hint: str) -> Setting:
    return Setting(name, label, hint, "choice", lambda form, name: form.text(name) == "yes", bool)


def _list(name: str, label: str, hint: str, read: Callable[[str], Any]) -> Setting:
    return Setting(
        name, label, hint, "lines", lambda form, name: tuple(map(read, form.lines(name))),
        lambda values: "\n".join(map(str, values)),
    )  # fmt: skip


SECTIONS: Final[Mapping[str, tuple[Setting, ...]]] = {
    "Where clients find the gateway": (
        _line("host", "Host", "The name or address that clients connect to. Files that were made keep the old one."),
        Setting("port", "UDP port", "", "line", _number, str),
        _line("url", "Address of these pages", "Such as https://vpn.example.org: browsers must use exactly this."),
    ),
    "What clients get": (
        _list("pools", "Pools", "Networks for clients' addresses, one a line.", lambda text: network("pool", text)),
        _list("dns", "Name servers", "Addresses, one a line.", lambda text: address("dns", text)),
        _list("search", "Search domains", "One a line.", str),
        _switch("full_tunnel", "Full tunnel", "Clients send everything through the tunnel, not only what routes name."),
        Setting("mtu", "MTU", "Bytes; empty leaves it to the clients.", "line", _number, lambda mtu: mtu or ""),
        Setting("banner", "Banner", "A text for the top of clients' files.", "lines", Form.text, str),
    ),
    "Sessions": (
        _time("session_max", "Longest session", "Such as 8h. It applies to sessions that are under way, too."),
        _time("idle_max", "Idle limit", "Such as 30m: sessions without a packet for so long end. 0 is no limit."),
        _switch("sign_in", "Sign-in before each session", "A device's key is not enough: its person must sign in."),
        _switch("flow_log", "Flow log", "Log the connections that pass, and the packets that are denied."),
    ),
    "People": (
        Setting("devices_max", "Devices that a person may add", "Administrators may add more.", "line", _number, str),
        _switch("second_factor", "Second factor", "Local users need more than a password: a code or a passkey."),
        _line("admin_group", "Group of the administrators", "Its members may use this console."),
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
        "settings.html", error, sections=SECTIONS, values=_typed(visit) if error else _written(present),
        of_root={label: getattr(present, name) for name, label in OF_ROOT.items()},
        history=history, revision=revision(present.json()),
    )  # fmt: skip


def _change(visit: Visit) -> Response:
    try:
        given = {each.name: each.read(visit.form, each.name) for each in _settings()}
        for name in ("port", "devices_max"):
            if given[name] is None:
                raise ConfigError(f"{name}: is missing; give a number")
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


def _settings() -> list[Setting]:
    return [each for section in SECTIONS.values() for each in section]


def _written(present: Endpoint) -> dict[str, Any]:
    return {each.name: each.write(getattr(present, each.name)) for each in _settings()}


def _typed(visit: Visit) -> dict[str, Any]:
    return {
        each.name: visit.form.text(each.name) == "yes" if each.kind == "choice" else visit.form.text(each.name)
        for each in _settings()
    }


ROUTES: Final = (page("/settings", _show), action("/settings", _change))
