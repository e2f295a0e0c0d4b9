"""The commands for what users sign in with."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyotp import parse_uri

from tests.gateway.cli.test_commands import gateway as gateway
from tests.gateway.cli.test_commands import made as made
from wgpy.gateway.cli import common
from wgpy.gateway.identity import passwords, totp
from wgpy.gateway.policy.people import User
from wgpy.gateway.store import credentials, endpoint, links, logins, users
from wgpy.gateway.store.database import Database

Gateway = Callable[..., Any]
PASSWORD = "four plain words here"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MEMORY", 64)


@pytest.fixture
def store(gateway: Gateway, tmp_path: Path) -> Database:
    return Database(tmp_path / "gateway" / "gateway.db", tmp_path / "gateway.key")


def is_password(store: Database, password: str) -> bool:
    return passwords.check(store, passwords.Hasher(), "alice", password)


def test_a_password_comes_from_a_file_standard_input_or_a_prompt_and_signs_the_user_out(
    gateway: Gateway, store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.change("root") as change:
        logins.add(change, "alice", "passkey", "192.0.2.1")
    (tmp_path / "secret").write_text(PASSWORD + "\n")
    assert gateway("user password alice --password-file secret") == {"name": "alice"}
    assert is_password(store, PASSWORD)
    with store.read() as connection:
        assert logins.find_all(connection, "alice") == []
    monkeypatch.setattr(sys, "stdin", io.StringIO("from standard input\n"))
    gateway("user password alice --password-file -")
    assert is_password(store, "from standard input")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(common, "getpass", lambda prompt: "typed by somebody")
    gateway("user password alice")
    assert is_password(store, "typed by somebody")
    answers = iter(["typed by somebody", "typed by nobody"])
    monkeypatch.setattr(common, "getpass", lambda prompt: next(answers))
    assert "the two are not the same" in gateway("user password alice", status=1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("short\n", "too short"),
        ("alice in wonderland\n", "contains the user's name"),
        ("two lines\nof words and more", "expected one line"),
        ("", "expected one line"),
        ("x" * 20_000, "expected one line"),
    ],
)
def test_a_bad_password_is_refused_with_one_sentence(
    gateway: Gateway, store: Database, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    error = gateway("user password alice", status=1)
    assert why in error
    assert "\n" not in error
    with store.read() as connection:
        assert credentials.find(connection, "alice") is None


def test_a_link_is_printed_once_and_a_new_one_replaces_it(gateway: Gateway, store: Database) -> None:
    assert "has no url" in gateway("user invite alice", status=1)
    gateway("endpoint set --url https://vpn.example.org")
    first = gateway("user invite alice", as_json=False).strip()
    made = gateway("user invite alice")
    assert made["url"].startswith("https://vpn.example.org/set-up/")
    with store.read() as connection:
        for url, whose in ((first, None), (made["url"], "alice")):
            assert links.find(connection, links.SET_UP, url.rpartition("/")[2], made["expires"] - 1) == whose
    assert "did you mean alice?" in gateway("user invite alicia", status=1)


def test_an_app_is_shown_with_its_recovery_codes(gateway: Gateway, store: Database) -> None:
    made = gateway("user totp alice")
    app = parse_uri(made["uri"])
    assert (app.name, app.issuer, app.secret) == ("alice", "vpn.example.org", made["secret"])
    assert len(made["recovery_codes"]) == 10
    with store.change("root") as change:
        seed = credentials.totp_seed(change, "alice")
        assert seed
        assert totp.text(seed) == made["secret"]
        assert credentials.use_recovery_code(change, "alice", made["recovery_codes"][0])
    shown = gateway("user totp alice", as_json=False)
    assert "▀" in shown
    assert shown.count("-") >= 30


def test_reset_forgets_everything_and_signs_out(gateway: Gateway, store: Database, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(PASSWORD)
    gateway("endpoint set --url https://vpn.example.org")
    gateway("user password alice --password-file secret")
    gateway("user totp alice")
    url = gateway("user invite alice")["url"]
    with store.change("root") as change:
        logins.add(change, "alice", "passkey", "192.0.2.1")
    assert gateway("user reset alice") == {"name": "alice", "signed_out": 1}
    assert not is_password(store, PASSWORD)
    with store.read() as connection:
        assert not credentials.has_second_factor(connection, "alice")
        assert links.find(connection, links.SET_UP, url.rpartition("/")[2], 0.0) is None


def test_a_directorys_user_has_the_password_there(gateway: Gateway, store: Database) -> None:
    with store.change("root") as change:
        users.add(change, User(name="bob", source="corp", subject="1"))
    for command in ("user password bob", "user invite bob"):
        assert "comes from directory corp, so the password is to be changed there" in gateway(command, status=1)


def test_a_second_factor_is_needed_unless_the_endpoint_says_otherwise(gateway: Gateway, store: Database) -> None:
    assert gateway("endpoint show")["second_factor"] is True
    assert gateway("endpoint set --no-second-factor")["second_factor"] is False
    with store.read() as connection:
        assert endpoint.find(connection).second_factor is False
