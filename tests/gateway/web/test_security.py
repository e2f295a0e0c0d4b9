"""What is refused before a handler sees it, and what every answer carries."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message

from wgpy.gateway.store import links
from wgpy.gateway.web import security
from wgpy.gateway.web.security import COOKIE, Guard, csrf_token, posted
from wgpy.gateway.web.site import Site, address_of

OURS = {"Origin": "https://vpn.example.org"}


def show(request: Request) -> Response:
    forwarded = [name for name in request.headers if "forward" in name]
    return JSONResponse({"from": str(address_of(request)), "scheme": request.url.scheme, "forwarded": forwarded})


def broken(request: Request) -> Response:
    raise KeyError("the secret")


def form(request: Request, fields: dict[str, str]) -> Response:
    return JSONResponse(fields)


async def swallow(request: Request) -> Response:
    return JSONResponse(len(await request.body()))


def client_of(site: Site, **options: Any) -> TestClient:
    routes = [
        Route("/", show),
        Route("/broken", broken),
        Route("/form", posted(form), methods=["POST"]),
        Route("/swallow", swallow, methods=["POST"]),
    ]
    return TestClient(
        Guard(Starlette(routes=routes), site), "https://vpn.example.org", client=("192.0.2.9", 1), **options
    )


@pytest.fixture
def browser(site: Site) -> TestClient:
    return client_of(site)


def test_every_answer_keeps_scripts_frames_and_caches_away(browser: TestClient) -> None:
    for path in ("/", "/nothing", "/broken"):
        headers = browser.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["date"].endswith("GMT")


def test_static_files_may_be_kept(client: TestClient) -> None:
    answer = client.get("/static/wgpy.css")
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["cache-control"] == "no-cache"
    assert client.get("/static/..%2fapp.py").status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "vpn.example.org:8443", "vpn.example.org.evil.example", "192.0.2.1", ""]
)
def test_another_host_is_refused(host: str, browser: TestClient) -> None:
    answer = browser.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert "this gateway is at https://vpn.example.org" in answer.json()["detail"]


def test_without_a_url_nothing_is_served_over_tcp(site: Site) -> None:
    site.service.endpoint = replace(site.service.endpoint, url="")  # type: ignore[misc]
    for host in ("vpn.example.org", ""):
        assert client_of(site).get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://vpn.example.org"},
        {"Origin": "https://vpn.example.org.evil.example"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Authorization": "Bearer x"},
    ],
)
def test_what_another_site_has_made_a_browser_send_is_refused(headers: dict[str, str], browser: TestClient) -> None:
    assert browser.post("/swallow", headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [OURS, {"Sec-Fetch-Site": "same-origin"}, {"Authorization": "Bearer x"}])
def test_what_our_own_pages_and_programs_send_is_not(headers: dict[str, str], browser: TestClient) -> None:
    assert browser.post("/swallow", headers=headers).status_code == 200


def test_a_form_needs_the_token_of_who_is_signed_in(browser: TestClient) -> None:
    sent = {"csrf_token": csrf_token("secret"), "name": "phone", "empty": ""}
    cookie = {**OURS, "Cookie": f"other=1; {COOKIE}=secret"}
    assert browser.post("/form", data=sent, headers=cookie).json() == sent
    for token in ("", csrf_token("another"), "é"):
        assert browser.post("/form", data={"csrf_token": token}, headers=cookie).status_code == 403
    assert browser.post("/form", data={"name": "x"}, headers=OURS).json() == {"name": "x"}  # nobody is signed in
    assert csrf_token("secret") != csrf_token("secret2")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"a": 1}', "application/json", 415),
        (b"--x", "multipart/form-data; boundary=x", 415),
        (b"a=" + bytes(security.LONGEST_FORM), "application/x-www-form-urlencoded", 413),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"\xff=1", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a=1"] * 1001), "application/x-www-form-urlencoded", 400),
    ],
    ids=["json", "multipart", "long", "escape", "bytes", "fields"],
)
def test_what_is_no_form_is_refused(content: bytes, kind: str, status: int, browser: TestClient) -> None:
    answer = browser.post("/form", content=content, headers={**OURS, "Content-Type": kind})
    assert answer.status_code == status


def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "LONGEST_BODY", 1000)
    assert browser.post("/swallow", content=bytes(1000), headers=OURS).json() == 1000
    assert browser.post("/swallow", content=bytes(1001), headers=OURS).status_code == 413
    pieces = (bytes(100) for _ in range(11))
    assert browser.post("/swallow", content=pieces, headers=OURS).status_code == 413


def test_a_long_head_is_refused(browser: TestClient) -> None:
    assert browser.get("/", headers={"X": "x" * (16 << 10)}).status_code == 431
    assert browser.get("/?" + "x" * (16 << 10)).status_code == 431


def test_a_long_answer_is_sent_in_pieces(site: Site) -> None:
    sizes = []

    async def run() -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sizes.append(len(message.get("body", b"")))
            assert message.get("more_body", True) is (len(sizes) < 5)

        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "state": {"peer": 0}}
        await Guard(Response(bytes(3 * security.PIECE + 1)), site)(scope, receive, send)

    asyncio.run(run())
    assert sizes == [0, *[security.PIECE] * 3, 1]


def test_a_bug_is_logged_and_told_without_what_went_wrong(
    browser: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = browser.get("/broken")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "KeyError" in caplog.text


def test_the_secret_of_a_link_is_not_in_the_log_of_a_bug(
    site: Site, client: TestClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "find", lambda *_: 1 / 0)
    for path in ("/set-up/s3cr3t", "/link/phone/s3cr3t"):
        assert client.get(path).status_code == 500
    assert "ZeroDivisionError" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_nobody_but_the_named_proxy_is_believed_about_the_client(site: Site, browser: TestClient) -> None:
    spoof = {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Proto": "http",
        "Forwarded": "for=10.0.0.1",
        "X-Real-IP": "10.0.0.1",
    }
    assert browser.get("/", headers=spoof).json() == {"from": "192.0.2.9", "scheme": "https", "forwarded": []}
    proxied = client_of(replace(site, proxy=ip_address("192.0.2.9")))
    said = {"X-Forwarded-For": "10.0.0.1, 203.0.113.7", "X-Forwarded-Proto": "https"}  # the client added the first
    assert proxied.get("/", headers=said).json() == {"from": "203.0.113.7", "scheme": "https", "forwarded": []}
    for missing in said:
        rest = {name: value for name, value in said.items() if name != missing}
        assert proxied.get("/", headers=rest).status_code == 400
    for wrong in ({"X-Forwarded-For": "unknown"}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-For": "10.0.0.1,"}):
        assert proxied.get("/", headers={**said, **wrong}).status_code == 400


def test_a_nul_in_an_address_is_refused(browser: TestClient) -> None:
    for path in ("/a%00b", "/?text=a%00", "/?%00=", "/?a=%%00"):
        answer = browser.get(path)
        assert (answer.status_code, "NUL" in answer.json()["detail"]) == (400, True)
    assert browser.get("/?text=%2500").status_code == 200
