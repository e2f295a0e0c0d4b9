"""Two administrators who edit the same object: the second is told, and nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.gateway.web.console.conftest import Person
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.people import Group
from wgpy.gateway.policy.routes import Route
from wgpy.gateway.store import directories, endpoint, groups, routes, rules, users
from wgpy.gateway.store.database import Change
from wgpy.gateway.web.site import Site

SETTINGS: dict[str, str | list[str]] = {
    "host": "vpn.example.org", "port": "51820", "url": "https://vpn.example.org", "admin_group": "admins",
    "pools": "10.99.0.0/29\nfd00:99::/64", "session_max": "3h", "idle_max": "0", "devices_max": "5", "banner": "typed",
}  # fmt: skip
EDITED: dict[str, tuple[dict[str, str | list[str]], Callable[[Change], object], str]] = {
    "/users/alice": (
        {"group": ["ops"], "expires": "2027-06-30"},
        lambda change: users.replace(change, replace(users.find(change.connection, "alice"), enabled=False)),
        "enabled: True -&gt; False",
    ),
    "/groups/staff": (
        {"description": "typed"},
        lambda change: groups.replace(change, Group(name="staff", description="theirs")),
        "description:  -&gt; theirs",
    ),
    "/rules/web": (
        {"destination": "10.1.0.0/16", "whom": "groups", "group": ["ops"]},
        lambda change: rules.replace(
            change, replace(rules.find(change.connection, "web"), destination=Destination.parse("10.2.0.0/16"))
        ),
        "destination: 10.50.1.0/24:443/tcp -&gt; 10.2.0.0/16",
    ),
    "/routes/10.50.0.0_16": (
        {"snat": "address", "address": "10.50.0.9"},
        lambda change: routes.replace(change, Route(network=ip_network("10.50.0.0/16"), snat="none")),
        "snat: masquerade -&gt; none",
    ),
    "/directories/corp/change": (
        {
            "issuer": "https://id.example.org",
            "client_id": "typed",
            "name_claim": "name",
            "groups_claim": "groups",
            "grace": "3h",
            "unchecked": "yes",
        },
        lambda change: directories.replace(change, replace(directories.find(change.connection, "corp"), grace=7200)),
        "grace: 3600 -&gt; 7200",
    ),
    "/settings": (
        SETTINGS,
        lambda change: endpoint.replace(change, replace(endpoint.find(change.connection), port=51821)),
        "port: 51820 -&gt; 51821",
    ),
}


@pytest.mark.parametrize("path", EDITED)
def test_the_second_is_told_and_may_then_decide(path: str, admin: Person, filled: Site) -> None:
    typed, theirs, what = EDITED[path]
    (seen,) = re.findall(r'name="revision" value="(\w+)"', admin.get(path).text)
    with filled.database.change("user other") as change:
        theirs(change)
    told = admin.send(path, {**typed, "revision": seen})
    assert told.status_code == 409
    assert "somebody else has changed it since you opened this page: user other at 1970-01-01 00:16:40" in told.text
    assert what in told.text
    for value in typed.values():
        for each in [value] if isinstance(value, str) else value:
            assert each in told.text, "what was typed is still there"
    (now,) = re.findall(r'name="revision" value="(\w+)"', told.text)
    assert now != seen
    assert admin.send(path, {**typed, "revision": seen}).status_code == 409
    admin.after(admin.send(path, {**typed, "revision": now}))


@pytest.mark.parametrize("path", EDITED)
def test_without_a_revision_nothing_is_saved(path: str, admin: Person) -> None:
    assert admin.send(path, EDITED[path][0]).status_code == 409


def test_what_is_gone_meanwhile_is_told(admin: Person, filled: Site) -> None:
    (seen,) = re.findall(r'name="revision" value="(\w+)"', admin.get("/users/alice").text)
    with filled.database.change("user other") as change:
        users.remove(change, "alice")
    gone = admin.send("/users/alice", {"revision": seen})
    assert gone.status_code in (400, 404)
    assert "there is none of that name" in gone.text
