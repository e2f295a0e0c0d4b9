"""The page of a link from `wgpy gateway user invite`: somebody chooses a password, once."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from wgpy.gateway.identity import passwords
from wgpy.gateway.store import credentials, endpoint, links, logins, users
from wgpy.gateway.web.logins import SIGN_IN, admit, check_allowed, keep
from wgpy.gateway.web.pages import redirect, render
from wgpy.gateway.web.sign_in import half
from wgpy.gateway.web.site import site_of


def show(request: Request) -> Response:
    """The form. The link stays good, because mail programs open links, too."""
    site, secret = site_of(request), request.path_params["secret"]
    with site.database.read() as connection:
        user = links.find(connection, links.SET_UP, secret, site.wall())
    return _page(request, user) if user else _gone()


def use(request: Request, form: dict[str, str]) -> Response:
    """Set the password, and go on to the second factor."""
    site, secret = site_of(request), request.path_params["secret"]
    with site.database.read() as connection:
        user = links.find(connection, links.SET_UP, secret, site.wall())
    if user is None:
        return _gone()
    if why := refusal(user, form):
        return _page(request, user, why, 400)
    encoded = site.hasher.hash(form["password"])
    with site.database.change(f"user {user}") as change:
        if links.take(change, links.SET_UP, secret) != user:
            return _gone()
        person = users.find(change.connection, user)
        check_allowed(person, change.now)
        credentials.set_password(change, user, encoded)
        logins.end_all(change, user)
        needs_more = endpoint.find(change.connection).second_factor or credentials.has_second_factor(
            change.connection, user
        )
        cookie, said = ("", "") if needs_more else admit(change, request, person, "link")
    return half.go_on(request, person, "link", "/") if needs_more else keep(redirect("/", said), cookie)


def refusal(user: str, form: dict[str, str]) -> str:
    """Why the password that was chosen twice in a form is refused; empty if it is not."""
    password = form.get("password", "")
    if password != form.get("again", ""):
        return "The two passwords are not the same."
    return passwords.refusal(user, password)


def _gone() -> Response:
    return redirect(SIGN_IN, "This link was used already, or is too old. Ask an administrator for another one.")


def _page(request: Request, user: str, error: str = "", status: int = 200) -> Response:
    return render(
        request, "sign_in/set_up.html", status=status, error=error, name=user, shortest=passwords.SHORTEST,
        longest=passwords.LONGEST,
    )  # fmt: skip
