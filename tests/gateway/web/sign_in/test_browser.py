"""Signing in with a real browser, whose authenticator is its own (chromedriver's virtual one)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyotp import TOTP, parse_uri

from tests.gateway.web.browser import Browser, browser
from tests.gateway.web.conftest import Running, serving
from tests.gateway.web.shown import sign_in
from tests.gateway.web.sign_in.conftest import Clock
from tests.support.canaille import CLIENT, Canaille
from tests.support.canaille import PASSWORD as PROVIDERS_PASSWORD
from wgpy.gateway.policy.oidc import callback_path
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.store import endpoint, groups, links, users
from wgpy.gateway.web.app import application
from wgpy.gateway.web.certificate import own_certificate
from wgpy.gateway.web.server import WebServer
from wgpy.gateway.web.site import Site

pytestmark = pytest.mark.peer

HOST, PASSWORD = "vpn.example.org", "four plain words here"


@contextmanager
def served(site: Site, directory: Path) -> Iterator[str]:
    """Serve a site over TLS, at a port of this machine. Yields its origin, which is the endpoint's url meanwhile."""
    certificate = own_certificate(directory / "https.pem", f"https://{HOST}", datetime.now(UTC))

    def listen(server: WebServer) -> int:
        return server.listen_tcp("127.0.0.1:0", certificate)

    with serving(application(site), listen, site.clients.close) as port:
        assert isinstance(site.service, Running)
        site.service.endpoint = replace(site.service.endpoint, url=f"https://{HOST}:{port}")
        with site.database.change("root") as change:
            endpoint.replace(change, site.service.endpoint)
        yield site.url


def authenticator(chrome: Browser, *, verifies: bool = True) -> Any:
    """Give the browser an authenticator, as a laptop with a fingerprint reader has one."""
    from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions

    options = VirtualAuthenticatorOptions(
        protocol="ctap2", transport="internal", has_resident_key=True, has_user_verification=True,
        is_user_verified=verifies,
    )  # fmt: skip
    return chrome.driver.add_virtual_authenticator(options)


def scan(chrome: Browser, directory: Path) -> TOTP:
    """What an authenticator app makes of the QR code that is shown."""
    picture = directory / "code.png"
    chrome.find("figure.qr img").screenshot(str(picture))
    read = subprocess.run(["zbarimg", "-q", "--raw", picture], capture_output=True, text=True, check=True, timeout=30)
    found = parse_uri(read.stdout.strip())
    assert isinstance(found, TOTP)
    assert (found.name, found.issuer) == ("bob", chrome.script("return location.host"))
    return found


@pytest.mark.root  # for Chromium
def test_a_person_sets_up_an_app_and_a_passkey_and_signs_in_with_each(site: Site, clock: Clock, tmp_path: Path) -> None:
    with site.database.change("root") as change:
        users.add(change, User(name="bob"))
        secret = links.add(change, links.SET_UP, "bob", 60.0)
    trusting = [tmp_path / "https.pem"]
    with served(site, tmp_path) as url, browser(hosts={HOST: "127.0.0.1"}, trusting=trusting) as chrome:
        problems = []

        def judge(path: str) -> None:
            """The page that is shown is this one, and nothing is wrong with it."""
            chrome.wait(f"location.pathname == '{path}' && document.readyState == 'complete'")
            problems.extend(chrome.problems())

        chrome.open(f"{url}/set-up/{secret}")
        judge(f"/set-up/{secret}")
        chrome.fill(password=PASSWORD, again=PASSWORD)
        chrome.press("Set the password")
        judge("/sign-in/enrol")
        app = scan(chrome, tmp_path)
        chrome.find("section[aria-labelledby=app-title] [name=code]").send_keys(app.at(int(clock.now)))
        chrome.press("Use this app")
        judge("/sign-in/enrol/totp")
        assert "Your recovery codes" in chrome.text

        held = authenticator(chrome)
        chrome.open(f"{url}/account/factors")
        judge("/account/factors")
        chrome.fill(name="laptop")
        chrome.press("Make a passkey")
        chrome.wait("location.pathname == '/account'")
        assert "Passkey “laptop”" in chrome.text
        judge("/account")
        chrome.open(f"{url}/account/factors")
        chrome.press("Make a passkey")
        chrome.wait("document.querySelector('[role=alert]:not([hidden])')")
        assert "has a passkey for this site already" in chrome.text

        clock.now += 31  # each code, and each challenge, is good once
        chrome.open(f"{url}/account")
        chrome.press("Sign out")
        judge("/sign-in")
        assert "You are signed out." in chrome.text
        chrome.open(f"{url}/sign-in?next=/account")
        chrome.press("Sign in with a passkey")
        judge("/account")

        clock.now += 1
        chrome.open(f"{url}/sign-in?next=/account")
        chrome.fill(name="bob", password=PASSWORD)
        chrome.press("Sign in")
        judge("/sign-in/second")
        chrome.press("Use a passkey")
        chrome.wait("location.pathname == '/account'")
        assert "password, passkey" in chrome.text

        chrome.open(f"{url}/sign-in?next=/account")
        chrome.fill(name="bob", password=PASSWORD)
        chrome.press("Sign in")
        chrome.fill(code=app.at(int(clock.now)))
        chrome.press("Sign in")
        judge("/account")

        chrome.driver.set_user_verified(False)
        chrome.open(f"{url}/sign-in")
        chrome.press("Sign in with a passkey")
        chrome.wait("document.querySelector('[role=alert]:not([hidden])')")
        assert chrome.path == "/sign-in", "the browser itself refuses somebody whom it has not verified"
        del held
        assert problems == []


def add_directory(chrome: Browser, site: Site, url: str, provider: Canaille) -> None:
    """Add the provider in the console, which asks it, and sign out."""
    with site.database.change("root") as change:
        groups.add(change, Group(name="admins"))
        users.add(change, User(name="root", groups=frozenset({"admins"})))
    sign_in(chrome, site, "root", url)
    chrome.open(f"{url}/console/add/directory/oidc")
    chrome.fill(name="corp", issuer=f"{provider.issuer}/x", client_id=CLIENT[0], secret=CLIENT[1])
    chrome.fill(names="vpn-staff=staff")
    chrome.script("document.querySelector('[name=ca]').value = arguments[0]", provider.ca.read_text())
    chrome.go("Check and add")
    assert "Nothing was saved" in chrome.text
    chrome.driver.get_log("browser")  # the refusal, of which the browser's console tells
    assert chrome.find("[name=secret]").get_attribute("value") == ""
    chrome.fill(issuer=provider.issuer, secret=CLIENT[1])
    chrome.go("Check and add")
    assert "Directory corp added. It answers, and can be used as it is set." in chrome.text
    chrome.driver.delete_all_cookies()


@pytest.mark.root  # for Chromium
def test_a_person_signs_in_by_openid_connect_and_signs_out_there_as_well(site: Site, tmp_path: Path) -> None:
    certificates = [tmp_path / "https.pem", tmp_path / "localhost.pem"]
    with served(site, tmp_path) as url:
        uris = [f"{url}{callback_path('corp')}"]
        with Canaille(tmp_path, uris) as provider, browser(hosts={HOST: "127.0.0.1"}, trusting=certificates) as chrome:
            add_directory(chrome, site, url, provider)
            chrome.open(f"{url}/sign-in?next=/account")
            problems = chrome.problems()
            chrome.press("Sign in with corp")
            chrome.wait(f"location.port == '{provider.port}' && document.querySelector('[name=login]')")
            chrome.fill(login="bob")
            chrome.find("[name=login]").submit()
            chrome.wait("document.querySelector('[name=password]')")
            chrome.fill(password=PROVIDERS_PASSWORD)
            chrome.find("[name=password]").submit()
            chrome.wait(f"location.host == '{url.removeprefix('https://')}' && location.pathname == '/account'")
            assert "directory corp" in chrome.text
            with site.database.read() as connection:
                bob = users.find(connection, "bob")
            assert (bob.source, bob.email) == ("corp", "bob@example.org")
            assert bob.groups == {"staff"}
            problems += chrome.problems()

            chrome.press("Sign out")
            chrome.wait("location.pathname == '/sign-in'")
            problems += chrome.problems()
            chrome.press("Sign out there as well")
            chrome.wait("location.pathname == '/sign-in' && !document.body.innerText.includes('still be signed in')")
            chrome.press("Sign in with corp")
            chrome.wait(f"location.port == '{provider.port}' && document.querySelector('[name=login]')")  # asked again
            assert [each for each in problems if provider.issuer not in each] == []  # whose pages are not ours
