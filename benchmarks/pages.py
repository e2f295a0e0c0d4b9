"""How soon a browser shows the gateway's pages, and how heavy they are: python -m benchmarks.pages [ROUNDS]

The site is served over TLS in this process, and Debian's Chromium runs beside it; both share this machine's cores. A
page's time is from the request until the browser has painted something of it ("first contentful paint"), the median of
the rounds; for the first page of all, nothing is in the browser's cache.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.gateway.web.browser import Browser
from tests.gateway.web.conftest import URL
from tests.gateway.web.pictures import site_at
from tests.gateway.web.portal.people import furnished
from tests.gateway.web.shown import shown, sign_in
from tests.gateway.web.test_every_page import pages

PAINT = "performance.getEntriesByName('first-contentful-paint')"


def painted(chrome: Browser, path: str) -> tuple[float, int]:
    """Open a page. Returns the milliseconds until it was painted, and its bytes."""
    chrome.open(URL + path)
    chrome.wait(f"{PAINT}.length")
    return float(chrome.script(f"return {PAINT}[0].startTime")), chrome.weight()


def main(rounds: int) -> None:
    with TemporaryDirectory() as place:
        site = furnished(site_at(Path(place)))
        with shown(site, Path(place)) as chrome:
            first, _ = painted(chrome, "/sign-in")
            print(f"{'/sign-in':40} {first:6.0f} ms, the first page of all")
            sign_in(chrome, site, "root")
            for path in pages():
                found = [painted(chrome, path) for _ in range(rounds)]
                print(f"{path:40} {median(time for time, _ in found):6.0f} ms {found[0][1] / 1000:6.1f} kB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
