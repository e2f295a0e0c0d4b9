"""The pictures of pages in the documentation: python -m tests.gateway.web.pictures

With a directory, all pages in light and dark, on a desktop and on a phone, for somebody to look at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from ipaddress import ip_network
from math import cos, sin
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

from tests.gateway.web.browser import DESKTOP, PHONE, Browser
from tests.gateway.web.conftest import URL, Running
from tests.gateway.web.portal.people import furnished
from tests.gateway.web.shown import shown, sign_in
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.policy.traffic import Rate
from wgpy.gateway.service.status import status
from wgpy.gateway.store import endpoint, groups, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.web.site import Site
from wgpy.keys import PrivateKey

PICTURES: Final = Path(__file__).parents[3] / "docs" / "how-to" / "pictures"


def _open(path: str) -> Callable[[Browser], None]:
    return lambda chrome: chrome.open(URL + path)


def _add(choice: str) -> Callable[[Browser], None]:
    def add(chrome: Browser) -> None:
        chrome.open(f"{URL}/devices/add")
        chrome.fill(name="phone-2")
        chrome.press(choice)
        chrome.go("Add")

    return add


Pages = dict[str, Callable[[Browser], None]]
PAGES: Final[dict[str, Pages]] = {  # by who sees them
    "alice": {
        "portal-devices": _open("/"),
        "portal-add": _open("/devices/add"),
        "portal-reach": _open("/reach"),
        "portal-link": _add("Another device, which gets a link"),
        "portal-qr": _add("The gateway"),
    },
    "root": {
        f"console-{name}": _open(f"/console{path}")
        for name, path in {
            "overview": "", "users": "/users", "user": "/users/alice", "device": "/devices/alice-phone",
            "rule": "/rules/intranet", "test": "/test?user=alice&destination=10.50.2.7", "sessions": "/sessions",
            "log": "/log", "audit": "/audit", "settings": "/settings", "tokens": "/tokens",
            "directory": "/directories/corp", "directory-new": "/add/directory/oidc",
            "directory-change": "/directories/corp/change", "directories": "/directories",
            "certificates": "/certificates", "transfer": "/transfer", "new": "/add/device",
        }.items()
    },
}  # fmt: skip
LOOKS: Final[dict[str, tuple[tuple[int, int], bool]]] = {  # the screen, and whether it is dark
    "": ((900, 560), False),
    "-dark": (DESKTOP, True),
    "-phone": (PHONE, False),
    "-phone-dark": (PHONE, True),
}
SHOWN: Final = (
    "portal-devices", "portal-add-phone", "portal-qr-phone-dark", "console-overview", "console-test-phone-dark",
)  # fmt: skip


def main(directory: Path, names: Collection[str]) -> None:
    """Take the pictures of these names, or of every page in every look if there are none."""
    directory.mkdir(exist_ok=True)
    with TemporaryDirectory() as place, patch("wgpy.gateway.web.console.overview.status", _well):
        site = furnished(site_at(Path(place)))
        with shown(site, Path(place)) as chrome:
            for user, pages in PAGES.items():
                sign_in(chrome, site, user)
                for name, page in pages.items():
                    page(chrome)
                    for suffix, (size, dark) in LOOKS.items():
                        if not names or name + suffix in names:
                            chrome.look(size=size, dark=dark)
                            chrome.screenshot(directory / f"{name}{suffix}.{'webp' if names else 'png'}")


def _well(database: Database) -> dict[str, Any]:
    """What the overview would say if the gateway ran."""
    return {**status(database), "healthy": True, "why_not": "", "dropped": {"no session": 1204, "no rule": 87}}


def site_at(place: Path) -> Site:
    """A site whose database is new, in this directory, with Alice and two groups."""
    database = Database.create(place / "gateway.db", place / "gateway.key")
    settings = Endpoint(host="vpn.example.org", pools=(ip_network("10.99.0.0/22"), ip_network("fd00:99::/64")), url=URL)
    with database.change("root") as change:
        endpoint.add(change, settings, PrivateKey.generate())
        for name in ("staff", "ops"):
            groups.add(change, Group(name=name))
        users.add(change, User(name="alice", groups=frozenset({"staff"})))
    ways = [Rate(600.0 - 10 * n, 3e6 + 2e6 * sin(n / 6), 9e6 + 6e6 * cos(n / 4)) for n in range(61)]
    return Site(database=database, service=Running(settings, passed=ways))


if __name__ == "__main__":
    if sys.argv[1:]:
        main(Path(sys.argv[1]), ())
    else:
        main(PICTURES, SHOWN)
