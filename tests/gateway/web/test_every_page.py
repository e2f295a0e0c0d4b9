"""Every page of the site, as an administrator sees it in a real browser, is accessible, light enough, and fits a phone.

A route that is neither in `EXAMPLES` nor in `NO_PAGES` is opened as it is, so a new page cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from starlette.routing import Route

from tests.gateway.conftest import Places
from tests.gateway.identity.authority import Authority
from tests.gateway.web.conftest import URL
from tests.gateway.web.portal.people import furnished
from tests.gateway.web.shown import shown, sign_in
from wgpy.gateway.policy import certificates as policy
from wgpy.gateway.store import certificates, links
from wgpy.gateway.store.certificates import Bound
from wgpy.gateway.web.app import PARTS
from wgpy.gateway.web.site import Site

pytestmark = pytest.mark.peer

EXAMPLES = {
    "/console/users/{name}": "/console/users/alice",
    "/console/groups/{name}": "/console/groups/staff",
    "/console/devices/{name}": "/console/devices/alice-phone",
    "/console/rules/{name}": "/console/rules/intranet",
    "/console/routes/{name}": "/console/routes/10.50.0.0_16",
    "/console/sessions/{name}": "/console/sessions/0123456789abcdef",
    "/console/directories/{name}": "/console/directories/corp",
    "/console/directories/{name}/change": "/console/directories/corp/change",
}
NO_PAGES = {
    "/console/now": "for the script of the overview",
    "/console/transfer/export": "a file",
    "/sign-in/second": "only between two steps, where the tests of signing in look at it",
    "/sign-in/enrol": "as before",
    "/sign-in/directory/{name}": "leads to the provider, with which the tests of OpenID Connect have it opened",
    "/sign-in/directory/{name}/callback": "leads back from there",
    "/sign-in/directory/{name}/sign-out": "leads there as well",
    "/link/{name}/{secret}": "opened below",
    "/set-up/{secret}": "opened below",
}


def pages() -> Iterator[str]:
    """The paths of all pages."""
    for part in PARTS:
        for route in import_module(part).routes():
            if isinstance(route, Route) and "GET" in (route.methods or ()) and route.path not in NO_PAGES:
                path = EXAMPLES.get(route.path, route.path)
                assert "{" not in path, f"{route.path} is in neither list"
                yield path


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return lambda name: tmp_path / f"{name}.db"


@pytest.mark.root  # for Chromium
def test_nothing_is_wrong_with_any_page(site: Site, tmp_path: Path) -> None:
    site = furnished(site)
    with site.database.change("root") as change:
        set_up = links.add(change, links.SET_UP, "carol", 300.0)
        device = links.add(change, "device carol-phone", "carol", 300.0)
        root = Authority.root(tmp_path / "ca")
        lists = root.crl(tmp_path / "list.crl").read_text()
        certificates.set_authority(change, policy.Authority(ca=root.pem(), crl=lists))
        bound = Bound(device="alice-phone", subject="CN=alice", serial="1", expires=2e9, chain="", proved_at=0.0)
        certificates.bind(change, bound)
    found: list[str] = []
    with shown(site, tmp_path) as chrome:
        for path in ("/sign-in", f"/set-up/{set_up}", f"/link/carol-phone/{device}"):
            chrome.open(URL + path)
            assert chrome.path == path
            found += chrome.problems()
        sign_in(chrome, site, "root")
        for path in pages():
            chrome.open(URL + path)
            assert (chrome.path, chrome.script("return performance.getEntries()[0].responseStatus")) == (path, 200)
            found += chrome.problems()
    assert found == []
