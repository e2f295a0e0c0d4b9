"""Signing in with a real OpenLDAP, and the checks that follow."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from tests.gateway.identity.corp import DISABLED, MANY
from tests.gateway.identity.slapd import BASE, Slapd
from wgpy.gateway.identity.directory import Unavailable
from wgpy.gateway.identity.ldap.entries import Entry, refusal
from wgpy.gateway.identity.ldap.people import DEEPEST, Denied, People
from wgpy.gateway.policy.ldap import Membership
from wgpy.gateway.policy.people import Person

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("slapd")]

NOW = time.time()


def names(person: object) -> set[str]:
    """What a person's groups are called, without their DNs."""
    assert isinstance(person, Person), person
    return {name for name in person.groups if "=" not in name}


def sign_in(directory: People, name: str) -> Person:
    person = directory.sign_in(name, f"{name}'s own", NOW)
    assert isinstance(person, Person), person
    return person


@pytest.mark.parametrize("way", ["ldaps", "StartTLS", "plain"])
def test_a_person_signs_in_with_what_the_directory_says_of_them(way: str, server: Slapd) -> None:
    directory = server.open(servers=(server.url(tls=way == "ldaps"),), plain=way == "plain")
    directory.probe()
    alice = sign_in(directory, "alice")
    assert (alice.name, alice.source, alice.display_name) == ("alice", "corp", "Alice")
    assert alice.email == "alice@example.org"
    assert alice.subject
    assert names(alice) == {"staff", "engineers", "technical", "everyone"}  # two of which are in one another
    assert f"cn=staff,ou=groups,{BASE}" in alice.groups


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice", "bob's own"), ("none", "alice's own"), ("alice", ""), ("none", ""), ("", "alice's own"),
        ("*", "alice's own"), ("al*", "alice's own"), ("alice)(uid=*", "alice's own"), ("alice\0", "alice's own"),
        ("*)(objectClass=*", "alice's own"), (f"uid=alice,ou=people,{BASE}", "alice's own"), ("alice ", "alice's own"),
        ("ａlice", "alice's own"), ("alice\\2a", "alice's own"), ("twin", "twin's own"), ("searcher", "seeks"),
    ],
)  # fmt: skip
def test_nobody_else_signs_in(name: str, password: str, server: Slapd) -> None:
    assert isinstance(server.open().sign_in(name, password, NOW), Denied)


def test_texts_of_any_length_are_refused(server: Slapd) -> None:
    assert server.open().sign_in("a" * 100_000, "x", NOW) == Denied("not a name")
    assert isinstance(server.open().sign_in("alice", "x" * 100_000, NOW), Denied)


def test_an_empty_password_and_odd_names_are_not_even_asked_about(server: Slapd) -> None:
    nobody = server.open(servers=("ldaps://localhost:1",))
    assert nobody.sign_in("alice", "", NOW) == Denied("no password")
    assert nobody.sign_in("alice", "\ud800", NOW) == Denied("no password")
    assert nobody.sign_in("alice)(uid=*", "x", NOW) == Denied("not a name")


def test_names_with_every_special_character_are_escaped(server: Slapd) -> None:
    assert "odd" in names(sign_in(server.open(), "odd"))


def test_other_kinds_of_groups(server: Slapd) -> None:
    assert names(sign_in(server.open(), "carol")) == {"posix", "unique"}
    by_entry = server.open(membership=Membership.MEMBEROF)
    assert names(sign_in(by_entry, "alice")) == {"staff", "engineers", "technical", "everyone"}


def test_a_group_called_like_the_dn_of_another_is_not_taken_for_it(server: Slapd) -> None:
    bob = sign_in(server.open(), "bob")
    assert f"cn=forged,ou=groups,{BASE}" in bob.groups
    assert f"cn=engineers,ou=groups,{BASE}" not in bob.groups


def test_many_groups_come_in_pages_and_deep_ones_end(server: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    assert len(names(sign_in(server.open(), "dave"))) == MANY
    with caplog.at_level(logging.WARNING):
        assert names(sign_in(server.open(), "erin")) == {f"deep{number}" for number in range(DEEPEST)}
    assert "deeper than" in caplog.text


@pytest.mark.parametrize("name", DISABLED)
def test_who_is_disabled_does_not_sign_in(name: str, server: Slapd) -> None:
    refused = server.open().sign_in(name, f"{name}'s own", NOW)
    assert isinstance(refused, Denied)
    assert "account" in refused.reason
    assert server.open().sign_in(name, "another", NOW) == Denied("invalid credentials")  # who guesses learns nothing


def test_the_check_follows_groups_names_and_who_is_gone(server: Slapd) -> None:
    directory = server.open()
    frank, grace = sign_in(directory, "frank"), sign_in(directory, "grace")
    assert frank.subject and grace.subject  # noqa: PT018
    before = directory.check([frank.subject, grace.subject], NOW)
    assert before == {frank.subject: frank, grace.subject: grace}
    server.modify(
        f"dn: cn=staff,ou=groups,{BASE}\nchangetype: modify\nadd: member\nmember: uid=frank,ou=people,{BASE}\n\n"
        f"dn: uid=frank,ou=people,{BASE}\nchangetype: modrdn\nnewrdn: uid=francis\ndeleteoldrdn: 1\n\n"
        f"dn: uid=grace,ou=people,{BASE}\nchangetype: delete\n"
    )
    after = directory.check([frank.subject, grace.subject], NOW)
    francis = after[frank.subject]
    assert isinstance(francis, Person)
    assert (francis.name, francis.subject) == ("francis", frank.subject)
    assert names(francis) == {"staff", "everyone", "technical"}
    assert isinstance(after[grace.subject], Denied)
    # Somebody new of the same name is somebody else.
    server.modify(
        f"dn: uid=grace,ou=people,{BASE}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: grace\ncn: g\nsn: g\n"
        "userPassword: grace's own\n"
    )
    assert sign_in(directory, "grace").subject != grace.subject
    assert isinstance(directory.check([grace.subject], NOW)[grace.subject], Denied)
    server.modify(
        f"dn: uid=francis,ou=people,{BASE}\nchangetype: modify\nadd: pwdAccountLockedTime\n"
        "pwdAccountLockedTime: 000001010000Z\n"
    )
    assert isinstance(directory.check([frank.subject], NOW)[frank.subject], Denied)
    assert isinstance(directory.sign_in("francis", "frank's own", NOW), Denied)


def test_more_people_than_fit_one_question_are_checked(server: Slapd) -> None:
    directory = server.open()
    alice = sign_in(directory, "alice")
    assert alice.subject
    absent = [f"00000000-0000-0000-0000-{number:012}" for number in range(120)]
    found = directory.check([*absent[:60], alice.subject, *absent[60:]], NOW)
    assert found.pop(alice.subject) == alice
    assert set(found) == set(absent)
    assert all(isinstance(each, Denied) for each in found.values())


def test_active_directorys_attributes(server: Slapd) -> None:
    """With its schema in OpenLDAP, which has neither its rule for groups in groups nor its objectCategory."""
    settings = server.settings(login="sAMAccountName", subject="objectGUID", user_filter="(objectClass=user)")
    directory = People("corp", settings, "seeks")
    person = sign_in(directory, "winuser")
    assert person.subject == "04030201-0605-0807-090a-0b0c0d0e0f10"  # as Microsoft writes it
    assert directory.check([person.subject], NOW) == {person.subject: person}
    chain = People("corp", server.settings(**{**settings.json(), "membership": Membership.CHAIN}), "seeks")
    assert names(sign_in(chain, "winuser")) == {"Domain Users"}  # its primary group
    server.modify(
        f"dn: cn=Win User,ou=people,{BASE}\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: 514\n"
    )
    assert directory.check([person.subject], NOW) == {person.subject: Denied("the account is disabled")}
    assert isinstance(directory.sign_in("winuser", "winuser's own", NOW), Denied)


CLOSED: dict[str, tuple[dict[str, Any], str]] = {
    "another server's certificate": ({"servers": ("ldaps://127.0.0.1:{tls}",)}, "certificate is not accepted"),
    "the same over StartTLS": ({"servers": ("ldap://127.0.0.1:{plain}",)}, "certificate is not accepted"),
    "an authority that nobody named": ({"ca": ""}, "certificate is not accepted: "),
    "TLS where there is none": ({"servers": ("ldaps://localhost:{plain}",)}, "TLS: "),
    "no server": ({"servers": ("ldaps://localhost:1",)}, "Connection refused"),
    "a name that does not exist": ({"servers": ("ldaps://nowhere.invalid",)}, "ldaps://nowhere.invalid:636: "),
    "a wrong password of who searches": ({"password": "wrong"}, "may not bind: invalid credentials"),
    "no password of who searches": ({"password": ""}, "may not bind: no name or no password"),
    "a base that is elsewhere": ({"base": f"ou=elsewhere,{BASE}"}, "refers to 'ldap://192.0.2.1"),
    "a base that does not exist": ({"base": f"ou=nowhere,{BASE}"}, "search of ou=nowhere,dc=example,dc=org: no such"),
    "people whom nobody may see": ({"bind_dn": ""}, "search of ou=people,dc=example,dc=org: no such object"),
    "groups nowhere": ({"group_base": f"ou=nowhere,{BASE}"}, "search of ou=nowhere,dc=example,dc=org: no such object"),
    "a referral back to itself": ({"base": f"ou=back,{BASE}"}, "refers to 'ldap://127.0.0.1"),
}


@pytest.mark.parametrize("case", CLOSED)
def test_what_is_wrong_is_one_line_and_nobody_comes_in(case: str, server: Slapd) -> None:
    other, why = CLOSED[case]
    if "servers" in other:
        ports = {"tls": server.port + 1, "plain": server.port}
        other = {**other, "servers": tuple(url.format(**ports) for url in other["servers"])}
    directory = server.open(**other)
    with pytest.raises(Unavailable) as error:
        directory.sign_in("alice", "alice's own", NOW)
    assert why in str(error.value)
    assert str(error.value).startswith("directory corp: ")
    assert "\n" not in str(error.value)
    if "group_base" not in other:
        with pytest.raises(Unavailable):
            directory.check(["x"], NOW)


def test_the_next_server_is_asked_when_one_fails(server: Slapd) -> None:
    directory = server.open(servers=("ldaps://localhost:1", server.url(host="127.0.0.1"), server.url()))
    assert sign_in(directory, "alice").name == "alice"


def test_referrals_in_results_are_left_out(server: Slapd) -> None:
    assert sign_in(server.open(base=BASE), "alice").name == "alice"


def test_a_date_beyond_all_clocks_never_comes() -> None:
    assert refusal(Entry("cn=alice", {"accountexpires": (b"9" * 400,)}), 1e9) == ""
    assert "expired" in refusal(Entry("cn=alice", {"accountexpires": (b"-" + b"9" * 400,)}), 1e9)
