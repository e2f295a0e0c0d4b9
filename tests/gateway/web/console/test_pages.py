"""Each page of the console: what it shows, and what it changes, in whose name."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

from tests.gateway.web.console.conftest import ADMIN, SESSION, Person
from wgpy.config.wgquick import parse
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import User
from wgpy.gateway.policy.sessions import Reason
from wgpy.gateway.policy.traffic import Rate
from wgpy.gateway.store import (
    audit,
    devices,
    endpoint,
    groups,
    routes,
    rules,
    sessions,
    tokens,
    users,
)
from wgpy.gateway.web.console.settings import OF_ROOT, SECTIONS
from wgpy.gateway.web.site import Site
from wgpy.keys import PrivateKey

PAGES = {
    "": "Sessions",
    "/users": "alice",
    "/users?search=ALI&group=staff": "alice",
    "/add/user": "Add a user",
    "/users/alice": "alice-phone",
    "/groups": "who may use the console",
    "/add/group": "Add a group",
    "/groups/staff": "web",
    "/devices": "bob-laptop",
    "/add/device?user=alice": 'value="alice"',
    "/devices/bob-laptop": "10.99.0.5",
    "/rules": "10.50.1.0/24:443/tcp",
    "/add/rule": "Add a rule",
    "/rules/web": "staff",
    "/test": "Destination",
    "/routes": "10.50.0.0/16",
    "/add/route": "Add a route",
    "/routes/10.50.0.0_16": "Route 10.50.0.0/16",
    "/sessions": "alice-phone",
    f"/sessions/{SESSION}": "1.2 MB in 1000 packets",
    "/log": "not-signed-in",
    "/log?reason=not-signed-in&search=203.0.113": "bob-laptop",
    "/audit": "root",
    "/audit?kind=rule": "web",
    "/settings": "vpn.example.org",
    "/tokens": "backup-job",
    "/add/token": "Make a token",
    "/directories": "OpenID Connect",
    "/directories/corp": "https://id.example.org",
    "/transfer": "Download a backup",
}


def last_change(site: Site) -> tuple[str, str, str]:
    """Who changed what last."""
    with site.database.read() as connection:
        (entry,) = audit.find_last(connection, 1)
    return entry["who"], entry["kind"], entry["name"]


def test_each_page_shows_what_it_is_for_and_is_small(admin: Person) -> None:
    for path, text in PAGES.items():
        found = admin.get(path)
        assert found.status_code == 200, (path, found.text)
        main = found.text.split("<main", 1)[1]
        assert text in main, path
        assert main.count("<h1>") == 1, path
        assert len(found.content) < 100_000, path
        assert "style=" not in found.text, path
        assert re.findall(r"<script(?! src=)|\son\w+=|javascript:", found.text) == [], path
        sections = found.text.split('aria-label="Console"')[1].split("</nav>")[0]
        (current,) = re.findall(r'<a href="/console([^"]*)" aria-current', sections)
        assert current in path or current in ("/settings", "/log", "/rules") or path.startswith("/add"), path


def test_groups(admin: Person, filled: Site) -> None:
    added = admin.send("/add/group", {"name": "night", "description": "shift"})
    assert "Group night added." in admin.after(added).text
    assert last_change(filled) == (f"user {ADMIN}", "group", "night")
    assert "Group night changed." in admin.after(admin.save("/groups/night", {"description": "the shift"})).text
    with filled.database.read() as connection:
        assert groups.find(connection, "night").description == "the shift"
    assert "Group night removed." in admin.after(admin.send("/groups/night/remove", {})).text
    assert last_change(filled) == (f"user {ADMIN}", "group", "night")
    used = admin.send("/groups/staff/remove", {})
    assert used.status_code == 409
    assert "group staff: user alice uses it; change that first" in used.text


def test_users(admin: Person, filled: Site) -> None:
    fields: dict[str, str | list[str]] = {"name": "carol", "group": ["staff", "ops"], "expires": "2027-06-30"}
    assert "User carol added." in admin.after(admin.send("/add/user", fields)).text
    with filled.database.read() as connection:
        carol = users.find(connection, "carol")
    assert (carol.groups, carol.expires) == (frozenset({"staff", "ops"}), 1814400000.0)
    assert 'value="2027-06-30"' in admin.get("/users/carol").text
    admin.after(admin.save("/users/carol", {"group": "ops", "expires": "2027-07-01 00:00:00"}))
    assert "disabled" in admin.after(admin.send("/users/carol/enable", {})).text
    with filled.database.read() as connection:
        carol = users.find(connection, "carol")
    assert (carol.groups, carol.expires, carol.enabled) == (frozenset({"ops"}), 1814400000.0, False)
    assert "may connect again" in admin.after(admin.send("/users/carol/enable", {"enabled": "yes"})).text
    assert "removed" in admin.after(admin.send("/users/carol/remove", {})).text
    assert admin.get("/users/carol").status_code == 404
    assert "did you mean" in admin.get("/users/alic").text


def test_an_expired_user_is_let_in_only_by_another_date(admin: Person, filled: Site) -> None:
    admin.after(admin.save("/users/bob", {"expires": "1970-01-01T00:10"}))
    with filled.database.change("gateway") as change:
        users.expire(change, 1000.0)
    assert "expired" in admin.get("/users/bob").text
    admin.after(admin.save("/users/bob", {"expires": "1970-01-01 00:10:00", "group": "ops"}))
    with filled.database.read() as connection:
        assert users.find(connection, "bob").expired
    admin.after(admin.save("/users/bob", {"expires": ""}))
    with filled.database.read() as connection:
        assert not users.find(connection, "bob").is_expired(1e10)


def test_nobody_shuts_themselves_out(admin: Person) -> None:
    for path in (f"/users/{ADMIN}/enable", f"/users/{ADMIN}/remove"):
        refused = admin.send(path, {})
        assert refused.status_code == 400
        assert "this is you" in refused.text
    refused = admin.save(f"/users/{ADMIN}", {"group": "staff"})
    assert "you would no longer be an administrator" in refused.text
    assert admin.get("").status_code == 200


def test_a_device_whose_key_is_made_here(admin: Person, filled: Site) -> None:
    made = admin.send("/add/device", {"name": "tablet", "user": "alice", "key": "made", "addresses": "10.99.0.6\n"})
    assert made.status_code == 200
    assert made.headers["cache-control"] == "no-store"
    (text,) = re.findall(r"<pre>(.*)</pre>", made.text, re.DOTALL)
    config = parse(text.replace("&#39;", "'")).config
    with filled.database.read() as connection:
        device = devices.find(connection, "tablet")
    assert config.private_key
    assert config.private_key.public_key == device.public_key
    assert str(device.addresses[0]) == "10.99.0.6"
    assert "data:image/png;base64," in made.text
    assert 'download="tablet.conf"' in made.text
    assert config.private_key.base64() not in admin.get("/devices/tablet").text


def test_a_device_whose_owner_has_the_key(admin: Person, filled: Site) -> None:
    key = PrivateKey.generate().public_key.base64()
    fields: dict[str, str | list[str]] = {"name": "tablet", "user": "alice", "key": "own", "public_key": key}
    made = admin.send("/add/device", fields)
    assert "data:image" not in made.text
    assert "Add a line to [Interface]" in made.text
    with filled.database.read() as connection:
        assert devices.find(connection, "tablet").public_key.base64() == key


def test_what_may_be_done_with_a_device(admin: Person, filled: Site) -> None:
    assert "disabled" in admin.after(admin.send("/devices/alice-phone/enable", {})).text
    admin.after(admin.send("/devices/alice-phone/enable", {"enabled": "yes"}))
    assert "is signed in" in admin.after(admin.send("/devices/alice-phone/sign-in", {})).text
    with filled.database.read() as connection:
        device = devices.find(connection, "alice-phone")
    assert (device.enabled, device.signed_in_at) == (True, 1000.0)
    admin.after(admin.send("/devices/alice-phone/remove", {}))
    assert admin.get("/devices/alice-phone").status_code == 404


def test_rules(admin: Person, filled: Site) -> None:
    fields: dict[str, str | list[str]] = {
        "name": "db", "destination": "10.50.2.0/24", "whom": "groups", "group": ["ops"]
    }  # fmt: skip
    assert "Rule db (10.50.2.0/24 for ops) added." in admin.after(admin.send("/add/rule", fields)).text
    admin.after(admin.save("/rules/db", {"destination": "10.50.2.0/25", "whom": "everyone", "group": ["ops"]}))
    with filled.database.read() as connection:
        assert str(rules.find(connection, "db")) == "db (10.50.2.0/25 for everyone)"
    admin.after(admin.send("/rules/db/remove", {}))
    assert last_change(filled) == (f"user {ADMIN}", "rule", "db")


def test_the_tester_says_what_the_command_says(admin: Person) -> None:
    allowed = admin.get("/test?user=alice&destination=10.50.1.5:443/tcp")
    assert "<h2>Allowed</h2>" in allowed.text
    assert "10.50.1.0/24 is the most specific prefix that contains 10.50.1.5, by rule web" in allowed.text
    denied = admin.get("/test?user=bob&destination=10.50.1.5:443/tcp")
    assert "it is only for staff" in denied.text
    admin.after(admin.send("/users/alice/enable", {}))
    assert "Allowed, but alice is disabled" in admin.get("/test?user=alice&destination=10.50.1.5:443/tcp").text
    wrong = admin.get("/test?user=alicia&destination=10.50.1.5")
    assert (wrong.status_code, "did you mean alice?" in wrong.text) == (400, True)
    assert 'value="alicia"' in wrong.text


def test_routes(admin: Person, filled: Site) -> None:
    admin.after(admin.send("/add/route", {"network": "fd00:50::/64", "snat": "none"}))
    assert "Route fd00:50::/64" in admin.get("/routes/fd00%3A50%3A%3A_64").text
    admin.after(admin.save("/routes/fd00:50::_64", {"snat": "address", "address": "fd00:50::9"}))
    with filled.database.read() as connection:
        assert [route.snat for route in routes.find_all(connection)] == ["masquerade", "fd00:50::9"]
    admin.after(admin.send("/routes/fd00:50::_64/remove", {}))
    assert last_change(filled) == (f"user {ADMIN}", "route", "fd00:50::/64")


def test_a_session_is_terminated_after_a_question(admin: Person, filled: Site) -> None:
    assert f'href="/console/sessions/{SESSION}"' in admin.get("/sessions").text
    assert "Terminate the session" in admin.get(f"/sessions/{SESSION}").text
    assert "1 session ends within a second." in admin.after(admin.send(f"/sessions/{SESSION}/terminate", {})).text
    with filled.database.read() as connection:
        assert sessions.terminated(connection, [SESSION]) == {SESSION}
        assert sessions.under_way(connection)[0]["reason"] == Reason.TERMINATED
    assert admin.get("/sessions/nothing").status_code == 404


def test_settings(admin: Person, filled: Site) -> None:
    page = admin.get("/settings").text
    for text in ("10.99.0.0/29\nfd00:99::/64", 'value="8h"', 'value="51820"', 'value="https://vpn.example.org"'):
        assert text in page
    fields: dict[str, str | list[str]] = {
        "host": "vpn.example.org", "port": "51820", "url": "https://vpn.example.org", "admin_group": "admins",
        "pools": "10.99.0.0/29\r\nfd00:99::/64\r\n10.98.0.0/24", "dns": "10.50.0.53", "search": "corp.example",
        "mtu": "1380", "banner": "Hello,\r\nworld", "session_max": "90m", "idle_max": "0", "sign_in": "yes",
        "devices_max": "5",
    }  # fmt: skip
    assert "Settings changed." in admin.after(admin.save("/settings", fields)).text
    with filled.database.read() as connection:
        found = endpoint.find(connection)
    assert [str(pool) for pool in found.pools] == ["10.99.0.0/29", "fd00:99::/64", "10.98.0.0/24"]
    assert (found.session_max, found.sign_in, found.full_tunnel, found.mtu) == (5400, True, False, 1380)
    assert found.banner == "Hello,\nworld"


def test_nobody_gives_the_console_to_a_group_without_themselves(admin: Person) -> None:
    page = admin.get("/settings").text
    fields: dict[str, str | list[str]] = dict(
        re.findall(r'<input id="\w+" name="(\w+)" type="text" value="([^"]*)"', page)
    )
    refused = admin.save("/settings", {**fields, "pools": "10.99.0.0/29\nfd00:99::/64", "admin_group": "staff"})
    assert (refused.status_code, "you are not in it" in refused.text) == (400, True)


def test_every_setting_is_in_the_form_or_only_roots() -> None:
    shown = {setting.name for section in SECTIONS.values() for setting in section} | {*OF_ROOT}
    assert shown == {*Endpoint.__dataclass_fields__}


def test_what_runs_programs_is_not_to_be_set_in_a_browser(admin: Person, filled: Site) -> None:
    fields: dict[str, str | list[str]] = {
        "host": "vpn.example.org", "port": "51820", "url": "https://vpn.example.org", "admin_group": "admins",
        "pools": "10.99.0.0/29\nfd00:99::/64", "session_max": "8h", "idle_max": "0", "devices_max": "5",
        "handler": "/bin/sh",
    }  # fmt: skip
    admin.after(admin.save("/settings", fields))
    with filled.database.read() as connection:
        assert endpoint.find(connection).handler == ""


def test_a_backup_and_an_export_are_downloaded(admin: Person, filled: Site, tmp_path: Path) -> None:
    backup = admin.send("/transfer/backup", {})
    assert backup.headers["content-disposition"] == 'attachment; filename="gateway-1970-01-01-001640.backup"'
    (tmp_path / "copy.db").write_bytes(backup.content)
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert ("alice",) in copy.execute("SELECT name FROM users").fetchall()
    copy.close()
    assert last_change(filled) == (f"user {ADMIN}", "backup", "gateway-1970-01-01-001640.backup")
    export = json.loads(admin.get("/transfer/export").content)
    assert [user["name"] for user in export["users"]] == ["alice", "bob", ADMIN]


def test_the_clients_of_another_gateway_are_taken_over(admin: Person, filled: Site) -> None:
    key, peer = PrivateKey.generate(), PrivateKey.generate().public_key
    text = (
        f"[Interface]\r\nPrivateKey = {key.base64()}\r\nListenPort = 51999\r\n\r\n[Peer]\r\n# Name = tablet\r\n"
        f"PublicKey = {peer.base64()}\r\nAllowedIPs = 10.99.0.4/32\r\n"
    )
    page = admin.after(admin.send("/transfer/import", {"text": text, "group": "ops"})).text
    assert "1 clients taken over" in page
    with filled.database.read() as connection:
        assert str(devices.find(connection, "tablet").addresses[0]) == "10.99.0.4"
        assert users.find(connection, "tablet").groups == {"ops"}
        assert endpoint.find(connection).port == 51999
    wrong = admin.send("/transfer/import", {"text": "[Interface]\nPrivateKey = x\nPort = 5"})
    assert wrong.status_code == 400
    assert "Port = 5" in wrong.text


def test_the_overview_draws_the_traffic_and_a_script_may_ask_again(admin: Person, filled: Site) -> None:
    filled.service.passed += [Rate(600.0, 0, 0), Rate(300.0, 2e6, 1e6), Rate(0.0, 1e6, 0)]  # type: ignore[attr-defined]
    page = admin.get("").text
    assert 'data-points="ingress-line" points="0,79 300,1 600,40"' in page
    assert "1.0 MB/s" in page
    assert '<a href="/console/log?reason=not-signed-in">not-signed-in</a>' in page
    now = admin.get("/now").json()
    assert now["texts"]["sessions"] == "1"
    assert now["texts"]["ingress"] == "1.0 MB/s"
    assert now["texts"]["ingress-most"] == "2.0 MB/s"
    assert now["rows"] in page
    assert {*re.findall(r'data-(?:text|points)="([^"]+)"', page)} == {*now["texts"]}
    filled.service.ailment = "nft is not installed"
    assert admin.get("/now").json()["texts"]["health"] == "not well: nft is not installed"


def test_the_overview_says_what_is_left_to_do(admin: Person) -> None:
    assert "Left to do" not in admin.get("").text
    for path in ("/devices/alice-phone", "/devices/bob-laptop", "/routes/10.50.0.0_16", "/rules/web"):
        admin.after(admin.send(f"{path}/remove", {}))
    page = admin.get("").text
    assert re.findall(r'<li><a href="/console/add/(\w+)">', page) == ["route", "rule", "device"]


def test_a_token_is_shown_once(admin: Person, filled: Site) -> None:
    made = admin.send("/add/token", {"name": "ci", "scope": ["read", "backup"], "expires": "2027-06-30"})
    assert made.status_code == 200
    (text,) = re.findall(r"<code>(wgpy_[\w-]+)</code>", made.text)
    with filled.database.read() as connection:
        token = tokens.find_by_text(connection, text, 1000.0)
    assert token
    assert (token.name, token.scopes, token.expires) == ("ci", frozenset({"read", "backup"}), 1814400000.0)
    assert text not in admin.get("/tokens").text
    refused = admin.send("/add/token", {"name": "none"})
    assert (refused.status_code, "it is for nothing" in refused.text) == (400, True)
    assert "of no use" in admin.after(admin.send("/tokens/ci/remove", {})).text
    with filled.database.read() as connection:
        assert tokens.find_by_text(connection, text, 1000.0) is None


def test_a_user_of_a_directory_keeps_its_groups(admin: Person, filled: Site) -> None:
    with filled.database.change("root") as change:
        from_there = User(name="dora", source="corp", subject="1", groups=frozenset({"ops"}))
        users.add(change, from_there)
    page = admin.get("/users/dora").text
    assert "Groups, which the directory decides: ops" in page
    assert 'name="group"' not in page
    admin.after(admin.save("/users/dora", {"expires": "2027-06-30"}))
    with filled.database.read() as connection:
        found = users.find(connection, "dora")
    assert (found.groups, found.expires) == (frozenset({"ops"}), 1814400000.0)
    assert '<a href="/console/users/dora">' in admin.get("/directories/corp").text


def test_a_mistyped_key_is_told_at_the_form(admin: Person) -> None:
    wrong = admin.send("/add/device", {"name": "tablet", "user": "alice", "key": "own", "public_key": "typed"})
    assert wrong.status_code == 400
    assert "44 base64 characters" in wrong.text
    assert 'value="typed"' in wrong.text
