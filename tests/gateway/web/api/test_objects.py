"""Every object and verb of the API, and that it says what the command line says."""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.gateway.web.api.conftest import ME
from wgpy.cli.commands import parser
from wgpy.config.wgquick import parse
from wgpy.gateway.policy import people, rules, tokens
from wgpy.gateway.policy import routes as policy_routes
from wgpy.gateway.policy.certificates import Authority
from wgpy.gateway.policy.connection_log import entry
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.sessions import Session, State
from wgpy.gateway.store import audit, credentials, sessions, state
from wgpy.gateway.store.certificates import Bound
from wgpy.gateway.web.api import certificates, devices, directories, endpoint, groups, logs, routes, users
from wgpy.gateway.web.api import rules as api_rules
from wgpy.gateway.web.api import tokens as api_tokens
from wgpy.gateway.web.api.app import application
from wgpy.gateway.web.site import Site
from wgpy.keys import PrivateKey, PublicKey

VERBS = {
    "endpoint show": "GET /endpoint",
    "endpoint set": "PATCH /endpoint",
    "user add": "POST /users",
    "user set": "PATCH /users/{name}",
    "user enable": "PATCH /users/{name}",
    "user disable": "PATCH /users/{name}",
    "user list": "GET /users",
    "user remove": "DELETE /users/{name}",
    "user password": "POST /users/{name}/password",
    "user invite": "POST /users/{name}/invite",
    "user totp": "POST /users/{name}/totp",
    "user reset": "POST /users/{name}/reset",
    "group add": "POST /groups",
    "group set": "PATCH /groups/{name}",
    "group list": "GET /groups",
    "group remove": "DELETE /groups/{name}",
    "directory add": "POST /directories",
    "directory set": "PATCH /directories/{name}",
    "directory list": "GET /directories",
    "directory show": "GET /directories/{name}",
    "directory check": "POST /directories/{name}/check",
    "directory remove": "DELETE /directories/{name}",
    "certificate set": "PATCH /certificates/authority",
    "certificate unset": "DELETE /certificates/authority",
    "certificate show": "GET /certificates/authority",
    "certificate list": "GET /certificates",
    "certificate unbind": "DELETE /certificates/{device}",
    "device add": "POST /devices",
    "device list": "GET /devices",
    "device enable": "PATCH /devices/{name}",
    "device disable": "PATCH /devices/{name}",
    "device sign-in": "POST /devices/{name}/sign-in",
    "device remove": "DELETE /devices/{name}",
    "route add": "POST /routes",
    "route set": "PATCH /routes/{network}",
    "route list": "GET /routes",
    "route remove": "DELETE /routes/{network}",
    "rule add": "POST /rules",
    "rule set": "PATCH /rules/{name}",
    "rule list": "GET /rules",
    "rule remove": "DELETE /rules/{name}",
    "test": "GET /test",
    "session list": "GET /sessions",
    "session terminate": "POST /sessions/{name}/terminate",
    "token add": "POST /tokens",
    "token list": "GET /tokens",
    "token remove": "DELETE /tokens/{name}",
    "log": "GET /connections",
    "status": "GET /status",
    "export": "GET /export",
    "import": "POST /import",
    "backup": "GET /backup",
}
WITHOUT = {  # verbs that have no counterpart, and why
    "init": "there is no gateway yet that could be asked",
    "run": "it is what answers",
    "stop": "it is for a gateway that does not run",
    "rekey": "it writes the file of the key that seals the secrets, which is on the host",
    "demo": "it is no part of a gateway",
    "join": "it is run on a host that has no gateway yet",
    "migrate": "it copies the database to another one, whose URL has a password",
    "enrol": "it is run where the device is, and has an address of its own",
    "restore": "it replaces the database, with the tokens in it, under the process that answers",
}


def verbs(at: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[str]:
    """The commands below a parser. What kinds of an object a verb is for makes no verb of its own."""
    below = [action for action in at._actions if isinstance(action, argparse._SubParsersAction)]
    if not below or len(words) == 2:
        yield " ".join(words)
    else:
        for name, made in below[0].choices.items():
            yield from verbs(made, (*words, name))


def test_every_verb_of_the_command_line_has_its_counterpart() -> None:
    (top,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    described = {
        f"{method.upper()} {path}" for path, each in application().openapi()["paths"].items() for method in each
    }
    there = set(verbs(top.choices["gateway"]))
    assert there - {*VERBS, *WITHOUT} == set(), "add a counterpart, or a reason why there is none"
    assert {*VERBS.values()} <= described


KEY = PublicKey(bytes([7]) * 32)
VALUES: list[tuple[Any, Any]] = [
    (users.User, people.User(name="a")),
    (groups.Group, people.Group(name="a")),
    (devices.Device, people.Device(name="a", user="a", public_key=KEY, addresses=())),
    (routes.Route, policy_routes.Route(network=Destination.parse("10.0.0.0/8").network)),
    (api_rules.Rule, rules.Rule(name="a", destination=Destination.parse("10.0.0.0/8"), everyone=True)),
    (api_tokens.Token, tokens.Token(name="a", scopes=frozenset({"read"}), made_at=0.0)),
    (certificates.Bound, Bound(device="a", subject="", serial="", expires=0.0, chain="", proved_at=0.0)),
    (certificates.Authority, Authority(ca="")),
    (directories.Directory, Directory(name="a", kind="oidc", settings={})),
]


@pytest.mark.parametrize(("model", "value"), VALUES, ids=lambda each: each.__name__ if isinstance(each, type) else "")
def test_answers_have_all_that_the_command_line_shows(model: Any, value: Any) -> None:
    assert [*model.model_fields] == [*value.json()]


def test_the_endpoint_has_all_settings_and_all_but_none_can_be_changed(site: Site) -> None:
    names = [*site.service.endpoint.json()]
    assert [*endpoint.Endpoint.model_fields] == [*endpoint.EndpointChange.model_fields] == names


def test_the_endpoints_settings_are_changed(admin: TestClient) -> None:
    change = {"pools": ["10.99.0.0/28", "fd00:99::/64"], "dns": ["10.50.0.53"], "search": ["corp.example"], "mtu": 1400,
              "banner": "Welcome.\nCall 1234.", "session_max": 3600, "full_tunnel": True, "sign_in": True,
              "handler": "/usr/bin/posture"}  # fmt: skip
    changed = admin.patch("/endpoint", json=change).json()
    assert changed == admin.get("/endpoint").json()
    assert {key: changed[key] for key in change} == change
    assert admin.patch("/endpoint", json={"mtu": None}).json()["mtu"] is None


def test_users_groups_and_rules_come_change_and_go(admin: TestClient) -> None:
    assert admin.post("/groups", json={"name": "guests", "description": "for a day"}).status_code == 201
    assert admin.patch("/groups/guests", json={"description": "for two"}).json()["description"] == "for two"
    made = admin.post("/users", json={"name": "bob@example.org", "groups": ["guests"], "expires": "2026-12-31"})
    assert (made.status_code, made.json()["expires"]) == (201, 1798761600.0)
    changed = admin.patch(
        "/users/bob@example.org", json={"groups": ["ops", "staff"], "expires": None, "enabled": False}
    )
    assert changed.json() == admin.get("/users/bob@example.org").json()
    assert {"groups": ["ops", "staff"], "expires": None, "enabled": False}.items() <= changed.json().items()
    assert admin.patch("/users/bob@example.org", json={}).json() == changed.json()
    rule = {"name": "web", "destination": "10.50.1.0/24:443/tcp", "groups": ["staff"]}
    assert admin.post("/rules", json=rule).json() == {**rule, "everyone": False}
    assert admin.get("/test", params={"user": "alice", "destination": "10.50.1.5:443/tcp"}).json()["rule"] == "web"
    assert admin.patch("/rules/web", json={"everyone": True}).json()["groups"] == []
    assert admin.patch("/rules/web", json={"destination": "10.50.1.0/24"}).json()["everyone"] is True
    for path in ("/rules/web", "/users/bob@example.org", "/groups/guests"):
        assert admin.get(path).status_code == 200
        assert admin.delete(path).status_code == 204
        assert admin.delete(path).status_code == 404
    assert {(entry["who"], entry["kind"]) for entry in admin.get("/audit", params={"size": 10}).json()["items"]} == {
        (ME, "user"), (ME, "group"), (ME, "rule")
    }  # fmt: skip


def test_a_devices_private_key_is_in_the_answer_and_nowhere_else(admin: TestClient, tmp_path: Path) -> None:
    made = admin.post("/devices", json={"name": "phone", "user": "alice"}).json()
    config = parse(made.pop("file")).config
    assert config.private_key
    assert config.private_key.public_key.base64() == made["public_key"]
    assert admin.get("/devices/phone").json() == made
    everything = b"".join(path.read_bytes() for path in tmp_path.glob("gateway.db*"))
    for secret in (config.private_key.base64().encode(), bytes(config.private_key)):
        assert secret not in everything
    own = PrivateKey.generate().public_key.base64()
    laptop = {"name": "laptop", "user": "alice", "public_key": own, "addresses": ["10.99.0.5"]}
    answer = admin.post("/devices", json=laptop).json()
    assert (answer["public_key"], answer["addresses"][0]) == (own, "10.99.0.5")
    assert "PrivateKey =" not in answer["file"].replace("# Add a line to [Interface]: PrivateKey =", "")
    assert admin.patch("/devices/laptop", json={"enabled": False}).json()["enabled"] is False
    assert admin.post("/devices/laptop/sign-in").json()["signed_in_at"] == 1000.0
    assert admin.delete("/devices/laptop").status_code == 204


def test_what_users_sign_in_with_is_set_and_forgotten(admin: TestClient, site: Site) -> None:
    assert admin.post("/users/alice/password", json={"password": "correct horse battery staple"}).status_code == 204
    weak = admin.post("/users/alice/password", json={"password": "short"})
    assert (weak.status_code, weak.json()["detail"].startswith("user alice: ")) == (400, True)
    invitation = admin.post("/users/alice/invite").json()
    assert invitation["url"].startswith("https://vpn.example.org/set-up/")
    made = admin.post("/users/alice/totp").json()
    assert made["uri"].startswith("otpauth://totp/")
    everything = admin.get("/audit").text + admin.get("/export").text
    secrets = ["correct horse", invitation["url"].rpartition("/")[2], made["secret"], *made["recovery_codes"]]
    assert not [secret for secret in secrets if secret in everything]
    assert admin.post("/users/alice/reset").json() == {"signed_out": 0}
    with site.database.read() as connection:
        assert credentials.find(connection, "alice") is None


def test_routes_are_named_by_their_networks(admin: TestClient) -> None:
    for network in ("10.50.0.0/16", "2001:db8::/32"):
        assert admin.post("/routes", json={"network": network}).json() == {"network": network, "snat": "masquerade"}
        assert admin.patch(f"/routes/{network}", json={"snat": "none"}).json()["snat"] == "none"
        assert admin.get(f"/routes/{network.replace('/', '%2F')}").json()["snat"] == "none"
    assert [route["network"] for route in admin.get("/routes").json()] == ["10.50.0.0/16", "2001:db8::/32"]
    assert admin.delete("/routes/2001:db8::/32").status_code == 204
    assert admin.delete("/routes/2001:db8::/32").status_code == 404


def test_sessions_are_listed_and_terminated(admin: TestClient, site: Site) -> None:
    admin.post("/devices", json={"name": "phone", "user": "alice"})
    began = Session(
        id="5f0c",
        device="phone",
        addresses=(),
        state=State.ACTIVE,
        started_at=0.0,
        active_at=0.0,
        until=9.0,
        opened=True,
    )
    text = entry(
        began,
        interface="wg0",
        user="alice",
        groups=["staff"],
        device_ip="192.0.2.9",
        port="1",
        began=900.0,
        wall=1000.0,
    )
    row = {"id": "5f0c", "device": "phone", "user": "alice", "started_at": 900.0, "ended_at": None, "reason": None}
    with site.database.change("gateway") as change:
        sessions.write(change, [{**row, "entry": text}])
    for of in ({}, {"user": "alice"}, {"device": "phone"}, {"text": "pho"}):
        assert admin.get("/sessions", params=of).json()["items"] == [{"id": "5f0c", **text}]
    assert admin.get("/sessions", params={"user": "bob"}).json()["total"] == 0
    assert admin.get("/sessions/5f0c").json() == {"id": "5f0c", **text}
    assert admin.get("/connections").json()["items"] == [text]
    assert [*text] == [field.alias for field in logs.Connection.model_fields.values()]
    assert admin.post("/sessions/alice/terminate").json() == {"terminated": ["5f0c"]}
    assert admin.post("/sessions/bob/terminate").status_code == 404
    assert admin.get("/sessions/none").status_code == 404


def test_directories_never_show_their_secret(admin: TestClient, site: Site) -> None:
    wanted = {
        "name": "corp", "kind": "oidc", "settings": {"issuer": "https://id.example.org", "client_id": "vpn"},
        "secret": "hush", "groups": {"names": {"theirs": "staff"}, "prefix": None},
    }  # fmt: skip
    made = admin.post("/directories", json=wanted)
    assert (made.status_code, made.json()["settings"]["groups_claim"]) == (201, "groups")
    assert admin.get("/directories").json() == [made.json()]
    changed = admin.patch("/directories/corp", json={"settings": {"groups_claim": "roles"}, "secret": "hush2"}).json()
    assert (changed["settings"]["groups_claim"], changed["settings"]["client_id"]) == ("roles", "vpn")
    assert admin.patch("/directories/corp", json={"grace": 60}).json()["grace"] == 60
    everything = admin.get("/directories/corp").text + admin.get("/audit").text + admin.get("/export").text
    assert "hush" not in everything
    assert admin.patch("/directories/corp", json={"settings": {"name_claim": "email"}}).status_code == 200
    refused = admin.patch("/directories/corp", json={"settings": {"issuer": "https://evil.example"}})
    assert (refused.status_code, refused.json()["detail"]) == (
        400, "issuer: it says who gets the secret; give the secret with it"
    )  # fmt: skip
    for settings, why in (
        ({"issuer": "http://id.example.org", "client_id": "vpn"}, "issuer"),
        ({"issuer": 1, "client_id": "vpn"}, "settings.issuer: "),
        ({"issuer": "https://id.example.org"}, "settings.client_id: "),
        ({"issuer": "https://id.example.org", "client_id": "vpn", "isuer": ""}, "settings.isuer: there is none"),
        ({"issuer": "https://id.example.org", "client_id": "vpn", "ca": "x"}, "ca: expected certificates in PEM"),
    ):
        answer = admin.post("/directories", json={**wanted, "name": "other", "settings": settings})
        assert (answer.status_code, answer.json()["detail"][: len(why)]) == (400, why)
    assert admin.delete("/directories/corp").json() == {"users": []}


def test_long_lists_come_in_pages(admin: TestClient) -> None:
    for number in range(5):
        admin.post("/groups", json={"name": f"g{number}"})
    found = admin.get("/groups", params={"page": 2, "size": 3}).json()
    assert ([group["name"] for group in found["items"]], found["page"], found["pages"], found["total"]) == (
        ["g3", "g4", "ops"], 2, 3, 7
    )  # fmt: skip
    assert admin.get("/groups", params={"text": "g1"}).json()["total"] == 1
    for wrong in ({"page": 0}, {"size": 0}, {"size": 1001}, {"page": "x"}, {"page": 1 << 40}, {"text": "x" * 1001}):
        assert admin.get("/groups", params=wrong).status_code == 400


def test_a_backup_is_a_database_that_can_be_restored(admin: TestClient, site: Site, tmp_path: Path) -> None:
    answer = admin.get("/backup")
    (tmp_path / "copy.db").write_bytes(answer.content)
    assert answer.headers["content-length"] == str(len(answer.content))
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("SELECT name FROM users").fetchall() == [("alice",)]
    copy.close()
    with site.database.read() as connection:
        (entry,) = audit.find_last(connection, 1)  # who has taken it away
    assert (entry["kind"], entry["after"]) == ("backup", {"downloaded": True})
    admin.delete("/users/alice")
    site.database.restore(tmp_path / "copy.db", "root")
    assert admin.get("/users/alice").status_code == 200


OTHER = "[Interface]\nPrivateKey = {}\nListenPort = 51000\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.99.0.4/32\n"


def test_import_takes_over_another_gateways_clients(admin: TestClient, site: Site) -> None:
    key = PrivateKey.generate()
    text = OTHER.format(key.base64(), PrivateKey.generate().public_key.base64())
    taken = admin.post("/import", json={"text": text, "groups": ["staff"]}).json()
    assert admin.get(f"/users/{taken['users'][0]}").json()["groups"] == ["staff"]
    assert state.read(site.database)[0].private_key == key
    assert key.base64() not in admin.get("/export").text
    too_long = admin.post("/import", json={"text": "#" * (300 << 10)})
    assert (too_long.status_code, "text: " in too_long.json()["detail"]) == (400, True)


def test_tokens_are_made_at_the_socket_and_shown_once(admin: TestClient) -> None:
    made = admin.post("/tokens", json={"name": "ci", "scopes": ["read"], "expires": "2030-01-01"}).json()
    assert made.pop("token").startswith("wgpy_")
    assert admin.get("/tokens").json() == [made]
    assert admin.delete("/tokens/ci").status_code == 204
    assert admin.get("/tokens").json() == []


def test_status_and_export_are_those_of_the_command_line(admin: TestClient) -> None:
    status = admin.get("/status").json()
    assert (status["running"], status["why_not"], status["users"]) == (False, "`wgpy gateway run` is not running", 1)
    assert [*admin.get("/export").json()] == ["endpoint", "groups", "users", "devices", "routes", "rules"]
