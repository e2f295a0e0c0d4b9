"""A person's own devices: all of them on one page, and what may be done with each."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.logins import Login
from wgpy.gateway.policy.overview import Standing, standing
from wgpy.gateway.policy.people import Device
from wgpy.gateway.store import devices, endpoint, sessions
from wgpy.gateway.store.database import Change
from wgpy.gateway.web.logins import require_login
from wgpy.gateway.web.pages import redirect, render
from wgpy.gateway.web.site import address_of, site_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """What the page says about a device."""

    name: str
    label: str
    state: str
    left: float | None
    addresses: tuple[Address, ...]
    is_here: bool  # whether the request comes from it
    gains: bool  # whether it may have a longer session by this sign-in


def overview(request: Request) -> Response:
    login, site = require_login(request), site_of(request)
    wall, here = site.wall(), address_of(request)
    with site.database.read() as connection:
        settings, every = endpoint.find(connection), devices.of_user(connection, login.user)
        started = sessions.started(connection, login.user)
    lines = []
    for device in every:
        state, left = standing(device, settings, started.get(device.name), wall)
        lines.append(
            _Line(
                name=device.name,
                label=label(device.name, login.user),
                state=state.value,
                left=left,
                addresses=device.addresses,
                is_here=here in device.addresses,
                gains=settings.sign_in
                and device.enabled
                and not device.certificate
                and login.made_at + settings.session_max > wall
                and login.made_at > (device.signed_in_at or 0.0),
            )
        )
    return render(
        request,
        "portal/overview.html",
        devices=list(map(asdict, lines)),
        here_is_signed_out=any(line.is_here and line.state == Standing.SIGNED_OUT for line in lines),
        signs_in=settings.sign_in,
        session_max=settings.session_max,
        room=len(lines) < settings.devices_max,
    )


def sign_in(request: Request, form: dict[str, str]) -> Response:
    """Sign a device in, by what the person proved in this browser."""
    login, site = require_login(request), site_of(request)
    with site.database.change(f"user {login.user}") as change:
        device = own(change.connection, request.path_params["name"], login.user)
        is_admitted = admit(change, device, login)
    if not is_admitted:
        return redirect("/", "You signed in too long ago for that: sign in again first.")
    return redirect("/", f"{label(device.name, login.user)} is signed in.")


def admit(change: Change, device: Device, login: Login) -> bool:
    """Let a device have sessions that last from when its person last proved who they are, not from now.

    Returns whether that is recent enough. Without sign-in there is nothing to do.
    """
    settings = endpoint.find(change.connection)
    if login.made_at + settings.session_max <= change.now:
        return False
    if settings.sign_in and (device.signed_in_at is None or device.signed_in_at < login.made_at):
        devices.sign_in(change, device.name, login.made_at)
    return True


def remove(request: Request, form: dict[str, str]) -> Response:
    login, site = require_login(request), site_of(request)
    with site.database.change(f"user {login.user}") as change:
        device = own(change.connection, request.path_params["name"], login.user)
        devices.remove(change, device.name)
    return redirect("/", f"{label(device.name, login.user)} is removed.")


def own(connection: Connection, name: str, user: str) -> Device:
    """The user's device of that name. Raises HTTPException, the same for another user's device as for none."""
    for device in devices.of_user(connection, user):
        if device.name == name:
            return device
    raise HTTPException(404, f"you have no device {name!a}")


def label(name: str, user: str) -> str:
    """What the person calls a device: those that are added in the portal begin with the user's name."""
    return name.removeprefix(f"{user}-")
