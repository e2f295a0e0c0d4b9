"""How pages are rendered: escaped, without scripts of their own, and with what a redirect said, once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from wgpy.gateway.web import pages

WEB = Path(pages.__file__).parent
ODD = "<script>alert('x')</script>\"&"


def client(**values: Any) -> TestClient:
    """A browser of an application with one page, of the template that all others extend."""

    async def page(request: Request) -> Response:
        request.state.user, request.state.csrf_token = ODD, ODD
        return pages.render(request, "base.html", **values)

    async def said(request: Request) -> Response:
        return pages.redirect("/", f"{ODD} é")

    routes = [Route("/", page), Route("/said", said), Route("/static/{name}", pages.static_file)]
    return TestClient(Starlette(routes=routes), base_url="https://vpn.example.org")


def test_everything_is_escaped_and_the_page_is_not_stored() -> None:
    found = client(error=ODD).get("/")
    assert found.headers["cache-control"] == "no-store"
    assert "<script" not in found.text
    assert found.text.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#34;&amp;") == 3  # user, token and error


def test_what_a_redirect_says_is_shown_once() -> None:
    browser = client()
    first = browser.get("/said")
    assert "&lt;script&gt;" in first.text.split("<main", 1)[1]
    assert "é" in first.text
    assert "&lt;script&gt;" not in browser.get("/").text.split("<main", 1)[1]


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example", "", "evil"])
def test_nothing_redirects_to_another_site(path: str) -> None:
    with pytest.raises(ValueError, match="not a path of this site"):
        pages.redirect(path)


def test_static_files_are_kept_by_browsers_until_they_change() -> None:
    browser = client()
    (path,) = re.findall(r'href="(/static/wgpy\.css[^"]*)"', browser.get("/").text)
    found = browser.get(path)
    assert found.headers["content-type"].startswith("text/css")
    assert "immutable" in found.headers["cache-control"]
    assert browser.get("/static/wgpy.css").headers["cache-control"] == "no-cache"
    for name in ("missing.css", "..%2Fpages.py", "%2e%2e/pages.py"):
        assert browser.get(f"/static/{name}").status_code == 404


def test_no_template_has_a_script_or_style_of_its_own_or_turns_off_escaping() -> None:
    for path in sorted((WEB / "templates").rglob("*.html")):
        text = path.read_text()
        assert not re.search(
            r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)|\|\s*safe\b|autoescape", text
        ), path
        assert "https://" not in text, path  # nothing comes from elsewhere


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "less than a minute"), (61, "1 min"), (7 * 3600 + 59 * 60, "7 h 59 min"), (3600, "1 h"), (90000, "1 d 1 h")],
)
def test_times_left_are_written_for_people(seconds: float, text: str) -> None:
    assert pages.time_left(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1200, "1.2 kB"), (123456, "123 kB"), (5e9, "5.0 GB")]
)
def test_sizes_are_written_for_people(number: float, text: str) -> None:
    assert pages.size(number) == text
