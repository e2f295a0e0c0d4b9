"""What is wrong is one sentence, that of the command line, and nothing is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.gateway.web.api.conftest import API
from wgpy.cli import main
from wgpy.errors import ControlError
from wgpy.gateway.policy.people import Person
from wgpy.gateway.policy.tokens import SCOPES
from wgpy.gateway.store import audit, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.web.site import Site

# What is asked of both, and the status. The sentences are compared with each other.
BOTH: list[tuple[str, str, Any, int]] = [
    ("user add alice", "POST /users", {"name": "alice"}, 409),
    ("user add al/ice", "POST /users", {"name": "al/ice"}, 400),
    ("user add -- -alice", "POST /users", {"name": "-alice"}, 400),
    (f"user add {'a' * 300}", "POST /users", {"name": "a" * 300}, 400),
    ("user add bob --group stuff", "POST /users", {"name": "bob", "groups": ["stuff"]}, 400),
    ("user add bob --expires tomorrow", "POST /users", {"name": "bob", "expires": "tomorrow"}, 400),
    ("user add bob --expires 9999-12-31", "POST /users", {"name": "bob", "expires": "9999-12-31"}, 400),
    ("user add a\x1bb", "POST /users", {"name": "a\x1bb"}, 400),
    ("user set bob --group staff", "PATCH /users/bob", {"groups": ["staff"]}, 404),
    ("user remove alicia", "DELETE /users/alicia", None, 404),
    ("user invite bob", "POST /users/bob/invite", None, 404),
    ("user totp bob", "POST /users/bob/totp", None, 404),
    ("user reset bob", "POST /users/bob/reset", None, 404),
    ("user password bob", "POST /users/bob/password", {"password": "x"}, 404),
    ("group add staff", "POST /groups", {"name": "staff"}, 409),
    ("group add guests --description a\x1bb", "POST /groups", {"name": "guests", "description": "a\x1bb"}, 400),
    ("group remove staff", "DELETE /groups/staff", None, 409),
    ("rule add all 0.0.0.0/0", "POST /rules", {"name": "all", "destination": "0.0.0.0/0"}, 400),
    ("rule add all 0.0.0.0/0 --everyone --group staff", "POST /rules",
     {"name": "all", "destination": "0.0.0.0/0", "everyone": True, "groups": ["staff"]}, 400),
    ("rule add all 10.0.0.0/8:0/tcp --everyone", "POST /rules",
     {"name": "all", "destination": "10.0.0.0/8:0/tcp", "everyone": True}, 400),
    ("rule add all 10.0.0.0/8:x/tcp --everyone", "POST /rules",
     {"name": "all", "destination": "10.0.0.0/8:x/tcp", "everyone": True}, 400),
    ("rule add all 10.0.0.1/8 --everyone", "POST /rules",
     {"name": "all", "destination": "10.0.0.1/8", "everyone": True}, 400),
    ("rule add all 10.0.0.0/8 --group ghosts", "POST /rules",
     {"name": "all", "destination": "10.0.0.0/8", "groups": ["ghosts"]}, 400),
    ("rule remove wub", "DELETE /rules/wub", None, 404),
    ("route add 10.99.0.0/16", "POST /routes", {"network": "10.99.0.0/16"}, 400),
    ("route add 10.0.0.1/8", "POST /routes", {"network": "10.0.0.1/8"}, 400),
    ("route add ::/0 --snat fe80::1%x;", "POST /routes", {"network": "::/0", "snat": "fe80::1%x;"}, 400),
    ("route remove 10.1.0.0/16", "DELETE /routes/10.1.0.0/16", None, 404),
    ("device add phone --user alicia", "POST /devices", {"name": "phone", "user": "alicia"}, 400),
    ("device add phone --user alice --address 10.98.0.1", "POST /devices",
     {"name": "phone", "user": "alice", "addresses": ["10.98.0.1"]}, 400),
    ("device add phone --user alice --address 10.99.0.7%x", "POST /devices",
     {"name": "phone", "user": "alice", "addresses": ["10.99.0.7%x"]}, 400),
    ("device add phone --user alice --public-key x", "POST /devices",
     {"name": "phone", "user": "alice", "public_key": "x"}, 400),
    ("device disable phone", "PATCH /devices/phone", {"enabled": False}, 404),
    ("device sign-in phone", "POST /devices/phone/sign-in", None, 404),
    ("endpoint set --pool 192.0.2.0/24", "PATCH /endpoint", {"pools": ["192.0.2.0/24"]}, 400),
    ("endpoint set --pool 10.99.0.0/24 --pool 10.99.0.0/25", "PATCH /endpoint",
     {"pools": ["10.99.0.0/24", "10.99.0.0/25"]}, 400),
    ("endpoint set --pool fe80::%x/64", "PATCH /endpoint", {"pools": ["fe80::%x/64"]}, 400),
    ("endpoint set --host 10.99.0.1", "PATCH /endpoint", {"host": "10.99.0.1"}, 400),
    ("endpoint set --dns fe80::1%x", "PATCH /endpoint", {"dns": ["fe80::1%x"]}, 400),
    ("endpoint set --port 0", "PATCH /endpoint", {"port": 0}, 400),
    ("endpoint set --mtu 100", "PATCH /endpoint", {"mtu": 100}, 400),
    ("endpoint set --session-max 367d", "PATCH /endpoint", {"session_max": 367 * 86400}, 400),
    ("endpoint set --url http://x", "PATCH /endpoint", {"url": "http://x"}, 400),
    ("session terminate alice", "POST /sessions/alice/terminate", None, 404),
    ("token add x --scope everything", "POST /tokens", {"name": "x", "scopes": ["everything"]}, 400),
    ("token add x", "POST /tokens", {"name": "x", "scopes": []}, 400),
    ("token remove x", "DELETE /tokens/x", None, 404),
    ("test alice 10.50.0.0/16", "GET /test?user=alice&destination=10.50.0.0/16", None, 400),
    ("test alicia 10.50.0.1", "GET /test?user=alicia&destination=10.50.0.1", None, 400),
    ("directory check corp", "POST /directories/corp/check", None, 404),
    ("certificate show", "GET /certificates/authority", None, 404),
    ("certificate unbind phone", "DELETE /certificates/phone", None, 404),
    ("certificate set --name-from cn", "PATCH /certificates/authority", {"name_from": "cn"}, 400),
    ("directory show corp", "GET /directories/corp", None, 404),
]  # fmt: skip


DIRECTORY = {"name": "corp", "kind": "oidc", "settings": {"issuer": "https://id.example.org", "client_id": "vpn"}}
SIGN_IN_SETTINGS = {"url": "https://evil.example", "admin_group": "staff", "second_factor": False}


@pytest.fixture
def command(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> Any:
    """Runs a command that fails, and returns its sentence."""
    monkeypatch.setenv("WGPY_GATEWAY", str(tmp_path))
    monkeypatch.setenv("WGPY_GATEWAY_KEY", str(tmp_path / "gateway.key"))
    monkeypatch.chdir(tmp_path)

    def run(text: str) -> str:
        assert main(["gateway", *text.split(" ")]) == 1
        return capsys.readouterr().err.removeprefix("wgpy: ").strip()

    return run


@pytest.mark.parametrize(("text", "request_line", "body", "status"), BOTH, ids=[each[0][:60] for each in BOTH])
def test_the_api_says_what_the_command_line_says(
    text: str, request_line: str, body: Any, status: int, command: Any, admin: TestClient, site: Site
) -> None:
    before = changes(site)
    method, _, path = request_line.partition(" ")
    answer = admin.request(method, path, json=body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.json()["detail"] == command(text)
    assert "\n" not in answer.json()["detail"]
    assert changes(site) == before


def changes(site: Site) -> list[dict[str, Any]]:
    with site.database.read() as connection:
        return audit.find_last(connection, 1000)


def test_a_full_pool_is_named(admin: TestClient) -> None:
    statuses = [admin.post("/devices", json={"name": f"d{number}", "user": "alice"}).status_code for number in range(6)]
    assert statuses == [201] * 5 + [400]
    detail = admin.post("/devices", json={"name": "more", "user": "alice"}).json()["detail"]
    assert "10.99.0.0/29" in detail


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"{", "JSON decode error"),
        (b"[]", "body: expected one JSON object"),
        (b'"x"', "body: expected one JSON object"),
        (b"", "body: "),
        (b'{"name": "bob", "groups": "staff"}', "groups: input should be a valid list"),
        (b'{"name": "bob", "expires": NaN}', "expires"),
        (b'{"name": "bob", "expires": 1e400}', "expires"),
        (b'{"name": "bob", "expires": 1e300}', "expires"),
        (b'{"name": "bob", "expires": -1}', "expires"),
        (b'{"name": "bob", "expires": true}', "expires"),
        (b'{"name": "\\ud800"}', "name '\\ud800': has control characters"),
        (b'{"nane": "bob"}', "name: field required"),
        (b'{"name": "bob", "enabled": true}', "enabled: extra inputs are not permitted"),
        (b"[" * 100_000, ""),
        (b"\xff\xfe", ""),
        (b'{"name": ' + b"1" * 5000 + b"}", ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_is_not_as_described_is_refused(content: bytes, detail: str, admin: TestClient) -> None:
    answer = admin.post("/users", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert detail.lower() in answer.json()["detail"].lower()


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [("PATCH", "/endpoint", "banner"), ("PATCH", "/certificates/authority", "ca")],
)
def test_a_text_of_several_lines_has_nothing_that_cannot_be_stored(
    method: str, path: str, field: str, admin: TestClient
) -> None:
    for line in ("\\ud800", "\\u001b[2J"):
        content = f'{{"{field}": "one\\n{line}"}}'
        answer = admin.request(method, path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert "control characters" in answer.json()["detail"]


def test_what_is_in_the_way_of_the_database_is_told(
    admin: TestClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(self: Database, who: str) -> None:
        raise ControlError("gateway.db: database is locked; nothing was changed")

    monkeypatch.setattr(Database, "change", locked)
    answer = admin.post("/users", json={"name": "bob"})
    assert (answer.status_code, answer.json()["detail"]) == (503, "gateway.db: database is locked; nothing was changed")


def test_what_a_token_could_use_to_become_more_is_for_the_socket(program: API) -> None:
    everything = program(*SCOPES)
    for method, path, body in (
        ("POST", "/tokens", {"name": "x", "scopes": ["read"]}),
        ("DELETE", "/tokens/x", None),
        ("PATCH", "/endpoint", {"handler": "/bin/sh"}),
        ("PATCH", "/endpoint", {"handler_user": "root"}),
        ("PATCH", "/certificates/authority", {"crl": "/etc/shadow"}),
        ("PATCH", "/certificates/authority", {"crl": ""}),
        *(("PATCH", "/endpoint", {name: value}) for name, value in SIGN_IN_SETTINGS.items()),
        ("POST", "/users", {"name": "eve", "groups": ["admins"]}),
        ("PATCH", "/users/alice", {"groups": ["admins", "staff"]}),
        ("POST", "/import", {"text": "[Interface]"}),
        ("POST", "/groups", {"name": "admins"}),
        ("POST", "/directories", {**DIRECTORY, "groups": {"names": {"theirs": "admins"}}}),
        ("POST", "/directories", {**DIRECTORY, "groups": {"prefix": "vpn-"}}),
    ):
        answer = everything.request(method, path, json=body)
        assert (answer.status_code, "only at the gateway itself" in answer.json()["detail"]) == (403, True)


def test_a_token_cannot_take_over_a_directory_that_names_administrators(admin: TestClient, program: API) -> None:
    admin.post("/groups", json={"name": "admins"})
    assert admin.post("/directories", json={**DIRECTORY, "groups": {"names": {"root": "admins"}}}).status_code == 201
    token = program("write")
    theirs: dict[str, Any] = {"settings": {"issuer": "https://evil.example"}, "secret": "x"}
    bodies: list[dict[str, Any]] = [theirs, {"groups": {"names": {}}}, {"grace": 9}]
    for body in bodies:
        assert token.patch("/directories/corp", json=body).status_code == 403
    assert admin.patch("/users/alice", json={"groups": ["admins"]}).status_code == 200


def test_a_token_cannot_touch_an_administrator(admin: TestClient, program: API, site: Site) -> None:
    """Else it would shut out every administrator, or become one by a password of its own."""
    admin.post("/groups", json={"name": "admins"})
    assert admin.patch("/users/alice", json={"groups": ["admins"]}).status_code == 200
    assert admin.post("/users", json={"name": "bob"}).status_code == 201
    with site.database.read() as connection:
        before = audit.find_last(connection, 1)
    token = program("write", "credentials")
    changes: list[dict[str, Any]] = [{"groups": []}, {"enabled": False}, {"expires": 500.0}, {}]
    requests: list[tuple[str, str, Any]] = [
        *(("PATCH", "", body) for body in changes),
        ("DELETE", "", None),
        ("POST", "/password", {"password": "correct horse battery"}),
        *(("POST", path, None) for path in ("/invite", "/totp", "/reset")),
    ]
    for method, path, body in requests:
        answer = token.request(method, f"/users/alice{path}", json=body)
        assert (answer.status_code, "only at the gateway itself" in answer.text) == (403, True), (method, path, body)
        assert token.request(method, f"/users/carol{path}", json=body).status_code == 404
    with site.database.read() as connection:
        assert [entry for entry in audit.find_last(connection, 2) if entry["kind"] != "token"] == before
    assert token.patch("/users/bob", json={"enabled": False}).status_code == 200
    assert token.post("/users/bob/reset").status_code == 200


def test_a_token_cannot_remove_administrators_with_the_directory_they_come_from(
    admin: TestClient, program: API, site: Site
) -> None:
    admin.post("/groups", json={"name": "admins"})
    admin.post("/directories", json={**DIRECTORY, "groups": {"names": {"root": "admins"}}})
    with site.database.change("root") as change:
        users.take_in(change, Person(name="carol", source="corp", subject="1", groups=frozenset({"root"})))
    assert admin.patch("/directories/corp", json={"groups": {"names": {}}}).status_code == 200  # she stays one for now
    token = program("write")
    assert token.delete("/directories/corp?with_users=true").status_code == 403
    assert token.patch("/directories/corp", json={"grace": 9}).status_code == 403
    assert admin.delete("/directories/corp?with_users=true").json() == {"users": ["carol"]}


def test_names_of_odd_characters_in_a_path_are_just_unknown(admin: TestClient) -> None:
    for name in ("%00", "%1b", "%ff", "a%0ab", "..%2f..", "%F0%9F%98%80", "{x}"):
        for kind in ("users", "groups", "devices", "rules", "directories", "sessions"):
            answer = admin.get(f"/{kind}/{name}")
            assert answer.status_code in (400, 404)
            assert "\n" not in json.loads(answer.text).get("detail", "")


def test_an_expired_user_stays_expired_until_another_date(admin: TestClient, site: Site) -> None:
    admin.patch("/users/alice", json={"expires": 500.0})
    with site.database.change("gateway") as change:
        users.expire(change, 1000.0)
    assert admin.patch("/users/alice", json={"enabled": True}).json()["expired"] is True
    assert admin.patch("/users/alice", json={"expires": 5000.0}).json()["expired"] is False
