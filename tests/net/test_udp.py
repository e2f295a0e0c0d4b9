"""The UDP port on loopback: real sockets, and sockets that refuse what some kernel or card somewhere refuses."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tests.support.netns import in_fresh_namespace
from wgpy.burst import Datagrams
from wgpy.config.values import NO_OFFLOADS, Offloads
from wgpy.endpoint import Endpoint
from wgpy.net import receiving, sending, udp
from wgpy.net.binding import UDP_GRO
from wgpy.net.datagrams import Received, SendResult
from wgpy.net.receiving import MAX_GATHERED
from wgpy.net.sending import UDP_SEGMENT
from wgpy.net.udp import UdpSockets

LOCALHOST = ["127.0.0.1", "::1"]


class Picky(socket.socket):
    """A socket that notes each sendmsg, and fails it with the errno that `refuse(segment_size)` names."""

    refuse: Callable[[int], int] = staticmethod(lambda segment_size: 0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[tuple[int, int]] = []  # UDP_SEGMENT (0: none) and bytes

    def sendmsg(self, buffers: Any, control: Any = (), flags: int = 0, address: Any = None) -> int:
        segment_size = next((int.from_bytes(d, "little") for _, kind, d in control if kind == UDP_SEGMENT), 0)
        length = sum(len(buffer) for buffer in buffers)
        self.calls.append((segment_size, length))
        if number := self.refuse(segment_size):
            raise OSError(number, os.strerror(number))
        return super().sendmsg(buffers, control, flags, address)


@pytest.fixture
def receiver() -> Iterator[UdpSockets]:
    sockets = UdpSockets.open()
    yield sockets
    sockets.close()


@pytest.fixture
def sender() -> Iterator[UdpSockets]:
    sockets = UdpSockets.open()
    yield sockets
    sockets.close()


@pytest.fixture
def picky() -> Iterator[Picky]:
    sock = Picky(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(("", 0))
    yield sock
    sock.close()


def of_sizes(count: int, size: int, tail: int | None = None) -> Datagrams:
    """`count` datagrams of random bytes, the last of `tail` bytes."""
    return Datagrams(memoryview(bytearray(os.urandom((count - 1) * size + (tail or size)))), size)


def receive(sockets: UdpSockets, timeout: float = 5) -> Received:
    """What any socket gives next; its bytes are the caller's to keep."""
    received = None
    while received is None:  # one of them may hold something that the socket no longer has
        received = next(filter(None, map(sockets.receive, sockets.sockets)), None)
        assert received or select.select(sockets.sockets, [], [], timeout)[0], "nothing arrived"
    there = received.datagrams
    datagrams = Datagrams(memoryview(bytearray(there.view)), there.segment_size, short=there.short)
    return replace(received, datagrams=datagrams)


def assert_arrives(sockets: UdpSockets, sent: Datagrams) -> list[Received]:
    """Everything sent arrives in order with its boundaries; returns the reads it took."""
    reads: list[Received] = []
    arrived: list[bytes] = []
    while len(arrived) < len(sent):
        reads.append(receive(sockets))
        arrived += map(bytes, reads[-1].datagrams)
    assert arrived == list(map(bytes, sent))
    return reads


@pytest.mark.parametrize("host", LOCALHOST)
def test_a_burst_that_takes_two_calls_is_received_whole(sender: UdpSockets, receiver: UdpSockets, host: str) -> None:
    burst = of_sizes(46, 1456, 700)
    assert sender.send(burst, Endpoint(host, receiver.port), 0) == SendResult()
    reads = assert_arrives(receiver, burst)
    assert [len(read.datagrams) for read in reads] == [46]
    assert all((read.source.host, read.source.port) == (host, sender.port) for read in reads)


@pytest.mark.parametrize("host", LOCALHOST)
def test_without_offloads_each_datagram_is_sent_alone(receiver: UdpSockets, host: str) -> None:
    plain = UdpSockets.open(offloads=NO_OFFLOADS)
    burst = of_sizes(5, 1456, 700)
    plain.send(burst, Endpoint(host, receiver.port), 0)
    assert len(assert_arrives(receiver, burst)) == 1  # read one by one, and yet received together
    receiver.send(burst, Endpoint(host, plain.port), 0)
    assert len(assert_arrives(plain, burst)) == 1
    plain.close()


def test_segmentation_can_be_switched_off_alone(
    picky: Picky, receiver: UdpSockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an argument, by the environment, and by the version of a kernel that mangles it; merging stays on."""
    endpoint, burst = Endpoint("127.0.0.1", receiver.port), of_sizes(5, 1456, 700)
    off = Offloads(udp_gso=False)
    for sockets in (UdpSockets([picky], offloads=off), UdpSockets([picky], release="7.0.0-14-generic")):
        sockets.send(burst, endpoint, 0)
    for value in ("0", "", "1"):
        monkeypatch.setenv("WGPY_NO_UDP_GSO", value)
        UdpSockets([picky], release="6.18.2").send(burst, endpoint, 0)
    alone = [(0, 1456)] * 4 + [(0, 700)]
    together = [(1456, 4 * 1456 + 700)]
    assert picky.calls == alone + alone + together + together + alone
    assert picky.getsockopt(socket.SOL_UDP, UDP_GRO) == 1


@pytest.mark.parametrize("host", LOCALHOST)
def test_what_ends_short_is_received_with_what_follows(sender: UdpSockets, receiver: UdpSockets, host: str) -> None:
    """A sender of many connections merges what each of them has, which seldom ends with a full packet."""
    sent = [of_sizes(5, 700, 40), of_sizes(1, 700), of_sizes(1, 32), of_sizes(3, 700, 699), of_sizes(1, 31)]
    for datagrams in [*sent, of_sizes(2, 700)]:
        sender.send(datagrams, Endpoint(host, receiver.port), 0)
    reads = receive(receiver), receive(receiver)
    assert [bytes(each) for each in reads[0].datagrams] == [bytes(each) for datagrams in sent for each in datagrams]
    assert len(reads[1].datagrams) == 2  # behind one too short for a message of WireGuard's


@pytest.mark.parametrize("size", [1, 16, 1023, 1024, 32754, 65507])
def test_any_size_and_count_stays_within_the_limits(receiver: UdpSockets, picky: Picky, size: int) -> None:
    sockets = UdpSockets([picky])
    burst = of_sizes(max(2, 150_000 // max(size, 1000)), size, 1)
    assert sockets.send(burst, Endpoint("127.0.0.1", receiver.port), 0) == SendResult()
    assert all(length <= 65507 and length <= 64 * size for _, length in picky.calls)
    assert_arrives(receiver, burst)


def test_datagrams_that_differ_are_received_apart(sender: UdpSockets, receiver: UdpSockets, picky: Picky) -> None:
    other, to = UdpSockets([picky]), Endpoint("127.0.0.1", receiver.port)
    lone = [of_sizes(1, size) for size in (700, 700, 600, 700, 701)]
    for datagrams in lone:
        sender.send(datagrams, to, 0)
    other.send(lone[0], to, 0)
    sender.send(lone[0], to, 1)
    sender.send(lone[0], to, 0)
    sender.sockets[0].sendto(b"", (to.host, to.port))
    sender.send(of_sizes(10, 700), to, 0)
    sender.send(of_sizes(10, 700, 1), to, 0)
    sender.send(of_sizes(10, 700), to, 0)
    reads: list[Received] = []
    while sum(len(read.datagrams) for read in reads) < 38:
        reads.append(receive(receiver))
    assert [len(read.datagrams) for read in reads] == [4, 1, 1, 1, 1, 0, 20, 10]
    assert {read.source.port for read in reads[:2]} == {sender.port}
    assert reads[2].source.port == other.port
    assert reads[3].ecn == 1
    arrived = [bytes(datagram) for read in reads[:2] for datagram in read.datagrams]
    assert arrived == [bytes(datagrams.view) for datagrams in lone]


def test_single_datagram_asks_for_no_segmentation(receiver: UdpSockets, picky: Picky) -> None:
    UdpSockets([picky]).send(of_sizes(1, 148), Endpoint("127.0.0.1", receiver.port), 0)
    assert picky.calls == [(0, 148)]


@pytest.mark.parametrize(
    ("count", "size", "shares"),
    [(46, 1456, [23, 23]), (44, 1456, [44]), (64, 100, [64]), (65, 100, [33, 32]), (100, 1456, [34, 33, 33])],
)
def test_segments_are_split_evenly_between_calls(
    receiver: UdpSockets, picky: Picky, count: int, size: int, shares: list[int]
) -> None:
    UdpSockets([picky]).send(of_sizes(count, size), Endpoint("127.0.0.1", receiver.port), 0)
    assert [length // size for _, length in picky.calls] == shares


def test_a_short_datagram_behind_a_full_burst_needs_no_send_of_its_own(receiver: UdpSockets, picky: Picky) -> None:
    UdpSockets([picky]).send(of_sizes(46, 1452, 96), Endpoint("127.0.0.1", receiver.port), 0)
    assert picky.calls == [(1452, 45 * 1452 + 96)]
    assert list(map(len, receive(receiver).datagrams)) == [1452] * 45 + [96]


def test_an_empty_socket_gives_none(receiver: UdpSockets) -> None:
    assert not any(map(receiver.receive, receiver.sockets))


def test_an_answer_leaves_from_the_address_that_was_spoken_to(sender: UdpSockets, receiver: UdpSockets) -> None:
    sender.send(Datagrams.of(b"ping"), Endpoint("127.0.0.2", receiver.port), 0)
    question = receive(receiver)
    assert question.source.source == ip_address("127.0.0.2").packed
    assert question.source.source_ifindex == socket.if_nametoindex("lo")
    assert receiver.send(Datagrams.of(b"pong"), question.source, 0) == SendResult()
    assert receive(sender).source.same_remote(Endpoint("127.0.0.2", receiver.port))


@pytest.mark.parametrize(("host", "gone"), [("127.0.0.1", "203.0.113.9"), ("::1", "2001:db8::9")])
@pytest.mark.parametrize("count", [1, 3])
def test_a_source_that_is_gone_is_given_up(
    sender: UdpSockets, receiver: UdpSockets, host: str, gone: str, count: int
) -> None:
    burst = of_sizes(count, 100)
    stale = Endpoint(host, receiver.port, source=ip_address(gone).packed, source_ifindex=1)
    assert sender.send(burst, stale, 0) == SendResult(source_stale=True)
    assert len(assert_arrives(receiver, burst)) == 1, "segmentation was blamed for it"


@pytest.mark.parametrize("host", LOCALHOST)
def test_the_traffic_class_is_sent_and_ecn_is_received(sender: UdpSockets, receiver: UdpSockets, host: str) -> None:
    for traffic_class in (0x88, 0x89, 0x03, 0):
        sender.send(of_sizes(2, 100), Endpoint(host, receiver.port), traffic_class)
        assert receive(receiver).ecn == traffic_class & 3


def test_the_whole_byte_of_the_traffic_class_is_used(sender: UdpSockets) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind(("127.0.0.1", 0))
        plain.settimeout(5)
        plain.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        sender.send(Datagrams.of(b"x"), Endpoint("127.0.0.1", plain.getsockname()[1]), 0x89)
        assert plain.recvmsg(10, 100)[1] == [(socket.IPPROTO_IP, socket.IP_TOS, b"\x89")]


@pytest.mark.parametrize("number", [errno.EMSGSIZE, errno.EINVAL])
def test_segments_above_the_mtu_are_sent_singly_for_that_size_and_host(
    receiver: UdpSockets, picky: Picky, number: int
) -> None:
    picky.refuse = lambda segment_size: number if segment_size > 1252 else 0
    sockets = UdpSockets([picky])
    for _ in range(2):
        burst = of_sizes(3, 1456)
        assert sockets.send(burst, Endpoint("127.0.0.1", receiver.port), 0) == SendResult()
        assert_arrives(receiver, burst)
    sockets.send(of_sizes(3, 1000), Endpoint("127.0.0.1", receiver.port), 0)
    sockets.send(of_sizes(3, 1456), Endpoint("127.0.0.2", receiver.port), 0)
    refused, alone = (1456, 3 * 1456), (0, 1456)
    assert picky.calls == [refused, *[alone] * 6, (1000, 3000), refused, *[alone] * 3]


def test_a_refusal_of_segments_lasts_no_longer_than_what_the_kernel_learns_of_a_path(
    receiver: UdpSockets, picky: Picky, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = True
    picky.refuse = lambda segment_size: errno.EMSGSIZE if segment_size and narrow else 0
    sockets, clock = UdpSockets([picky]), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    for clock[0], expected in ((1000.0, [1456, 0, 0]), (1599.0, [0, 0]), (1601.0, [1456])):
        picky.calls.clear()
        sockets.send(of_sizes(2, 1456), Endpoint("127.0.0.1", receiver.port), 0)
        assert [segment_size for segment_size, _ in picky.calls] == expected
        narrow = False


def test_eio_turns_segmentation_off_and_says_so_once(
    receiver: UdpSockets, picky: Picky, caplog: pytest.LogCaptureFixture
) -> None:
    picky.refuse = lambda segment_size: errno.EIO if segment_size else 0
    sockets = UdpSockets([picky])
    with caplog.at_level(logging.INFO):
        for host in ("127.0.0.1", "127.0.0.2"):
            burst = of_sizes(3, 1456)
            sockets.send(burst, Endpoint(host, receiver.port), 0)
            assert_arrives(receiver, burst)
    assert [segment_size for segment_size, _ in picky.calls] == [1456, 0, 0, 0, 0, 0, 0]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPERM, errno.ENETUNREACH, errno.EHOSTUNREACH])
def test_datagrams_that_the_network_refuses_are_counted_and_nothing_is_raised(picky: Picky, number: int) -> None:
    picky.refuse = lambda segment_size: number
    sockets = UdpSockets([picky])
    source = ip_address("127.0.0.1").packed
    assert sockets.send(of_sizes(3, 100), Endpoint("127.0.0.1", 9, source=source), 0) == SendResult(None, 3, 300)


def test_a_full_socket_hands_back_the_rest(receiver: UdpSockets, picky: Picky) -> None:
    picky.refuse = lambda segment_size: errno.EAGAIN if len(picky.calls) == 2 else 0
    sockets = UdpSockets([picky])
    burst, endpoint = of_sizes(46, 1456, 10), Endpoint("127.0.0.1", receiver.port)
    first = sockets.send(burst, endpoint, 0)
    assert first.remaining is not None
    assert sockets.socket_for(endpoint) is picky
    assert sockets.send(first.remaining, endpoint, 0) == SendResult()
    assert_arrives(receiver, burst)


def test_a_missing_address_family_is_a_counted_failure(picky: Picky) -> None:
    sockets = UdpSockets([picky])
    assert sockets.socket_for(Endpoint("::1", 9)) is None
    assert sockets.send(of_sizes(2, 10), Endpoint("::1", 9), 0) == SendResult(None, 2, 20)


def test_what_the_sender_remembers_is_bounded(picky: Picky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "MAX_ROUTES", 4)
    monkeypatch.setattr(sending, "MAX_REFUSALS", 4)
    picky.refuse = lambda segment_size: errno.EMSGSIZE if segment_size else 0
    sockets = UdpSockets([picky])
    for i in range(1, 10):
        sockets.send(of_sizes(2, 10), Endpoint(f"127.0.0.{i}", sockets.port), 0)
        assert len(sockets._routes) <= 4
        assert all(len(family.sender._refusals) <= 4 for family in sockets._families.values())


def test_truncated_reads_are_dropped_and_counted(
    sender: UdpSockets, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(receiving, "READ_SIZE", 100)
    receiver: UdpSockets = request.getfixturevalue("receiver")  # its reads are no longer than that from the beginning
    for size in (101, 100):
        sender.send(of_sizes(1, size), Endpoint("127.0.0.1", receiver.port), 0)
    assert len(receive(receiver).datagrams.view) == 100
    assert receiver.receive_failures == 1


def test_icmp_errors_are_skipped_when_reading(receiver: UdpSockets) -> None:
    class Refused(socket.socket):
        errors = 1

        def recvmsg_into(self, *args: Any) -> Any:
            if self.errors:
                self.errors -= 1
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            return super().recvmsg_into(*args)

    with Refused(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(("", 0))
        sockets = UdpSockets([sock])
        receiver.send(Datagrams.of(b"x"), Endpoint("127.0.0.1", sockets.port), 0)
        assert bytes(receive(sockets).datagrams.view) == b"x"


def test_the_loop_calls_back_until_reading_stops(sender: UdpSockets, receiver: UdpSockets) -> None:
    async def run() -> list[bytes]:
        loop = asyncio.get_running_loop()
        read: asyncio.Queue[bytes] = asyncio.Queue()

        def readable(sock: socket.socket) -> bool:
            received = receiver.receive(sock)
            if received is not None:
                read.put_nowait(bytes(received.datagrams.view))
            return True

        receiver.start_reading(loop, readable)
        for host in LOCALHOST:
            sender.send(Datagrams.of(host.encode()), Endpoint(host, receiver.port), 0)
        arrived = [await asyncio.wait_for(read.get(), 30) for _ in LOCALHOST]
        receiver.stop_reading(loop)
        assert not any(loop.remove_reader(sock) for sock in receiver.sockets)
        return arrived

    assert sorted(asyncio.run(run())) == sorted(host.encode() for host in LOCALHOST)


def test_datagrams_left_for_the_next_call_cause_one(sender: UdpSockets, receiver: UdpSockets) -> None:
    async def run() -> list[int]:
        loop = asyncio.get_running_loop()
        sizes: asyncio.Queue[int] = asyncio.Queue()

        def readable(sock: socket.socket) -> bool:  # reads once, though more may be there
            received = receiver.receive(sock)
            if received is not None:
                sizes.put_nowait(len(received.datagrams.view))
            return True

        for size in (1, 2, 3):
            sender.send(of_sizes(1, size), Endpoint("127.0.0.1", receiver.port), 0)
        receiver.start_reading(loop, readable)
        arrived = [await asyncio.wait_for(sizes.get(), 30) for _ in range(3)]
        receiver.stop_reading(loop)
        return arrived

    assert asyncio.run(run()) == [1, 2, 3]


def test_datagrams_left_behind_cause_no_call_after_reading_has_stopped(
    sender: UdpSockets, receiver: UdpSockets
) -> None:
    """As when the port is changed just then: the socket is closed, and whoever is called knows another."""

    async def run() -> list[int]:
        loop = asyncio.get_running_loop()
        sizes: list[int] = []

        def readable(sock: socket.socket) -> bool:
            received = receiver.receive(sock)
            sizes.append(len(received.datagrams.view) if received else 0)
            receiver.stop_reading(loop)
            return True

        for size in (1, 2):
            sender.send(of_sizes(1, size), Endpoint("127.0.0.1", receiver.port), 0)
        receiver.start_reading(loop, readable)
        await asyncio.sleep(0.1)
        return sizes

    assert asyncio.run(run()) == [1]


@pytest.mark.parametrize("size", [1, 32, 63])
def test_datagrams_too_short_for_a_packet_do_not_fill_a_read(
    sender: UdpSockets, receiver: UdpSockets, size: int
) -> None:
    """Thousands of them would keep whatever else there is waiting, and each would have its views remembered."""
    burst = of_sizes(64, size)
    for _ in range(40):
        sender.send(burst, Endpoint("127.0.0.1", receiver.port), 0)
    reads: list[int] = []
    while sum(reads) < 40 * 64:
        reads.append(len(receive(receiver).datagrams))
    assert max(reads) < MAX_GATHERED + 64


@pytest.mark.root
@pytest.mark.parametrize("host", LOCALHOST)
@in_fresh_namespace
def test_full_size_datagrams_pass_a_smaller_mtu_as_fragments(host: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "mtu", "1300"], check=True)
    sender, receiver = UdpSockets.open(), UdpSockets.open()
    for _ in range(2):
        burst = of_sizes(5, 1456, 20)
        assert sender.send(burst, Endpoint(host, receiver.port), 0) == SendResult()
        assert_arrives(receiver, burst)
    burst = of_sizes(5, 1200)
    sender.send(burst, Endpoint(host, receiver.port), 0)
    assert len(assert_arrives(receiver, burst)) == 1, "smaller ones still go together"


@pytest.mark.root
@in_fresh_namespace
def test_link_local_peers_are_reached_through_their_scope() -> None:
    for name in ("v0", "v1"):  # the same address on two links
        subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-far"], check=True)
        subprocess.run(["ip", "addr", "add", "fe80::a/64", "dev", name, "nodad"], check=True)
        for end in (name, f"{name}-far"):
            subprocess.run(["ip", "link", "set", end, "up"], check=True)
    sender, receiver = UdpSockets.open(), UdpSockets.open()
    for name in ("v0", "v1"):
        scope = socket.if_nametoindex(name)
        sender.send(Datagrams.of(b"ping"), Endpoint("fe80::a", receiver.port, scope), 0)
        question = receive(receiver)
        assert (question.source.scope_id, question.source.source_ifindex) == (scope, scope)
        assert receiver.send(Datagrams.of(b"pong"), question.source, 0) == SendResult()
        assert receive(sender).source.same_remote(Endpoint("fe80::a", receiver.port, scope))
