"""Passkeys against an authenticator whose encodings are Yubico's: what is accepted, and what proves nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.authenticator import Authenticator, Flag
from wgpy.gateway.identity import passkeys
from wgpy.gateway.identity.passkeys import NotVerified, RelyingParty
from wgpy.gateway.store.passkeys import Passkey

SITE = RelyingParty("vpn.example.org", "https://vpn.example.org")
HANDLE, CHALLENGE, OTHER = b"h" * 16, b"c" * 32, b"d" * 32


def register(authenticator: Authenticator, challenge: bytes = CHALLENGE, site: RelyingParty = SITE) -> Passkey:
    options = passkeys.creation_options(site, challenge, "alice", HANDLE, [])
    answer = authenticator.create(options)
    return passkeys.registered(SITE, CHALLENGE, answer, user="alice", name="laptop", issued_at=1000.0)


def sign_in(authenticator: Authenticator, passkey: Passkey, challenge: bytes = CHALLENGE) -> int:
    answer = authenticator.get(passkeys.request_options(SITE, challenge))
    assert passkeys.id_of(answer) == passkey.id
    return passkeys.asserted(SITE, CHALLENGE, answer, passkey, HANDLE)


def test_a_passkey_is_made_and_signs_in() -> None:
    authenticator = Authenticator(SITE.origin)
    passkey = register(authenticator)
    assert (passkey.user, passkey.name, passkey.counter, passkey.used_at) == ("alice", "laptop", 0, 1000.0)
    assert sign_in(authenticator, passkey) == 1


def test_an_authenticator_that_does_not_count_signs_in_again_and_again() -> None:
    authenticator = Authenticator(SITE.origin, counts=False)
    passkey = register(authenticator)
    assert [sign_in(authenticator, passkey) for _ in range(2)] == [0, 0]


def test_a_person_must_be_verified_and_existing_passkeys_are_named() -> None:
    passkey = register(Authenticator(SITE.origin))
    made = passkeys.creation_options(SITE, CHALLENGE, "alice", HANDLE, [passkey])
    assert made["authenticatorSelection"]["userVerification"] == "required"
    assert made["authenticatorSelection"]["residentKey"] == "required"
    assert [each["id"] for each in made["excludeCredentials"]] == [passkey.id]
    asked = passkeys.request_options(SITE, CHALLENGE, [passkey])
    assert asked["userVerification"] == "required"
    assert [each["id"] for each in asked["allowCredentials"]] == [passkey.id]


def test_what_an_answer_says_is_no_line_of_its_own_in_the_log() -> None:
    authenticator = Authenticator(SITE.origin)
    passkey = register(authenticator)
    authenticator.origin = "https://evil.example\nWARNING: root has signed in\x1b[2J" + "x" * 10_000
    with pytest.raises(NotVerified) as refused:
        sign_in(authenticator, passkey)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"origin": "https://vpn.example.org.evil.example"}, "origin"),
        ({"origin": "http://vpn.example.org"}, "origin"),
        ({"flags": Flag.UP}, "verif"),
        ({"flags": Flag.UV}, "present"),
    ],
)
def test_an_answer_for_another_site_or_without_its_person_proves_nothing(fault: dict[str, Any], why: str) -> None:
    for each, value in fault.items():
        wrong = Authenticator(SITE.origin)
        setattr(wrong, each, value)
        with pytest.raises(NotVerified, match=why):
            register(wrong)
        right = Authenticator(SITE.origin)
        passkey = register(right)
        setattr(right, each, value)
        with pytest.raises(NotVerified, match=why):
            sign_in(right, passkey)


def test_an_answer_to_another_challenge_or_of_another_key_or_site_proves_nothing() -> None:
    authenticator = Authenticator(SITE.origin)
    passkey = register(authenticator)
    with pytest.raises(NotVerified, match="challenge"):
        register(Authenticator(SITE.origin), OTHER)
    with pytest.raises(NotVerified, match="challenge"):
        sign_in(authenticator, passkey, OTHER)
    with pytest.raises(NotVerified, match="RP ID"):
        register(Authenticator(SITE.origin), site=RelyingParty("evil.example", SITE.origin))
    answer = Authenticator(SITE.origin).get(passkeys.request_options(SITE, CHALLENGE))
    with pytest.raises(NotVerified, match="signature"):
        passkeys.asserted(SITE, CHALLENGE, answer, passkey, HANDLE)


def test_a_counter_that_stands_still_betrays_a_copied_authenticator() -> None:
    authenticator = Authenticator(SITE.origin)
    passkey = register(authenticator)
    authenticator.counter = 4
    assert sign_in(authenticator, passkey) == 5
    used = Passkey(**{**{name: getattr(passkey, name) for name in passkey.__slots__}, "counter": 5})
    authenticator.counter = 4
    with pytest.raises(NotVerified, match="count"):
        sign_in(authenticator, used)


def test_a_passkey_that_says_it_is_another_users_proves_nothing() -> None:
    authenticator = Authenticator(SITE.origin)
    passkey = register(authenticator)
    authenticator.handle = b"e" * 16
    with pytest.raises(NotVerified, match="another user's"):
        sign_in(authenticator, passkey)


ANSWER = json.loads(Authenticator(SITE.origin).create(passkeys.creation_options(SITE, CHALLENGE, "a", HANDLE, [])))
ASSERTION = json.loads(Authenticator(SITE.origin).get(passkeys.request_options(SITE, CHALLENGE)))
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=60).map(lambda b: b.hex()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(ANSWER)), st.sampled_from(sorted(ASSERTION["response"])), JUNK, st.booleans())
def test_whatever_a_browser_sends_is_an_answer_or_proves_nothing(key: str, part: str, junk: Any, inner: bool) -> None:
    for whole in (ANSWER, ASSERTION):
        changed = {**whole, "response": {**whole["response"], part: junk}} if inner else {**whole, key: junk}
        for text in (json.dumps(changed), json.dumps(junk)):
            judge(text)


@pytest.mark.parametrize("text", ["", "[" * 50_000, "nonsense", '{"id": {"id": 1}}', "\udcff"])
def test_what_is_no_answer_at_all_proves_nothing(text: str) -> None:
    judge(text)


def judge(text: str) -> None:
    """Whatever it is, nothing but NotVerified is raised."""
    passkey = Passkey(id="a", user="a", name="a", public_key=b"", counter=0, made_at=0.0, used_at=0.0)
    assert isinstance(passkeys.id_of(text), str)
    with pytest.raises(NotVerified):
        passkeys.asserted(SITE, CHALLENGE, text, passkey, HANDLE)
    with suppress(NotVerified):
        passkeys.registered(SITE, CHALLENGE, text, user="a", name="a", issued_at=0.0)


@pytest.mark.parametrize(
    ("url", "site"),
    [
        ("https://vpn.example.org", SITE),
        ("https://vpn.example.org:8443", RelyingParty("vpn.example.org", "https://vpn.example.org:8443")),
        ("https://localhost:8443", RelyingParty("localhost", "https://localhost:8443")),
        ("https://192.0.2.1", None),
        ("https://[2001:db8::1]:8443", None),
        ("", None),
    ],
)
def test_passkeys_are_for_sites_with_a_name(url: str, site: RelyingParty | None) -> None:
    assert RelyingParty.of(url) == site
