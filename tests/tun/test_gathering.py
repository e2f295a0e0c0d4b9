"""What waits in the TUN is read together, a burst for each destination, and it makes no difference."""

from __future__ import annotations

import contextlib
import itertools
import os
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import reference
from tests.support.bursts import MTUS, OPTIONS, V4, V6, super_header
from tests.support.examples import examples
from tests.support.reference import ACK, CWR, FIN, PSH
from tests.tun.test_linux import Kernel, kernel, plain
from wgpy.burst import padded_length
from wgpy.tun.gathering import MAX_BURST, Groups
from wgpy.tun.splitting import SLOTS_SIZE, burst_key
from wgpy.tun.virtio import GSO_NONE, GSO_TCPV4, NEEDS_CSUM, PLAIN, VNET_HEADER_SIZE, VnetHeader

__all__ = ["kernel"]  # the fixture


def unfinished(packet: bytes) -> bytes:
    """As the kernel hands over a packet of its own, whose checksum is ours to complete; what is not IP is plain."""
    version = packet[0] >> 4
    if len(packet) < 28 or version not in (4, 6) or (version == 6 and len(packet) < 60):
        return plain(packet)
    start, addresses = (20, packet[12:20]) if version == 4 else (40, packet[8:40])
    protocol = packet[9] if version == 4 else packet[6]
    if protocol not in (6, 17):
        return plain(packet)
    offset = 16 if protocol == 6 else 6
    pseudo = addresses + bytes([0, protocol]) + (len(packet) - start).to_bytes(2, "big")
    partial = bytearray(packet)
    partial[start + offset : start + offset + 2] = (reference.internet_checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big")
    return VnetHeader(NEEDS_CSUM, GSO_NONE, 0, 0, start, offset).pack() + partial


def cut(packet: bytes, size: int = 1000) -> bytes:
    """As a super-packet, of segments of `size` bytes of payload, if it is long enough for two."""
    return super_header(packet, size).pack() + packet if len(packet) > 1100 else plain(packet)


def misleading(packet: bytes) -> bytes:
    """As a super-packet whose virtio header has the checksum elsewhere; the protocol says where it is."""
    return (
        super_header(packet, 1000)._replace(csum_offset=60_000).pack() + packet if len(packet) > 1100 else plain(packet)
    )


def damaged(packet: bytes) -> bytes:
    """As a super-packet whose virtio header points behind its end."""
    return VnetHeader(NEEDS_CSUM, GSO_TCPV4, 0, 1000, len(packet), 16).pack() + packet


def whole(frame: bytes) -> list[bytes]:
    """The packets that a frame brings."""
    header, packet = VnetHeader.unpack(frame), frame[VNET_HEADER_SIZE:]
    if header.csum_start == len(packet):
        return []
    if header.gso_type != GSO_NONE:
        return reference.segment_packet(packet, header.gso_size)
    if header.flags & NEEDS_CSUM:
        field = header.csum_start + header.csum_offset
        check = reference.internet_checksum(packet[header.csum_start :]) or 0xFFFF
        return [packet[:field] + check.to_bytes(2, "big") + packet[field + 2 :]]
    return [packet]


def test_single_packets_that_wait_are_read_together(kernel: Kernel) -> None:
    packets = [reference.udp_packet(*V4, bytes([number]) * size) for number, size in enumerate([700] * 5 + [3])]
    for packet in [*packets, packets[0]]:
        kernel.socket.send(unfinished(packet))
    burst, after = kernel.tun.read(), kernel.tun.read()
    assert burst is not None
    assert after is not None
    assert list(burst.packets()) == packets
    assert len(burst.view) == 5 * burst.stride + padded_length(len(packets[-1]), (1420,)) + 32
    assert list(after.packets()) == packets[:1]
    assert kernel.tun.read() is None


def test_no_more_packets_are_read_together_than_one_send_takes(kernel: Kernel) -> None:
    for size, sent, most in ((20, 70, 64), (1300, 70, 48), (40000, 3, 1)):
        packet = reference.udp_packet(*V4, bytes(size))
        for _ in range(sent):
            kernel.socket.send(PLAIN + packet)
        counts = [len(burst) for burst in iter(kernel.tun.read, None)]
        assert counts[0] == most
        assert sum(counts) == sent


payloads = st.sampled_from([b"", bytes(3), bytes(40), bytes(41), bytes(1000), bytes(1400), bytes(2000), bytes(2500)])
destinations = st.sampled_from(["10.0.0.2", "10.0.0.3", "10.0.0.4"])
common = {"traffic_class": st.sampled_from([0, 0, 2, 3]), "ports": st.tuples(st.integers(1, 3), st.just(443))}
packets = (
    st.builds(reference.udp_packet, st.sampled_from(["10.0.0.1", "10.0.0.9"]), destinations, payloads, **common)
    | st.builds(
        reference.tcp_packet,
        st.just("10.0.0.1"),
        destinations,
        payloads | st.just(bytes(30_000)),
        sequence=st.integers(0, 0xFFFFFFFF),
        flags=st.sampled_from([reference.ACK, reference.ACK | reference.PSH, reference.ACK | reference.CWR]),
        **common,
    )
    | st.builds(reference.tcp_packet, *map(st.just, V6), payloads, **common)
    | st.binary(min_size=1, max_size=60)
)
forms = st.sampled_from([plain, plain, unfinished, cut, cut, partial(cut, size=700), misleading, damaged])


@settings(deadline=None, max_examples=examples(150))
@given(
    st.lists(
        st.builds(lambda packet, count, form: [form(packet)] * count, packets, st.integers(1, 5), forms), max_size=12
    )
)
def test_how_packets_are_read_together_makes_no_difference(sent: list[list[bytes]]) -> None:
    kernel = Kernel()
    expected, malformed = [], 0
    for frame in itertools.chain.from_iterable(sent):
        kernel.socket.send(frame)
        expected += whole(frame)
        malformed += not whole(frame)
    seen = []
    for burst in iter(kernel.tun.read, None):
        packets = list(map(bytes, burst.packets()))
        seen += packets
        assert len({burst_key(memoryview(packet)) for packet in packets}) == 1
        assert len(set(burst.lengths[:-1])) <= 1
        assert burst.lengths[-1] <= burst.lengths[0]
        assert len(burst.view) == (len(burst) - 1) * burst.stride + padded_length(burst.lengths[-1], (1420,)) + 32
    assert by_destination(seen) == by_destination(expected)
    assert kernel.tun.drops["malformed"] == malformed
    kernel.close()


def by_destination(packets: list[bytes]) -> dict[bytes, list[bytes]]:
    """Whatever their traffic classes are."""
    found: dict[bytes, list[bytes]] = {}
    for packet in packets:
        found.setdefault(burst_key(memoryview(packet))[2:], []).append(packet)
    return found


def test_packets_for_several_destinations_are_read_as_a_burst_for_each(kernel: Kernel) -> None:
    """As the acknowledgements of many peers' uploads come: in any order, and few at a time to each."""
    acks = [reference.tcp_packet("10.0.0.1", f"10.0.0.{2 + i % 8}", b"", sequence=i) for i in range(40)]
    for ack in acks:
        kernel.socket.send(unfinished(ack))
    bursts = [list(map(bytes, burst.packets())) for burst in iter(kernel.tun.read, None)]
    assert bursts == [acks[i::8] for i in range(8)]


def test_small_super_packets_of_many_streams_are_read_as_a_burst_for_each_destination(kernel: Kernel) -> None:
    """As the kernel hands over what it paces: two segments of each stream at a time."""
    streams = [
        reference.tcp_packet("10.0.0.1", f"10.0.0.{2 + i % 3}", bytes([i]) * 2000, ports=(i, 443)) for i in range(30)
    ]
    for stream in streams:
        kernel.socket.send(cut(stream))
    bursts = [list(map(bytes, burst.packets())) for burst in iter(kernel.tun.read, None)]
    assert bursts == [[part for each in streams[i::3] for part in whole(cut(each))] for i in range(3)]


@pytest.mark.parametrize("count", [1, 3, 12], ids="{} super-packets".format)
@pytest.mark.parametrize(
    "kind",
    [
        partial(reference.tcp_packet, *V4, flags=ACK | CWR | PSH, ip_options=b"\x94\x04\x00\x00", traffic_class=2),
        partial(reference.tcp_packet, *V4, flags=ACK, tcp_options=OPTIONS),
        partial(reference.tcp_packet, *V6, flags=ACK | FIN | PSH, tcp_options=OPTIONS),
        partial(reference.udp_packet, *V4),
        partial(reference.udp_packet, *V6),
    ],
    ids=["tcp4 with options", "tcp4", "tcp6", "udp4", "udp6"],
)
def test_headers_are_written_together_as_one_by_one(kind: partial[bytes], count: int) -> None:
    """Identifications and sequence numbers pass zero, a packet alone is in between, and the last segment is short."""
    packets = []
    for i in range(count):
        fields: dict[str, int] = {}
        if kind.func is reference.tcp_packet:
            fields["sequence"] = 0xFFFFFFFF - 700 * i
        if kind.args == V4:
            fields["identification"] = (0xFFFE - i) & 0xFFFF
        packets.append(kind(bytes([i]) * (1000 if i == 3 else 1500 + 500 * (i < count - 1)), ports=(i, 443), **fields))
    groups = Groups(SLOTS_SIZE)
    buffer = groups.reading.buffer
    buffer[16 : 16 + len(packets[0])] = packets[0]
    first = super_header(packets[0], 1000)
    groups.begin(first, buffer[16 : 16 + len(packets[0])], MTUS)
    for packet in packets[1:]:
        frame = cut(packet)
        assert groups.take(VnetHeader.unpack(frame), memoryview(frame[VNET_HEADER_SIZE:]), MTUS)
    (burst,) = groups.bursts(MTUS)
    expected = [part for packet in packets for part in reference.segment_packet(packet, 1000)]
    assert list(map(bytes, burst.packets())) == expected
    assert all(map(reference.checksums_hold, expected))


def test_headers_of_several_forms_and_destinations_are_written_wherever_their_slots_begin() -> None:
    """With an odd MTU, slots begin anywhere. Each destination's last segment is short."""
    packets = []
    for i, length in itertools.product(range(3), (2762, 2000)):
        v4, v6 = ("10.0.0.1", f"10.0.0.{2 + i}"), ("fd00::1", f"fd00::{2 + i}")
        packets += [reference.tcp_packet(*v4, bytes([i]) * length, flags=ACK | PSH, identification=0xFFFF)]
        packets += [reference.tcp_packet(*v6, bytes([i]) * (length - 40))]
    frames = [cut(packet, 1421 - 40 if packet[0] >> 4 == 4 else 1421 - 60) for packet in packets]
    groups = Groups(SLOTS_SIZE)
    groups.begin(VnetHeader.unpack(frames[0]), memoryview(packets[0]), (1421,))
    for frame in frames[1:]:
        assert groups.take(VnetHeader.unpack(frame), memoryview(frame[VNET_HEADER_SIZE:]), (1421,))
    bursts = groups.bursts((1421,))
    assert {burst.stride for burst in bursts} == {1421 + 32}
    seen = by_destination([bytes(packet) for burst in bursts for packet in burst.packets()])
    assert seen == by_destination([part for frame in frames for part in whole(frame)])


def test_a_connections_packets_keep_their_order_though_ecn_marks_only_its_data(kernel: Kernel) -> None:
    """Acknowledgements and repetitions are not marked (RFC 3168, 6.1.4 and 6.1.5)."""
    marked, plain_ = (partial(reference.tcp_packet, *V4, traffic_class=ecn) for ecn in (2, 0))
    sent = [
        marked(b"a" * 2000),
        plain_(b""),
        marked(b"b" * 2000),
        marked(b"c" * 2000),
        plain_(b"a" * 1000),
        plain_(b""),
    ]
    for packet in sent:
        kernel.socket.send(cut(packet) if len(packet) > 1420 else unfinished(packet))
    bursts = [list(map(bytes, burst.packets())) for burst in iter(kernel.tun.read, None)]
    parts = [whole(cut(packet)) if len(packet) > 1420 else [packet] for packet in sent]
    assert [part for burst in bursts for part in burst] == [part for each in parts for part in each]


def test_a_full_burst_for_one_destination_does_not_end_the_bursts_for_the_others(kernel: Kernel) -> None:
    """Where streams are read in turns, the one that is first to fill its burst begins another."""
    packets = [reference.tcp_packet("10.0.0.1", f"10.0.0.{2 + i % 2}", bytes([i]) * 20_000) for i in range(4)]
    packets += [reference.tcp_packet("10.0.0.1", "10.0.0.2", bytes(30_000)), packets[1]]
    for packet in packets:
        kernel.socket.send(cut(packet))
    bursts = [list(map(bytes, burst.packets())) for burst in iter(kernel.tun.read, None)]
    segments = [whole(cut(packet)) for packet in packets]
    assert bursts == [segments[0] + segments[2], segments[1] + segments[3] + segments[5], segments[4]]


def test_a_super_packet_beside_which_there_is_no_room_begins_a_burst_that_takes_several_sends(kernel: Kernel) -> None:
    """It is not read behind others, but what comes after it is laid out, sealed and opened together with it."""
    sizes = [20_000, 20_000, 30_000, 40_000, 2000, 64_000]
    packets = [reference.tcp_packet(*V4, bytes([number]) * size) for number, size in enumerate(sizes)]
    for packet in packets:
        kernel.socket.send(cut(packet))
    bursts = [list(map(bytes, burst.packets())) for burst in iter(kernel.tun.read, None)]
    assert list(map(len, bursts)) == [40, 30, 106]
    assert [part for burst in bursts for part in burst] == [part for each in packets for part in whole(cut(each))]


@pytest.mark.parametrize(
    ("addresses", "counts"), [(V4, [180, 120, 60]), (V6, [120, 120, 60, 60])], ids=["IPv4", "IPv6"]
)
def test_long_super_packets_share_a_burst_up_to_its_bound_or_a_short_segment(
    kernel: Kernel, addresses: tuple[str, str], counts: list[int]
) -> None:
    """Slots have 1,072 bytes with IPv4, and 1,104 with IPv6."""
    sizes = [60_000, 60_000, 60_000, 60_000, 59_990, 60_000]
    packets = [
        reference.tcp_packet(*addresses, bytes([number]) * size, ports=(number, 443), flags=ACK | PSH)
        for number, size in enumerate(sizes)
    ]
    for packet in packets:
        kernel.socket.send(cut(packet))
    bursts = [(len(burst.view), list(map(bytes, burst.packets()))) for burst in iter(kernel.tun.read, None)]
    assert [len(packets) for _, packets in bursts] == counts
    assert max(size for size, _ in bursts) <= MAX_BURST
    assert [part for _, burst in bursts for part in burst] == [part for each in packets for part in whole(cut(each))]


FULL = reference.tcp_packet(*V4, bytes(60_000))
ACKNOWLEDGEMENT = reference.tcp_packet(*V4, b"", ports=(5201, 40000))


def test_an_acknowledgement_behind_a_long_super_packet_is_the_last_of_its_burst(kernel: Kernel) -> None:
    """In both directions at once, it needs no send of its own; a second one does."""
    for frame in (
        cut(FULL),
        unfinished(ACKNOWLEDGEMENT),
        cut(FULL),
        unfinished(ACKNOWLEDGEMENT),
        plain(ACKNOWLEDGEMENT),
    ):
        kernel.socket.send(frame)
    bursts = [list(map(bytes, burst.packets())) for burst in iter(kernel.tun.read, None)]
    whole_burst = [*whole(cut(FULL)), ACKNOWLEDGEMENT]
    assert bursts == [whole_burst, whole_burst, [ACKNOWLEDGEMENT]]


@pytest.mark.parametrize(
    "behind",
    [
        reference.tcp_packet("10.0.0.1", "10.0.0.3", b""),
        reference.tcp_packet(*V4, b"", traffic_class=2),
        reference.tcp_packet(*V4, bytes(1000)),
        reference.tcp_packet("10.0.0.1", "10.0.0.3", bytes(3000)),
        reference.tcp_packet(*V4, bytes(3000), traffic_class=2),
        reference.udp_packet(*V4, bytes(3000)),
        b"\x45",
    ],
    ids=[
        "another destination",
        "another class",
        "as long",
        "a super-packet to another destination",
        "a super-packet of another class",
        "a super-packet of shorter segments",
        "no packet",
    ],
)
def test_what_cannot_ride_along_is_read_next(kernel: Kernel, behind: bytes) -> None:
    for frame in (cut(FULL), cut(behind)):
        kernel.socket.send(frame)
    bursts = [list(map(bytes, burst.packets())) for burst in iter(kernel.tun.read, None)]
    assert bursts == [whole(cut(FULL)), whole(cut(behind))]


def test_what_rides_along_still_fits_into_one_send(kernel: Kernel) -> None:
    """A segment takes a slot of 1,072 bytes, so 61 leave 115: enough for 80 bytes and 32 around them, not for 96."""
    packet = reference.tcp_packet(*V4, bytes(61_000))
    for length, counts in ((80, [62]), (81, [61, 1])):
        for frame in (cut(packet), unfinished(reference.tcp_packet(*V4, bytes(length - 40)))):
            kernel.socket.send(frame)
        assert [len(burst) for burst in iter(kernel.tun.read, None)] == counts


def test_where_the_checksums_of_segments_are_is_not_believed(kernel: Kernel) -> None:
    packets = [reference.tcp_packet(*V4, bytes([number]) * 2000) for number in range(3)]
    for packet in packets:
        kernel.socket.send(misleading(packet))
    burst = kernel.tun.read()
    assert burst is not None
    assert list(burst.packets()) == [part for packet in packets for part in whole(cut(packet))]


@pytest.mark.parametrize(("packets_each", "most"), [(1, 258), (2, 130), (20, 14)])
def test_packets_that_are_read_ahead_are_bounded(kernel: Kernel, packets_each: int, most: int) -> None:
    """What waits in the kernel's queue for its turn is the kernel's memory, and its loss is counted there."""
    payload = bytes(1000 * packets_each)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        for sent in range(300):
            packet = reference.tcp_packet("10.0.0.1", f"10.0.0.{sent % 12}", payload)
            kernel.socket.send(cut(packet) if packets_each > 1 else unfinished(packet))
    assert kernel.tun.read() is not None
    left = 0
    with contextlib.suppress(BlockingIOError):
        while os.read(kernel.tun.fileno(), 1 << 17):
            left += 1
    assert sent > most
    assert left >= sent - most


def test_packets_of_several_ipv6_flows_to_one_destination_are_one_burst(kernel: Kernel) -> None:
    """Linux gives each flow a label, which is no part of the destination."""
    packets = [reference.udp_packet(*V6, bytes([number])) for number in range(8)]
    labelled = [packet[:1] + bytes([number << 1, number, number]) + packet[4:] for number, packet in enumerate(packets)]
    for packet in labelled:
        kernel.socket.send(unfinished(packet))
    assert [list(map(bytes, burst.packets())) for burst in iter(kernel.tun.read, None)] == [labelled]
