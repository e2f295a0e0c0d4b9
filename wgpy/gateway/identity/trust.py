"""Whose certificates are believed where the gateway, or a device that enrols, is the client of TLS."""

from __future__ import annotations

import ssl
from typing import Final

from wgpy.errors import ConfigError

LONGEST: Final = 256 << 10  # characters of certificates that are kept; the authorities of all the web have fewer


def context(ca: str | None) -> ssl.SSLContext:
    """TLS that checks the server's certificate and name against `ca`, in PEM; None for the system's authorities.

    Comments between the certificates may be in any language. Raises ConfigError if there is no certificate in `ca`.
    """
    if ca is not None:
        ca = ca.encode("ascii", "replace").decode() + "\n"  # because Python takes an empty text for the system's
    try:
        return ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"expected certificates in PEM: {error}") from error


def check(pem: str) -> None:
    """Check certificates in PEM before they are kept. Raises ConfigError, which does not repeat them.

    What is kept is shown and recorded, so a private key among them is refused.
    """
    if "PRIVATE KEY-----" in pem:
        raise ConfigError("there is a private key among the certificates; give the certificates only")
    if len(pem) > LONGEST:
        raise ConfigError(f"certificates of more than {LONGEST >> 10} KiB; give only those of the authority")
    context(pem)
