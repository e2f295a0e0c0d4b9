"""Merging: each rule by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import reference
from tests.support.bursts import (
    OPTIONS,
    PAYLOAD,
    V4,
    V6,
    Make,
    burst_of,
    by_flow,
    outcome,
    sizes,
    tcp_run,
    udp_run,
)
from tests.support.reference import ACK, CWR, FIN, PSH, tcp_packet, udp_packet
from wgpy.burst import Burst
from wgpy.tun.checksum import checksum, pseudo_header_sum
from wgpy.tun.merging import MAX_SHAPES, merge
from wgpy.tun.virtio import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    MERGEABLE,
    PLAIN,
    VNET_HEADER_SIZE,
)


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


def test_the_packets_of_each_flow_are_merged_across_those_of_others() -> None:
    a, b, c = tcp_run(4), tcp_run(4, ports=(1000, 3000)), udp_run(2, ports=(53, 53))
    packets = [*a[:2], *b[:3], c[0], a[2], b[3], c[1], a[3]]
    writes = merge(burst_of(*packets))
    assert sizes(writes) == [4, 4, 2]
    assert [packet for write in writes for packet in outcome(write)] == [*a, *b, *c]
    assert [list(write.slots) for write in writes] == [[0, 1, 6, 9], [2, 3, 4, 7], [5, 8]]


OTHERS: dict[str, bytes] = {
    "an acknowledgement": tcp_packet(*V4, b"", sequence=207, acknowledgement=9),
    "another acknowledgement": tcp_packet(*V4, PAYLOAD[200:300], sequence=207, acknowledgement=9),
    "the last segment": tcp_packet(*V4, PAYLOAD[200:300], sequence=207, flags=ACK | FIN),
    "a repeated segment": tcp_packet(*V4, PAYLOAD[:100], sequence=7),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_no_packet_overtakes_one_of_its_own_flow(other: bytes) -> None:
    a, b = tcp_run(4), tcp_run(4, ports=(1000, 3000))
    packets = [a[0], b[0], a[1], other, b[1], a[2], b[2], a[3], b[3]]
    writes = merge(burst_of(*packets))
    assert [packet for write in writes for packet in outcome(write)] == [*a[:2], *b, other, *a[2:]]
    assert sizes(writes) == [2, 4, 1, 2]


def with_header_bytes(packet: bytes, at: int, value: bytes) -> bytes:
    """An IPv4 packet with some header bytes replaced, its header checksum right again."""
    head = bytearray(packet[:20])
    head[at : at + len(value)] = value
    head[10:12] = bytes(2)
    head[10:12] = reference.internet_checksum(bytes(head)).to_bytes(2, "big")
    return bytes(head) + packet[20:]


UNKNOWN: dict[str, bytes] = {
    "ICMP": with_header_bytes(udp_packet(*V4, bytes(80)), 9, b"\x01"),
    "a fragment": with_header_bytes(udp_packet(*V4, bytes(80)), 6, b"\x20\x00"),
    "the last fragment": with_header_bytes(udp_packet(*V4, bytes(80)), 6, b"\x00\x10"),
    "no IP": bytes(100),
    "IPv4 with options": tcp_packet(*V4, bytes(80), ip_options=b"\x94\x04\x00\x00"),
}


@pytest.mark.parametrize("other", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_nothing_overtakes_a_packet_of_an_unknown_flow(other: bytes) -> None:
    a, b = tcp_run(4), tcp_run(4, ports=(1000, 3000))
    packets = [a[0], b[0], a[1], b[1], other, a[2], b[2], a[3], b[3]]
    writes = merge(burst_of(*packets))
    assert [packet for write in writes for packet in outcome(write)] == [*a[:2], *b[:2], other, *a[2:], *b[2:]]
    assert sizes(writes) == [2, 2, 1, 2, 2]


def test_flows_of_both_versions_are_merged_and_of_several_header_lengths() -> None:
    flows = [
        tcp_run(3),
        tcp_run(3, addresses=V6),
        tcp_run(3, ports=(1, 2), tcp_options=OPTIONS),
        udp_run(3, addresses=V6, ports=(53, 53)),
    ]
    packets = [packet for three in zip(*flows, strict=True) for packet in three]
    assert sizes(merge(burst_of(*packets))) == [3] * MAX_SHAPES
    fifth = tcp_run(3, ports=(3, 4), tcp_options=OPTIONS * 2)
    packets = [packet for three in zip(*flows, fifth, strict=True) for packet in three]
    writes = merge(burst_of(*packets))
    assert sizes(writes) == [3] * MAX_SHAPES + [1] * 3
    assert [packet for write in writes[MAX_SHAPES:] for packet in outcome(write)] == fifth


@pytest.mark.parametrize("size", [100, 101])
def test_runs_of_other_lengths_than_the_longest_are_merged(size: int) -> None:
    a, b = tcp_run(4, size), tcp_run(3, 120, ports=(1000, 3000))
    packets = [a[0], b[0], a[1], b[1], b[2], a[2], a[3]]
    writes = merge(burst_of(*packets))
    assert [packet for write in writes for packet in outcome(write)] == [*a, *b]
    assert sizes(writes) == [4, 3]


def test_the_push_flag_ends_a_run_and_is_kept() -> None:
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
    """The third of four packets is remade with a difference: the first two are merged, it stands alone.

    The fourth of UDP belongs to the first two if the third is of another flow; that of TCP does not follow them.
    """
    same = {"identification": 2} | ({"sequence": 207} if make is tcp_packet else {})
    assert make(*addresses, payload, **same) == packets[2]
    packets[2] = make(*addresses, payload, **{**same, **difference})
    writes = merge(burst_of(*packets))
    assert sizes(writes) == ([3, 1] if make is udp_packet and "ports" in difference else [2, 1, 1])
    assert by_flow([packet for write in writes for packet in outcome(write)]) == by_flow(packets)


@pytest.mark.parametrize("addresses", [("10.0.0.3", "10.0.0.2"), ("10.0.0.1", "10.0.0.3")])
def test_other_addresses_are_another_flow(addresses: tuple[str, str]) -> None:
    packets = tcp_run(4)
    packets[1] = tcp_packet(*addresses, PAYLOAD[100:200], sequence=107, identification=1)
    assert sizes(merge(burst_of(*packets))) == [1, 1, 2]


@pytest.mark.parametrize("flags", [FIN | ACK, 0x02, 0x12, 0x04, 0, ACK | 0x20])
def test_packets_with_other_tcp_flags_are_not_merged(flags: int) -> None:
    assert sizes(merge(burst_of(*tcp_run(3, flags=flags)))) == [1, 1, 1]


def test_packets_without_payload_are_not_merged() -> None:
    assert sizes(merge(burst_of(*[tcp_packet(*V4, b"")] * 3))) == [1, 1, 1]
    assert sizes(merge(burst_of(*[udp_packet(*V4, b"")] * 3))) == [1, 1, 1]


def test_fragments_and_ip_options_are_not_merged() -> None:
    assert sizes(merge(burst_of(*tcp_run(3, ip_options=b"\x94\x04\x00\x00")))) == [1, 1, 1]
    fragments = [with_header_bytes(packet, 6, b"\x20\x00") for packet in udp_run(3)]
    assert sizes(merge(burst_of(*fragments))) == [1, 1, 1]
    tails = [with_header_bytes(packet, 6, b"\x00\x10") for packet in udp_run(3)]
    assert sizes(merge(burst_of(*tails))) == [1, 1, 1]


def test_packets_that_differ_in_dont_fragment_are_not_merged() -> None:
    packets = udp_run(4)
    packets[2] = udp_packet(*V4, b"\2" * 100, identification=2, dont_fragment=False)
    assert sizes(merge(burst_of(*packets))) == [2, 1, 1]


def test_the_identification_matters_where_fragmenting_is_allowed() -> None:
    wrapping = [udp_packet(*V4, b"x" * 9, identification=i & 0xFFFF, dont_fragment=False) for i in range(65534, 65538)]
    assert sizes(merge(burst_of(*wrapping))) == [4]
    assert outcome(merge(burst_of(*wrapping))[0]) == wrapping
    equal = [udp_packet(*V4, b"x" * 9, dont_fragment=False)] * 4
    assert sizes(merge(burst_of(*equal))) == [1, 1, 1, 1]


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

    assert by_flow([packet for write in writes for packet in outcome(write)]) == by_flow(packets)
    alone = [bytes(write.parts[1]) for write in writes if len(write.parts) == 2]
    assert packets[bad] in alone
    assert all(bytes(write.parts[0]) == PLAIN for write in writes if len(write.parts) == 2)


def test_udp_without_a_checksum_is_not_merged() -> None:
    assert sizes(merge(burst_of(*udp_run(3, with_checksum=False)))) == [1, 1, 1]


def test_a_run_is_no_longer_than_an_ip_packet() -> None:
    packets = [tcp_packet(*V4, bytes(1380), sequence=i * 1380, identification=i) for i in range(60)]
    writes = merge(burst_of(*packets))
    assert sizes(writes) == [47, 13]
    assert [packet for write in writes for packet in outcome(write)] == packets


def test_a_udp_run_is_no_longer_than_64() -> None:
    assert sizes(merge(burst_of(*udp_run(100, 20)))) == [64, 36]


def test_a_run_has_no_more_parts_than_a_scattered_write_takes() -> None:
    packets = [tcp_packet(*V4, b"x", sequence=i, identification=i) for i in range(1100)]
    writes = merge(burst_of(*packets))
    assert [packet for write in writes for packet in outcome(write)] == packets
    assert [len(write.parts) for write in writes] == [os.sysconf("SC_IOV_MAX"), 80]


@pytest.mark.parametrize("kind", MERGEABLE)
def test_super_packets_of_a_disabled_kind_are_not_made(kind: int) -> None:
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
    assert write == ([bytes(VNET_HEADER_SIZE), b"anything"], (0,))


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
