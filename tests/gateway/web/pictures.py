"""The pictures of pages in the documentation: python -m tests.gateway.web.pictures

With a directory, all pages in light and dark, on a desktop and on a phone, for somebody to look at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.gateway.web.browser import DESKTOP, PHONE, Browser
from tests.gateway.web.conftest import URL, Running
from tests.gateway.web.portal.people import furnished
from tests.gateway.web.shown import shown, sign_in
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import Group, User
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


PAGES: Final[dict[str, Callable[[Browser], None]]] = {
    "devices": _open("/"),
    "add": _open("/devices/add"),
    "reach": _open("/reach"),
    "link": _add("Another device, which gets a link"),
    "qr": _add("The gateway"),
}
LOOKS: Final[dict[str, tuple[tuple[int, int], bool]]] = {  # the screen, and whether it is dark
    "": ((900, 560), False),
    "-dark": (DESKTOP, True),
    "-phone": (PHONE, False),
    "-phone-dark": (PHONE, True),
}
SHOWN: Final = ("devices", "add-phone", "qr-phone-dark")


def main(directory: Path, names: Collection[str]) -> None:
    """Take the pictures of these names, or of every page in every look if there are none."""
    directory.mkdir(exist_ok=True)
    with TemporaryDirectory() as place:
        site = furnished(site_at(Path(place)))
        with shown(site, Path(place)) as chrome:
            sign_in(chrome, site, "alice")
            for name, page in PAGES.items():
                page(chrome)
                for suffix, (size, dark) in LOOKS.items():
                    if not names or name + suffix in names:
                        chrome.look(size=size, dark=dark)
                        chrome.screenshot(directory / f"portal-{name}{suffix}.{'webp' if names else 'png'}")


def site_at(place: Path) -> Site:
    """A site whose database is new, in this directory, with Alice and two groups."""
    database = Database.create(place / "gateway.db", place / "gateway.key")
    settings = Endpoint(host="vpn.example.org", pools=(ip_network("10.99.0.0/22"), ip_network("fd00:99::/64")), url=URL)
    with database.change("root") as change:
        endpoint.add(change, settings, PrivateKey.generate())
        for name in ("staff", "ops"):
            groups.add(change, Group(name=name))
        users.add(change, User(name="alice", groups=frozenset({"staff"})))
    return Site(database=database, service=Running(settings))


if __name__ == "__main__":
    if sys.argv[1:]:
        main(Path(sys.argv[1]), ())
    else:
        main(PICTURES, SHOWN)
