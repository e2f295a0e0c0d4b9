"""Devices: a list, and a page for each with its addresses, sessions and what may be done."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from starlette.responses import Response

from wgpy.daemon.qr import qr_code
from wgpy.errors import WgpyError
from wgpy.gateway.policy.texts import address
from wgpy.gateway.store import audit, devices, sessions, users
from wgpy.gateway.store.enrolment import enrol
from wgpy.gateway.web.console.visit import Visit, action, page, path_of
from wgpy.keys import PublicKey


def _list(visit: Visit) -> Response:
    with visit.reading() as connection:
        found = devices.page(connection, visit.number, visit.asked("search"), visit.asked("user"))
    return visit.show("devices.html", page=found)


def _new(visit: Visit, error: WgpyError | None = None) -> Response:
    with visit.reading() as connection:
        names = [each.name for each in users.page(connection, 1).rows]
    form = visit.form
    values = {
        "name": form.text("name"),
        "user": form.text("user") or visit.asked("user"),
        "key": form.text("key"),
        "public_key": form.text("public_key"),
        "addresses": form.text("addresses"),
    }
    return visit.show("device_new.html", error, values=values, names=names)


def _add(visit: Visit) -> Response:
    """Add a device, and show its file at once: nobody ever sees it again, because it has secrets."""
    form = visit.form
    try:
        key = PublicKey.from_base64(form.text("public_key")) if form.text("key") == "own" else None
        static = [address("address", line) for line in form.lines("addresses")]
        with visit.changing() as change:
            device, file = enrol(change, form.text("name"), form.text("user"), key, static)
            picture = qr_code(file, show=False) if key is None else b""
    except WgpyError as error:
        return _new(visit, error)
    return visit.show("device_added.html", device=device, file=file, picture=b64encode(picture).decode())


def _show(visit: Visit) -> Response:
    with visit.reading() as connection:
        device = devices.find(connection, visit.name)
        live = sessions.page_under_way(connection, 1, device=device.name)
        history = audit.of(connection, "device", device.name)
    return visit.show("device.html", device=device, live=live, history=history)


def _enable(visit: Visit) -> Response:
    enabled = visit.form.text("enabled") == "yes"
    with visit.changing() as change:
        devices.enable(change, visit.name, enabled=enabled)
    said = "may connect again" if enabled else "is disabled: its session ends, and none begins"
    return visit.done(path_of("devices", visit.name), f"Device {visit.name} {said}.")


def _sign_in(visit: Visit) -> Response:
    with visit.changing() as change:
        devices.sign_in(change, visit.name)
    return visit.done(path_of("devices", visit.name), f"Device {visit.name} is signed in: a session may begin.")


def _remove(visit: Visit) -> Response:
    with visit.changing() as change:
        devices.remove(change, visit.name)
    return visit.done("/devices", f"Device {visit.name} removed.")


ROUTES: Final = (
    page("/devices", _list),
    page("/add/device", _new),
    action("/add/device", _add),
    page("/devices/{name}", _show),
    action("/devices/{name}/enable", _enable),
    action("/devices/{name}/sign-in", _sign_in),
    action("/devices/{name}/remove", _remove),
)
