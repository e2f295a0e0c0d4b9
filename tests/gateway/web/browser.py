"""A real browser: Debian's Chromium, driven by Selenium in the network namespace of whoever calls.

To run it in another namespace, call the body of a test there (`Namespace.call`).
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

DESKTOP: Final = (1280, 800)
PHONE: Final = (360, 740)  # the width that every page has to fit
HEAVIEST: Final = 100_000  # bytes of a page with all that it loads
SEEN_TO: Final = ("serious", "critical")  # axe's impacts that no page may have
_CHROMEDRIVER, _CHROMIUM = "/usr/bin/chromedriver", "/usr/bin/chromium"


class Browser:
    """Chromium without a screen. `driver` is Selenium's, for all that is not here."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Load a page."""
        self.driver.get(url)

    @property
    def path(self) -> str:
        """The path of the page that is shown."""
        path: str = self.script("return location.pathname")
        return path

    @property
    def text(self) -> str:
        """What a person sees of the page."""
        text: str = self.script("return document.body.innerText")
        return text

    def script(self, text: str, *arguments: object) -> Any:
        """Run JavaScript in the page, as somebody at the browser's console may."""
        return self.driver.execute_script(text, *arguments)

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector. Raises NoSuchElementException."""
        return self.driver.find_element("css selector", selector)

    def fill(self, **fields: str) -> None:
        """Type into fields, by their names."""
        for name, value in fields.items():
            field = self.find(f"[name={name}]")
            field.clear()
            field.send_keys(value)

    def press(self, text: str) -> None:
        """Press the first button, link or label that is shown and has this text."""
        shown = f"normalize-space()='{text}'"
        names = " or ".join(f"self::{name}" for name in ("button", "a", "summary", "label"))
        every = self.driver.find_elements("xpath", f"//*[{names}][{shown}]")
        next(each for each in every if each.is_displayed()).click()

    def go(self, text: str) -> None:
        """Press what leads to another page, or to the same one again, and wait for that."""
        self.script("window.isLeft = true")
        self.press(text)
        self.wait("!window.isLeft && document.readyState === 'complete'")

    def wait(self, condition: str, seconds: float = 10.0) -> None:
        """Wait until an expression of JavaScript is true. Raises TimeoutException."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, 0.05).until(
            lambda _: self.script(f"return Boolean({condition})"), condition
        )

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until something is so; a page that has just been left does not count. Raises TimeoutException."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, seconds, 0.05, [StaleElementReferenceException])
        waiting.until(lambda _: condition())

    def look(self, *, dark: bool = False, size: tuple[int, int] = DESKTOP) -> None:
        """Prefer light or dark colours, and have a screen of this size; one as wide as a phone is a phone's."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page, however long it is: a PNG, or what else the file's name says."""
        self.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        width, height = self.script("return [innerWidth, Math.max(innerHeight, document.body.scrollHeight)]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        options = {"format": path.suffix[1:], "captureBeyondViewport": True, "clip": clip}
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]))

    def problems(self) -> list[str]:
        """What is wrong with the page that is shown, in light and dark, on a desktop and on a phone.

        That is what axe-core finds serious, what does not fit a phone, a page that is too heavy, and whatever the
        browser's console has complained of since this was last asked, such as a breach of the security policy.
        """
        found = [f"console: {entry['message']}" for entry in self.driver.get_log("browser")]
        if (size := self.weight()) > HEAVIEST:
            found.append(f"{self.path} has {size} bytes")
        for screen in (DESKTOP, PHONE):
            for dark in (False, True):
                self.look(dark=dark, size=screen)
                found += [f"{self.path} {'dark' if dark else 'light'} {screen[0]}: {each}" for each in self._seen(dark)]
        self.look()
        return found

    def weight(self) -> int:
        """The bytes of the page and of all that it has loaded, before compression."""
        entries = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        return int(self.script(f"return {entries}.reduce((sum, each) => sum + each.decodedBodySize, 0)"))

    def _seen(self, dark: bool) -> Iterator[str]:
        if (wide := self.script("return document.documentElement.scrollWidth - innerWidth")) > 0:
            yield f"{wide} pixels too wide"
        if not self.script("return Boolean(window.axe)"):
            self.script(_axe())
        options: dict[str, Any] = {"resultTypes": ["violations"]}
        if dark:  # a dark page is the light one in other colours (wgpy.css), and all other rules would find the same
            options["runOnly"] = ["cat.color"]
        run = "const [options, done] = arguments; axe.run(options).then((found) => done(found.violations))"
        for violation in self.driver.execute_async_script(run, options):
            if violation["impact"] in SEEN_TO:
                nodes = "; ".join(node["html"] for node in violation["nodes"][:3])
                yield f"axe: {violation['id']} ({violation['impact']}): {violation['help']}: {nodes}"


@contextmanager
def browser(
    *, hosts: Mapping[str, str] | None = None, trusting: Sequence[Path] = (), language: str = "en"
) -> Iterator[Browser]:
    """Start a browser. It finds `hosts`, names and their addresses, and trusts the certificates in these files of PEM.

    Skips the test where there is none.
    """
    if not (shutil.which(_CHROMEDRIVER) and shutil.which(_CHROMIUM) and find_spec("selenium")):
        pytest.skip("needs Selenium, chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = _CHROMIUM
    with TemporaryDirectory(prefix="browser-") as profile:
        for flag in (
            "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
            f"--user-data-dir={profile}", f"--lang={language}", f"--window-size={DESKTOP[0]},{DESKTOP[1]}",
            f"--host-resolver-rules={','.join(f'MAP {name} {to}' for name, to in (hosts or {}).items())}",
            # A page with an error of its certificate may not use passkeys, so those that are known have none.
            f"--ignore-certificate-errors-spki-list={','.join(map(_key_hash, trusting))}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ):  # fmt: skip
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "WARNING"})
        driver = webdriver.Chrome(options, webdriver.ChromeService(_CHROMEDRIVER))
        try:
            driver.set_page_load_timeout(30)
            driver.set_script_timeout(30)
            made = Browser(driver)
            made.look()
            yield made
        finally:
            driver.quit()


def _axe() -> str:
    """axe-core's source. The package has the current one; it is for Playwright, of which nothing is used."""
    found = find_spec("axe_playwright_python")
    assert found
    assert found.submodule_search_locations
    return (Path(found.submodule_search_locations[0]) / "axe.min.js").read_text()


def _key_hash(path: Path) -> str:
    """The SHA-256 of a certificate's public key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_pem_x509_certificate(path.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()
