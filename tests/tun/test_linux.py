"""LinuxTun: its judgement over a socket pair that stands in for the kernel, and the kernel itself."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support import reference
from tests.support.bursts import V4, burst_of, outcome, sizes, super_header, tcp_run, udp_run
from tests.support.netns import in_fresh_namespace
from wgpy.burst import Burst
from wgpy.errors import TunError
from wgpy.tun.linux import LinuxTun
from wgpy.tun.merging import IoVector
from wgpy.tun.virtio import (
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    MERGEABLE,
    NEEDS_CSUM,
    PLAIN,
    VnetHeader,
)


class Kernel:
    """The other end of a TUN's file descriptor: a datagram socket keeps packets apart just so."""

    def __init__(self, *, vnet_header: bool = True) -> None:
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (ours, self.socket):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.tun = LinuxTun(ours.detach(), "fake0", MERGEABLE if vnet_header else frozenset(), vnet_header=vnet_header)

    def received(self) -> list[bytes]:
        packets = []
        while True:
            try:
                packets.append(self.socket.recv(1 << 17))
            except BlockingIOError:
                return packets

    def close(self) -> None:
        self.tun.close()
        self.socket.close()


def plain(packet: bytes) -> bytes:
    return PLAIN + packet


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


def test_a_read_gives_the_segments_of_a_super_packet(kernel: Kernel) -> None:
    packet = reference.tcp_packet(*V4, bytes(5000))
    kernel.socket.send(super_header(packet, 1000).pack() + packet)
    burst = kernel.tun.read()
    assert burst is not None
    assert [bytes(segment) for segment in burst.packets()] == reference.segment_packet(packet, 1000)
    assert kernel.tun.read() is None


def test_malformed_packets_are_skipped_when_reading(kernel: Kernel) -> None:
    packet = reference.udp_packet(*V4, b"hello")
    kernel.socket.send(super_header(packet, 0).pack() + packet)
    kernel.socket.send(PLAIN + packet)
    burst = kernel.tun.read()
    assert burst is not None
    assert [bytes(packet) for packet in burst.packets()] == [packet]
    assert kernel.tun.drops == {"malformed": 1}


def test_a_burst_is_written_merged(kernel: Kernel) -> None:
    packets = tcp_run(3)
    kernel.tun.write(burst_of(*packets, reference.udp_packet(*V4, b"x" * 20)))
    merged, single = kernel.received()
    assert merged[10:50] + merged[50:] == merged[10:]
    assert list(outcome([merged[:10], merged[10:50], b"", b"", merged[50:]])) == packets
    assert single == PLAIN + reference.udp_packet(*V4, b"x" * 20)


def test_without_a_vnet_header_packets_are_written_one_by_one() -> None:
    kernel = Kernel(vnet_header=False)
    packets = tcp_run(3)
    kernel.tun.write(burst_of(*packets))
    assert kernel.received() == packets
    kernel.socket.send(packets[0])
    burst = kernel.tun.read()
    assert burst is not None
    assert [bytes(packet) for packet in burst.packets()] == packets[:1]
    kernel.close()


def test_packets_for_a_full_queue_are_dropped_and_counted(kernel: Kernel) -> None:
    packet = reference.udp_packet(*V4, b"x" * 1000)
    for _ in range(5000):
        kernel.tun.write(burst_of(packet))
    assert kernel.tun.drops["full"] + len(kernel.received()) == 5000
    assert kernel.tun.drops["full"] > 0


class Refusing:
    """os.writev of a kernel that answers some packets with an error number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, merged: int = 0, plain: int = 0) -> None:
        self.merged, self.plain, self.taken = merged, plain, list[IoVector]()
        monkeypatch.setattr(os, "writev", self)

    def __call__(self, fd: int, parts: IoVector) -> int:
        error = self.merged if len(parts) > 2 else self.plain
        if error:
            raise OSError(error, os.strerror(error))
        self.taken.append(parts)
        return sum(map(len, parts))


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO])
def test_a_kind_of_super_packet_that_the_kernel_refuses_is_not_made_again(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    refusing = Refusing(monkeypatch, merged=error)
    packets = udp_run(4)
    with caplog.at_level(logging.WARNING):
        kernel.tun.write(burst_of(tcp_run(1)[0], *packets))
    assert [bytes(write[1]) for write in refusing.taken] == [tcp_run(1)[0], *packets]
    assert not kernel.tun.drops
    assert "type 5" in caplog.text

    refusing.merged = 0
    kernel.tun.write(burst_of(*udp_run(3)))
    kernel.tun.write(burst_of(*tcp_run(3)))
    assert sizes(refusing.taken[5:]) == [1, 1, 1, 3]


def test_an_interface_that_is_down_drops_packets_and_keeps_its_offloads(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusing = Refusing(monkeypatch, merged=errno.EIO, plain=errno.EIO)
    kernel.tun.write(burst_of(*tcp_run(4)))
    kernel.tun.write(burst_of(*tcp_run(1)))
    assert kernel.tun.drops == {"down": 5}
    assert not caplog.records
    refusing.merged = refusing.plain = 0
    kernel.tun.write(burst_of(*tcp_run(4)))
    assert sizes(refusing.taken) == [4]


def test_a_packet_the_kernel_refuses_is_counted(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    Refusing(monkeypatch, plain=errno.EINVAL)
    kernel.tun.write(burst_of(b"\x00" * 40))
    assert kernel.tun.drops == {"refused": 1}


@pytest.mark.parametrize("error", [77, errno.ENODEV])
def test_an_interface_that_went_away_is_an_error(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    Refusing(monkeypatch, merged=error)
    with pytest.raises(TunError, match=r"^the interface went away"):
        kernel.tun.write(burst_of(*tcp_run(4)))


def test_a_closed_tun_raises_and_may_be_closed_again() -> None:
    kernel = Kernel()
    kernel.close()
    assert kernel.tun.fileno() == -1
    with pytest.raises(TunError):
        kernel.tun.read()
    with pytest.raises(TunError):
        kernel.tun.write(burst_of(b"x"))
    kernel.close()


def test_the_loop_calls_while_there_is_something_to_read(kernel: Kernel) -> None:
    async def scenario() -> None:
        got: asyncio.Queue[bytes] = asyncio.Queue()

        def readable() -> None:
            burst = kernel.tun.read()
            assert burst is not None
            got.put_nowait(bytes(burst.packet(0)))

        kernel.tun.start_reading(asyncio.get_running_loop(), readable)
        kernel.socket.send(PLAIN + b"one")
        kernel.socket.send(PLAIN + b"two")
        assert [await got.get(), await got.get()] == [b"one", b"two"]
        kernel.tun.stop_reading()
        kernel.tun.stop_reading()
        kernel.socket.send(PLAIN + b"three")
        await asyncio.sleep(0.01)
        assert got.empty()

    asyncio.run(scenario())


@pytest.mark.parametrize("addresses", [["10.0.0.2"] * 3, ["10.0.0.2", "10.0.0.3", "10.0.0.4"]])
def test_packets_left_for_the_next_read_cause_a_call(kernel: Kernel, addresses: list[str]) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        got: asyncio.Queue[bytes] = asyncio.Queue()

        def readable() -> None:  # reads once, though more may be there
            burst = kernel.tun.read()
            if burst is not None:
                got.put_nowait(bytes(burst.packet(0)))

        packets = [reference.udp_packet(V4[0], address, bytes(i + 1)) for i, address in enumerate(addresses)]
        for packet in packets:
            kernel.socket.send(PLAIN + packet)
        kernel.tun.start_reading(loop, readable)
        assert await got.get() == packets[0]
        kernel.tun.stop_reading()
        await asyncio.sleep(0.01)
        assert got.empty()
        kernel.tun.start_reading(loop, readable)
        assert [await got.get(), await got.get()] == packets[1:]
        kernel.tun.stop_reading()

    asyncio.run(scenario())


def call(tun: LinuxTun) -> list[int]:
    """What the data path does when the loop calls; the numbers of packets that were handed over together."""
    counts = []
    while (burst := tun.read()) is not None:
        counts.append(len(burst))
        if tun.is_dry:
            break
    return counts


def test_lone_packets_cause_few_empty_reads(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    packet = reference.udp_packet(*V4, bytes(100))
    reads = 0

    def readv(fd: int, buffers: list[memoryview], readv: Callable[..., int] = os.readv) -> int:
        nonlocal reads
        reads += 1
        return readv(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)
    for number in range(90):
        kernel.socket.send(PLAIN + packet)
        assert call(kernel.tun) == [1]
        if number == 9:
            reads = 0
    assert reads <= 80 + 80 // 7


def test_an_answer_that_came_while_a_lone_packet_was_written_is_read_at_once(kernel: Kernel) -> None:
    async def scenario() -> None:
        got: list[bytes] = []

        def readable() -> None:
            burst = kernel.tun.read()
            if burst is not None:
                got.append(bytes(burst.packet(0)))

        kernel.tun.start_reading(asyncio.get_running_loop(), readable)
        for answer in (b"first", b"second"):
            kernel.socket.send(PLAIN + answer)
            kernel.tun.write(burst_of(b"question"))
            kernel.tun.flush()
        assert got == [b"first", b"second"]
        kernel.socket.send(PLAIN + b"not an answer")
        kernel.tun.flush()
        kernel.tun.write(burst_of(b"a", b"burst"))
        kernel.tun.flush()
        assert got == [b"first", b"second"]  # the loop will call
        kernel.tun.stop_reading()

    asyncio.run(scenario())


def test_answers_are_seldom_looked_for_where_none_come(kernel: Kernel) -> None:
    async def scenario() -> None:
        looks = 0

        def readable() -> None:
            nonlocal looks
            looks += 1
            assert kernel.tun.read() is None

        kernel.tun.start_reading(asyncio.get_running_loop(), readable)
        for _ in range(170):
            kernel.tun.write(burst_of(b"question"))
            kernel.tun.flush()
            kernel.received()
        assert looks == 10
        kernel.tun.stop_reading()

    asyncio.run(scenario())


@pytest.mark.parametrize("together", [2, 4, 7, 8, 15])
def test_packets_that_begin_to_come_together_are_noticed(
    kernel: Kernel, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wgpy.tun.linux.monotonic", lambda: 1000.0)
    packet = reference.udp_packet(*V4, bytes(100))
    for _ in range(20):
        kernel.socket.send(PLAIN + packet)
        call(kernel.tun)
    calls: list[list[int]] = []
    for _ in range(20):
        for _ in range(together):
            kernel.socket.send(PLAIN + packet)
        while select.select([kernel.tun], [], [], 0)[0]:  # as long as some wait, the loop calls
            calls.append(call(kernel.tun))
    assert sum(map(sum, calls)) == 20 * together
    assert calls[-8:] == [[together]] * 8


def test_the_first_packet_after_a_rest_is_handed_over_without_a_look(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("wgpy.tun.linux.monotonic", lambda: now)
    packet = reference.udp_packet(*V4, bytes(100))
    kernel.socket.send(PLAIN + packet)
    assert call(kernel.tun) == [1]
    now += 0.2
    for _ in range(5):
        kernel.socket.send(PLAIN + packet)
    burst = kernel.tun.read()
    assert burst is not None
    assert len(burst.lengths) == 1
    assert kernel.tun.is_dry  # so the data path hands it over; the loop calls as long as some wait
    assert call(kernel.tun) == [4]


def test_a_lone_packet_becomes_the_same_whatever_came_before(kernel: Kernel) -> None:
    for mtu in (1420, 28 + 33, 1420):
        kernel.tun.mtu = mtu
        for text in (b"a" * 33, b"b" * 33, b"c" * 20, b"d" * 33):
            packet = reference.udp_packet(*V4, text)
            pseudo = reference.pseudo_header(*V4, 17, len(packet) - 20)
            begun = (reference.internet_checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big")
            unfinished = VnetHeader(NEEDS_CSUM, GSO_NONE, 0, 0, 20, 6).pack() + packet[:26] + begun + packet[28:]
            for sent in (PLAIN + packet, unfinished, unfinished, PLAIN + packet):
                kernel.socket.send(sent)
                burst = kernel.tun.read()
                assert burst is not None
                fresh = Burst.of(packet, mtu)
                assert list(map(bytes, burst.packets())) == [packet]
                assert (burst.stride, len(burst.view)) == (fresh.stride, len(fresh.view))


def test_what_is_kept_of_lone_packets_is_bounded(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgpy.tun.linux._MAX_KEPT", 4)
    for size in range(20):
        kernel.socket.send(PLAIN + reference.udp_packet(*V4, bytes(size)))
        burst = kernel.tun.read()
        assert burst is not None
        assert burst.lengths == [28 + size]
        assert len(kernel.tun._alone) <= 4


def test_only_a_tun_can_be_adopted() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(TunError, match=f"descriptor {reader} is not a TUN"):
            LinuxTun.adopt(reader)
        os.fstat(reader)
    finally:
        os.close(reader)
        os.close(writer)


# The kernel.


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.mark.root
@in_fresh_namespace
@pytest.mark.parametrize("offload", [True, False])
def test_an_open_descriptor_is_adopted(offload: bool) -> None:
    first = LinuxTun.open("wg7", offload=offload)
    second = LinuxTun.adopt(os.dup(first.fileno()), offload=offload)
    first.close()
    assert second.name == "wg7"
    ip("address", "add", "10.9.0.1/24", "dev", "wg7")
    ip("link", "set", "wg7", "mtu", "1420", "up")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", ("10.9.0.2", 9))
    assert any(packet.endswith(b"hello") and packet[0] == 0x45 for packet in all_packets(second))
    second.close()


@pytest.mark.root
@in_fresh_namespace
def test_packets_that_arrive_together_wait_until_they_are_read() -> None:
    """A tunnel within the tunnel sends some hundreds of datagrams in one call: none is lost before they are read."""
    tun = LinuxTun.open("wg7")
    ip("address", "add", "10.9.0.1/24", "dev", "wg7")
    ip("link", "set", "wg7", "mtu", "1420", "up")
    sent = [b"packet %d" % i for i in range(1999)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, 32, 16 << 20)  # SO_SNDBUFFORCE: what waits is the sender's
        for payload in sent:
            sender.sendto(payload, ("10.9.0.2", 9))
    assert [packet[28:] for packet in all_packets(tun) if packet[9] == 17] == sent


@pytest.mark.root
@in_fresh_namespace
def test_an_interface_made_by_another_program_keeps_its_queue() -> None:
    ip("tuntap", "add", "wg7", "mode", "tun")
    LinuxTun.open("wg7")
    said = subprocess.run(["ip", "link", "show", "wg7"], capture_output=True, text=True, check=True).stdout
    assert "qlen 500" in said


@pytest.mark.root
@in_fresh_namespace
def test_no_udp_super_packets_are_written_where_the_kernel_mangles_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be forwarded to a network card. TCP's are not affected, and the environment switches both off."""
    tun = LinuxTun.open("wg7")
    assert tun.super_packets == MERGEABLE
    assert LinuxTun.adopt(os.dup(tun.fileno()), release="7.0.0-14-generic").super_packets == {GSO_TCPV4, GSO_TCPV6}
    monkeypatch.setenv("WGPY_NO_TUN_OFFLOAD", "1")
    assert LinuxTun.adopt(os.dup(tun.fileno())).super_packets == frozenset()
    monkeypatch.undo()
    assert LinuxTun.adopt(os.dup(tun.fileno()), release="7.1.5").super_packets == MERGEABLE


def all_packets(tun: LinuxTun) -> list[bytes]:
    packets = []
    while (burst := tun.read()) is not None:
        packets += [bytes(packet) for packet in burst.packets()]
    return packets


@pytest.mark.root
@in_fresh_namespace
@pytest.mark.parametrize("offload", [True, False])
def test_an_interface_deleted_under_its_reader_is_an_error(offload: bool) -> None:
    async def scenario() -> None:
        tun = LinuxTun.open("wg0", offload=offload)
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def readable() -> None:
            try:
                while tun.read() is not None:
                    pass
            except TunError as error:
                tun.stop_reading()
                failed.set_exception(error)

        tun.start_reading(asyncio.get_running_loop(), readable)
        ip("link", "set", "wg0", "up")
        ip("link", "delete", "wg0")
        with pytest.raises(TunError, match="the interface went away"):
            await asyncio.wait_for(failed, 30)
        with pytest.raises(TunError, match="the interface went away"):
            tun.write(burst_of(*tcp_run(3)))
        tun.close()

    asyncio.run(scenario())


@pytest.mark.root
@in_fresh_namespace
def test_writes_to_an_interface_that_is_down_are_dropped_until_it_is_up() -> None:
    tun = LinuxTun.open("wg0")
    tun.write(burst_of(*tcp_run(4)))
    assert tun.drops == {"down": 4}
    ip("link", "set", "wg0", "up")
    tun.write(burst_of(*tcp_run(4)))
    tun.write(burst_of(*udp_run(4)))
    assert tun.drops == {"down": 4}
    shown = subprocess.run(["ip", "-s", "-j", "link", "show", "wg0"], capture_output=True, check=True).stdout
    assert json.loads(shown)[0]["stats64"]["rx"]["packets"] == 2
    tun.close()


@pytest.mark.root
@in_fresh_namespace
@pytest.mark.parametrize("tail", [1, 99, 100])
def test_the_kernel_splits_our_super_packets_as_we_would(tail: int) -> None:
    """Two interfaces, the kernel routing between them: what it takes merged comes back out as the same packets."""
    into, out = LinuxTun.open("wg0"), LinuxTun.open("wg1", offload=False)
    for number, name in enumerate(("wg0", "wg1")):
        ip("address", "add", f"10.{number}.0.1/24", "dev", name)
        ip("link", "set", name, "up")
    for setting in ("ip_forward", "conf/all/rp_filter", "conf/wg0/rp_filter"):
        with open(f"/proc/sys/net/ipv4/{setting}", "w") as file:
            file.write("1" if setting == "ip_forward" else "0")
    ends = ("10.0.0.9", "10.1.0.9")
    tcp = [*tcp_run(3, addresses=ends), tcp_run(1, tail, ends, sequence=307, identification=3)[0]]
    udp = [*udp_run(3, addresses=ends), udp_run(1, tail, ends, identification=3)[0]]
    for run, kind in ((tcp, GSO_TCPV4), (udp, GSO_UDP_L4)):
        all_packets(out)
        into.write(burst_of(*run))
        assert select.select([out], [], [], 5)[0]
        got = [packet for packet in all_packets(out) if packet[0] == 0x45 and packet[12:16] == bytes([10, 0, 0, 9])]
        assert [packet[20:] for packet in got] == [packet[20:] for packet in run], kind
        assert all(map(reference.checksums_hold, got))
    assert not into.drops
    into.close()
    out.close()
