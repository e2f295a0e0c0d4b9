"""A gateway with an administrator, and clients of its pages as which people are signed in."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.gateway.conftest import Places
from tests.gateway.web.conftest import URL
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.policy.routes import Route
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.policy.tokens import Token
from wgpy.gateway.store import devices, directories, groups, logins, routes, rules, tokens, users
from wgpy.gateway.store.schema import sessions
from wgpy.gateway.web.app import application
from wgpy.gateway.web.security import COOKIE
from wgpy.gateway.web.site import Site
from wgpy.keys import PresharedKey, PublicKey

ADMIN = "root@example.org"
SESSION = "0123456789abcdef"


class Person:
    """Somebody who is signed in with a browser, which has no script and follows no redirect by itself."""

    def __init__(self, site: Site, name: str) -> None:
        self.client = TestClient(application(site), URL, client=("192.0.2.9", 50000), follow_redirects=False)
        with site.database.change(f"user {name}") as change:
            self.client.cookies.set(COOKIE, logins.add(change, name, "password", "192.0.2.9"))

    def get(self, path: str) -> httpx2.Response:
        return self.client.get(f"/console{path}")

    def send(self, path: str, fields: dict[str, str | list[str]], token: str | None = None) -> httpx2.Response:
        """Send a form with these fields and the token that this person's forms have."""
        if token is None:
            (token,) = set(re.findall(r'name="csrf_token" value="(\w+)"', self.get("").text))
        return self.client.post(f"/console{path}", data={**fields, "csrf_token": token}, headers={"Origin": URL})

    def save(self, path: str, fields: dict[str, str | list[str]]) -> httpx2.Response:
        """Open a page, fill in its form, and save it."""
        (revision,) = re.findall(r'name="revision" value="(\w+)"', self.get(path).text)
        return self.send(path, {**fields, "revision": revision})

    def after(self, response: httpx2.Response) -> httpx2.Response:
        """The page to which an answer leads."""
        assert response.status_code == 303, response.text
        return self.client.get(response.headers["location"])


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Where databases can be made: the queries of pages are tried on PostgreSQL, too, by the tests of the store."""
    return lambda name: tmp_path / f"{name}.db"


@pytest.fixture
def filled(site: Site) -> Site:
    """A site with one or two of everything."""
    with site.database.change("root") as change:
        groups.add(change, Group(name="admins", description="who may use the console"))
        users.add(change, User(name=ADMIN, groups=frozenset({"admins"})))
        users.add(change, User(name="bob"))
        devices.add(change, "alice-phone", "alice", PublicKey(bytes([1]) * 32), PresharedKey.generate())
        devices.add(
            change, "bob-laptop", "bob", PublicKey(bytes([2]) * 32), PresharedKey.generate(), [ip_address("10.99.0.5")]
        )
        tokens.add(change, Token(name="backup-job", scopes=frozenset({"backup"}), made_at=1000.0))
        provider = {"issuer": "https://id.example.org", "client_id": "wgpy", "scopes": ["openid", "email"]}
        directories.add(change, Directory(name="corp", kind="oidc", settings=provider), b"secret")
        routes.add(change, Route(network=ip_network("10.50.0.0/16")))
        rules.add(
            change, Rule(name="web", destination=Destination.parse("10.50.1.0/24:443/tcp"), groups=frozenset({"staff"}))
        )
        change.connection.execute(sessions.insert().values(session_row(SESSION, "alice-phone", "alice", 990.0)))
        change.connection.execute(
            sessions.insert().values(session_row("fedcba9876543210", "bob-laptop", "bob", 900.0, "not-signed-in"))
        )
    return site


def session_row(number: str, device: str, user: str, at: float, reason: str | None = None) -> dict[str, object]:
    """A row of the sessions: one that is under way, or one that was refused."""
    entry = {
        "connection-log-type": "connection-attempt",
        "connection-attempt-status": "failed" if reason else "successful",
        "connection-attempt-failure-reason": reason or "NA",
        "connection-end-reason": "NA",
        "connection-id": number,
        "connection-start-time": "1970-01-01 00:16:30",
        "connection-end-time": "NA",
        "client-ip": "10.99.0.2",
        "client-ipv6": "fd00:99::2",
        "common-name": device,
        "username": user,
        "groups": ["staff"],
        "device-ip": "203.0.113.7",
        "port": "51820",
        "ingress-bytes": "1234567",
        "ingress-packets": "1000",
        "egress-bytes": "7654321",
        "egress-packets": "9000",
        "message": "",
        "posture-compliance-statuses": [],
    }
    ended = at + 1 if reason else None
    return {
        "id": number, "device": device, "user": user, "started_at": at, "ended_at": ended, "reason": reason,
        "entry": entry,
    }  # fmt: skip


@pytest.fixture
def admin(filled: Site) -> Person:
    return Person(filled, ADMIN)
