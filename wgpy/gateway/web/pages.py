"""HTML pages: templates rendered for whoever is signed in, what is said after a redirect, and static files.

Templates are in `templates/` and extend `base.html`; what they are made of is in `macros.html`. Everything is escaped
unless it is the template's own. There are no scripts and styles within pages, as the Content-Security-Policy demands.

What `wgpy.gateway.web.security` has found out about a request is in `request.state`: `user` is the name of the person
who is signed in, `is_admin` whether that is an administrator, `csrf_token` what each form of this person has to send.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from wgpy.gateway.policy import texts
from wgpy.gateway.web import cookies

SITE: Final = "wgpy gateway"
_HERE: Final = Path(__file__).parent
_SAID: Final = "__Host-wgpy-said"  # the cookie of what is said on the next page
_SAID_FOR: Final = 60  # seconds: the next page is asked for at once
_LONGEST: Final = 1000  # characters of that
_FOREVER: Final = "public, max-age=31536000, immutable"


def render(request: Request, template: str, *, status: int = 200, error: str = "", **values: Any) -> Response:
    """Render a template of `templates/` with these values. `error` is shown above the page, with what a redirect said.

    The page is not stored by browsers or proxies: it is one person's.
    """
    said = unquote(request.cookies.get(_SAID, ""))[:_LONGEST]
    text = _environment().get_template(template).render(
        site=SITE,
        here=request.url.path,
        user=getattr(request.state, "user", None),
        is_admin=getattr(request.state, "is_admin", False),
        csrf_token=getattr(request.state, "csrf_token", ""),
        messages=[said] if said else [],
        error=error,
        **values,
    )  # fmt: skip
    response = HTMLResponse(text, status, {"Cache-Control": "no-store"})
    if said:
        cookies.forget(response, _SAID)
    return response


def fragment(template: str, **values: Any) -> str:
    """Render a part of a page, for a script that puts it in the place of the one that was there."""
    return _environment().get_template(template).render(values)


def redirect(path: str, said: str = "") -> Response:
    """Answer a form that was sent: the browser gets a page of ours by GET, and `said` is shown on it, once.

    Raises ValueError for a path that would lead to another site.
    """
    if not path.startswith("/") or path.startswith(("//", "/\\")):
        raise ValueError(f"{path!a} is not a path of this site")
    response = RedirectResponse(path, 303)
    if said:
        cookies.keep(response, _SAID, quote(said[:_LONGEST]), _SAID_FOR)
    return response


async def static_file(request: Request) -> Response:
    """The endpoint of `/static/{name}`. A page names each file with a hash of it, so browsers may keep it for good."""
    name = request.path_params["name"]
    files = _static_files()
    if name not in files:
        raise HTTPException(404)
    content, mark = files[name]
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(
        content, 200, {"Cache-Control": _FOREVER if request.url.query == mark else "no-cache"}, media_type=kind
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals["static"] = _static
    made.filters |= {"moment": moment, "expiry": expiry, "time_left": time_left, "size": size, "listed": listed}
    return made


@cache
def _static_files() -> dict[str, tuple[bytes, str]]:
    """The content and a hash of each file of `static/`."""
    files = {path.name: path.read_bytes() for path in (_HERE / "static").iterdir()}
    return {name: (content, sha256(content).hexdigest()[:16]) for name, content in files.items()}


def _static(name: str) -> str:
    return f"/static/{name}?{_static_files()[name][1]}"


def moment(seconds: float | None) -> str:
    """A time since 1970 for people and programs, in UTC: an element of HTML."""
    if seconds is None:
        return "never"
    when = datetime.fromtimestamp(seconds, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        when.isoformat(timespec="seconds"), when.strftime("%Y-%m-%d %H:%M UTC")
    )


def expiry(seconds: float | None) -> str:
    """The end of something, as `moment`; only the day, if it is good until the end of that."""
    text = texts.expiry(seconds)
    return moment(seconds) if seconds is None or " " in text else Markup('<time datetime="{0}">{0}</time>').format(text)


def time_left(seconds: float) -> str:
    """A number of seconds for people, such as "7 h 59 min"."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return "less than a minute"
    days, hours = divmod(minutes // 60, 24)
    parts = [(days, "d"), (hours, "h"), (minutes % 60 if not days else 0, "min")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def size(number: float) -> str:
    """A number of bytes for people, such as "1.2 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def listed(items: Iterable[object]) -> str:
    """Things separated by commas."""
    return ", ".join(map(str, items))
