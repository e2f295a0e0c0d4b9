"""A port that several workers share: the kernel's filter gives each datagram to the worker that it is for."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.net.test_binding import FAMILIES, LOCALHOST, MESSAGES, OF_PEERS, OF_STRANGERS, received
from tests.support.netns import in_fresh_namespace
from wgpy.burst import Datagrams
from wgpy.device.share import Share
from wgpy.endpoint import Endpoint
from wgpy.errors import SocketError
from wgpy.net import queues as queues_module
from wgpy.net.binding import bind_port
from wgpy.net.queues import (
    CROWD,
    MAX_KNOWN_HOSTS,
    QUEUES,
    REPORT_CROWD_EVERY,
    SORT_EVERY,
    KnownHosts,
    ReportedHosts,
    program,
    sort,
)
from wgpy.net.udp import UdpSockets

COUNTS = (1, 2, 3, 8)
INDEX_AT = {1: None, 2: 8, 3: 4, 4: 4}  # by the message type


class Port:
    """The sockets of all workers."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.sockets = bind_port(0, workers=workers)
        self.number: int = self.sockets[0][0].getsockname()[1]

    def close(self) -> None:
        for sockets in self.sockets:
            for sock in sockets:
                sock.close()

    def of(self, family: socket.AddressFamily) -> list[list[socket.socket]]:
        return [[sock for sock in sockets if sock.family == family] for sockets in self.sockets]

    def known(self, family: socket.AddressFamily, *hosts: bytes, are_all: bool = True) -> None:
        sort(self.of(family)[0][0], hosts, are_all=are_all, workers=self.workers)

    def where(self, sender: socket.socket, message: bytes) -> tuple[int, int]:
        """The worker and the queue in which a datagram arrives."""
        family = socket.AddressFamily(sender.family)
        sender.sendto(message, (LOCALHOST[family], self.number))
        found = [
            (worker, queue)
            for worker, sockets in enumerate(self.of(family))
            for queue, sock in enumerate(sockets)
            for datagram in received(sock)
            if datagram == message
        ]
        assert len(found) == 1
        return found[0]


@pytest.fixture(params=COUNTS)
def port(request: pytest.FixtureRequest) -> Iterator[Port]:
    with closing(Port(request.param)) as opened:
        yield opened


@pytest.fixture(params=FAMILIES, ids=["ipv4", "ipv6"])
def sender(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param, socket.SOCK_DGRAM) as sock:
        sock.bind((LOCALHOST[request.param], 0))
        yield sock


def with_index(message: bytes, index: int) -> bytes:
    at = INDEX_AT[message[0]]
    assert at is not None
    return message[:at] + index.to_bytes(4, "little") + message[at + 4 :]


def host_of(sender: socket.socket) -> bytes:
    return socket.inet_pton(sender.family, sender.getsockname()[0])[:8]


def test_each_worker_has_a_socket_for_each_queue_of_each_family(port: Port) -> None:
    assert len(port.sockets) == port.workers
    for sockets in port.sockets:
        assert [sock.family for sock in sockets] == [family for family in FAMILIES for _ in range(QUEUES)]
        assert {sock.getsockname()[1] for sock in sockets} == {port.number}


@pytest.mark.parametrize("are_peers", [False, True])
def test_a_message_with_an_index_goes_to_the_worker_that_drew_the_index(
    port: Port, sender: socket.socket, are_peers: bool
) -> None:
    port.known(socket.AddressFamily(sender.family), *([host_of(sender)] if are_peers else []))
    queues = OF_PEERS if are_peers else OF_STRANGERS
    for worker in range(port.workers):
        share = Share(worker, port.workers)
        for name in ("response", "cookie reply", "data"):
            queue = next(number for number, names in enumerate(queues) if name in names)
            for drawn in (0, 4, 0xFFFFFFFF, 0x12345678):
                assert port.where(sender, with_index(MESSAGES[name], share.index(drawn))) == (worker, queue), name


@pytest.mark.parametrize("are_peers", [False, True])
def test_everything_else_from_one_sender_goes_to_one_worker(port: Port, sender: socket.socket, are_peers: bool) -> None:
    """Among it an initiation without a cookie, and the same one with the cookie that this worker gave."""
    port.known(socket.AddressFamily(sender.family), *([host_of(sender)] if are_peers else []))
    queues = OF_PEERS if are_peers else OF_STRANGERS
    workers = set()
    for name in ("initiation", "one with a cookie", "swapped", "noise", "reserved"):
        for filling in (b"\0", b"\xa5"):
            message = MESSAGES[name]
            if INDEX_AT.get(message[0], 0) is None:
                message = message[:4] + filling * 112 + message[116:]  # all but the macs
            worker, queue = port.where(sender, message)
            assert name in queues[queue]
            workers.add(worker)
    assert len(workers) == 1


def test_a_message_too_short_for_an_index_goes_to_the_first_worker(port: Port, sender: socket.socket) -> None:
    """A filter that would read beyond the end returns 0."""
    for message in (b"\4\0\0\0", MESSAGES["response"][:8], MESSAGES["runt"]):
        assert port.where(sender, message)[0] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_newcomers_are_spread_over_all_workers(port: Port, family: socket.AddressFamily) -> None:
    """By their ports, here, which one client's neighbours behind a NAT have in a row."""
    found: Counter[int] = Counter()
    for _ in range(40 * port.workers):
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            found[port.where(sender, MESSAGES["initiation"])[0]] += 1
    assert len(found) == port.workers
    assert max(found.values()) < 80


@pytest.mark.parametrize("family", FAMILIES)
def test_the_others_share_the_newcomers_of_an_absent_worker(port: Port, family: socket.AddressFamily) -> None:
    absent = {0, *range(2, port.workers)} - {1} if port.workers < 8 else {2, 5}
    present = set(range(port.workers)) - absent
    sort(port.of(family)[0][0], (), workers=port.workers, absent=absent)
    found: Counter[int] = Counter()
    for _ in range(40 * port.workers):
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            found[port.where(sender, MESSAGES["initiation"])[0]] += 1
            index = Share(max(absent), port.workers).index(7)
            assert port.where(sender, with_index(MESSAGES["data"], index))[0] == max(absent)  # of its own session
    assert set(found) == (present or {0})


@in_fresh_namespace
def test_neighbours_with_the_same_port_are_spread_too() -> None:
    for workers in COUNTS[1:]:
        with closing(Port(workers)) as port:
            found: Counter[int] = Counter()
            for number in range(1, 1 + 40 * workers):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    sender.bind((f"127.0.{number >> 7}.{number << 1 & 255}", 51820))  # every other address
                    found[port.where(sender, MESSAGES["initiation"])[0]] += 1
            assert len(found) == workers
            assert max(found.values()) < 80


def test_an_index_of_no_worker_goes_to_some_worker(sender: socket.socket) -> None:
    """Of three workers' numbers, two bits, the fourth value names nobody: only strangers send it."""
    with closing(Port(3)) as port:
        assert port.where(sender, with_index(MESSAGES["data"], 3)) == (0, 0)


def test_with_one_worker_the_filter_only_chooses_a_queue() -> None:
    known = program(socket.AF_INET, [b"\x7f\0\0\2"], are_all=True, workers=1)
    assert known == [
        (0x20, 0, 0, 0), (1, 0, 0, 3), (0x15, 5, 0, 0x4000000), (1, 0, 0, 2), (0x15, 3, 0, 0x1000000),
        (0x15, 2, 0, 0x2000000), (0x15, 1, 0, 0x3000000), (6, 0, 0, 0), (0x20, 0, 0, 0xFFF0000C), (2, 0, 0, 0),
        (0x60, 0, 0, 0), (0x15, 0, 2, 0x7F000002), (0x87, 0, 0, 0), (0x16, 0, 0, 0), (0x20, 0, 0, 0),
        (0x15, 2, 0, 0x1000000), (0x15, 3, 0, 0x2000000), (0x15, 3, 4, 0x4000000), (0x20, 0, 0, 132), (0x15, 0, 2, 0),
        (6, 0, 0, 1), (6, 0, 0, 0), (6, 0, 0, 0),
    ]  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize("workers", [1, 8, 64])
@pytest.mark.parametrize("family", FAMILIES)
@in_fresh_namespace
def test_the_longest_filter_fits_into_the_smallest_optmem_max(family: socket.AddressFamily, workers: int) -> None:
    """As in test_binding: Linux before 6.8 allows 20,480 bytes of what it translates the filter to."""
    limit = Path("/proc/sys/net/core/optmem_max")
    if limit.exists():  # it is a namespace's own
        limit.write_text("20480")
    hosts = [(0xFFFF_FFFF - i).to_bytes(4, "big") for i in range(MAX_KNOWN_HOSTS)]
    if family == socket.AF_INET6:
        hosts = [host + host for host in hosts]
    steps = program(family, hosts, are_all=True, workers=workers)
    assert len(steps) - len(program(family, hosts, are_all=True, workers=1)) <= 50 * (workers > 1)
    steps = program(family, hosts, are_all=True, workers=workers, absent=range(1, workers))
    assert len(steps) < 4096  # BPF_MAXINSNS
    with closing(Port(2)) as port:
        queues_module.sort(port.of(family)[0][0], hosts, workers=workers)


def test_without_the_filter_several_workers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues_module, "SO_ATTACH_REUSEPORT_CBPF", 9999)
    with pytest.raises(SocketError, match="this kernel cannot sort a port's datagrams among workers: Protocol not"):
        bind_port(0, workers=2)
    (sockets,) = bind_port(0)
    assert [sock.family for sock in sockets] == list(FAMILIES)
    for sock in sockets:
        sock.close()


class Loop:
    """Calls when it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.calls.append((delay, callback))

    def run(self) -> float:
        """The only call there is; returns its delay."""
        ((delay, callback),) = self.calls
        self.calls.clear()
        callback()
        return delay


def test_a_worker_reports_hosts_of_peers_together_and_once() -> None:
    reports: list[list[bytes]] = []
    hosts, loop = ReportedHosts(reports.append), Loop()
    hosts.add(b"0000", 0.0)
    assert reports == []
    hosts.start_sorting(loop)  # type: ignore[arg-type]
    assert reports == [[b"0000"]], "what was known before"
    now = time.monotonic()
    for host in (b"1111", b"2222", b"1111", b"0000"):
        assert not hosts.add(host, now)
    assert loop.run() <= SORT_EVERY
    assert reports[1:] == [[b"1111", b"2222"]]
    hosts.add(b"3333", time.monotonic() + 9)
    assert loop.run() == 0.0, "nothing was reported for a while"
    hosts.stop_sorting()
    hosts.add(b"4444", now)
    assert len(reports) == 3
    assert loop.calls == []


def test_more_hosts_than_the_filter_knows_are_reported_now_and_then() -> None:
    """Each report costs the control process, which all workers share; what the filter forgets must be said again."""
    reports: list[list[bytes]] = []
    hosts, loop = ReportedHosts(reports.append), Loop()
    hosts.start_sorting(loop)  # type: ignore[arg-type]
    many = [number.to_bytes(4, "big") for number in range(3 * MAX_KNOWN_HOSTS)]
    for host in many:
        assert not hosts.add(host, time.monotonic())
    loop.run()
    assert reports == [many[-MAX_KNOWN_HOSTS:]]
    hosts.forget(time.monotonic())
    hosts.add(many[0], time.monotonic())
    hosts.add(many[1], time.monotonic())
    assert REPORT_CROWD_EVERY / 2 < loop.run() <= REPORT_CROWD_EVERY
    assert reports[1:] == [many[:2]]
    hosts.add(many[2], time.monotonic() + CROWD + 1)
    assert loop.run() == 0.0


def test_a_workers_sockets_report_to_control_and_install_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Port(2)) as port:
        reports: list[list[bytes]] = []
        monkeypatch.setattr(queues_module, "sort", lambda *args, **options: pytest.fail("that is control's filter"))
        udp = UdpSockets(port.sockets[1], report_hosts=reports.append)

        async def send() -> None:
            udp.start_reading(asyncio.get_running_loop(), lambda sock: True)
            for _ in range(2):
                for host in ("127.0.0.2", "fd00:1:2:3:4::5"):
                    udp.send(Datagrams.of(MESSAGES["data"]), Endpoint(host, 9), 0)
                    udp.send(Datagrams.of(MESSAGES["data"]), Endpoint(host, 10), 0)
                udp.send(Datagrams.of(MESSAGES["cookie reply"]), Endpoint("127.0.0.3", 9), 0)
            await asyncio.sleep(2 * SORT_EVERY)
            assert sorted(reports) == [[bytes((127, 0, 0, 2))], [bytes.fromhex("fd00000100020003")]]
            udp.forget_hosts()
            udp.send(Datagrams.of(MESSAGES["data"]), Endpoint("127.0.0.2", 9), 0)
            await asyncio.sleep(REPORT_CROWD_EVERY + SORT_EVERY)
            assert reports[2:] == [[bytes((127, 0, 0, 2))]], "the filter forgot it, so it is said again"
            udp.stop_reading(asyncio.get_running_loop())

        asyncio.run(send())


def test_known_hosts_do_not_change_which_worker_is_chosen(sender: socket.socket) -> None:
    loop = Loop()
    with closing(Port(2)) as port:
        known = KnownHosts(port.of(socket.AddressFamily(sender.family))[0][0], workers=2)
        known.start_sorting(loop)  # type: ignore[arg-type]
        assert port.where(sender, with_index(MESSAGES["data"], 1)) == (1, 0)
        known.add(host_of(sender), 0.0)
        loop.run()
        assert port.where(sender, with_index(MESSAGES["data"], 1)) == (1, 3)


def test_a_port_in_use_leaves_no_socket_of_any_worker_behind() -> None:
    with closing(Port(2)) as port:
        for workers in (1, 3):
            with pytest.raises(SocketError, match="is in use") as caught:
                bind_port(port.number, workers=workers)
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.EADDRINUSE
