"""Codes of authenticator apps (TOTP, RFC 6238), and recovery codes for those who have lost theirs."""

from __future__ import annotations

import base64
import hmac
import secrets
from typing import Final

from pyotp import TOTP

from wgpy.gateway.policy.logins import CODE_PERIOD

_DIGITS: Final = 6
_SEED: Final = 20  # bytes, the length of SHA-1's output (RFC 4226, section 4)
_WINDOW: Final = (0, -1, 1)  # steps: a clock may be wrong, and typing takes time (RFC 6238, section 5.2)
_CODES: Final = 10
_CODE: Final = 10  # bytes of a recovery code, which is therefore too long to be guessed


def new_seed() -> bytes:
    """A seed that an authenticator app and the gateway share."""
    return secrets.token_bytes(_SEED)


def text(seed: bytes) -> str:
    """The seed as people type it into an app: base32."""
    return base64.b32encode(seed).decode()


def uri(seed: bytes, user: str, gateway: str) -> str:
    """What the QR code has: the seed, and what the app shows (github.com/google/google-authenticator/wiki)."""
    return TOTP(text(seed), digits=_DIGITS, interval=CODE_PERIOD).provisioning_uri(name=user, issuer_name=gateway)


def step_of(seed: bytes, code: str, wall: float) -> int | None:
    """The step of time, a number of periods since 1970, that a code is of; None if it is not one of about now.

    The caller sees to it that no step is used twice (RFC 6238, section 5.2).
    """
    code = code.replace(" ", "")
    totp, now = TOTP(text(seed), digits=_DIGITS, interval=CODE_PERIOD), int(wall) // CODE_PERIOD
    steps = [now + each for each in _WINDOW if now + each >= 0]
    right = [hmac.compare_digest(totp.generate_otp(step).encode(), code.encode(errors="replace")) for step in steps]
    return next((step for step, is_right in zip(steps, right, strict=True) if is_right), None)


def new_recovery_codes() -> list[str]:
    """Codes such as "k3jx-22ab-7qde-mnop", each of which replaces the app once."""
    raw = [base64.b32encode(secrets.token_bytes(_CODE)).decode().lower() for _ in range(_CODES)]
    return ["-".join(each[place : place + 4] for place in range(0, len(each), 4)) for each in raw]


def recovery_code(typed: str) -> str:
    """A recovery code as it was shown, however it was typed."""
    bare = "".join(each for each in typed.lower() if each.isalnum())
    return "-".join(bare[place : place + 4] for place in range(0, len(bare), 4))
