"""A request of an administrator, and what the console's pages are made with.

Every route of the console is made by `page` or `action`, which let only administrators in. What the store refuses is
the sentence that the command line prints: at the form, with what was typed, or on a page of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wgpy.errors import ConfigError, KeyFormatError, WgpyError
from wgpy.gateway.policy.people import User
from wgpy.gateway.policy.problems import Unusable
from wgpy.gateway.policy.revision import revision
from wgpy.gateway.policy.texts import difference, moment, printable_lines
from wgpy.gateway.store import audit
from wgpy.gateway.store.database import Change, Database
from wgpy.gateway.store.lookup import Conflict
from wgpy.gateway.web import pages
from wgpy.gateway.web.logins import require_admin, require_fresh
from wgpy.gateway.web.security import LONGEST_FORM, fields
from wgpy.gateway.web.site import Site, site_of

ROOT: Final = "/console"
SECTIONS: Final = (
    ("", "Overview"),
    ("/users", "Users"),
    ("/groups", "Groups"),
    ("/devices", "Devices"),
    ("/rules", "Rules"),
    ("/routes", "Routes"),
    ("/sessions", "Sessions"),
    ("/log", "Logs"),
    ("/settings", "Settings"),
)
"""The parts of the console: the first page of each, and what it is called."""
_OF_SETTINGS: Final = ("tokens", "directories", "certificates", "transfer")
_PAGES: Final = {"test": "/rules", "audit": "/log", **dict.fromkeys(_OF_SETTINGS, "/settings")}
Handler = Callable[["Visit"], Response]


class Stale(ConfigError):
    """Somebody else has changed the object since the form was shown."""


class Form:
    """What was sent by a form: fields by name, of which there may be several of one name."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self._fields = fields

    def text(self, name: str) -> str:
        """A text without the spaces around it, with lines as on Unix; empty if it was not sent."""
        return next((value.strip().replace("\r\n", "\n") for key, value in self._fields if key == name), "")

    def lines(self, name: str) -> list[str]:
        """The lines that are not empty."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]

    def chosen(self, name: str) -> list[str]:
        """All values of that name, as of checkboxes."""
        return [value for key, value in self._fields if key == name]

    def groups(self) -> list[str]:
        """The names of the groups that are ticked, and of those that are typed because there are too many to tick."""
        typed = (name.strip() for name in self.text("more_groups").split(","))
        return [*self.chosen("group"), *filter(None, typed)]

    def check(self) -> None:
        """Raises ConfigError if a field has characters that no name or text here may have."""
        for name, value in self._fields:
            printable_lines(name.replace("_", " "), value)


class Visit:
    """A request: who asks, and what for."""

    def __init__(self, request: Request, admin: User, form: Form) -> None:
        self.request: Request = request
        self.admin: User = admin
        self.form: Form = form
        self.site: Site = site_of(request)
        self.database: Database = self.site.database

    sections: Final = SECTIONS

    @property
    def path(self) -> str:
        """The page's address within the console."""
        return self.request.url.path.removeprefix(ROOT)

    @property
    def section(self) -> str:
        """The first page of the part of the console that this page belongs to."""
        _, *words = self.path.split("/")
        kind = f"{words[1]}s".replace("ys", "ies") if words[:1] == ["add"] and words[1:] else "".join(words[:1])
        return _PAGES.get(kind, f"/{kind}")

    @property
    def name(self) -> str:
        """The name of the object in the page's address. Raises ConfigError for one that nothing can have."""
        name: str = self.request.path_params["name"]
        if not name.isprintable():
            raise ConfigError(f"{name!a}: has control characters, so there is nothing of that name")
        return name

    @cached_property
    def wall(self) -> float:
        """The time in seconds since 1970."""
        return self.site.wall()

    def asked(self, name: str) -> str:
        """A parameter of the page's address, without control characters; empty if there is none."""
        return "".join(filter(str.isprintable, self.request.query_params.get(name, ""))).strip()

    @property
    def number(self) -> int:
        """Which page of a long table is asked for, from 1."""
        text = self.asked("page")
        return int(text) if text.isdecimal() and len(text) < 10 else 1

    def page_path(self, number: int) -> str:
        """The address of another page of the same table, with the same search."""
        return f"?{self.request.url.include_query_params(page=number).query}"

    def what(self, entry: Mapping[str, Any]) -> str:
        """What an entry of the audit log is about."""
        return difference(entry["before"], entry["after"])

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from."""
        with self.database.read() as connection:
            yield connection

    @contextmanager
    def changing(self) -> Iterator[Change]:
        """A transaction in the name of whoever asks. Raises ConfigError for what cannot be stored."""
        self.form.check()
        with self.database.change(f"user {self.admin.name}") as change:
            yield change

    def check_groups(self, before: Collection[str], after: Collection[str]) -> None:
        """Who makes, changes or removes an administrator must have signed in a few minutes ago. Raises HTTPException.

        `before` and `after` are the groups of the user who is changed; none for no user.
        """
        if self.site.service.endpoint.admin_group in {*before, *after}:
            require_fresh(self.request)

    def check_unchanged(self, connection: Connection, kind: str, name: str, present: Mapping[str, Any]) -> None:
        """Raises Stale if the object is not as it was when its form was shown, and says who changed what."""
        if self.form.text("revision") == revision(present):
            return
        last = next(iter(audit.of(connection, kind, name)), None)
        what = (
            f": {last['who']} at {moment(last['at'])} UTC: {difference(last['before'], last['after'])}" if last else ""
        )
        raise Stale(
            f"{kind} {name}: somebody else has changed it since you opened this page{what}. Nothing was saved. Below "
            "is what you typed; save it again to replace the other change, or reload the page to see that"
        )

    def show(self, template: str, error: WgpyError | None = None, **values: Any) -> Response:
        """Render a page; with an error, the form that it is about. What is wrong with a field is said at that field."""
        why = error.why if isinstance(error, Unusable) else {}
        said = "Nothing was saved. What is wrong is said below, at each field." if why else str(error or "")
        return pages.render(
            self.request, f"console/{template}", status=status_of(error) if error else 200, error=said, errors=why,
            visit=self, **values,
        )  # fmt: skip

    def done(self, path: str, said: str) -> Response:
        """Go to a page, which says what was done."""
        return pages.redirect(ROOT + path, said)


def status_of(error: WgpyError) -> int:
    """The HTTP status of what the store refuses."""
    if isinstance(error, Stale | Conflict):
        return 409
    return 400 if isinstance(error, ConfigError | KeyFormatError) else 503


def path_of(kind: str, name: str) -> str:
    """The address of an object's page, within the console. The networks that routes are named by have a slash."""
    return f"/{kind}/{quote(name.replace('/', '_'), safe='')}"


def page(path: str, handler: Handler, *, unattended: bool = False, fresh: bool = False) -> Route:
    """The route of a page. What a script asks for again and again is `unattended`: it keeps nobody signed in.

    With `fresh`, as for `action`, which keeps people from filling in a form that they may not send.
    """

    def endpoint(request: Request) -> Response:
        request.state.unattended = unattended
        if fresh:
            require_fresh(request)
        return _answer(Visit(request, require_admin(request), Form(())), handler, missing=404)

    return Route(ROOT + path, endpoint, methods=["GET"])


def action(path: str, handler: Handler, *, fresh: bool = False, most: int = LONGEST_FORM) -> Route:
    """The route of a form. What its handler does not show at the form itself, it tells on a page.

    With `fresh`, the administrator must have signed in a few minutes ago: somebody else may have found the browser.
    The form may have `most` bytes.
    """

    async def endpoint(request: Request) -> Response:
        admin = await run_in_threadpool(require_admin, request)
        if fresh:
            await run_in_threadpool(require_fresh, request)
        visit = Visit(request, admin, Form(await fields(request, most)))
        return await run_in_threadpool(_answer, visit, handler, missing=400)

    return Route(ROOT + path, endpoint, methods=["POST"])


def _answer(visit: Visit, handler: Handler, *, missing: int) -> Response:
    try:
        return handler(visit)
    except WgpyError as error:
        status = missing if status_of(error) == 400 else status_of(error)
        return pages.render(visit.request, "console/refused.html", status=status, error=str(error), visit=visit)
