"""After a change of the routes: which peers are still answered from the address they spoke to, and what that costs."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from tests.support.netns import in_fresh_namespace
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.net.sources import MAX_QUESTIONS, lost_sources, those_astray

OURS = ip_address("10.0.0.1").packed


def peers(*endpoints: Endpoint) -> list[tuple[PublicKey, Endpoint]]:
    return [(PublicKey(number.to_bytes(32, "little")), endpoint) for number, endpoint in enumerate(endpoints)]


def heard(host: str, source: bytes = OURS, port: int = 51820, ifindex: int = 2, scope: int = 0) -> Endpoint:
    return Endpoint(host, port, scope, source, ifindex)


class Kernel:
    """The routes of a machine, which counts how often it is asked."""

    def __init__(self, route: Callable[[Endpoint], int | None]) -> None:
        self.route = route
        self.questions: list[Endpoint] = []

    def __call__(self, endpoint: Endpoint) -> int | None:
        self.questions.append(endpoint)
        return self.route(endpoint)


def test_a_source_is_kept_while_its_route_uses_the_interface_that_the_peer_was_heard_on() -> None:
    routes = {"192.0.2.1": 2, "192.0.2.2": 3, "192.0.2.3": None}
    known = peers(*map(heard, routes))
    assert those_astray(known, Kernel(lambda endpoint: routes[endpoint.host])) == [known[1][0], known[2][0]]


def test_the_kernel_is_asked_once_for_each_pair_of_host_and_source() -> None:
    other = ip_address("10.0.0.2").packed
    kernel = Kernel(lambda endpoint: 2)
    behind_nat = [heard("192.0.2.1", port=port) for port in range(1, 2000)]
    assert those_astray(peers(*behind_nat, heard("192.0.2.1", other), heard("192.0.2.2")), kernel) == []
    assert [(endpoint.host, endpoint.source) for endpoint in kernel.questions] == [
        ("192.0.2.1", OURS),
        ("192.0.2.1", other),
        ("192.0.2.2", OURS),
    ]


def test_peers_behind_one_host_that_were_heard_on_two_interfaces_share_the_question_but_not_the_answer() -> None:
    known = peers(heard("192.0.2.1", ifindex=2), heard("192.0.2.1", port=7, ifindex=3))
    kernel = Kernel(lambda endpoint: 2)
    assert those_astray(known, kernel) == [known[1][0]]
    assert len(kernel.questions) == 1


def test_the_kernel_is_asked_for_each_of_two_links_with_the_same_address() -> None:
    local = ip_address("fe80::1").packed
    known = peers(*(heard("fe80::2", local, ifindex=scope, scope=scope) for scope in (2, 3)))
    kernel = Kernel(lambda endpoint: endpoint.scope_id)
    assert those_astray(known, kernel) == []
    assert len(kernel.questions) == 2


def test_beyond_the_limit_of_questions_sources_are_forgotten() -> None:
    known = peers(*(heard(str(ip_address(0x0A000000 + number))) for number in range(MAX_QUESTIONS + 5)))
    kernel = Kernel(lambda endpoint: 2)
    assert those_astray(known, kernel) == [public_key for public_key, _ in known[MAX_QUESTIONS:]]
    assert len(kernel.questions) == MAX_QUESTIONS


def test_if_the_kernel_cannot_be_asked_all_sources_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*kind: int) -> None:
        raise OSError

    known = peers(heard("192.0.2.1"), heard("192.0.2.2"))
    monkeypatch.setattr(socket, "socket", refused)
    assert lost_sources(known, 0) == [public_key for public_key, _ in known]


def test_where_no_peer_has_a_source_the_kernel_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[int, ...]] = []
    monkeypatch.setattr(socket, "socket", lambda *kind: opened.append(kind))
    assert lost_sources(iter(()), 0) == []
    assert opened == []


@pytest.mark.root
@in_fresh_namespace
def test_the_kernel_is_asked_with_the_source_the_mark_and_the_scope() -> None:
    batch = """
        link add va type veth peer name vb
        link set va up
        link set vb up
        address add 192.0.2.1/24 dev va
        address add 10.0.0.1/32 dev lo
        address add 2001:db8::1/64 dev va nodad
        address add fe80::1/64 dev va nodad
        address add fe80::2/64 dev vb nodad
        route add 192.0.2.0/24 dev vb table 7
        rule add from 10.0.0.1 fwmark 5 table 7
    """
    subprocess.run(["ip", "-batch", "-"], input=batch, check=True, text=True)
    va, vb = map(socket.if_nametoindex, ("va", "vb"))

    def is_kept(host: str, source: str, ifindex: int, *, scope: int = 0, mark: int = 0) -> bool:
        return not lost_sources(peers(heard(host, ip_address(source).packed, ifindex=ifindex, scope=scope)), mark)

    assert is_kept("192.0.2.9", "192.0.2.1", va)
    assert not is_kept("192.0.2.9", "192.0.2.1", vb)
    assert is_kept("192.0.2.9", "10.0.0.1", va)
    assert not is_kept("192.0.2.9", "10.0.0.1", va, mark=5)
    assert is_kept("192.0.2.9", "10.0.0.1", vb, mark=5)
    assert is_kept("192.0.2.9", "192.0.2.1", va, mark=5)
    assert not is_kept("192.0.2.9", "10.0.0.2", va)  # not, or no longer, ours
    assert not is_kept("203.0.113.1", "192.0.2.1", va)  # no route
    assert is_kept("2001:db8::9", "2001:db8::1", va)
    assert not is_kept("2001:db8::9", "2001:db8::1", vb)
    assert not is_kept("2001:db8:1::9", "2001:db8::1", va)
    assert is_kept("fe80::9", "fe80::1", va, scope=va)
    assert is_kept("fe80::9", "fe80::2", vb, scope=vb)
