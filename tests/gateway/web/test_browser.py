"""The browser that judges our pages finds what is wrong with bad ones, and nothing in the template of all pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.gateway.web.browser import browser

pytestmark = pytest.mark.peer

BAD = b"""<!doctype html><html><head><title>Bad</title></head><body>
<h1>Bad</h1><p style="color: #bbb; background: #fff">pale</p><input type="text"><div style="width: 2000px">wide</div>
<script src="/missing.js"></script></body></html>"""
HEAVY = (
    b"<!doctype html><html lang=en><title>Heavy</title><main><h1>Heavy</h1><!--" + b"x" * 100_000 + b"--></main></html>"
)


@contextmanager
def pages(**contents: bytes) -> Iterator[str]:
    """Serve pages by name. Yields their origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = contents.get(self.path.strip("/"))
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.root  # Chromium's own sandbox needs namespaces, which not everybody may make
def test_problems_of_pages_are_found() -> None:
    with pages(bad=BAD, heavy=HEAVY) as origin, browser() as chrome:
        chrome.open(f"{origin}/bad")
        found = "\n".join(chrome.problems())
        for what in ("color-contrast", "label", "html-has-lang", "pixels too wide", "missing.js"):
            assert what in found
        assert "bytes" not in found
        chrome.open(f"{origin}/heavy")
        assert [each for each in chrome.problems() if "favicon" not in each] == [f"/heavy has {len(HEAVY)} bytes"]
