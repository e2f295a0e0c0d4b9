"""A person with a browser that runs no scripts: opens pages, fills in their forms, and follows where that leads."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from httpx2 import Response
from pyotp import TOTP
from starlette.testclient import TestClient

from tests.support.authenticator import Authenticator
from wgpy.gateway.web.app import application
from wgpy.gateway.web.site import Site

URL = "https://vpn.example.org"


class Form(HTMLParser):
    """The forms of a page: their hidden fields, and what an authenticator is asked."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, dict[str, str]] = {}
        self.options: dict[str, Any] = {}
        self._action = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._action = found["action"]
            self.fields[self._action] = {}
            if "data-options" in found:
                self.options[self._action] = json.loads(found["data-options"])
        elif tag == "input" and found.get("type") == "hidden":
            self.fields[self._action][found["name"]] = found.get("value", "")


class Person:
    """Somebody in front of a browser, which keeps cookies."""

    def __init__(self, site: Site, address: str = "192.0.2.9") -> None:
        self.client = TestClient(
            application(site, ["wgpy.gateway.web.sign_in"]), URL, client=(address, 50000), follow_redirects=False,
            headers={"Origin": URL},
        )  # fmt: skip
        self.page: Response

    def open(self, path: str) -> Response:
        """Open a page, and what it leads to."""
        self.page = self.client.get(path)
        return self._follow()

    def send(self, action: str, **values: str) -> Response:
        """Fill in the form of the page that is open, send it, and open what it leads to."""
        form = Form(self.page.text)
        assert action in form.fields, f"{self.page.url} has no form for {action}: {list(form.fields)}"
        self.page = self.client.post(action, data={**form.fields[action], **values})
        return self._follow()

    def answer(self, action: str, authenticator: Authenticator, **values: str) -> Response:
        """Have an authenticator answer what a form asks it, as `static/passkey.js` does, and send that."""
        options = Form(self.page.text).options[action]
        answer = authenticator.create(options) if "user" in options else authenticator.get(options)
        return self.send(action, answer=answer, **values)

    def type_password(self, password: str, name: str = "alice", path: str = "/sign-in") -> Response:
        self.open(path)
        return self.send("/sign-in", name=name, password=password)

    @property
    def cookie(self) -> str:
        return self.client.cookies.get("__Host-wgpy") or ""

    @property
    def is_signed_in(self) -> bool:
        return self.client.get("/account").status_code == 200

    def _follow(self) -> Response:
        for _ in range(5):
            if self.page.status_code != 303 or self.page.headers["location"] == "/":
                break
            self.page = self.client.get(self.page.headers["location"])
        return self.page


def code_of(seed: str, wall: float) -> str:
    """What an authenticator app shows at that time."""
    return TOTP(seed).at(int(wall))
