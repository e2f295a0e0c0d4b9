"""People who are signed in, each with a browser of their own."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from sqlalchemy import select
from starlette.testclient import TestClient

from tests.gateway.web.conftest import URL
from wgpy.gateway.policy import connection_log
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.people import Device, Group, User
from wgpy.gateway.policy.routes import Route
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.policy.sessions import Session, State, Traffic
from wgpy.gateway.store import devices, directories, endpoint, groups, logins, routes, rules, schema, sessions, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.enrolment import enrol
from wgpy.gateway.web.app import application
from wgpy.gateway.web.security import COOKIE, csrf_token
from wgpy.gateway.web.site import Site

NOW = 1_795_683_600.0  # of a furnished site: a morning in November 2026
KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="  # a public key


class Person:
    """Somebody at a browser; nobody in particular without a name."""

    def __init__(self, site: Site, name: str = "", address: str = "192.0.2.9") -> None:
        self.browser = TestClient(application(site), URL, client=(address, 50000), follow_redirects=False)
        self.token = ""
        if name:
            with site.database.change("root") as change:
                cookie = logins.add(change, name, "password", address)
            self.browser.cookies.set(COOKIE, cookie)
            self.token = csrf_token(cookie)

    def get(self, path: str, **headers: str) -> Any:
        return self.browser.get(path, headers=headers)

    def post(self, path: str, form: Mapping[str, str] | None = None, **headers: str) -> Any:
        """Send a form as the page that has it would."""
        fields = {"csrf_token": self.token, **(form or {})}
        return self.browser.post(path, data=fields, headers={"Origin": URL, **headers})

    def add(self, name: str, how: str = "gateway", **fields: str) -> Any:
        """Add a device."""
        return self.post("/devices/add", {"name": name, "how": how, **fields})

    def said(self, path: str = "/") -> str:
        """What a redirect has left to say."""
        found = re.search(r'role="status"><p>(.*?)</p>', self.get(path).text)
        return html.unescape(found[1]) if found else ""


def add_user(database: Database, name: str, **values: Any) -> None:
    with database.change("root") as change:
        users.add(change, User(name=name, **values))


def file_of(answer: Any) -> str:
    """The file on the page of a device that was added."""
    found = re.search(r"<pre[^>]*>(.*?)</pre>", answer.text, re.S)
    assert found, answer.text
    return html.unescape(found[1])


def link_of(answer: Any) -> str:
    """The path of the link on its page."""
    return file_of(answer).strip().removeprefix(URL)


def stored(site: Site) -> str:
    """All that the database has, as text."""
    with site.database.read() as connection:
        rows = [row for table in schema.metadata.sorted_tables for row in connection.execute(select(table))]
    return repr(rows)


def _session(device: Device) -> dict[str, Any]:
    """The row of a session that has lasted for half an hour."""
    session = Session(
        id="0123456789abcdef", device=device.name, addresses=device.addresses, state=State.ACTIVE, started_at=0.0,
        active_at=1700.0, until=28800.0, opened=True, traffic=Traffic(1_200_000, 9000, 34_000_000, 28_000),
    )  # fmt: skip
    entry = connection_log.entry(
        session, interface="wg0", user="alice", groups=["staff"], device_ip="198.51.100.7", port="40000",
        began=NOW - 1700, wall=NOW,
    )  # fmt: skip
    return {
        "id": session.id, "device": device.name, "user": "alice", "started_at": NOW - 1700, "ended_at": None,
        "reason": None, "entry": entry,
    }  # fmt: skip


def furnished(site: Site) -> Site:
    """A site where people sign in. Alice has devices of every kind, Carol has none, and Root is an administrator."""
    site.database.clock = lambda: NOW
    with site.database.change("root") as change:
        settings = endpoint.find(change.connection)
        changed = replace(settings, sign_in=True, dns=(ip_address("10.50.0.53"),), session_max=8 * 3600)
        endpoint.replace(change, changed)
        routes.add(change, Route(network=ip_network("10.50.0.0/16")))
        for name in ("alice-phone", "alice-laptop", "alice-tablet"):
            enrol(change, name, "alice")
        devices.sign_in(change, "alice-phone", NOW - 1800)
        devices.enable(change, "alice-tablet", enabled=False)
        sessions.write(change, [_session(devices.find(change.connection, "alice-phone"))])
        for name, text, group in (
            ("intranet", "10.50.0.0/16", "staff"),
            ("payroll", "10.50.2.0/24", "ops"),
            ("wiki", "[2001:db8:50::7]:443/tcp", "staff"),
        ):
            rules.add(change, Rule(name=name, destination=Destination.parse(text), groups=frozenset({group})))
        users.add(change, User(name="carol"))
        directories.add(change, Directory(name="corp", kind="oidc", settings={"issuer": "https://id.example.org"}), b"")
        groups.add(change, Group(name="admins"))
        users.add(change, User(name="root", groups=frozenset({"admins"})))
    return replace(site, wall=lambda: NOW)
