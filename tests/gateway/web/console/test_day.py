"""An administrator's day in a real browser, from the first sign-in to a session that is terminated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.gateway.web.browser import Browser
from tests.gateway.web.conftest import URL
from tests.gateway.web.console.conftest import SESSION, session_row
from tests.gateway.web.shown import content, scanned, shown
from tests.gateway.web.sign_in.test_browser import scan
from wgpy.config.wgquick import parse
from wgpy.gateway.identity import administration, passwords
from wgpy.gateway.store import audit, devices, groups, rules, sessions, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.web.site import Site

pytestmark = pytest.mark.peer

NOW, PASSWORD = 1_795_683_600.0, "four plain words here"


@pytest.fixture
def fresh(database: Database, site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A gateway that was just made, where hashing costs little."""
    monkeypatch.setattr(passwords, "MEMORY", 64)
    database.clock = lambda: NOW
    with database.change("root") as change:
        users.remove(change, "alice")
        for name in ("staff", "ops"):
            groups.remove(change, name)
    return replace(site, wall=lambda: NOW)


@pytest.mark.root  # for Chromium
def test_an_administrators_day(fresh: Site, tmp_path: Path) -> None:
    with fresh.database.change("root") as change:
        link = administration.first_administrator(change, "bob").url
    problems: list[str] = []
    with shown(fresh, tmp_path) as chrome:
        first_sign_in(chrome, link, tmp_path)

        chrome.open(f"{URL}/console")
        assert [line for line in chrome.text.splitlines() if line.startswith("Add a")] == [
            "Add a route: a network behind the gateway",
            "Add a group of people who may reach the same",
            "Add a rule: what a group may reach. Without one, nobody reaches anything",
            "Add a user",
            "Add a device: a user's phone or laptop",
        ]
        chrome.go("Add a route: a network behind the gateway")
        chrome.fill(network="10.50.0.1/16")
        chrome.go("Add")
        assert "10.50.0.1/16 has host bits set; expected a network such as 10.0.0.0/16" in chrome.text
        assert chrome.find("[name=network]").get_attribute("value") == "10.50.0.1/16"
        problems += [each for each in chrome.problems() if "status of 400" not in each]
        chrome.fill(network="10.50.0.0/16")
        chrome.go("Add")
        chrome.open(f"{URL}/console/add/group")
        chrome.fill(name="staff", description="everybody")
        chrome.go("Add")
        chrome.open(f"{URL}/console/add/rule")
        chrome.fill(name="intranet", destination="10.50.1.0/24:443/tcp")
        chrome.press("The groups that are ticked below")
        chrome.press("staff")
        chrome.go("Add")
        chrome.open(f"{URL}/console/add/user")
        chrome.fill(name="alice", expires="2027-06-30")
        chrome.press("staff")
        chrome.go("Add")
        assert "User alice added." in chrome.text
        chrome.go("Add a device")
        chrome.fill(name="alice-phone")
        chrome.go("Add")
        assert "Device alice-phone added" in chrome.text
        problems += chrome.problems()
        file = scanned(content(chrome.find("figure.qr img").get_attribute("src")))
        assert file.strip() == chrome.script("return document.querySelector('pre').textContent").strip()
        with fresh.database.read() as connection:
            assert str(rules.find(connection, "intranet")) == "intranet (10.50.1.0/24:443/tcp for staff)"
            assert users.find(connection, "alice").groups == {"staff"}
            key = devices.find(connection, "alice-phone").public_key
            assert {entry["who"] for entry in audit.of(connection, "device", "alice-phone")} == {"user bob"}
        private = parse(file).config.private_key
        assert private
        assert private.public_key == key

        chrome.open(f"{URL}/console/test")
        chrome.fill(user="alice", destination="10.50.1.7:443/tcp")
        chrome.go("Test")
        assert "Allowed" in chrome.text
        assert "by rule intranet" in chrome.text
        problems += chrome.problems()

        chrome.open(f"{URL}/console")
        assert "Left to do" not in chrome.text
        assert "alice-phone" not in chrome.text
        begin_session(fresh)
        chrome.wait("document.body.innerText.includes('alice-phone')")  # which the script brings
        assert chrome.find("[data-text=sessions]").text == "1"
        problems += chrome.problems()
        chrome.go("All sessions")
        chrome.go("Terminate the session of alice-phone")
        chrome.go("Terminate the session")
        assert "1 session ends within a second." in chrome.text
    with fresh.database.read() as connection:
        assert sessions.terminated(connection, [SESSION]) == {SESSION}
    assert problems == []


def first_sign_in(chrome: Browser, link: str, directory: Path) -> None:
    """Choose a password and set up an app, as whoever has the link from `wgpy gateway init` does."""
    chrome.open(link)
    chrome.fill(password=PASSWORD, again=PASSWORD)
    chrome.go("Set the password")
    app = scan(chrome, directory)
    chrome.find("section[aria-labelledby=app-title] [name=code]").send_keys(app.at(int(NOW)))
    chrome.go("Use this app")
    assert "Your recovery codes" in chrome.text


def begin_session(site: Site) -> None:
    """What the service writes when a device has sent its first packet."""
    with site.database.change("gateway") as change:
        sessions.write(change, [session_row(SESSION, "alice-phone", "alice", NOW - 60)])
