"""Authenticator apps and passkeys: what a page shows to set one up or to ask for one, and what a form proves."""

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from starlette.requests import Request

from wgpy.errors import ConfigError
from wgpy.gateway.identity import passkeys, tickets, totp
from wgpy.gateway.identity.passkeys import NotVerified, RelyingParty
from wgpy.gateway.store import credentials
from wgpy.gateway.store import passkeys as stored
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.passkeys import Passkey
from wgpy.gateway.web.site import Site, address_of, site_of

log: Final = logging.getLogger("wgpy.gateway")

WRONG_CODE: Final = "This code is wrong, or it was used already. The app shows another one every 30 seconds."
NO_PASSKEY: Final = "This passkey is not known here, or it took too long. Try again, or sign in with your password."
NOT_MADE: Final = "The passkey could not be made, or it took too long. Try again."
MOST_PASSKEYS: Final = 20  # of one user
_LIFETIME: Final = 10 * 60  # seconds for which a page is good
_CREATE, _ASSERT, _TOTP = "make a passkey", "sign in with a passkey", "set up an authenticator app"
_LONGEST_NAME: Final = 60


class Question(NamedTuple):
    """What a page asks a browser's authenticator, as JSON, and the ticket that the form sends back with the answer."""

    options: str
    ticket: str


class Assertion(NamedTuple):
    """What a passkey has signed, and is good for once."""

    user: str
    passkey: str
    counter: int
    issued_at: float


class NewApp(NamedTuple):
    """What a page shows to set up an authenticator app."""

    picture: str
    """The QR code as an image's URL (data:)."""
    secret: str
    ticket: str


def to_assert(site: Site, allowed: Iterable[Passkey]) -> Question | None:
    """Ask for one of these passkeys, or for any if there are none; None if browsers have none for this site."""
    if (party := RelyingParty.of(site.url)) is None:
        return None
    challenge = passkeys.new_challenge()
    return _question(site, _ASSERT, passkeys.request_options(party, challenge, allowed), challenge)


def asserted(request: Request, form: dict[str, str], user: str = "") -> Assertion | None:
    """What a passkey, of `user` if one is given, has signed that this form sends; None if it proves nothing.

    It only reads: strangers send forms, and should not keep those waiting who write.
    """
    site, answer = site_of(request), form.get("answer", "")
    party = RelyingParty.of(site.url)
    ticket = tickets.read(site.database.vault, _ASSERT, form.get("ticket", ""), site.wall(), _LIFETIME)
    if party is None or ticket is None:
        return None
    with site.database.read() as connection:
        passkey = stored.find(connection, passkeys.id_of(answer))
        known = credentials.find(connection, passkey.user) if passkey else None
    if passkey is None or known is None or user not in ("", passkey.user):
        return None
    try:
        counter = passkeys.asserted(party, b64decode(ticket.values["challenge"]), answer, passkey, known.handle)
    except NotVerified as error:
        log.warning("sign-in of %s from %s refused: %s", passkey.user, address_of(request), error)
        return None
    return Assertion(passkey.user, passkey.id, counter, ticket.issued_at)


def used(change: Change, assertion: Assertion) -> bool:
    """Use an assertion up. Returns False if it was, or one of a challenge that was issued later."""
    return stored.use(change, assertion.passkey, assertion.counter, assertion.issued_at)


def to_create(change: Change, site: Site, user: str) -> Question | None:
    """Ask for a new passkey of a user; None if browsers make none for this site."""
    if (party := RelyingParty.of(site.url)) is None:
        return None
    challenge, existing = passkeys.new_challenge(), stored.find_all(change.connection, user)
    handle = credentials.handle(change, user)
    options = passkeys.creation_options(party, challenge, user, handle, existing)
    return _question(site, _CREATE, options, challenge, user=user)


def add_passkey(change: Change, request: Request, form: dict[str, str], user: str) -> bool:
    """Add the passkey that a form sends; False if it proves nothing. Raises ConfigError if there are too many."""
    site = site_of(request)
    party = RelyingParty.of(site.url)
    ticket = tickets.read(site.database.vault, _CREATE, form.get("ticket", ""), site.wall(), _LIFETIME)
    if party is None or ticket is None or ticket.values["user"] != user:
        return False
    challenge, name = b64decode(ticket.values["challenge"]), _name(form.get("name", ""))
    try:
        made = passkeys.registered(
            party, challenge, form.get("answer", ""), user=user, name=name, issued_at=ticket.issued_at
        )
    except NotVerified as error:
        log.warning("passkey of %s from %s refused: %s", user, address_of(request), error)
        return False
    if len(stored.find_all(change.connection, user)) >= MOST_PASSKEYS:
        raise ConfigError(f"passkey {name}: {user} has {MOST_PASSKEYS} already; remove one first")
    stored.add(change, made)
    return True


def new_app(site: Site, user: str, ticket: str = "") -> NewApp:
    """Show the seed of an authenticator app; that of a former page's ticket, if it is good, after a wrong code."""
    import segno

    found = tickets.read(site.database.vault, _TOTP, ticket, site.wall(), _LIFETIME)
    if found is None or found.values["user"] != user:
        seed = totp.new_seed()
        ticket = tickets.issue(site.database.vault, _TOTP, site.wall(), user=user, seed=b64encode(seed).decode())
    else:
        seed = b64decode(found.values["seed"])
    code = segno.make(totp.uri(seed, user, site.host), micro=False)
    return NewApp(code.svg_data_uri(scale=5, light="#fff", border=4), totp.text(seed), ticket)


def add_app(change: Change, request: Request, form: dict[str, str], user: str) -> list[str] | None:
    """Set up the app whose code a form sends. Returns the recovery codes; None if the code is wrong."""
    site = site_of(request)
    ticket = tickets.read(site.database.vault, _TOTP, form.get("ticket", ""), site.wall(), _LIFETIME)
    if ticket is None or ticket.values["user"] != user:
        return None
    seed = b64decode(ticket.values["seed"])
    step = totp.step_of(seed, form.get("code", ""), site.wall())
    if step is None:
        return None
    codes = totp.new_recovery_codes()
    credentials.set_totp(change, user, seed, step, codes)
    return codes


def proved_by_code(change: Change, user: str, typed: str, wall: float) -> str:
    """What a typed code proves: "totp" or "recovery code", which it proves once; empty if nothing."""
    seed = credentials.totp_seed(change, user)
    if seed is None:
        return ""
    step = totp.step_of(seed, typed, wall)
    if step is not None:
        return "totp" if credentials.use_step(change, user, step) else ""
    return "recovery code" if credentials.use_recovery_code(change, user, totp.recovery_code(typed)) else ""


def _question(site: Site, purpose: str, options: dict[str, Any], challenge: bytes, **values: str) -> Question:
    values["challenge"] = b64encode(challenge).decode()
    return Question(json.dumps(options), tickets.issue(site.database.vault, purpose, site.wall(), **values))


def _name(given: str) -> str:
    """What a person calls a passkey."""
    kept = "".join(each for each in given.strip() if each.isprintable())
    return kept[:_LONGEST_NAME] or "passkey"
