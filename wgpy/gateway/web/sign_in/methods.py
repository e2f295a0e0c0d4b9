"""The ways to sign in. Local users have a password and passkeys; directories add ways of their own here.

A directory that checks passwords itself, such as LDAP, adds its kind to `PASSWORDS`: the name and password that
somebody has typed on the sign-in page are checked by the source of the user, and those of a name that nobody has yet by
each such directory in turn. A password never goes to another directory than the user's own, nor a local user's to any.

A directory that proves who somebody is by itself, such as OIDC, adds its kind to `BUTTONS`: a link on the sign-in page
leads to a path where it begins. In the end it calls `wgpy.gateway.web.logins.begin`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from wgpy.errors import ControlError
from wgpy.gateway.identity import passwords
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.oidc import sign_in_path
from wgpy.gateway.policy.people import LOCAL, Person
from wgpy.gateway.store import directories, users
from wgpy.gateway.web.sign_in import ldap
from wgpy.gateway.web.site import Site


class Button(NamedTuple):
    """A link on the sign-in page that looks like a button: it leads to `path`, with `?next=`."""

    path: str
    text: str


Check = Callable[[Site, Directory, str, str], Person | None]
"""Who in a directory has this name and password; None if nobody. Raises ControlError if the directory cannot say."""

PASSWORDS: Final[dict[str, Check]] = {"ldap": ldap.check}
"""By kind of directory: what checks a password. It runs in a thread."""
BUTTONS: Final[dict[str, Callable[[Directory], Button]]] = {
    "oidc": lambda directory: Button(sign_in_path(directory.name), f"Sign in with {directory.name}")
}
"""By kind of directory: its button."""


def buttons(site: Site) -> list[Button]:
    """The buttons of the sign-in page."""
    with site.database.read() as connection:
        found = directories.find_all(connection)
    return [BUTTONS[each.kind](each) for each in found if each.kind in BUTTONS]


def check_password(site: Site, name: str, password: str) -> Person | None:
    """Whose name and password these are; None if nobody's. Raises ControlError if a directory cannot be asked.

    A name that nobody has costs as much as one with a wrong password: without such directories, hashing it once.
    """
    with site.database.read() as connection:
        source, _ = users.origin(connection, name) or ("", None)
        every = [each for each in directories.find_all(connection) if each.kind in PASSWORDS]
    asked = [each for each in every if source in ("", each.name)]
    if source != LOCAL and (person := _ask(site, asked, name, password)):
        return person
    if not passwords.check(site.database, site.hasher, name, password) or source != LOCAL:
        return None
    return Person(name=name)


def _ask(site: Site, asked: Iterable[Directory], name: str, password: str) -> Person | None:
    """The first person that a directory knows by this name and password."""
    failed: ControlError | None = None
    for directory in asked:
        try:
            if person := PASSWORDS[directory.kind](site, directory, name, password):
                return person
        except ControlError as error:
            failed = error
    if failed:
        raise failed
    return None
