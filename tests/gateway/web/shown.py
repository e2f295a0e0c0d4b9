"""The site in a real browser: served over TLS at https://vpn.example.org, by a certificate that the browser trusts."""

from __future__ import annotations

import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.gateway.web.browser import Browser, browser
from tests.gateway.web.conftest import URL, serving
from wgpy.gateway.store import logins
from wgpy.gateway.web.app import application
from wgpy.gateway.web.certificate import own_certificate
from wgpy.gateway.web.security import COOKIE
from wgpy.gateway.web.site import Site


@contextmanager
def shown(site: Site, directory: Path) -> Iterator[Browser]:
    """A browser that finds the site, which is served in a thread. It keeps its certificate in `directory`."""
    path = directory / "https.pem"
    certificate = own_certificate(path, URL, datetime.now(UTC))
    with (
        serving(application(site), lambda web: web.listen_tcp("127.0.0.1:0", certificate)) as port,
        browser(hosts={"vpn.example.org": f"127.0.0.1:{port}"}, trusting=[path]) as chrome,
    ):
        yield chrome


def sign_in(chrome: Browser, site: Site, user: str, url: str = URL) -> None:
    """Give the browser the cookie of somebody who has signed in."""
    with site.database.change("root") as change:
        value = logins.add(change, user, "password", "127.0.0.1")
    cookie = {"name": COOKIE, "value": value, "url": url, "path": "/", "secure": True, "httpOnly": True}
    chrome.driver.execute_cdp_cmd("Network.setCookie", cookie)


def scanned(picture: bytes) -> str:
    """What a QR code in a PNG says, as an independent program reads it."""
    done = subprocess.run(["zbarimg", "--quiet", "--raw", "-"], input=picture, capture_output=True, check=True)
    return done.stdout.decode().strip()


def content(url: str) -> bytes:
    """What a data: URL has."""
    return b64decode(url.partition(",")[2])
