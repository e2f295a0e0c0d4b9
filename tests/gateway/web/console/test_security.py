"""The console is for administrators: every route refuses others, every form needs its token, and nothing breaks out."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import BaseRoute, Route
from starlette.testclient import TestClient

from tests.gateway.web.conftest import URL
from tests.gateway.web.console.conftest import ADMIN, SESSION, Person
from tests.support.examples import examples
from wgpy.gateway.policy.logins import FRESH, IDLE_MAX
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.store import audit, endpoint, groups, users
from wgpy.gateway.web.app import application
from wgpy.gateway.web.console import routes
from wgpy.gateway.web.site import Site

NAMES = {
    "/console/users": "alice", "/console/groups": "staff", "/console/devices": "alice-phone", "/console/rules": "web",
    "/console/routes": "10.50.0.0_16", "/console/sessions": SESSION, "/console/tokens": "backup-job",
    "/console/directories": "corp",
}  # fmt: skip


def path_of(route: BaseRoute) -> str:
    """The address of a route's page for some object that is there."""
    assert isinstance(route, Route)
    return route.path.replace("{name}", NAMES.get(route.path.split("/{")[0], "x")).removeprefix("/console")


EVERY = [(path_of(route), method) for route in routes() for method in route.methods - {"HEAD"}]  # type: ignore[attr-defined]
FORMS = [path for path, method in EVERY if method == "POST"]


def state(site: Site) -> list[object]:
    """Everything that a request could have changed, but for sign-ins."""
    with site.database.read() as connection:
        return [entry for entry in audit.find_last(connection, 1000) if entry["kind"] != "login"]


def test_the_walk_has_all_of_the_console() -> None:
    assert len(EVERY) > 40
    assert len(FORMS) > 20
    assert {path.split("/")[1] for path, _ in EVERY if path} >= {"users", "groups", "devices", "rules", "routes", "log"}


def test_who_is_no_administrator_is_refused_everywhere(filled: Site) -> None:
    alice = Person(filled, "alice")
    before = state(filled)
    for path, method in EVERY:
        token = re.findall(r'name="csrf_token" value="(\w+)"', alice.client.get("/").text)[:1] or ["x"]
        answer = alice.get(path) if method == "GET" else alice.send(path, {}, token[0])
        assert answer.status_code == 403, (method, path)
        assert "10.50" not in answer.text
    assert state(filled) == before


def test_who_is_not_signed_in_is_led_to_the_sign_in_page(filled: Site) -> None:
    client = TestClient(application(filled), URL, client=("192.0.2.9", 50000), follow_redirects=False)
    before = state(filled)
    for path, method in EVERY:
        answer = client.request(method, f"/console{path}", headers={"Origin": URL})
        assert answer.status_code == 303, (method, path)
        assert answer.headers["location"].startswith("/sign-in?next=/")
    assert state(filled) == before


def test_rights_end_at_once_with_the_group_the_user_and_the_sign_in(admin: Person, filled: Site) -> None:
    assert admin.get("").status_code == 200
    with filled.database.change("root") as change:
        user = users.find(change.connection, ADMIN)
        users.replace(change, replace(user, groups=frozenset()))
    assert admin.get("").status_code == 403
    with filled.database.change("root") as change:
        users.replace(change, user)
    assert admin.get("").status_code == 200
    with filled.database.change("root") as change:
        users.replace(change, replace(user, enabled=False))
    assert admin.get("").status_code == 303


def test_an_overview_that_is_left_open_keeps_nobody_signed_in(filled: Site) -> None:
    wall = [1000.0]
    admin = Person(replace(filled, wall=lambda: wall[0]), ADMIN)
    for _ in range(4):
        wall[0] += IDLE_MAX / 3
        answer = admin.get("/now")
    assert answer.status_code == 303


def test_who_signed_in_long_ago_gets_no_secret(filled: Site) -> None:
    wall = [1000.0]
    admin = Person(replace(filled, wall=lambda: wall[0]), ADMIN)
    (token,) = set(re.findall(r'name="csrf_token" value="(\w+)"', admin.get("").text))
    wall[0] += FRESH
    before = state(filled)
    for path in ("/users/bob/invite", "/users/bob/reset", "/add/token", "/transfer/backup"):
        answer = admin.send(path, {"name": "new", "scope": "read"}, token)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/sign-in"), path
    assert state(filled) == before


def test_who_signed_in_long_ago_makes_changes_and_removes_no_administrator(filled: Site) -> None:
    """Who finds an administrator's browser could otherwise become one of them, by their own sign-in."""
    wall = [1000.0]
    admin = Person(replace(filled, wall=lambda: wall[0]), ADMIN)
    alice: dict[str, str | list[str]] = {"group": ["staff", "admins"]}
    as_it_is: dict[str, str | list[str]] = {
        **dict(re.findall(r'<input id="\w+" name="(\w+)" type="text" value="([^"]*)"', admin.get("/settings").text)),
        "pools": "10.99.0.0/29\nfd00:99::/64", "second_factor": "yes", "sign_in": "yes",
    }  # fmt: skip
    with filled.database.change("root") as change:
        users.add(change, User(name="other@example.org", groups=frozenset({"admins"})))
        endpoint.replace(change, replace(endpoint.find(change.connection), sign_in=True))
    wall[0] += FRESH
    before = state(filled)
    for answer in (
        admin.save("/users/alice", alice),
        admin.send("/add/user", {"name": "mallory", "group": "admins"}),
        admin.send("/transfer/import", {"text": "[Interface]"}),
        admin.send("/directories/corp/remove", {"with_users": "yes"}),
        admin.send("/users/other@example.org/enable", {"enabled": "no"}),
        admin.send("/users/other@example.org/remove", {}),
        admin.save("/users/other@example.org", {"group": ""}),
        admin.save("/settings", {**as_it_is, "second_factor": "no"}),
        admin.save("/settings", {**as_it_is, "sign_in": "no"}),
        admin.save("/settings", {**as_it_is, "url": "https://other.example.org"}),
    ):
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in")
    assert state(filled) == before
    assert admin.save("/users/alice", {"group": "ops"}).status_code == 303  # all else goes on
    with filled.database.read() as connection:
        assert users.find(connection, "alice").groups == {"ops"}


@pytest.mark.parametrize("token", ["", "0" * 64, "of another"])
def test_every_form_needs_the_token_of_its_person(token: str, admin: Person, filled: Site) -> None:
    if token == "of another":
        with filled.database.change("root") as change:
            users.add(change, replace(users.find(change.connection, ADMIN), name="other"))
        (token,) = set(re.findall(r'name="csrf_token" value="(\w+)"', Person(filled, "other").get("").text))
    before = state(filled)
    for path in FORMS:
        assert admin.send(path, {"enabled": "yes", "name": "new"}, token).status_code == 403, path
    assert state(filled) == before


def test_every_form_has_to_come_from_our_own_pages(admin: Person, filled: Site) -> None:
    (token,) = set(re.findall(r'name="csrf_token" value="(\w+)"', admin.get("").text))
    before = state(filled)
    for path in FORMS:
        for origin in ("https://evil.example", "null", "http://vpn.example.org"):
            answer = admin.client.post(f"/console{path}", data={"csrf_token": token}, headers={"Origin": origin})
            assert answer.status_code == 403, (path, origin)
    assert state(filled) == before


def test_no_page_changes_anything(admin: Person, filled: Site) -> None:
    before = state(filled)
    for path, method in EVERY:
        if method == "GET":
            admin.get(path)
        else:
            assert admin.get(path).status_code in (200, 405), path
    assert state(filled) == before


def test_every_answer_forbids_scripts_frames_and_storing(admin: Person) -> None:
    for path, method in EVERY:
        if method == "GET":
            headers = admin.get(path).headers
            assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"], path
            assert headers["cache-control"] == "no-store", path


class Elements(HTMLParser):
    """The elements of a page: for each, its name and the names of its attributes, and where scripts come from."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[str, ...]] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, *(name for name, _ in attributes)))


ODD = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='x", "{{ 7*7 }}", "{% raw %}",
         "javascript:alert(1)", "</textarea><script>", "&lt;b&gt;", "\u202ealice", "%3Cb%3E", "../../etc/passwd"]
    ),
)  # fmt: skip


@pytest.fixture
def elements(admin: Person) -> set[tuple[str, ...]]:
    """All that the pages are made of, with texts that are not odd and forms that are shown again."""
    pages = [admin.get(path) for path, method in EVERY if method == "GET"]
    pages += [admin.send(path, {"name": "!"}) for path in FORMS if path.startswith("/add/")]
    pages += [admin.get("/users?search=nobody"), admin.get("/test?user=alice&destination=10.50.1.5:443/tcp")]
    return set().union(*(Elements(page.text).found for page in pages))


@given(text=ODD)
@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_texts_never_become_elements(
    text: str, elements: set[tuple[str, ...]], admin: Person, filled: Site
) -> None:
    """In a search, in a form that is shown again, and in a group's description, which may be any text."""
    for path in ("/users", "/log", "/audit", "/test"):
        asked = dict.fromkeys(("search", "page", "user", "destination", "group", "reason", "kind"), text)
        found = admin.client.get(f"/console{path}", params=asked)
        assert found.status_code in (200, 400)
        assert Elements(found.text).found <= elements, path
    names = ("name", "description", "destination", "expires", "user", "network", "snat", "public_key", "addresses")
    for path in ("/add/user", "/add/rule", "/add/device", "/add/route"):
        shown = admin.send(path, dict.fromkeys(names, text))
        if shown.status_code == 400:
            assert Elements(shown.text).found <= elements, path
    with filled.database.change("root") as change:
        groups.replace(change, Group(name="ops", description=text.encode(errors="replace").decode()))
    for path in ("/groups", "/groups/ops", "/add/user", "/audit"):
        assert Elements(admin.get(path).text).found <= elements, path


@given(kind=st.sampled_from(["users", "groups", "devices", "rules", "routes", "sessions", "tokens"]), text=ODD)
@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_addresses_of_pages_are_answered(kind: str, text: str, admin: Person) -> None:
    path = "".join(f"%{byte:02x}" for byte in text.encode(errors="replace").replace(b"/", b""))
    assert admin.get(f"/{kind}/{path}").status_code in (200, 307, 400, 404, 405)
    assert admin.send(f"/{kind}/{path}/remove", {}).status_code in (307, 400, 404, 405)
    assert admin.get(f"/{kind}/a%00b").status_code in (400, 404)  # PostgreSQL stores no such text
    expected = 400 if "\0" in text else 200
    assert admin.client.get("/console/users", params={"page": text, "group": text}).status_code == expected
