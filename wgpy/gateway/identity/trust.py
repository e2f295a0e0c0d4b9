"""Whose certificates are believed where the gateway, or a device that enrols, is the client of TLS."""

from __future__ import annotations

import ssl

from wgpy.errors import ConfigError


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
