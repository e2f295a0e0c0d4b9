"""The sockets of a port: a queue for each kind of message, ports that are taken, families that are missing."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import Namespace, in_fresh_namespace, require_root, veth_pair
from wgpy.burst import Datagrams
from wgpy.endpoint import Endpoint
from wgpy.errors import SocketError
from wgpy.net import binding
from wgpy.net import queues as queues_module
from wgpy.net.binding import BUFFER_SIZE
from wgpy.net.datagrams import SendResult
from wgpy.net.queues import MAX_KNOWN_HOSTS, QUEUES, SORT_EVERY
from wgpy.net.udp import UdpSockets

FAMILIES = (socket.AF_INET, socket.AF_INET6)
LOCALHOST = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT = (bytes((kind, 0, 0, 0)) for kind in (1, 2, 3, 4))


@pytest.fixture
def port() -> Iterator[UdpSockets]:
    sockets = UdpSockets.open()
    yield sockets
    sockets.close()


def received(sock: socket.socket) -> list[bytes]:
    """All that waits in a socket, a datagram each."""
    found = []
    while True:
        try:
            found.append(sock.recv(1 << 16))
        except BlockingIOError:
            return found


def test_both_families_share_the_port_which_may_be_given(port: UdpSockets) -> None:
    assert {sock.getsockname()[1] for sock in port.sockets} == {port.port}
    port.close()
    again = UdpSockets.open(port.port)
    assert again.port == port.port
    again.close()


def test_the_error_for_a_port_in_use_names_port_and_remedy(port: UdpSockets) -> None:
    """Though its sockets share the port among themselves."""
    with pytest.raises(SocketError, match=rf"UDP port {port.port} is in use: stop the program that `ss -ulpn` shows"):
        UdpSockets.open(port.port)


MESSAGES = {
    "initiation": INITIATION + bytes(144),
    "one with a cookie": INITIATION + bytes(128) + b"\1" * 16,
    "response": RESPONSE + bytes(88),
    "cookie reply": COOKIE_REPLY + bytes(60),
    "data": TRANSPORT + bytes(28),
    "an empty one": b"",
    "runt": b"\4\0\0",
    "reserved": b"\4\0\0\1",
    "swapped": b"\0\0\0\4",
    "noise": bytes(32),
}
OF_STRANGERS = [{*MESSAGES} - {"initiation", "response"}, {"initiation", "response"}, set(), set()]
OF_PEERS = [{"an empty one", "runt", "reserved", "swapped", "noise"}]
OF_PEERS += [set(), {"initiation", "one with a cookie", "response", "cookie reply"}, {"data"}]


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_are_sorted_by_kind_and_by_known_sources(port: UdpSockets, family: socket.AddressFamily) -> None:
    """A host that was sent anything but a cookie is known; its port may change, and an IPv6 address within its /64."""

    def queues(sender: socket.socket) -> list[set[str]]:
        for message in MESSAGES.values():
            sender.sendto(message, (LOCALHOST[family], port.port))
        waiting = [received(sock) for sock in port.sockets if sock.family == family]
        return [{name for name, message in MESSAGES.items() if message in queue} for queue in waiting]

    async def meet(message: bytes, *hosts: str) -> None:
        loop = asyncio.get_running_loop()
        port.start_reading(loop, lambda sock: True)
        for host in hosts:
            port.send(Datagrams.of(message), Endpoint(host, 9), 0)
        await asyncio.sleep(2 * SORT_EVERY)
        port.stop_reading(loop)

    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        near = "127.0.0.2" if family == socket.AF_INET else "::1"
        sender.bind((near, 0))
        assert queues(sender) == OF_STRANGERS
        asyncio.run(meet(COOKIE_REPLY, near))
        assert queues(sender) == OF_STRANGERS
        asyncio.run(meet(INITIATION, near.replace("::1", "::9:1")))
        assert queues(sender) == OF_PEERS
        others = [f"127.1.{i >> 8}.{i & 255}" for i in range(2 * MAX_KNOWN_HOSTS)]
        if family == socket.AF_INET6:
            others = [f"fd00:0:0:{i:x}::1" for i in range(2 * MAX_KNOWN_HOSTS)]
        asyncio.run(meet(TRANSPORT, *others[1:MAX_KNOWN_HOSTS]))
        assert queues(sender) == OF_PEERS, "there is room for so many"
        asyncio.run(meet(TRANSPORT, others[0]))
        assert queues(sender) == OF_STRANGERS, "all have to be met again"
        asyncio.run(meet(TRANSPORT, near))
        assert queues(sender) == OF_PEERS, "and are"
        asyncio.run(meet(TRANSPORT, *others))
        strangers = [OF_STRANGERS[0] - {"data"}, *OF_STRANGERS[1:3], {"data"}]
        assert queues(sender) == strangers, "so many so soon: data may be that of any of them"


@pytest.mark.parametrize(("kind", "full"), [(TRANSPORT, 0), (COOKIE_REPLY, 0), (INITIATION, 1)])
def test_a_full_queue_of_strangers_takes_no_room_from_others(port: UdpSockets, kind: bytes, full: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(("127.0.0.1", port.port))
        for _ in range(20_000):
            stranger.send(kind + bytes(144))
        stranger.send((INITIATION, TRANSPORT)[full] + bytes(144))
    queues = [len(received(sock)) for sock in port.sockets[:QUEUES]]
    assert 100 < queues[full] < 20_000
    assert queues[1 - full] == 1


@pytest.mark.root
def test_a_broadcast_arrives_once_and_in_the_strangers_queue() -> None:
    """The kernel copies it to each socket of a port, past the filter that chooses one."""
    with Namespace() as here, Namespace() as there:
        veth_pair(here, there, (["192.0.2.1/24"], ["192.0.2.2/24"]))
        sender = there.udp_socket()

        def body() -> None:
            port = UdpSockets.open()
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for host in ("192.0.2.255", "192.0.2.1"):
                sender.sendto(TRANSPORT + host.encode(), (host, port.port))
            others, *rest = port.sockets[:QUEUES]
            found: list[bytes] = []
            while len(found) < 2:
                assert select.select([others], [], [], 5)[0]
                found += received(others)
            assert found == [TRANSPORT + b"192.0.2.255", TRANSPORT + b"192.0.2.1"]
            assert not any(map(received, rest))
            port.close()

        here.call(body)
        sender.close()


@pytest.mark.root
@pytest.mark.parametrize("family", FAMILIES)
@in_fresh_namespace
def test_the_longest_filter_fits_into_the_smallest_optmem_max(family: socket.AddressFamily) -> None:
    """Linux before 6.8 allows 20,480 bytes of what it translates the filter to."""
    limit = Path("/proc/sys/net/core/optmem_max")
    if limit.exists():  # it is a namespace's own
        limit.write_text("20480")
    port = UdpSockets.open()
    hosts = [(0xFFFF_FFFF - i).to_bytes(4, "big") for i in range(MAX_KNOWN_HOSTS)]
    if family == socket.AF_INET6:
        hosts = [host + host for host in hosts]
    queues_module.sort(next(sock for sock in port.sockets if sock.family == family), hosts)
    port.close()


def test_without_the_filter_a_socket_takes_everything(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queues_module, "SO_ATTACH_REUSEPORT_CBPF", 9999)
    with caplog.at_level(logging.INFO):
        port = UdpSockets.open()
    assert [sock.family for sock in port.sockets] == list(FAMILIES)
    assert "share a queue here" in caplog.text
    for host in LOCALHOST.values():
        for message in (INITIATION, TRANSPORT):
            assert port.send(Datagrams.of(message), Endpoint(host, port.port), 0) == SendResult()
    assert [received(sock) for sock in port.sockets] == [[INITIATION, TRANSPORT]] * 2
    port.close()


_REAL_SOCKET = socket.socket


class Bind:
    """Replaces socket.socket in the module: fails `bind` of a family, or its creation, a number of times."""

    def __init__(self, failures: Mapping[socket.AddressFamily, tuple[int, int]], in_constructor: bool = False) -> None:
        self.failures = failures
        self.in_constructor = in_constructor
        self.left = {family: times for family, (times, _) in failures.items()}

    def fail(self, family: socket.AddressFamily) -> None:
        if self.left.get(family, 0) > 0:
            self.left[family] -= 1
            raise OSError(self.failures[family][1], os.strerror(self.failures[family][1]))

    def __call__(self, family: socket.AddressFamily, kind: int) -> socket.socket:
        outer = self
        if self.in_constructor:
            outer.fail(family)

        class Bound(_REAL_SOCKET):
            def bind(self, address: Any) -> None:
                outer.fail(family)
                super().bind(address)

        return Bound(family, kind)


@pytest.mark.parametrize(("missing", "left"), [(socket.AF_INET6, socket.AF_INET), (socket.AF_INET, socket.AF_INET6)])
@pytest.mark.parametrize(("number", "in_constructor"), [(errno.EAFNOSUPPORT, True), (errno.EADDRNOTAVAIL, False)])
def test_one_address_family_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, missing: socket.AddressFamily, left: int, number: int, in_constructor: bool
) -> None:
    monkeypatch.setattr(socket, "socket", Bind({missing: (1, number)}, in_constructor))
    sockets = UdpSockets.open()
    assert {sock.family for sock in sockets.sockets} == {left}
    assert sockets.port != 0
    sockets.close()


def test_both_families_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = dict.fromkeys((socket.AF_INET, socket.AF_INET6), (1, errno.EAFNOSUPPORT))
    monkeypatch.setattr(socket, "socket", Bind(absent, in_constructor=True))
    with pytest.raises(SocketError, match="neither IPv4 nor IPv6"):
        UdpSockets.open()


def test_a_random_port_is_tried_until_it_is_free_in_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = Bind({socket.AF_INET6: (99, errno.EADDRINUSE)})
    monkeypatch.setattr(socket, "socket", factory)
    sockets = UdpSockets.open()
    assert {sock.family for sock in sockets.sockets} == set(FAMILIES)
    sockets.close()
    factory.left[socket.AF_INET6] = 100
    with pytest.raises(SocketError, match="free in both"):
        UdpSockets.open()


def test_the_error_for_a_privileged_port_names_the_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Bind({socket.AF_INET: (1, errno.EACCES)}))
    with pytest.raises(SocketError, match="port 53 is privileged: needs CAP_NET_BIND_SERVICE"):
        UdpSockets.open(53)


def test_the_error_for_a_fwmark_without_privilege_names_the_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unprivileged(socket.socket):
        def setsockopt(self, level: int, option: int, value: Any, *rest: Any) -> None:
            if option in (socket.SO_MARK, binding.SO_RCVBUFFORCE, binding.SO_SNDBUFFORCE):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            super().setsockopt(level, option, value)

    monkeypatch.setattr(socket, "socket", Unprivileged)
    with pytest.raises(SocketError, match="CAP_NET_ADMIN"):
        UdpSockets.open(fwmark=51820)
    UdpSockets.open().close()


@pytest.mark.root
def test_fwmark_is_set_on_every_socket() -> None:
    require_root()
    port = UdpSockets.open(fwmark=51820)
    assert {sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) for sock in port.sockets} == {51820}
    port.set_fwmark(0)
    assert {sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) for sock in port.sockets} == {0}
    port.close()


@pytest.mark.root
def test_buffers_may_exceed_the_system_limit(port: UdpSockets) -> None:
    require_root()
    for host in LOCALHOST.values():
        sock = port.socket_for(Endpoint(host, 1))
        assert sock is not None
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            assert sock.getsockopt(socket.SOL_SOCKET, option) == 2 * BUFFER_SIZE


@pytest.mark.root
@in_fresh_namespace
def test_with_ipv6_switched_off_ipv4_works() -> None:
    with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w") as switch:
        switch.write("1")
    sockets = UdpSockets.open()
    sockets.send(Datagrams.of(b"x"), Endpoint("127.0.0.1", sockets.port), 0)
    assert received(sockets.sockets[0]) == [b"x"]
    assert sockets.send(Datagrams.of(b"x"), Endpoint("::1", sockets.port), 0) == SendResult(None, 1, 1)
