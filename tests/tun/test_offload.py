"""Splitting and merging: each rule by itself."""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack_from
from typing import Any

import pytest

from tests.support import reference
from tests.support.reference import ACK, CWR, FIN, PSH, tcp_packet, udp_packet
from wgpy.burst import Burst, ViewCache, padded_length
from wgpy.tun.checksum import Rows, checksum, pseudo_header_sum
from wgpy.tun.merging import IoVector, merge, packets_in
from wgpy.tun.offload import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    MERGEABLE,
    NEEDS_CSUM,
    PLAIN,
    SLOTS_SIZE,
    VNET_HEADER_SIZE,
    VnetHeader,
    split,
)

MTUS = (1420,)
V4 = ("10.0.0.1", "10.0.0.2")
V6 = ("fd00::1", "fd00::2")
OPTIONS = bytes.fromhex("0101080a0000000100000002")  # two NOPs and a timestamp
PAYLOAD = bytes(range(256)) * 20

Make = Callable[..., bytes]


def slots() -> ViewCache:
    return ViewCache(memoryview(bytearray(b"\xaa") * SLOTS_SIZE))


def burst_of(*packets: bytes, stride: int | None = None) -> Burst:
    """Packets in slots as they come out of datagrams: nothing but the packets is zero."""
    stride = stride or padded_length(max(map(len, packets)), MTUS) + 32
    last = padded_length(len(packets[-1]), MTUS) + 32
    view = memoryview(bytearray(b"\xaa" * (stride * (len(packets) - 1) + last)))
    for i, packet in enumerate(packets):
        view[i * stride + 16 : i * stride + 16 + len(packet)] = packet
    return Burst(view, stride, [len(packet) for packet in packets])


def super_header(packet: bytes, size: int, *, ecn: bool = False) -> VnetHeader:
    """What the kernel puts before a super-packet, with a `hdr_len` as wrong as on its forwarding path."""
    v4 = packet[0] >> 4 == 4
    l4 = (packet[0] & 15) * 4 if v4 else 40
    tcp = (packet[9] if v4 else packet[6]) == 6
    kind = (GSO_TCPV4 if v4 else GSO_TCPV6) if tcp else GSO_UDP_L4
    return VnetHeader(NEEDS_CSUM, kind | GSO_ECN * ecn, len(packet), size, l4, 16 if tcp else 6)


def outcome(write: IoVector) -> list[bytes]:
    """The packets one TUN write stands for, found by the slow twin; a super-packet's header is checked on the way."""
    packet = b"".join(write[1:])
    if bytes(write[0]) == PLAIN:
        return [packet]
    header = VnetHeader.unpack(write[0])
    assert header == super_header(packet, header.gso_size)._replace(hdr_len=len(write[1]))
    assert len(packet) <= 65535
    start, field = header.csum_start, header.csum_start + header.csum_offset
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    protocol = 17 if header.gso_type == GSO_UDP_L4 else 6
    pseudo = addresses + bytes([0, protocol]) + (len(packet) - start).to_bytes(2, "big")
    assert unpack_from(">H", packet, field)[0] % 0xFFFF == (reference.internet_checksum(pseudo) ^ 0xFFFF) % 0xFFFF
    if packet[0] >> 4 == 4:
        assert reference.internet_checksum(packet[:20]) == 0
        assert unpack_from(">H", packet, 2)[0] == len(packet)
    else:
        assert unpack_from(">H", packet, 4)[0] == len(packet) - 40
    segments = reference.segment_packet(packet, header.gso_size)
    assert len(segments) == packets_in(write)
    return segments


def sizes(writes: list[IoVector]) -> list[int]:
    """How many packets each write holds."""
    return [len(outcome(write)) for write in writes]


def tcp_run(count: int, size: int = 100, addresses: tuple[str, str] = V4, **fields: Any) -> list[bytes]:
    return [
        tcp_packet(
            *addresses,
            PAYLOAD[i * size : (i + 1) * size],
            **{"sequence": 7 + i * size, "identification": i, **fields},
        )
        for i in range(count)
    ]


def udp_run(count: int, size: int = 100, addresses: tuple[str, str] = V4, **fields: Any) -> list[bytes]:
    return [udp_packet(*addresses, bytes([i]) * size, **{"identification": i, **fields}) for i in range(count)]


# Splitting.

SUPER_PACKETS = {
    "tcp4": tcp_packet(*V4, PAYLOAD, sequence=0xFFFFFF00, flags=ACK | PSH | FIN, identification=0xFFFF),
    "tcp4 with options": tcp_packet(*V4, PAYLOAD, tcp_options=OPTIONS, ip_options=b"\x94\x04\x00\x00", flags=ACK | PSH),
    "tcp6": tcp_packet(*V6, PAYLOAD, sequence=5, flags=ACK | FIN, tcp_options=OPTIONS, traffic_class=0xB8),
    "tcp4 with ecn": tcp_packet(*V4, PAYLOAD, flags=ACK | CWR | PSH, traffic_class=2),
    "tcp6 with ecn": tcp_packet(*V6, PAYLOAD, flags=ACK | CWR, traffic_class=2),
    "udp4": udp_packet(*V4, PAYLOAD, identification=9),
    "udp6": udp_packet(*V6, PAYLOAD),
}


@pytest.mark.parametrize("size", [48, 536, 1001, 1380, len(PAYLOAD) // 4, len(PAYLOAD), len(PAYLOAD) + 1])
@pytest.mark.parametrize("packet", SUPER_PACKETS.values(), ids=SUPER_PACKETS.keys())
def test_a_super_packet_becomes_its_segments(packet: bytes, size: int) -> None:
    expected = reference.segment_packet(packet, size)
    ecn = packet[9 if packet[0] == 0x45 else 6] == 6 and bool(packet[(20 if packet[0] == 0x45 else 40) + 13] & CWR)

    burst = split(super_header(packet, size, ecn=ecn), memoryview(packet), slots(), MTUS)

    assert burst is not None
    assert [bytes(packet) for packet in burst.packets()] == expected
    assert all(map(reference.checksums_hold, expected))
    assert burst.stride == 32 + padded_length(len(expected[0]), MTUS)
    last = padded_length(len(expected[-1]), MTUS) + 32
    assert len(burst.view) == burst.stride * (len(expected) - 1) + last


def test_an_odd_mtu_gives_odd_slots() -> None:
    packet = tcp_packet(*V6, PAYLOAD)
    burst = split(super_header(packet, 1335), memoryview(packet), slots(), (1395,))
    assert burst is not None
    assert burst.stride == 1395 + 32
    assert [bytes(packet) for packet in burst.packets()] == reference.segment_packet(packet, 1335)


@pytest.mark.parametrize("packet", [tcp_packet(*V4, b""), tcp_packet(*V6, b"odd"), udp_packet(*V4, PAYLOAD[:1300])])
def test_a_plain_packet_stays_where_it_was_read(packet: bytes) -> None:
    room = slots()
    buffer = room.buffer
    buffer[16 : 16 + len(packet)] = packet
    burst = split(VnetHeader(), buffer[16 : 16 + len(packet)], room, MTUS)
    assert burst is not None
    assert burst.lengths == [len(packet)]
    assert burst.view.obj is buffer.obj
    assert len(burst.view) == burst.stride == 32 + padded_length(len(packet), MTUS)
    assert bytes(burst.packet(0)) == packet


@pytest.mark.parametrize(
    ("packet", "offset"),
    [
        (tcp_packet(*V4, b"hello"), 16),
        (tcp_packet(*V6, PAYLOAD[:1301]), 16),
        (udp_packet(*V4, b""), 6),
        (udp_packet(*V6, b"odd"), 6),
    ],
)
def test_an_unfinished_checksum_is_completed(packet: bytes, offset: int) -> None:
    start = 20 if packet[0] >> 4 == 4 else 40
    addresses = packet[12:20] if start == 20 else packet[8:40]
    pseudo = addresses + bytes([0, 6 if offset == 16 else 17]) + (len(packet) - start).to_bytes(2, "big")
    partial = bytearray(packet)
    partial[start + offset : start + offset + 2] = (reference.internet_checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big")
    burst = split(VnetHeader(NEEDS_CSUM, GSO_NONE, 0, 0, start, offset), memoryview(partial), slots(), MTUS)
    assert burst is not None
    assert bytes(burst.packet(0)) == packet


def test_extension_headers_are_left_in_place() -> None:
    plain = tcp_packet(*V6, PAYLOAD)
    options = bytes([6, 0, 1, 4, 0, 0, 0, 0])  # destination options: PadN
    packet = plain[:4] + (len(plain) - 32).to_bytes(2, "big") + b"\x3c" + plain[7:40] + options + plain[40:]
    header = super_header(plain, 1000)._replace(csum_start=48)
    burst = split(header, memoryview(packet), slots(), MTUS)
    assert burst is not None
    for segment, expected in zip(burst.packets(), reference.segment_packet(plain, 1000), strict=True):
        assert bytes(segment[40:48]) == options
        assert bytes(segment[48:]) == expected[40:]
        assert unpack_from(">H", segment, 4)[0] == len(segment) - 40


TCP4 = tcp_packet(*V4, PAYLOAD)
GOOD = super_header(TCP4, 1000)


@pytest.mark.parametrize(
    ("header", "packet"),
    [
        (VnetHeader(), b""),
        (GOOD, b""),
        (GOOD, TCP4[:30]),
        (GOOD, TCP4[:40]),
        (GOOD._replace(gso_size=0), TCP4),
        (GOOD._replace(csum_start=24), TCP4),
        (GOOD._replace(csum_start=65535), TCP4),
        (GOOD._replace(gso_type=GSO_TCPV6), TCP4),
        (GOOD._replace(gso_type=GSO_UDP_L4), TCP4),
        (GOOD._replace(gso_type=3), TCP4),
        (GOOD._replace(gso_size=1), TCP4),
        (GOOD, b"\x55" + TCP4[1:]),
        (GOOD, TCP4[:32] + b"\x40" + TCP4[33:]),
        (VnetHeader(NEEDS_CSUM, GSO_NONE, 0, 0, 20, len(TCP4)), TCP4),
    ],
)
def test_what_does_not_fit_is_refused(header: VnetHeader, packet: bytes) -> None:
    room = ViewCache(memoryview(bytearray(64 * 1024)))
    assert split(header, memoryview(packet), room, MTUS) is None


# Merging.


@pytest.mark.parametrize("addresses", [V4, V6])
@pytest.mark.parametrize("run", [tcp_run, udp_run])
def test_a_run_becomes_one_write(run: Callable[..., list[bytes]], addresses: tuple[str, str]) -> None:
    packets = run(10, addresses=addresses)
    writes = merge(burst_of(*packets))
    assert sizes(writes) == [10]
    assert outcome(writes[0]) == packets


@pytest.mark.parametrize("run", [tcp_run, udp_run])
def test_a_shorter_packet_ends_its_run(run: Callable[..., list[bytes]]) -> None:
    long, short = run(3, 101), run(1, 60, ports=(1000, 2000))
    if run is tcp_run:
        short = tcp_run(1, 60, sequence=7 + 303, identification=3)
        after = tcp_run(2, 60, sequence=7 + 363, identification=4)[:1]
    else:
        short = udp_run(1, 60, identification=3)
        after = udp_run(1, 60, identification=4)
    writes = merge(burst_of(*long, *short, *after))
    assert sizes(writes) == [4, 1]
    assert [packet for write in writes for packet in outcome(write)] == [*long, *short, *after]


def test_packets_of_other_flows_keep_their_order() -> None:
    a, b = tcp_run(4), tcp_run(4, ports=(1000, 3000))
    packets = [*a[:2], *b[:3], a[2], b[3], a[3]]
    writes = merge(burst_of(*packets))
    assert sizes(writes) == [2, 3, 1, 1, 1]
    assert [packet for write in writes for packet in outcome(write)] == packets


def test_push_ends_a_run_and_stays() -> None:
    packets = tcp_run(6)
    packets[2] = tcp_packet(*V4, PAYLOAD[200:300], sequence=207, identification=2, flags=ACK | PSH)
    writes = merge(burst_of(*packets))
    assert sizes(writes) == [3, 3]
    assert [packet for write in writes for packet in outcome(write)] == packets


DIFFERENCES: dict[str, dict[str, Any]] = {
    "hop limit": {"hop_limit": 63},
    "traffic class": {"traffic_class": 0x10},
    "ecn": {"traffic_class": 3},
    "source port": {"ports": (1001, 2000)},
    "destination port": {"ports": (1000, 2001)},
}
TCP_DIFFERENCES: dict[str, dict[str, Any]] = {
    "acknowledgement": {"acknowledgement": 2},
    "window": {"window": 1001},
    "sequence": {"sequence": 208},
    "fin": {"flags": ACK | FIN},
    "syn": {"flags": ACK | 2},
    "urgent": {"flags": ACK | 0x20},
    "cwr": {"flags": ACK | CWR},
    "ece": {"flags": ACK | 0x40},
    "options": {"tcp_options": OPTIONS},
}


@pytest.mark.parametrize("difference", [*DIFFERENCES.values(), *TCP_DIFFERENCES.values()])
@pytest.mark.parametrize("addresses", [V4, V6])
def test_tcp_that_differs_is_not_merged(addresses: tuple[str, str], difference: dict[str, Any]) -> None:
    check_split_at_odd_one(tcp_run(4, addresses=addresses), tcp_packet, addresses, PAYLOAD[200:300], difference)


@pytest.mark.parametrize("difference", DIFFERENCES.values(), ids=DIFFERENCES.keys())
@pytest.mark.parametrize("addresses", [V4, V6])
def test_udp_that_differs_is_not_merged(addresses: tuple[str, str], difference: dict[str, Any]) -> None:
    check_split_at_odd_one(udp_run(4, addresses=addresses), udp_packet, addresses, b"\2" * 100, difference)


def check_split_at_odd_one(
    packets: list[bytes], make: Make, addresses: tuple[str, str], payload: bytes, difference: dict[str, Any]
) -> None:
    """The third of four packets is remade with a difference: the first two are merged, it stands alone."""
    same = {"identification": 2} | ({"sequence": 207} if make is tcp_packet else {})
    assert make(*addresses, payload, **same) == packets[2]
    packets[2] = make(*addresses, payload, **{**same, **difference})
    writes = merge(burst_of(*packets))
    assert sizes(writes) == [2, 1, 1]
    assert [packet for write in writes for packet in outcome(write)] == packets


@pytest.mark.parametrize("addresses", [("10.0.0.3", "10.0.0.2"), ("10.0.0.1", "10.0.0.3")])
def test_other_addresses_are_another_flow(addresses: tuple[str, str]) -> None:
    packets = tcp_run(4)
    packets[1] = tcp_packet(*addresses, PAYLOAD[100:200], sequence=107, identification=1)
    assert sizes(merge(burst_of(*packets))) == [1, 1, 2]


@pytest.mark.parametrize("flags", [FIN | ACK, 0x02, 0x12, 0x04, 0, ACK | 0x20])
def test_only_acknowledgements_are_merged(flags: int) -> None:
    assert sizes(merge(burst_of(*tcp_run(3, flags=flags)))) == [1, 1, 1]


def test_what_carries_nothing_is_not_merged() -> None:
    assert sizes(merge(burst_of(*[tcp_packet(*V4, b"")] * 3))) == [1, 1, 1]
    assert sizes(merge(burst_of(*[udp_packet(*V4, b"")] * 3))) == [1, 1, 1]


def test_fragments_and_ip_options_are_not_merged() -> None:
    assert sizes(merge(burst_of(*tcp_run(3, ip_options=b"\x94\x04\x00\x00")))) == [1, 1, 1]
    fragments = [with_header_bytes(packet, 6, b"\x20\x00") for packet in udp_run(3)]
    assert sizes(merge(burst_of(*fragments))) == [1, 1, 1]
    tails = [with_header_bytes(packet, 6, b"\x00\x10") for packet in udp_run(3)]
    assert sizes(merge(burst_of(*tails))) == [1, 1, 1]


def test_another_dont_fragment_bit_is_not_merged() -> None:
    packets = udp_run(4)
    packets[2] = udp_packet(*V4, b"\2" * 100, identification=2, dont_fragment=False)
    assert sizes(merge(burst_of(*packets))) == [2, 1, 1]


def test_identification_counts_where_fragmenting_is_allowed() -> None:
    wrapping = [udp_packet(*V4, b"x" * 9, identification=i & 0xFFFF, dont_fragment=False) for i in range(65534, 65538)]
    assert sizes(merge(burst_of(*wrapping))) == [4]
    assert outcome(merge(burst_of(*wrapping))[0]) == wrapping
    equal = [udp_packet(*V4, b"x" * 9, dont_fragment=False)] * 4
    assert sizes(merge(burst_of(*equal))) == [1, 1, 1, 1]


def with_header_bytes(packet: bytes, at: int, value: bytes) -> bytes:
    """An IPv4 packet with some header bytes replaced, its header checksum right again."""
    head = bytearray(packet[:20])
    head[at : at + len(value)] = value
    head[10:12] = bytes(2)
    head[10:12] = reference.internet_checksum(bytes(head)).to_bytes(2, "big")
    return bytes(head) + packet[20:]


@pytest.mark.parametrize("bad", [0, 1, 3, 4])
@pytest.mark.parametrize("addresses", [V4, V6])
@pytest.mark.parametrize("run", [tcp_run, udp_run])
@pytest.mark.parametrize("where", [-1, 10, 20 + 18])
def test_a_bad_checksum_is_passed_on_alone(
    run: Callable[..., list[bytes]], addresses: tuple[str, str], bad: int, where: int
) -> None:
    if where == 10 and addresses is V6:
        where = 4  # no header checksum there; an impossible length must do
    packets = run(5, addresses=addresses)
    broken = bytearray(packets[bad])
    broken[where] ^= 0x01
    packets[bad] = bytes(broken)

    writes = merge(burst_of(*packets))

    assert [packet for write in writes for packet in outcome(write)] == packets
    alone = [bytes(write[1]) for write in writes if len(write) == 2]
    assert packets[bad] in alone
    assert all(bytes(write[0]) == PLAIN for write in writes if len(write) == 2)


def test_wrong_checksums_cost_no_more_than_right_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second one is wrong: what follows the first of them is not summed again and again."""
    summed: list[int] = []
    beyond = Rows.beyond

    def counting(rows: Rows, total: int) -> Any:
        summed.append(rows._words.size)
        return beyond(rows, total)

    monkeypatch.setattr(Rows, "beyond", counting)
    packets = tcp_run(40)
    merge(burst_of(*packets))
    right = sum(summed)
    summed.clear()
    packets[1::2] = [packet[:-1] + bytes((packet[-1] ^ 1,)) for packet in packets[1::2]]
    writes = merge(burst_of(*packets))
    assert sum(summed) <= 2 * right
    assert [packet for write in writes for packet in outcome(write)] == packets


@pytest.mark.parametrize(("acknowledged", "window"), [(1, 0), (0, 1)])
def test_packets_that_each_acknowledge_something_else_are_told_apart_at_a_glance(
    monkeypatch: pytest.MonkeyPatch, acknowledged: int, window: int
) -> None:
    """So both sides of a conversation look: a closer look at each would cost ten times what it takes to open it."""

    def run(*_: object) -> None:
        pytest.fail("looked closer")

    monkeypatch.setattr("wgpy.tun.merging._Lead.run", run)
    packets = [tcp_packet(*V4, b"x", sequence=i, acknowledgement=i * acknowledged, window=i * window) for i in range(9)]
    assert sizes(merge(burst_of(*packets))) == [1] * 9


def test_udp_without_a_checksum_is_not_merged() -> None:
    assert sizes(merge(burst_of(*udp_run(3, with_checksum=False)))) == [1, 1, 1]


def test_a_run_is_no_longer_than_an_ip_packet() -> None:
    packets = [tcp_packet(*V4, bytes(1380), sequence=i * 1380, identification=i) for i in range(60)]
    writes = merge(burst_of(*packets))
    assert sizes(writes) == [47, 13]
    assert [packet for write in writes for packet in outcome(write)] == packets


def test_a_udp_run_is_no_longer_than_64() -> None:
    assert sizes(merge(burst_of(*udp_run(100, 20)))) == [64, 36]


def test_a_long_run_of_short_packets_is_one_write_of_few_parts() -> None:
    packets = [tcp_packet(*V4, b"x", sequence=i, identification=i) for i in range(1100)]
    (write,) = merge(burst_of(*packets))
    assert outcome(write) == packets
    assert len(write) == 4


@pytest.mark.parametrize("kind", MERGEABLE)
def test_a_kind_that_is_off_is_not_made(kind: int) -> None:
    runs = {GSO_TCPV4: tcp_run(3), GSO_TCPV6: tcp_run(3, addresses=V6), GSO_UDP_L4: udp_run(3)}
    assert sizes(merge(burst_of(*runs[kind]), MERGEABLE - {kind})) == [1, 1, 1]
    assert sizes(merge(burst_of(*runs[kind]), frozenset({kind}))) == [3]
    assert sizes(merge(burst_of(*runs[kind]), frozenset())) == [1, 1, 1]


def test_empty_slots_are_skipped() -> None:
    packets = tcp_run(5)
    burst = burst_of(*packets)
    burst.lengths[0] = burst.lengths[4] = 0
    assert [packet for write in merge(burst) for packet in outcome(write)] == packets[1:4]
    burst.lengths[:] = [0] * 5
    assert merge(burst) == []
    assert merge(Burst(burst.view, burst.stride, [0])) == []


def test_a_lone_packet_is_written_as_it_is() -> None:
    (write,) = merge(burst_of(b"anything"))
    assert write == [bytes(VNET_HEADER_SIZE), b"anything"]


@pytest.mark.parametrize("words", [0, 1, 2, 3, 4])
def test_tcp_with_too_short_a_header_is_passed_on_alone(words: int) -> None:
    packets = []
    for packet in tcp_run(3):
        segment = bytearray(packet)
        segment[32] = words << 4
        segment[36:38] = b"\0\0"
        pseudo = pseudo_header_sum(segment[12:20], 6, len(segment) - 20)
        segment[36:38] = checksum(segment[20:], pseudo).to_bytes(2, "big")
        packets.append(bytes(segment))
    assert sizes(merge(burst_of(*packets))) == [1, 1, 1]
