"""Tokens and their scopes, and what a stranger can make the API do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.gateway.web.api.conftest import API, SCHEMA
from wgpy.gateway.policy.tokens import SCOPES
from wgpy.gateway.store import audit, tokens
from wgpy.gateway.web.security import COOKIE
from wgpy.gateway.web.site import Site

PATHS = [
    (method.upper(), path.replace("{name}", "x").replace("{network}", "10.0.0.0/8").replace("{device}", "x"), operation)
    for path, each in SCHEMA["paths"].items()
    for method, operation in each.items()
]


def test_every_operation_says_which_scope_it_needs_and_keeps_to_it(program: API) -> None:
    clients = {scope: program(scope) for scope in SCOPES}
    for method, path, operation in PATHS:
        (((_, (needed,)),),) = [each.items() for each in operation["security"]]
        for scope, client in clients.items():
            answer = client.request(method, path)
            may = scope == needed or (scope, needed) == ("write", "read")
            refused = answer.status_code == 403 and "it needs the scope" in answer.text
            assert refused is not may, (method, path, scope, answer.text)


@pytest.mark.parametrize(
    ("method", "path", "operation"), PATHS, ids=lambda each: "" if isinstance(each, dict) else each
)
def test_without_a_token_nothing_is_answered(method: str, path: str, operation: Any, program: API) -> None:
    answer = program().request(method, path, headers={"Authorization": "Basic cm9vdDo="})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="wgpy gateway"')


def test_a_token_is_good_until_it_is_removed_or_expires(program: API, site: Site) -> None:
    good, late = program("read"), program("write", expires=999.0)
    assert good.get("/users").status_code == 200
    assert late.get("/users").status_code == 401
    with site.database.change("root") as change:
        tokens.remove(change, "read")
    assert good.get("/users").status_code == 401


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer wgpy_", "Bearer wgpy_" + "a" * 42, "Bearer wgpy_" + "é" * 43,
     "Bearer wgpy_" + "a" * 44, "Token wgpy_" + "a" * 43, "Bearer wgpy_" + "a" * 43 + " ", "Bearer  wgpy_" + "a" * 43],
)  # fmt: skip
def test_what_is_no_token_costs_no_look_at_the_database(
    header: str, program: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "find_by_text", lambda *_: pytest.fail("it was looked up"))
    assert program().get("/users", headers={b"Authorization": header.encode()}).status_code == 401


def test_a_body_of_a_stranger_is_not_read(site: Site, program: API) -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while taken < 100:
            taken += 1
            yield bytes(1 << 20)

    answer = program().post("/import", content=endless(), headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401


def test_wrong_tokens_are_looked_up_a_bounded_number_of_times(
    program: API, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    looked = []
    monkeypatch.setattr("wgpy.gateway.web.api.access.time.monotonic", lambda: 0.0)
    monkeypatch.setattr(tokens, "find_by_text", lambda _, text, __: looked.append(text))
    client = program()
    statuses = [
        client.get("/users", headers={"Authorization": f"Bearer wgpy_{number:043}"}).status_code
        for number in range(300)
    ]
    assert statuses == [401] * 256 + [429] * 44
    assert len(looked) == 256
    again = client.get("/users", headers={"Authorization": f"Bearer wgpy_{0:043}"})
    assert int(again.headers["retry-after"]) >= 1


def test_many_requests_with_a_good_token_are_answered(program: API, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgpy.gateway.web.api.access.time.monotonic", lambda: 0.0)
    client = program("read")
    assert {client.get("/groups").status_code for _ in range(300)} == {200}


def test_a_token_in_an_address_is_refused(program: API) -> None:
    client = program("read")
    for query in (f"?x={client.headers['authorization'][7:]}", "?access_token=x"):
        answer = client.get(f"/users{query}")
        assert (answer.status_code, "ends up in logs" in answer.json()["detail"]) == (400, True)
        assert "wgpy_" not in answer.text


def test_a_cookie_is_no_token(program: API) -> None:
    assert program().get("/users", headers={"Cookie": f"{COOKIE}=x"}).status_code == 401


def test_the_audit_log_says_which_token_and_the_last_use_is_kept_to_the_minute(program: API, site: Site) -> None:
    client = program("write")
    client.post("/users", json={"name": "bob"})
    with site.database.read() as connection:
        assert audit.find_last(connection, 1)[0]["who"] == "token write"
        assert tokens.find(connection, "write").used_at == 1000.0
    before = changes(site)
    client.get("/users")
    assert changes(site) == before


def changes(site: Site) -> int:
    with site.database.read() as connection:
        return int(audit.find_last(connection, 1)[0]["id"])


def test_nothing_of_a_token_but_its_hash_is_in_the_database(program: API, tmp_path: Path) -> None:
    text = program("read").headers["authorization"].partition(" ")[2]
    everything = b"".join(path.read_bytes() for path in tmp_path.glob("gateway.db*"))
    assert text.encode() not in everything
    assert text.encode()[5:30] not in everything


def test_the_socket_needs_no_token_and_no_host(admin: TestClient) -> None:
    assert admin.get("/users", headers={"Host": "whatever", "Origin": "https://evil.example"}).status_code == 200
