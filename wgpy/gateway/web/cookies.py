"""Cookies: of this host and TLS only, and out of reach of scripts.

Browsers take one whose name begins with `__Host-` only if it is Secure and has the path / and no Domain (RFC 6265bis,
section 4.1.3.2), so no other host can plant it.
"""

from __future__ import annotations

from starlette.responses import Response


def keep(response: Response, name: str, value: str, seconds: int, *, strict: bool = False) -> None:
    """Have the browser keep a cookie for so many seconds.

    A `strict` one is not sent with a request that another site's link has led to.
    """
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="strict" if strict else "lax"
    )


def forget(response: Response, name: str) -> None:
    """Have the browser forget a cookie."""
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")
