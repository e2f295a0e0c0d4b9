"""Adding a device: with a key that the browser, the gateway or the person made, or by a link for another device.

The gateway keeps no private key. One that it made is in the answer to the form, and nowhere else.
"""

from __future__ import annotations

import re
from base64 import b64encode
from time import monotonic
from typing import Final, NamedTuple

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from wgpy.daemon.qr import qr_code
from wgpy.errors import ConfigError, KeyFormatError
from wgpy.gateway.policy.names import checked
from wgpy.gateway.policy.throttle import Limit
from wgpy.gateway.store import devices, endpoint, links
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.enrolment import enrol
from wgpy.gateway.web.attempts import Attempts
from wgpy.gateway.web.logins import require_login
from wgpy.gateway.web.pages import render, time_left
from wgpy.gateway.web.portal.devices import admit, label
from wgpy.gateway.web.site import address_of, site_of
from wgpy.keys import PublicKey

LIFETIME: Final = 300.0  # seconds for which a link is good
PURPOSE: Final = "device "  # of a link, followed by the name of the device that it adds
LONGEST: Final = 60  # characters of a name that a person gives
PER_PERSON: Final = Limit(10, 30.0)
PER_ADDRESS: Final = Limit(20, 15.0)
GONE: Final = "It was used already, or its five minutes are over. Make another one, on the page where you add a device."
_FILE_NAME: Final = re.compile(r"[^A-Za-z0-9_=+.-]")  # which WireGuard's apps refuse in the name of a tunnel


class _Made(NamedTuple):
    """A device that was just added, and its file; with its private key, unless its owner has that."""

    label: str
    text: str
    has_key: bool

    @property
    def file_name(self) -> str:
        """What the file is called; the app calls the tunnel so, and allows 15 characters."""
        return f"{_FILE_NAME.sub('-', self.label)[:15]}.conf"


class Adding:
    """The pages on which devices are added."""

    def __init__(self) -> None:
        self._throttle = Attempts(PER_PERSON, PER_ADDRESS)

    def show(self, request: Request) -> Response:
        """The form of somebody who is signed in."""
        require_login(request)
        return _form(request, {})

    def add(self, request: Request, form: dict[str, str]) -> Response:
        """Add a device, or make a link with which another device adds itself."""
        login, site = require_login(request), site_of(request)
        try:
            self._wait(login.user, request)
            name = _full_name(form.get("name", "").strip(), login.user)
            with site.database.change(f"user {login.user}") as change:
                _check_room(change.connection, login.user, name, change.now)
                if form.get("how") == "link":
                    secret = links.add(change, PURPOSE + name, login.user, LIFETIME)
                    return _link(request, label(name, login.user), f"{site.url}/link/{name}/{secret}", change.now)
                made = _add(change, login.user, name, form)
                admit(change, devices.find(change.connection, name), login)
        except ConfigError as error:
            return _refusal(request, form, error)
        return _answer(request, made)

    def show_claim(self, request: Request) -> Response:
        """The form of a device that has opened a link. The link stays good: mail programs look into links, too."""
        site, name = site_of(request), request.path_params["name"]
        try:
            self._wait("", request)
        except ConfigError as error:
            return _refusal(request, {}, error)
        with site.database.read() as connection:
            user = links.find(connection, PURPOSE + name, request.path_params["secret"], site.wall())
        if user is None:
            return _used_up(request)
        return _form(request, {}, claimed=label(name, user))

    def claim(self, request: Request, form: dict[str, str]) -> Response:
        """Use a link up, and add its device in the name of the person who made it."""
        site, name = site_of(request), request.path_params["name"]
        purpose, secret = PURPOSE + name, request.path_params["secret"]
        with site.database.read() as connection:
            user = links.find(connection, purpose, secret, site.wall())
        if user is None:
            return _used_up(request)
        try:
            self._wait("", request)
            with site.database.change(f"link of user {user}") as change:
                if links.take(change, purpose, secret) is None:  # somebody else was faster
                    return _used_up(request)
                made = _add(change, user, name, form)
        except ConfigError as error:  # which leaves the link as it was
            return _refusal(request, form, error, claimed=label(name, user))
        return _answer(request, made)

    def _wait(self, user: str, request: Request) -> None:
        """Raises ConfigError for who adds devices, or tries links, too often."""
        seconds = self._throttle.attempt(user or str(address_of(request)), address_of(request), monotonic())
        if seconds:
            raise ConfigError(f"that was too often: try again in {time_left(seconds)}")


def _full_name(given: str, user: str) -> str:
    """The name of a person's device, which begins with the person's: names are unique among all. Raises ConfigError."""
    if len(given) > LONGEST:
        raise ConfigError(f"name: it has {len(given)} characters, and {LONGEST} is the most")
    return checked("device", given if given.startswith(f"{user}-") else f"{user}-{checked('device', given)}")


def _check_room(connection: Connection, user: str, name: str, now: float) -> None:
    """Raises ConfigError if the person has as many devices, or links for them, as they may."""
    most = endpoint.find(connection).devices_max
    own = {device.name for device in devices.of_user(connection, user)}
    waiting = {purpose.removeprefix(PURPOSE) for purpose in links.purposes(connection, user, now)}
    if len(own | waiting - {name}) >= most:
        raise ConfigError(f"you have {len(own)} devices of the {most} that a person may have; remove one first")


def _add(change: Change, user: str, name: str, form: dict[str, str]) -> _Made:
    """Add a device with the key that the form has, or one made here. Raises ConfigError."""
    how, key = form.get("how"), None
    if how in ("here", "mine"):
        try:
            key = PublicKey.from_base64(form.get("public_key", "").strip())
        except KeyFormatError as error:
            raise ConfigError(f"public key: {error}") from None
        if devices.name_of(change.connection, key):  # whose it is concerns nobody else
            raise ConfigError("public key: it is in use already; make another key")
    elif how != "gateway":
        raise ConfigError("choose who makes the key")
    return _Made(label(name, user), enrol(change, name, user, key).file, key is None)


def _form(request: Request, form: dict[str, str], *, status: int = 200, error: str = "", claimed: str = "") -> Response:
    values = {key: form.get(key, "") for key in ("name", "public_key")}
    how = form.get("how", "gateway")
    return render(request, "portal/add.html", status=status, error=error, claimed=claimed, how=how, **values)


def _answer(request: Request, made: _Made) -> Response:
    """The file: as JSON for our script, which adds the private key to it, else as a page with a QR code."""
    if _wants_json(request):
        return JSONResponse({"file_name": made.file_name, "file": made.text})
    return render(
        request,
        "portal/made.html",
        made=made,
        qr=_qr(made.text) if made.has_key else "",
        file=_data("application/octet-stream", made.text.encode()),
    )


def _refusal(request: Request, form: dict[str, str], error: ConfigError, claimed: str = "") -> Response:
    if _wants_json(request):
        raise error
    return _form(request, form, status=400, error=str(error), claimed=claimed)


def _link(request: Request, name: str, url: str, now: float) -> Response:
    return render(request, "portal/link.html", label=name, url=url, qr=_qr(url), expires_at=now + LIFETIME)


def _used_up(request: Request) -> Response:
    """The same for a link that was used, has expired, or never was one."""
    if _wants_json(request):
        raise HTTPException(404, GONE)
    return render(request, "error.html", status=404, title="This link is of no use", detail=GONE)


def _wants_json(request: Request) -> bool:
    return request.headers.get("accept", "").startswith("application/json")


def _qr(text: str) -> str:
    """A QR code as a URL of an image; empty if the text is too long for one."""
    try:
        return _data("image/png", qr_code(text, show=False))
    except ConfigError:
        return ""


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
