"""Tokens in either kind of database."""

from __future__ import annotations

import pytest

from wgpy.errors import ConfigError
from wgpy.gateway.policy.tokens import SCOPES, Token
from wgpy.gateway.store import audit, state, tokens
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.lookup import Conflict, Missing

TOKEN = Token(name="ci", scopes=frozenset({"read", "backup"}), made_at=1000.0, expires=2000.0)


def test_a_token_is_found_by_its_text_until_it_expires_or_is_removed(database: Database) -> None:
    with database.change("root") as change:
        text = tokens.add(change, TOKEN)
        other = tokens.add(change, Token(name="other", scopes=frozenset({"write"}), made_at=1000.0))
    with database.read() as connection:
        assert tokens.find_all(connection) == [TOKEN, tokens.find(connection, "other")]
        assert tokens.find_by_text(connection, text, 1999.0) == TOKEN
        assert tokens.find_by_text(connection, text, 2000.0) is None
        for wrong in ("", text[:-1], text.upper(), tokens.digest(text).hex(), "wgpy_\ud800"):
            assert tokens.find_by_text(connection, wrong, 1999.0) is None
        assert tokens.find_by_text(connection, other, 1e12)
    with database.change("root") as change:
        tokens.remove(change, "ci")
    with database.read() as connection:
        assert tokens.find_by_text(connection, text, 1999.0) is None


def test_its_use_is_recorded_without_a_change_of_the_policy(database: Database) -> None:
    with database.change("root") as change:
        tokens.add(change, TOKEN)
    before = state.read(database)
    with database.change("token ci") as change:
        tokens.seen(change, TOKEN)
    with database.read() as connection:
        assert tokens.find(connection, "ci").used_at == 1000.0
        assert (audit.find_last(connection, 1)[0]["kind"], audit.find_last(connection, 1)[0]["before"]) == (
            "token",
            None,
        )
    assert state.read(database, before)[0] is before[0]


def test_a_new_token_makes_no_new_policy(database: Database) -> None:
    before = state.read(database)
    with database.change("root") as change:
        tokens.add(change, TOKEN)
    after, mark = state.read(database, before)
    assert after.devices is before[0].devices
    assert mark != before[1]


def test_names_are_taken_or_unknown(database: Database) -> None:
    with database.change("root") as change:
        tokens.add(change, TOKEN)
        with pytest.raises(Conflict, match="token ci: exists already"):
            tokens.add(change, TOKEN)
        with pytest.raises(Missing, match="token 'cii': there is none of that name; did you mean ci"):
            tokens.remove(change, "cii")


@pytest.mark.parametrize(
    ("name", "scopes", "why"),
    [
        ("c/i", {"read"}, "expected a name"),
        ("ci", set(), "it is for nothing"),
        ("ci", {"all"}, "scope 'all': expected"),
    ],
)
def test_what_is_no_token(name: str, scopes: set[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Token(name=name, scopes=frozenset(scopes), made_at=0.0)


def test_only_write_includes_another_scope() -> None:
    for scope in SCOPES:
        token = Token(name="ci", scopes=frozenset({scope}), made_at=0.0)
        assert {each for each in SCOPES if token.allows(each)} == {scope} | ({"read"} if scope == "write" else set())
