"""Splitting and merging undo each other, and no bytes make either raise."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import reference
from tests.support.bursts import MTUS, V4, V6, burst_of, by_flow, outcome, slots, super_header
from tests.support.examples import examples
from tests.support.reference import ACK, CWR, FIN, PSH, tcp_packet, udp_packet
from wgpy.burst import Burst, ViewCache, padded_length
from wgpy.tun.merging import merge
from wgpy.tun.splitting import split
from wgpy.tun.virtio import VnetHeader

addresses = st.sampled_from([V4, V6])
sixteen = st.integers(0, 0xFFFF)
fields = {
    "identification": sixteen,
    "traffic_class": st.integers(0, 255),
    "hop_limit": st.integers(0, 255),
    "dont_fragment": st.booleans(),
    "ports": st.tuples(sixteen, sixteen),
}
payloads = st.builds(lambda seed, size: (seed * size)[:size], st.binary(min_size=1), st.integers(1, 6000))


@st.composite
def super_packets(draw: st.DrawFn, flags: st.SearchStrategy[int]) -> bytes:
    common = {name: draw(value) for name, value in fields.items()}
    ends, payload = draw(addresses), draw(payloads)
    if draw(st.booleans()):
        return udp_packet(*ends, payload, **common)  # type: ignore[arg-type]
    return tcp_packet(
        *ends,
        payload,
        sequence=draw(st.integers(0, 0xFFFFFFFF)),
        acknowledgement=draw(st.integers(0, 0xFFFFFFFF)),
        window=draw(sixteen),
        flags=draw(flags),
        tcp_options=draw(st.binary(max_size=40).map(lambda options: options[: len(options) & ~3])),
        **common,  # type: ignore[arg-type]
    )


any_flags = st.sampled_from([ACK, ACK | PSH, ACK | PSH | FIN, ACK | CWR, ACK | CWR | PSH | FIN])
mtus = st.sets(st.integers(1, 2000), max_size=3).map(sorted).map(tuple)
bulk_flags = st.sampled_from([ACK, ACK | PSH])


# What a reader has: one buffer, which holds what was there before, and remembers how that was cut.
reader = ViewCache(memoryview(bytearray(1 << 20)))


@settings(deadline=None)
@given(super_packets(any_flags), st.integers(1, 2000), mtus)
def test_split_agrees_with_the_slow_reference(packet: bytes, size: int, mtus: tuple[int, ...]) -> None:
    expected = reference.segment_packet(packet, size)
    burst = split(super_header(packet, size), memoryview(packet), reader, mtus)
    assert burst is not None
    assert [bytes(segment) for segment in burst.packets()] == expected
    padded = [padded_length(len(segment), mtus) for segment in expected]
    assert [len(single.view) - 32 for single in burst.singles()] == padded


@settings(deadline=None)
@given(super_packets(bulk_flags), st.integers(100, 2000))
def test_split_then_merge_gives_back_the_packet(packet: bytes, size: int) -> None:
    burst = split(super_header(packet, size), memoryview(packet), reader, MTUS)
    assert burst is not None
    segments = reference.segment_packet(packet, size)
    writes = merge(burst)
    assert [part for write in writes for part in outcome(write)] == segments
    if len(segments) <= 64:
        assert len(writes) == 1
    if len(segments) == 1 or len(writes) > 1:
        return
    again = split(VnetHeader.unpack(writes[0].parts[0]), memoryview(b"".join(writes[0].parts[1:])), slots(), MTUS)
    assert again is not None
    assert [bytes(segment) for segment in again.packets()] == segments


@settings(deadline=None)
@given(st.lists(super_packets(bulk_flags), min_size=1, max_size=4), st.integers(300, 1400), st.randoms())
def test_merging_never_changes_packets_or_reorders_a_flow(packets: list[bytes], size: int, mix: random.Random) -> None:
    segments = mixed([reference.segment_packet(packet, size) for packet in packets], mix)
    burst = burst_of(*segments)
    again = Burst(reader.buffer[: len(burst.view)], burst.stride, burst.lengths, reader)
    again.view[:] = burst.view
    for one in (burst, again):
        merged = [part for write in merge(one) for part in outcome(write)]
        assert by_flow(merged) == by_flow(segments)


def mixed(runs: list[list[bytes]], mix: random.Random) -> list[bytes]:
    """The packets of several runs, those of each run in order for the most part."""
    keyed = [(number / len(run) + mix.random() / 2, packet) for run in runs for number, packet in enumerate(run)]
    return [packet for _, packet in sorted(keyed)]


headers = st.builds(
    VnetHeader,
    st.integers(0, 255),
    st.sampled_from([0, 1, 3, 4, 5, 0x81, 0x84]) | st.integers(0, 255),
    sixteen,
    sixteen | st.integers(0, 2000),
    sixteen | st.sampled_from([20, 24, 40, 48]),
    sixteen | st.sampled_from([6, 16]),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Random bytes, or a good packet with some bytes overwritten and its end cut off."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    packet = bytearray(draw(super_packets(any_flags)))
    for at, value in draw(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4)):
        packet[at % len(packet)] = value
    return bytes(packet[: draw(st.integers(0, len(packet)))])


@settings(deadline=None, max_examples=examples(500))
@given(headers, damaged(), mtus)
def test_no_bytes_make_split_raise(header: VnetHeader, packet: bytes, mtus: tuple[int, ...]) -> None:
    burst = split(header, memoryview(packet), slots(), mtus)
    assert burst is None or all(burst.lengths)


@settings(deadline=None, max_examples=examples(500))
@given(st.lists(damaged(), min_size=1, max_size=6), st.integers(1, 4))
def test_no_bytes_make_merge_raise_or_change_them(packets: list[bytes], repeat: int) -> None:
    packets = [packet for packet in packets for _ in range(repeat)]
    burst = burst_of(*packets)
    if not any(packets):
        assert merge(burst) == []
        return
    merged = [part for write in merge(burst) for part in outcome(write)]
    assert by_flow(merged) == by_flow([packet for packet in packets if packet])
