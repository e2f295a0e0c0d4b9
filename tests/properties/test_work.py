"""What a peer's packets cost is bounded by their number and bytes, whatever is in them: work is counted, not timed."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from itertools import product
from types import FrameType
from typing import Any

import pytest

from tests.support.bursts import OPTIONS, V4, V6, burst_of, super_header
from tests.support.reference import ACK, PSH, tcp_packet, udp_packet
from tests.support.world import Host, World
from wgpy.burst import Datagrams, ViewCache
from wgpy.device import ip, keypair
from wgpy.endpoint import Endpoint
from wgpy.tun.gathering import Groups
from wgpy.tun.linux import LinuxTun
from wgpy.tun.merging import merge
from wgpy.tun.splitting import SLOTS_SIZE, split
from wgpy.tun.virtio import MERGEABLE

# What differs between packets of two kinds, by turns. `wrong` is a byte that is flipped when all is done.
TURNS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "nothing": lambda odd: {},
    "hop limit": lambda odd: {"hop_limit": 64 + odd},
    "traffic class": lambda odd: {"traffic_class": odd},
    "fragmenting": lambda odd: {"dont_fragment": odd},
    "id": lambda odd: {"dont_fragment": False, "identification": 7 * odd},
    "ports": lambda odd: {"ports": (1000 + odd, 2000)},
    "address": lambda odd: {"addresses": odd},
    "acknowledgement": lambda odd: {"acknowledgement": odd},
    "window": lambda odd: {"window": 100 + odd},
    "push": lambda odd: {"flags": ACK | PSH * odd},
    "sequence": lambda odd: {"sequence": odd},
    "options": lambda odd: {"tcp_options": OPTIONS * odd},
    "length": lambda odd: {"length": -odd},
    "version": lambda odd: {"other_version": odd},
    "protocol": lambda odd: {"other_protocol": odd},
    "header's checksum": lambda odd: {"wrong": 10 if odd else None},
    "checksum": lambda odd: {"wrong": -1 if odd else None},
    "no packet": lambda odd: {"length": None if odd else 0},
}
PERIODS = (1, 2, 3, 4, 5, 8, 13, 40)


class Work:
    """Counts calls, of Python and of C, and the packets over which arrays were laid, while in a `with` block."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.laid = 0
        recall = ViewCache.recall

        def counted(cache: ViewCache, make: Callable[..., Any], *shape: int) -> Any:
            self.laid += shape[2]  # at, stride, count
            return recall(cache, make, *shape)

        monkeypatch.setattr(ViewCache, "recall", counted)
        for module in (keypair, ip):
            headers = module._headers

            def unpacked(*arguments: int, headers: Callable[..., Any] = headers) -> Any:
                self.laid += arguments[-1]
                return headers(*arguments)

            monkeypatch.setattr(module, "_headers", unpacked)

    def __enter__(self) -> Work:
        self.calls = self.laid = 0
        sys.setprofile(self._count)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        self.calls += event in ("call", "c_call")


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def in_turns(turn: str, period: int, count: int, size: int, *, v6: bool, udp: bool) -> list[bytes]:
    packets, sequence = [], 1
    for i in range(count):
        fields = TURNS[turn](bool(i // period % 2))
        ends = V6 if v6 != fields.pop("other_version", False) else V4
        if fields.pop("addresses", False):
            ends = (ends[0] + "0", ends[1])
        is_udp, wrong, change = udp != fields.pop("other_protocol", False), fields.pop("wrong", None), 0
        change = fields.pop("length", 0)
        if change is None:
            packets.append(b"")
            continue
        payload = bytes(size + change)
        fields["identification"] = (i + fields.get("identification", 0)) & 0xFFFF
        sequence += fields.get("sequence", 0)
        if is_udp:
            known = {"identification", "hop_limit", "traffic_class", "dont_fragment", "ports"}
            packet = bytearray(udp_packet(*ends, payload, **{name: fields[name] for name in fields.keys() & known}))
        else:
            packet = bytearray(tcp_packet(*ends, payload, **fields | {"sequence": sequence}))
            sequence += len(payload)
        if wrong is not None:
            packet[wrong] ^= 1
        packets.append(bytes(packet))
    return packets


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize(("v6", "udp"), [*product((False, True), repeat=2)], ids=["tcp4", "udp4", "tcp6", "udp6"])
def test_merging_takes_bounded_work_for_each_packet(turn: str, v6: bool, udp: bool, work: Work) -> None:
    for period, size in product(PERIODS, (3, 24)):
        burst = burst_of(*in_turns(turn, period, 400, size, v6=v6, udp=udp))
        with work:
            merge(burst)
        assert work.laid <= 16 * 400, (period, size, work.laid)
        assert work.calls <= 60 * 400, (period, size, work.calls)


def test_many_small_super_packets_take_little_more_work_than_few(work: Work) -> None:
    """As the kernel paces many streams. What is done by arrays is done once for all of them."""
    packets = [memoryview(tcp_packet(*V4, bytes(200), ports=(i, 443))) for i in range(30)]
    header = super_header(bytes(packets[0]), 100)
    calls = {}
    for count in (6, 30):
        groups = Groups(SLOTS_SIZE)
        with work:
            groups.begin(header, packets[0], (1420,))
            for packet in packets[1:count]:
                assert groups.take(header, packet, (1420,)) == 2
            (burst,) = groups.bursts((1420,))
        assert len(burst) == 2 * count
        calls[count] = work.calls
    assert calls[30] - calls[6] <= 24 * 36, calls


@pytest.mark.parametrize("merged", [0, errno.EIO], ids=["nothing is taken", "no super-packet is taken"])
def test_writing_what_the_kernel_refuses_takes_bounded_work_for_each_packet(
    merged: int, work: Work, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[bytes] = []

    def writev(fd: int, parts: list[bytes]) -> int:
        if not merged or len(parts) > 2:
            raise OSError(errno.EIO, "refused")
        taken.append(bytes(parts[1]))
        return sum(map(len, parts))

    monkeypatch.setattr("os.writev", writev)
    with open(os.devnull, "wb") as null:
        tun = LinuxTun(null.fileno(), "fake0", MERGEABLE, vnet_header=True)
    packets = in_turns("hop limit", 2, 400, 24, v6=False, udp=False)
    with work:
        tun.write(burst_of(*packets))
    assert work.calls <= 100 * 400
    assert taken == (packets if merged else [])
    assert tun.drops == ({} if merged else {"down": 400})
    assert len(caplog.records) == bool(merged)


@pytest.mark.parametrize(("v6", "udp"), [*product((False, True), repeat=2)], ids=["tcp4", "udp4", "tcp6", "udp6"])
def test_splitting_takes_bounded_work_for_each_segment(v6: bool, udp: bool, work: Work) -> None:
    """And no more calls for many than for few: even one byte each, for which there is hardly room."""
    calls = set()
    for count, size in ((2, 1), (40, 1), (900, 1), (900, 48), (900, 49)):
        (packet,) = in_turns("nothing", 1, 1, count * size, v6=v6, udp=udp)
        cache = ViewCache(memoryview(bytearray(SLOTS_SIZE)))
        with work:
            burst = split(super_header(packet, size), memoryview(packet), cache, (1420,))
        assert burst is not None
        assert len(burst) == count
        assert work.laid <= 2 * count
        calls.add(work.calls)
    assert max(calls) <= 200


# What a peer may send in the place of every other datagram.
DATAGRAMS = ("as well", "of another session", "of none", "forged", "replayed", "from elsewhere", "no packet")


@pytest.mark.parametrize("turn", DATAGRAMS)
def test_receiving_takes_bounded_work_for_each_datagram(turn: str, work: Work) -> None:
    for period, ecn in product(PERIODS, (0, 3)):
        receiver, datagrams = arriving(turn, period, 400)
        with work:
            effects = receiver.device.receive(datagrams, Endpoint("192.0.2.9", 1), 1001.0, ecn)
        assert work.laid <= 36 * 400, (period, ecn, work.laid)
        assert work.calls <= 80 * 400, (period, ecn, work.calls)
        (delivery,) = effects.deliveries
        assert len(delivery) == 400


def test_datagrams_that_two_peers_send_by_turns_are_opened_together_for_each_peer(work: Work) -> None:
    """As the acknowledgements of many downloads come."""
    receiver, datagrams = arriving("of another session", 1, 400)
    with work:
        receiver.device.receive(datagrams, Endpoint("192.0.2.9", 1), 1001.0)
    assert work.calls <= 30 * 400, work.calls


def arriving(turn: str, period: int, count: int) -> tuple[Host, Datagrams]:
    """Datagrams of 64 bytes on their way to a host that has sessions with two others."""
    world = World()
    receiver, sender, third = world.host("receiver"), world.host("sender"), world.host("third")
    for host in (sender, third):
        world.introduce(host, receiver)
        world.send(host, receiver)
        world.run(1)
    size = 32
    usual = iter(sealed(sender, udp_packet(sender.inner, receiver.inner, bytes(size - 28)), count))
    other = {
        "of another session": lambda: sealed(third, udp_packet(third.inner, receiver.inner, bytes(size - 28)), count),
        "from elsewhere": lambda: sealed(sender, udp_packet("203.0.113.1", receiver.inner, bytes(size - 28)), count),
        "no packet": lambda: sealed(sender, bytes(size), count),
    }.get(turn, lambda: sealed(sender, udp_packet(sender.inner, receiver.inner, bytes(size - 28)), count))()
    unusual = iter(other)
    datagrams: list[bytes] = []
    for i in range(count):
        datagram = next(unusual if i // period % 2 else usual)
        if i // period % 2:
            if turn == "of none":
                datagram = datagram[:4] + b"nope" + datagram[8:]
            elif turn == "forged":
                datagram = datagram[:-1] + bytes([datagram[-1] ^ 1])
            elif turn == "replayed":
                datagram = datagrams[0]
        datagrams.append(datagram)
    return receiver, Datagrams(memoryview(bytearray(b"".join(datagrams))), size + 32)


def sealed(host: Host, packet: bytes, count: int) -> list[bytes]:
    """As many datagrams with a packet, which need be none, for the host's only peer."""
    (peer,) = host.device._peers.values()
    assert peer.keypairs.current is not None
    burst = burst_of(*[packet] * count)
    peer.keypairs.current.seal(burst)
    return list(map(bytes, Datagrams(burst.view, burst.stride)))
