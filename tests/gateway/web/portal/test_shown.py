"""The portal in a real browser: what people do there, and that everybody can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.web.browser import PHONE, Browser
from tests.gateway.web.conftest import URL
from tests.gateway.web.portal.people import furnished
from tests.gateway.web.shown import content, scanned, shown, sign_in
from wgpy.config.wgquick import parse
from wgpy.gateway.store import devices
from wgpy.gateway.web.site import Site
from wgpy.keys import PublicKey

TAB, ENTER = "\ue004", "\ue007"  # https://www.w3.org/TR/webdriver2/#keyboard-actions
SPY = "window.sent = []; const real = fetch; window.fetch = (...all) => { sent.push(all); return real(...all) }"
pytestmark = pytest.mark.root


@pytest.fixture
def chrome(site: Site, tmp_path: Path) -> Iterator[Browser]:
    """Alice's browser."""
    site = furnished(site)
    with shown(site, tmp_path) as made:
        sign_in(made, site, "alice")
        yield made


def key_of(site: Site, name: str) -> PublicKey:
    with site.database.read() as connection:
        return devices.find(connection, name).public_key


def file_shown(chrome: Browser) -> str:
    text: str = chrome.script("return document.querySelector('pre').textContent")
    return text


def saved(chrome: Browser, path: Path) -> str:
    """The text of a file that the browser saves, in the place of an empty one that it makes at first."""
    chrome.wait_for(lambda: path.exists() and path.stat().st_size > 0)
    return path.read_text()


def test_every_page_is_accessible_light_and_dark_on_a_desktop_and_on_a_phone(chrome: Browser, site: Site) -> None:
    found = []
    for path in ("/", "/devices/add", "/reach", "/missing"):
        chrome.open(URL + path)
        found += [each for each in chrome.problems() if "404" not in each]
    for name, choice in (("tv", "The gateway"), ("watch", "Another device, which gets a link")):
        chrome.open(f"{URL}/devices/add")
        chrome.fill(name=name)
        chrome.press(choice)
        chrome.go("Add")
        found += chrome.problems()
    chrome.open(file_shown(chrome).strip())
    found += chrome.problems()
    chrome.open(f"{URL}/devices/add")
    chrome.fill(name="tv")
    chrome.go("Add")
    assert "exists already" in chrome.text
    found += [each for each in chrome.problems() if "400" not in each]
    chrome.driver.delete_all_cookies()
    sign_in(chrome, site, "carol")
    chrome.open(URL)
    assert "You have no device yet" in chrome.text
    found += chrome.problems()
    assert found == []


def test_the_qr_code_and_the_saved_file_say_what_the_page_says(chrome: Browser, site: Site, tmp_path: Path) -> None:
    downloads = {"behavior": "allow", "downloadPath": str(tmp_path)}
    chrome.driver.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
    chrome.open(f"{URL}/devices/add")
    chrome.fill(name="tv")
    chrome.go("Add")
    text = file_shown(chrome)
    assert scanned(content(chrome.find("figure img").get_attribute("src"))) == text.strip()
    chrome.look(size=PHONE)
    chrome.screenshot(tmp_path / "page.png")
    assert scanned((tmp_path / "page.png").read_bytes()) == text.strip(), "a camera that sees the page"
    chrome.press("Save tv.conf")
    assert saved(chrome, tmp_path / "tv.conf") == text
    key = parse(text).config.private_key
    assert key
    assert key.public_key == key_of(site, "alice-tv")


def test_a_key_that_the_browser_makes_never_leaves_it(chrome: Browser, site: Site, tmp_path: Path) -> None:
    downloads = {"behavior": "allow", "downloadPath": str(tmp_path)}
    chrome.driver.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
    chrome.open(f"{URL}/devices/add")
    chrome.wait("!document.getElementById('here-choice').hidden")
    chrome.script(SPY)
    chrome.fill(name="tv")
    chrome.press("This browser")
    chrome.press("Add")
    chrome.wait("!document.getElementById('made-here').hidden")
    assert chrome.problems() == []
    chrome.press("Save the file")
    config = parse(saved(chrome, tmp_path / "tv.conf")).config
    assert config.private_key
    assert config.private_key.public_key == key_of(site, "alice-tv")
    assert config.peers[0].preshared_key
    ((_, request),) = chrome.script("return sent.map(([url, request]) => [url, String(request.body)])")
    assert config.private_key.public_key.base64().rstrip("=") in request.replace("%2B", "+").replace("%2F", "/")
    assert "private" not in request.lower()
    assert config.private_key.base64().rstrip("=") not in request.replace("%2B", "+").replace("%2F", "/")
    assert config.private_key.base64() not in "".join(
        chrome.script("return [document.cookie, ...Object.values(localStorage), ...Object.values(sessionStorage)]")
    )


def test_a_phone_that_opens_a_link_makes_its_own_key(chrome: Browser, site: Site) -> None:
    chrome.open(f"{URL}/devices/add")
    chrome.fill(name="watch")
    chrome.press("Another device, which gets a link")
    chrome.go("Add")
    link = file_shown(chrome).strip()
    assert scanned(content(chrome.find("figure img").get_attribute("src"))) == link
    chrome.driver.delete_all_cookies()
    chrome.look(size=PHONE)
    chrome.open(link)
    chrome.wait("!document.getElementById('here-choice').hidden")
    chrome.press("This browser")
    chrome.press("Set up")
    chrome.wait("!document.getElementById('made-here').hidden")
    assert chrome.problems() == []
    assert key_of(site, "alice-watch")
    chrome.open(link)
    assert "This link is of no use" in chrome.text


def test_what_is_wrong_is_said_when_the_browser_makes_the_key(chrome: Browser) -> None:
    chrome.open(f"{URL}/devices/add")
    chrome.wait("!document.getElementById('here-choice').hidden")
    chrome.fill(name="phone")
    chrome.press("This browser")
    chrome.press("Add")
    chrome.wait("!document.getElementById('add-problem').hidden")
    assert "exists already" in chrome.text


def test_a_device_is_removed_with_the_keyboard_and_without_scripts(chrome: Browser, site: Site) -> None:
    chrome.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    chrome.open(URL)
    chrome.find("body").send_keys(TAB)
    assert chrome.driver.switch_to.active_element.text == "Skip to the content"
    chrome.driver.switch_to.active_element.send_keys(ENTER)
    for _ in range(20):
        chrome.driver.switch_to.active_element.send_keys(TAB)
        if chrome.driver.switch_to.active_element.tag_name == "summary":
            break
    chrome.driver.switch_to.active_element.send_keys(ENTER)
    chrome.driver.switch_to.active_element.send_keys(TAB)
    assert chrome.driver.switch_to.active_element.text == "Remove laptop"
    chrome.driver.switch_to.active_element.send_keys(ENTER)
    chrome.wait_for(lambda: "laptop is removed." in chrome.find("main").text)
    with site.database.read() as connection:
        assert [each.name for each in devices.of_user(connection, "alice")] == ["alice-phone", "alice-tablet"]
