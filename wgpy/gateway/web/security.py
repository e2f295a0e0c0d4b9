"""What every request passes before a handler sees it, and what every answer carries.

`Guard` refuses a request whose Host is not that of the endpoint's `url`, or that another site has made a browser send
(https://owasp.org/www-community/attacks/csrf), or whose body is too long. It believes X-Forwarded-For and
X-Forwarded-Proto from the proxy that was named, and removes them otherwise. At the unix socket, which browsers cannot
open, only the length of the body is checked.

It puts into `request.state`:

- `site`, what handlers work with (`wgpy.gateway.web.site`),
- `csrf_token`, what each form of the person who is signed in has to send as the field `csrf_token`; empty if nobody is.

Forms are received with `posted`, which checks that token.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import wraps
from hashlib import sha256
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wgpy.config.redact import HIDDEN
from wgpy.gateway.web.problems import problem
from wgpy.gateway.web.site import Site, peer_of

log: Final = logging.getLogger("wgpy.gateway")

COOKIE: Final = "__Host-wgpy"  # of a person who is signed in
LONGEST_BODY: Final = 1 << 20  # bytes
LONGEST_FORM: Final = 64 << 10  # bytes
LONGEST_HEAD: Final = 16 << 10  # bytes
PIECE: Final = 64 << 10  # bytes of an answer that are sent at once
_TOO_LONG: Final = f"the body has more than {LONGEST_BODY} bytes"
MOST_FIELDS: Final = 1000
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_NUL: Final = "there is a NUL byte in this, which no name and no database may have"
_FORWARDED: Final = (b"x-forwarded-", b"forwarded", b"x-real-ip")
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # not no-referrer, with which browsers send `Origin: null` with our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=31536000",
    "Cache-Control": "no-store",
}


class _Refused(Exception):
    """The request is refused, with this status and sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Guard:
    """The outermost ASGI application, around that of `wgpy.gateway.web.app`."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        started = False
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > LONGEST_BODY:
                raise HTTPException(413, _TOO_LONG)
            return message

        async def protected(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers["Date"] = formatdate(usegmt=True)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            body = message.get("body", b"")
            for place in range(0, len(body) - PIECE, PIECE):  # so that a slow client gets time for each piece
                await send({"type": message["type"], "body": body[place : place + PIECE], "more_body": True})
                message["body"] = body[place + PIECE :]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, bounded, protected)
        except _Refused as refused:
            answer = problem(refused.status, refused.detail, {"Connection": "close"})
        except Exception:
            log.exception("a request to %s %a failed: this is a bug", scope["method"], _path(scope))
            answer = problem(500, "this is a bug of wgpy's; the gateway's log has the details", {"Connection": "close"})
        else:
            return
        if not started:
            await answer(scope, receive, protected)

    def _check(self, scope: Scope) -> None:
        """Refuse, or complete the scope."""
        headers = Headers(scope=scope)
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        scope["state"] |= {"site": self._site, "csrf_token": csrf_token(cookie) if cookie else ""}
        head = [
            scope.get("raw_path") or b"",
            scope["query_string"],
            *(part for pair in scope["headers"] for part in pair),
        ]
        if sum(map(len, head)) > LONGEST_HEAD:
            raise _Refused(431, f"the request line and headers have more than {LONGEST_HEAD} bytes")
        if int(headers.get("content-length", 0)) > LONGEST_BODY:  # which is a number, as h11 has seen to
            raise _Refused(413, _TOO_LONG)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise _Refused(400, _NUL)
        if peer_of(scope) is not None:
            return
        if self._site.proxy is not None:
            scope["client"], scope["scheme"] = (_forwarded_for(headers), 0), "https"
        scope["headers"] = [(name, value) for name, value in scope["headers"] if not name.startswith(_FORWARDED)]
        host = headers.get("host", "").lower()
        if not self._site.host or host != self._site.host:
            raise _Refused(421, f"host {host!a}: this gateway is at {self._site.url or 'no url yet'}")
        if scope["method"] not in _SAFE:
            self._check_origin(headers)

    def _check_origin(self, headers: Headers) -> None:
        """Refuse what another site has made a browser send. No site can make one send `Authorization`."""
        if (origin := headers.get("origin")) is not None:
            is_ours = origin == self._site.url
        else:  # a browser that sends neither, of before 2020, may read but not change anything
            is_ours = headers.get("sec-fetch-site") == "same-origin" or "authorization" in headers
        if not is_ours:
            raise _Refused(403, f"this request comes from another site; start at {self._site.url}")


def _path(scope: Scope) -> str:
    """The path of a request for the log, without the secret of a link."""
    secret, path = scope.get("path_params", {}).get("secret"), str(scope["path"])
    return path.replace(secret, HIDDEN) if secret else path


def csrf_token(cookie: str) -> str:
    """What the forms of a person who is signed in with this cookie have to send."""
    return hmac.new(cookie.encode(errors="replace"), b"forms of wgpy gateway", sha256).hexdigest()


def posted(handler: Callable[[Request, dict[str, str]], Response]) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a form: `handler` gets the request and the form's fields, and runs in a thread.

    Of fields with the same name, it gets the last; `fields` has all. A form that is too long, of another type, or that
    was not made for the person who is signed in, is refused.
    """

    @wraps(handler)
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(handler, request, dict(await fields(request)))

    return endpoint


async def fields(request: Request, most: int = LONGEST_FORM) -> list[tuple[str, str]]:
    """The fields of a form, which may have so many bytes. Raises HTTPException as `posted` says."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "expected a form (application/x-www-form-urlencoded)")
    body = await body_of(request, "a form", most)
    try:
        found = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise HTTPException(400, "this is not a form in UTF-8") from None
    if any("\0" in text for pair in found for text in pair):
        raise HTTPException(400, _NUL)
    check_csrf(request, dict(found).get("csrf_token", ""))
    return found


async def body_of(request: Request, what: str, most: int) -> bytes:
    """The body of a request, which may have so many bytes. Raises HTTPException, as soon as it has more."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise HTTPException(413, f"{what} has at most {most} bytes")
    return bytes(body)


def check_csrf(request: Request, token: str) -> None:
    """Refuse a form, or the request of a script, that is not of the person who is signed in. Raises HTTPException."""
    if not hmac.compare_digest(request.state.csrf_token.encode(), token.encode(errors="replace")):
        raise HTTPException(403, "this form is of another sign-in; load the page again")


def _forwarded_for(headers: Headers) -> str:
    """The client's address: the last one named, because the proxy adds it to what the client itself may have sent."""
    said = [each for value in headers.getlist("x-forwarded-for") for each in value.split(",")]
    protocols = [each for value in headers.getlist("x-forwarded-proto") for each in value.split(",")]
    if not protocols or protocols[-1].strip() != "https":
        raise _Refused(400, "the proxy must say `X-Forwarded-Proto: https`, and serve these pages over TLS only")
    try:
        return str(ip_address(said[-1].strip().partition("%")[0]))
    except (IndexError, ValueError):
        raise _Refused(400, "the proxy must add the client's address to X-Forwarded-For") from None
