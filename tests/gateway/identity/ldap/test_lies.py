"""Directories that stall, lie, or are not who they say, played by a server that does so on purpose."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
import sansldap
from sansldap import LDAPMessage, LDAPResultCode, PartialAttribute

from tests.gateway.identity.authority import Authority
from wgpy.gateway.identity.directory import Unavailable
from wgpy.gateway.identity.ldap import connection
from wgpy.gateway.identity.ldap.connection import PAGE
from wgpy.gateway.identity.ldap.people import MOST_GROUPS, Denied, People
from wgpy.gateway.policy.ldap import ACTIVE_DIRECTORY, Server, Settings
from wgpy.gateway.policy.people import Person

BASE = "dc=corp"
ALICE = f"cn=alice,{BASE}"
Answer = Callable[[sansldap.LDAPServer, LDAPMessage], bytes | None]


@contextmanager
def serving(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port of this machine on which each connection is given to `talk`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    threading.Thread(target=serve, args=(peer,)).start()

        def serve(peer: socket.socket) -> None:
            with peer, suppress(OSError, sansldap.LDAPError):
                peer.settimeout(5)
                talk(peer)

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def ldap(answer: Answer) -> Callable[[socket.socket], None]:
    """Talk LDAP: `answer` gives bytes to send instead of what it has put into the session, if any."""

    def talk(peer: socket.socket) -> None:
        session = sansldap.LDAPServer()
        while data := peer.recv(65536):
            for message in session.receive(data):
                instead = answer(session, message)
                peer.sendall(session.data_to_send() if instead is None else instead)

    return talk


def entry(session: sansldap.LDAPServer, number: int, dn: str = ALICE, **attributes: bytes) -> None:
    values = [PartialAttribute(name, [value]) for name, value in attributes.items()]
    session.search_result_entry(number, dn, values)


def honest(session: sansldap.LDAPServer, message: LDAPMessage) -> bytes | None:
    """One person, Alice, whose password is right whatever it is, in Active Directory."""
    number = message.message_id
    if isinstance(message, sansldap.BindRequest):
        session.bind_response(number)
    elif isinstance(message, sansldap.SearchRequest):
        wanted = str(message.filter)
        if "objectClass=group" in wanted:
            if f"member:1.2.840.113556.1.4.1941:={ALICE}" in wanted:
                for name in (b"staff", b"all"):
                    entry(session, number, f"cn={name.decode()},{BASE}", cn=name)
        elif "sAMAccountName=alice" in wanted or "objectGUID=" in wanted:
            entry(session, number, sAMAccountName=b"alice", objectGUID=bytes(range(16)))
        session.search_result_done(number)
    return None


def opened(port: int, **other: Any) -> People:
    settings: dict[str, Any] = {
        "servers": (f"ldap://127.0.0.1:{port}",), "base": BASE, "bind_dn": "cn=gateway", "plain": True, "timeout": 3.0,
        **other,
    }  # fmt: skip
    return People("corp", Settings(**{**ACTIVE_DIRECTORY, **settings}), "secret")


def test_groups_in_groups_by_active_directorys_rule() -> None:
    """What an OpenLDAP cannot answer: LDAP_MATCHING_RULE_IN_CHAIN."""
    with serving(ldap(honest)) as port:
        person = opened(port).sign_in("alice", "right", 0.0)
        assert isinstance(person, Person)
        assert {name for name in person.groups if "=" not in name} == {"staff", "all"}


def on(kind: type[LDAPMessage], then: Answer, number: int = 1) -> Answer:
    """An honest server, but for the `number`th message of a kind."""
    seen = [0]

    def answer(session: sansldap.LDAPServer, message: LDAPMessage) -> bytes | None:
        seen[0] += isinstance(message, kind)
        return (then if isinstance(message, kind) and seen[0] == number else honest)(session, message)

    return answer


def without_end(session: sansldap.LDAPServer, message: LDAPMessage) -> bytes:
    entry(session, message.message_id, cn=b"x" * 1000)
    return session.data_to_send() * 12_000


def busy(session: sansldap.LDAPServer, message: LDAPMessage) -> None:
    session.bind_response(message.message_id, result_code=LDAPResultCode.BUSY, diagnostics_message="a\nb\x1b[31m" * 99)


def bound_as_searched(session: sansldap.LDAPServer, message: LDAPMessage) -> None:
    """Answer to a search with a successful bind, which the protocol allows nobody."""
    session.bind_response(message.message_id)


def nameless(session: sansldap.LDAPServer, message: LDAPMessage) -> None:
    """An entry whose DN is empty: binding as that is binding as nobody, with which any server is content."""
    entry(session, message.message_id, "", sAMAccountName=b"alice", objectGUID=bytes(16))
    session.search_result_done(message.message_id)


def garbage(*_: object) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\n\r\n"


def cut(*_: object) -> bytes:
    return b"\x30\x84\x7f\xff\xff\xff\x02\x01\x01"  # the beginning of 2 GiB


def nested(*_: object) -> bytes:
    return b"\x30\x80" * 10_000


def long_dn(session: sansldap.LDAPServer, message: LDAPMessage) -> None:
    entry(
        session, message.message_id, f"cn={'x' * connection.LONGEST_DN}", sAMAccountName=b"alice", objectGUID=bytes(16)
    )
    session.search_result_done(message.message_id)


def without_bounds(session: sansldap.LDAPServer, message: LDAPMessage) -> None:
    """Alice with values of a megabyte, in groups whose names and DNs are as long, and in an honest one."""
    number, much = message.message_id, b"x" * (1 << 20)
    if "objectClass=group" in str(message.filter):  # type: ignore[attr-defined]
        entry(session, number, f"cn=long,{BASE}", cn=much)
        entry(session, number, f"cn={'x' * connection.LONGEST_DN},{BASE}", cn=b"admins")
        entry(session, number, f"cn=staff,{BASE}", cn=b"staff")
    else:
        entry(session, number, sAMAccountName=b"alice", objectGUID=bytes(16), displayName=much, mail=much)
    session.search_result_done(number)


def always(then: Answer) -> Answer:
    """An honest server, but for searches."""
    return lambda session, message: (then if isinstance(message, sansldap.SearchRequest) else honest)(session, message)


def bye(session: sansldap.LDAPServer, message: LDAPMessage) -> None:
    del session, message
    raise ConnectionResetError


LIES: dict[str, tuple[Answer, str]] = {
    "another protocol": (on(sansldap.BindRequest, garbage), "sends no LDAP"),
    "half of a message": (on(sansldap.BindRequest, cut), "does not answer in time"),
    "a message of messages": (on(sansldap.BindRequest, nested), "sends no LDAP"),
    "more than fits": (on(sansldap.SearchRequest, without_end), "for one question"),
    "busy": (on(sansldap.BindRequest, busy), "bind: busy (ab[31m"),
    "busy for the person": (on(sansldap.BindRequest, busy, 2), "bind: busy (ab[31m"),
    "a bind for a search": (on(sansldap.SearchRequest, bound_as_searched), "something else than was asked"),
    "an end": (on(sansldap.SearchRequest, bye), "closed the connection"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_directory_that_lies_lets_nobody_in(lie: str) -> None:
    answer, why = LIES[lie]
    with serving(ldap(answer)) as port, pytest.raises(Unavailable) as error:
        opened(port, timeout=1.0).sign_in("alice", "right", 0.0)
    assert why in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_an_entry_without_a_name_is_not_bound_as() -> None:
    with serving(ldap(on(sansldap.SearchRequest, nameless))) as port:
        assert opened(port).sign_in("alice", "wrong", 0.0) == Denied("no name or no password")


def test_what_is_kept_of_a_person_is_bounded() -> None:
    with serving(ldap(always(without_bounds))) as port:
        person = opened(port).sign_in("alice", "right", 0.0)
    assert isinstance(person, Person)
    assert (len(person.display_name), len(person.email)) == (255, 255)
    assert {name for name in person.groups if "=" not in name} == {"staff"}
    assert max(map(len, person.groups)) < 100


def test_an_entry_with_an_endless_name_is_not_there() -> None:
    with serving(ldap(on(sansldap.SearchRequest, long_dn))) as port:
        assert opened(port).sign_in("alice", "right", 0.0) == Denied("no such person")


def test_an_endless_subject_is_nobodys() -> None:
    def answer(session: sansldap.LDAPServer, message: LDAPMessage) -> None:
        entry(session, message.message_id, uid=b"alice", entryUUID=b"x" * 256)
        session.search_result_done(message.message_id)

    with serving(ldap(always(answer))) as port:
        denied = opened(port, login="uid", subject="entryUUID").sign_in("alice", "right", 0.0)
    assert isinstance(denied, Denied)
    assert "entryUUID of more than 255 characters" in denied.reason


@pytest.mark.parametrize("number", [MOST_GROUPS + 1, MOST_GROUPS + PAGE])
def test_somebody_who_is_in_too_many_groups_keeps_nobody_else_out(number: int) -> None:
    """Who may make groups could put one person into a thousand, and so end the sessions of all who are asked about."""
    everybody = {str(UUID(bytes_le=bytes([each]) * 16)): bytes([each]) * 16 for each in (1, 2, 3)}
    crowded = f"cn=p2,{BASE}"

    def answer(session: sansldap.LDAPServer, message: LDAPMessage) -> None:
        at = message.message_id
        if "objectClass=group" not in str(message.filter):  # type: ignore[attr-defined]
            for guid in everybody.values():
                name = f"p{guid[0]}"
                entry(session, at, f"cn={name},{BASE}", sAMAccountName=name.encode(), objectGUID=guid)
        elif crowded in str(message.filter):  # type: ignore[attr-defined]
            for each in range(number):
                entry(session, at, f"cn=g{each},{BASE}", cn=b"g%d" % each)
        session.search_result_done(at)

    with serving(ldap(always(answer))) as port:
        found = opened(port, timeout=30.0).check(everybody, 0.0)
    assert [isinstance(found[subject], Person) for subject in everybody] == [True, False, True]


def test_what_is_sent_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_BYTES", 1 << 20)
    answer = on(sansldap.SearchRequest, lambda *_: b"\x30\x84\x00\x7f\xff\xff" + bytes(4 << 20))
    with serving(ldap(answer)) as port, pytest.raises(Unavailable, match="more than 1 MiB"):
        opened(port).sign_in("alice", "right", 0.0)


def test_a_server_that_stalls_is_left_in_time_for_the_next() -> None:
    def stall(peer: socket.socket) -> None:
        while peer.recv(65536):
            pass

    with serving(stall) as stalled, serving(ldap(honest)) as port:
        servers = (f"ldap://127.0.0.1:{stalled}", f"ldap://127.0.0.1:{port}")
        assert isinstance(opened(port, servers=servers, timeout=1.0).sign_in("alice", "right", 0.0), Person)
        for url in (f"ldap://127.0.0.1:{stalled}", f"ldaps://127.0.0.1:{stalled}"):  # in TLS's handshake as well
            with pytest.raises(Unavailable, match="does not answer in time"):
                opened(port, servers=(url,), plain=url.startswith("ldap:"), timeout=0.2).sign_in("alice", "x", 0.0)


def test_a_trickle_is_no_way_around_the_time() -> None:
    def trickle(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(b"\x30\x7f")
        while True:
            peer.sendall(b"\x02")
            threading.Event().wait(0.02)

    with serving(trickle) as port, pytest.raises(Unavailable, match="does not answer in time"):
        opened(port, timeout=0.3).sign_in("alice", "x", 0.0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.root(tmp_path_factory.mktemp("tls"))


def secure(authority: Authority, peer: socket.socket, injected: bytes = b"") -> None:
    """Agree to StartTLS, put something behind that, and be honest within TLS."""
    signed = authority.sign("/CN=localhost", "subjectAltName = IP:127.0.0.1\n")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(signed.certificate, signed.key)
    session = sansldap.LDAPServer()
    (request,) = session.receive(peer.recv(65536))
    assert isinstance(request, sansldap.ExtendedRequest)
    session.extended_response(request.message_id)
    peer.sendall(session.data_to_send() + injected)
    with context.wrap_socket(peer, server_side=True) as inside:
        ldap(denied)(inside)


def denied(session: sansldap.LDAPServer, message: LDAPMessage) -> None:
    session.bind_response(message.message_id, result_code=LDAPResultCode.INVALID_CREDENTIALS)


def forged() -> bytes:
    """What says that a bind was successful."""
    client, server = sansldap.LDAPClient(), sansldap.LDAPServer()
    client.bind_simple("cn=gateway", "secret")
    server.bind_response(server.receive(client.data_to_send())[0].message_id)
    return server.data_to_send()


@pytest.mark.parametrize("injected", [forged(), forged()[:-1]], ids=["whole", "begun"])
def test_what_came_before_tls_is_not_believed_after_it(injected: bytes, authority: Authority) -> None:
    """Somebody on the way puts a successful bind behind the answer to StartTLS."""
    closed = pytest.raises(Unavailable, match=r"may not bind: invalid credentials|sends no LDAP")
    with serving(lambda peer: secure(authority, peer, injected)) as port, closed:
        opened(port, plain=False, ca=authority.signed.certificate.read_text()).sign_in("alice", "x", 0.0)


@pytest.mark.parametrize("code", [LDAPResultCode.PROTOCOL_ERROR, LDAPResultCode.UNAVAILABLE, LDAPResultCode.REFERRAL])
def test_starttls_that_is_stripped_lets_nothing_through(code: LDAPResultCode) -> None:
    """Somebody on the way says that the server has no TLS: no password is sent."""
    seen: list[LDAPMessage] = []

    def answer(session: sansldap.LDAPServer, message: LDAPMessage) -> None:
        seen.append(message)
        if isinstance(message, sansldap.ExtendedRequest):
            session.extended_response(message.message_id, result_code=code)
        else:
            honest(session, message)

    with serving(ldap(answer)) as port, pytest.raises(Unavailable, match="StartTLS: "):
        opened(port, plain=False).sign_in("alice", "right", 0.0)
    assert [type(message).__name__ for message in seen if not isinstance(message, sansldap.UnbindRequest)] == [
        "ExtendedRequest"
    ]


class Canned:
    """A socket on which certain bytes arrive, and then the end."""

    def __init__(self, data: bytes) -> None:
        self._data = [data]

    def recv(self, _: int) -> bytes:
        return self._data.pop() if self._data else b""

    def sendall(self, data: bytes) -> None: ...
    def settimeout(self, seconds: float) -> None: ...
    def close(self) -> None: ...


def test_no_damage_to_an_answer_is_more_than_a_failure() -> None:
    session, client = sansldap.LDAPServer(), sansldap.LDAPClient()
    wanted = sansldap.FilterPresent("cn")
    client.search_request(BASE, sansldap.SearchScope.SUBTREE, filter=wanted)
    (request,) = session.receive(client.data_to_send())
    entry(session, 1, cn=b"alice", memberOf=ALICE.encode(), objectGUID=bytes(range(16)))
    session.search_result_reference(request.message_id, ["ldap://elsewhere/dc=x"])
    page = sansldap.PagedResultControl(critical=False, size=0, cookie=b"")
    session.search_result_done(request.message_id, controls=[page])
    good = session.data_to_send()
    said: list[str] = []
    for place in range(len(good)):
        for bit in range(8):
            bad = good[:place] + bytes([good[place] ^ (1 << bit)]) + good[place + 1 :]
            peer = connection.Connection(Server.parse("ldap://dc"), Canned(bad), monotonic() + 9)  # type: ignore[arg-type]
            try:
                assert len(peer.search(BASE, wanted, ["cn"], most=10)) <= 1
            except Unavailable as error:
                said.append(str(error))
            peer.close()
    assert len(said) > len(good)
    assert all(map(str.isprintable, said))
