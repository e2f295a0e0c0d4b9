"""Passkeys (https://www.w3.org/TR/webauthn-3/): what browsers are asked, and whether the answer is right.

The authenticator must have verified its person by a PIN, a finger or a face, so a passkey alone is enough to sign in.
Which authenticator it is, is not asked for.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from wgpy.errors import ConfigError
from wgpy.gateway.store.passkeys import Passkey

_CHALLENGE: Final = 32  # bytes
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,1364}")  # of at most 1023 bytes (section 4, Credential ID)
_TIMEOUT: Final = 5 * 60 * 1000  # milliseconds that browsers give people


class NotVerified(ConfigError):
    """An answer of a browser that proves nothing. The text says why, for the log."""


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """The site that passkeys are for: a passkey of one site is of no use at another."""

    id: str
    origin: str

    @classmethod
    def of(cls, url: str) -> RelyingParty | None:
        """The relying party of the endpoint's `url`; None if browsers make no passkeys for it, as for an address."""
        host = urlsplit(url).hostname or ""
        try:
            ip_address(host)
        except ValueError:
            return cls(host, url) if host else None
        return None


def new_challenge() -> bytes:
    """What an authenticator has to sign."""
    return secrets.token_bytes(_CHALLENGE)


def creation_options(
    site: RelyingParty, challenge: bytes, user: str, handle: bytes, existing: Iterable[Passkey]
) -> dict[str, Any]:
    """What `navigator.credentials.create` gets, as JSON (section 5.4): a new passkey, not beside an `existing` one."""
    from webauthn import generate_registration_options
    from webauthn.helpers.structs import (
        AuthenticatorSelectionCriteria,
        ResidentKeyRequirement,
        UserVerificationRequirement,
    )

    options = generate_registration_options(
        rp_id=site.id,
        rp_name="wgpy gateway",
        user_name=user,
        user_id=handle,
        challenge=challenge,
        timeout=_TIMEOUT,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=_descriptors(existing),
    )
    return _json(options)


def request_options(site: RelyingParty, challenge: bytes, allowed: Iterable[Passkey] = ()) -> dict[str, Any]:
    """What `navigator.credentials.get` gets, as JSON (section 5.5): one of `allowed`, or any for this site."""
    from webauthn import generate_authentication_options
    from webauthn.helpers.structs import UserVerificationRequirement

    options = generate_authentication_options(
        rp_id=site.id,
        challenge=challenge,
        timeout=_TIMEOUT,
        allow_credentials=_descriptors(allowed),
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return _json(options)


def registered(site: RelyingParty, challenge: bytes, answer: str, *, user: str, name: str, issued_at: float) -> Passkey:
    """The passkey that a browser has made for a challenge issued at that time (section 7.1). Raises NotVerified."""
    from webauthn import verify_registration_response
    from webauthn.helpers import bytes_to_base64url

    try:
        made = verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=site.id,
            expected_origin=site.origin,
            require_user_verification=True,
        )
    except Exception as error:  # a stranger has written the answer, and the library has many errors for what is wrong
        raise NotVerified(f"passkey: {_line(error)}") from error
    return Passkey(
        id=bytes_to_base64url(made.credential_id),
        user=user,
        name=name,
        public_key=made.credential_public_key,
        counter=made.sign_count,
        made_at=issued_at,
        used_at=issued_at,
    )


def id_of(answer: str) -> str:
    """Which passkey an answer claims to be of, in base64url; empty if it is no such answer. It proves nothing yet."""
    try:
        found = json.loads(answer)["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""


def asserted(site: RelyingParty, challenge: bytes, answer: str, passkey: Passkey, handle: bytes) -> int:
    """Verify what a passkey of the user whom passkeys call `handle` has signed (section 7.2). Raises NotVerified.

    Returns its new counter. The caller sees to it that each challenge is answered once.
    """
    from webauthn import verify_authentication_response
    from webauthn.helpers import parse_authentication_credential_json

    try:
        credential = parse_authentication_credential_json(answer)
        if credential.response.user_handle not in (None, b"", handle):
            raise ValueError("the passkey says that it is another user's")
        verified = verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=site.id,
            expected_origin=site.origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=passkey.counter,
            require_user_verification=True,
        )
    except Exception as error:  # a stranger's answer, as in `registered`
        raise NotVerified(f"passkey: {_line(error)}") from error
    return verified.new_sign_count


def _line(error: Exception) -> str:
    """An error that may quote what a stranger has sent, as one line for the log."""
    return "".join(filter(str.isprintable, str(error)))[:300]


def _descriptors(passkeys: Iterable[Passkey]) -> list[Any]:
    from webauthn import base64url_to_bytes
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

    return [PublicKeyCredentialDescriptor(id=base64url_to_bytes(each.id)) for each in passkeys]


def _json(options: Any) -> dict[str, Any]:
    from webauthn import options_to_json

    found: dict[str, Any] = json.loads(options_to_json(options))
    return found
