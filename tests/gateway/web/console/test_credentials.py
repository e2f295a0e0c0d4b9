"""What administrators do for people who cannot sign in."""

from __future__ import annotations

import re

from tests.gateway.web.conftest import URL
from tests.gateway.web.console.conftest import Person
from wgpy.gateway.policy.people import User
from wgpy.gateway.store import audit, credentials, links, logins, users
from wgpy.gateway.web.site import Site


def test_an_administrator_makes_a_link_that_is_shown_once(filled: Site, admin: Person) -> None:
    page = admin.send("/users/alice/invite", {})
    assert page.status_code == 200
    (secret,) = re.findall(rf"<pre>{URL}/set-up/([\w-]+)</pre>", page.text)
    with filled.database.read() as connection:
        assert links.find(connection, links.SET_UP, secret, filled.wall()) == "alice"
        assert secret not in repr(audit.find_last(connection, 100))
    assert secret not in admin.get("/users/alice").text


def test_an_administrator_signs_somebody_out_and_forgets_what_was_lost(filled: Site, admin: Person) -> None:
    alice = Person(filled, "alice")
    with filled.database.change("root") as change:
        credentials.set_password(change, "alice", "$argon2id$hash")
        credentials.set_totp(change, "alice", b"1" * 20, 0, ["code"])
    page = admin.get("/users/alice").text
    assert "an app" in page
    assert "$argon2id" not in page
    assert "signed out in 1 browser." in admin.after(admin.send("/users/alice/sign-out", {})).text
    assert alice.client.get("/account").status_code == 303
    assert "has nothing to sign in with now" in admin.after(admin.send("/users/alice/reset", {})).text
    with filled.database.read() as connection:
        assert credentials.find(connection, "alice") is None
        assert logins.find_all(connection, "alice") == []


def test_a_directorys_user_gets_no_link(filled: Site, admin: Person) -> None:
    with filled.database.change("root") as change:
        users.add(change, User(name="dora", source="corp", subject="1"))
    assert "Make a link" not in admin.get("/users/dora").text
    page = admin.send("/users/dora/invite", {})
    assert page.status_code == 400
    assert "comes from directory corp" in page.text
