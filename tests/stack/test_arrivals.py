"""What several bursts bring of many connections, beside the same packets looked at one by one."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bursts import OPTIONS, PAYLOAD, V4, V6, burst_of, tcp_run
from tests.support.examples import examples
from tests.support.reference import ACK, FIN, PSH, tcp_packet
from wgpy.burst import Burst, ViewCache
from wgpy.stack import ip
from wgpy.stack.tcp.arrivals import Arrivals, lone
from wgpy.stack.tcp.header import Segment

CE, RST = 3, 0x04
OURS = [ip_address(addresses[1]).packed for addresses in (V4, V6)]

Drawn = tuple[tuple[str, str], int, int, dict[str, Any]]
SACK = OPTIONS + bytes.fromhex("0101050a0000000200000004")

plain: list[tuple[int, dict[str, Any]]] = [
    (112, {}),
    (100, {"tcp_options": OPTIONS}),
    (88, {"tcp_options": SACK}),
]
unlike: list[tuple[int, dict[str, Any]]] = [
    (0, {}),
    (0, {"acknowledgement": 2}),
    (0, {"tcp_options": SACK}),
    (0, {"tcp_options": SACK, "acknowledgement": 3}),
    (100, {"traffic_class": CE}),
    (112, {"traffic_class": CE}),
    (112, {"flags": ACK | PSH}),
    (112, {"flags": ACK | PSH | FIN}),
    (112, {"flags": ACK | RST}),
    (112, {"window": 5, "acknowledgement": 5}),
    (112, {"skipped": 112}),
    (112, {"skipped": 2**32 - 112}),
    (112, {"broken": True}),
    (112, {"dont_fragment": False}),
    (111, {}),
    (1, {}),
]
packets = st.builds(
    lambda addresses, port, shape: (addresses, port, *shape),
    st.sampled_from([V4, V4, V6]),
    st.integers(1, 2),
    st.sampled_from(4 * plain) | st.sampled_from(unlike),
)


class Reader:
    """One buffer, in which the next burst overwrites the last, as the socket's reader has."""

    def __init__(self) -> None:
        self.cache = ViewCache(memoryview(bytearray(1 << 18)))

    def burst(self, made: list[bytes]) -> Burst:
        there = burst_of(*made)
        self.cache.buffer[: len(there.view)] = there.view
        self.cache.buffer[len(there.view) :] = bytes(len(self.cache.buffer) - len(there.view))
        return Burst(self.cache.buffer[: len(there.view)], there.stride, there.lengths, self.cache)


def gathered(bursts: list[list[bytes]]) -> tuple[list[tuple[bytes, Segment]], list[bytes]]:
    """The segments, and the packets that are none."""
    arrivals, reader, refused = Arrivals(), Reader(), []
    for made in bursts:
        burst = reader.burst(made)
        for i in arrivals.gather(burst, OURS):
            packet = ip.parse(burst.packet(i))
            found = lone(packet) if isinstance(packet, ip.Packet) else packet
            if isinstance(found, ip.Drop):
                refused.append(bytes(burst.packet(i)))
            else:
                arrivals.add(*found)
    return list(arrivals.take()), refused


@settings(deadline=None, max_examples=examples(300))
@given(st.lists(packets, min_size=1, max_size=40), st.integers(1, 20))
def test_arrivals_agree_with_reading_each_packet(drawn: list[Drawn], most: int) -> None:
    made: list[bytes] = []
    following: dict[tuple[object, int], int] = {}
    for addresses, port, size, fields in drawn:
        fields = dict(fields)
        number = following.get((addresses, port), 2**32 - 150) + fields.pop("skipped", 0) & 0xFFFFFFFF
        is_broken = fields.pop("broken", False)
        packet = tcp_packet(*addresses, PAYLOAD[number % 256 :][:size], ports=(port, 80), sequence=number, **fields)
        following[addresses, port] = number + size & 0xFFFFFFFF
        made.append(packet[:-1] + bytes([packet[-1] ^ 1]) if is_broken else packet)
    bursts = [made[at : at + most] for at in range(0, len(made), most)]
    alone = [each for packet in made for each in gathered([[packet]])[0]]
    together, refused = gathered(bursts)
    assert sorted(refused) == sorted(packet for packet in made if not gathered([[packet]])[0])
    for key in {key for key, _ in (*alone, *together)}:
        expected = [segment for other, segment in alone if other == key]
        found = [segment for other, segment in together if other == key]
        assert b"".join(segment.payload for segment in found) == b"".join(segment.payload for segment in expected)
        assert sum(segment.packets for segment in found) == len(expected)
        for segment in found:  # each stands for the next few
            those, expected = expected[: segment.packets], expected[segment.packets :]
            number, flags = those[0].number, 0
            for each in those:
                assert each.number == number
                number, flags = number + len(each.payload) & 0xFFFFFFFF, flags | each.flags
            for before, then in pairwise(those):  # else something would go unnoticed
                assert then.payload or (len(then.options) <= 12 and then.acknowledgement != before.acknowledgement)
                assert before.flags & ~PSH == ACK
                assert not then.flags & RST
            assert segment._replace(flags=segment.flags | PSH) == those[-1]._replace(  # which tells a receiver nothing
                number=those[0].number,
                flags=flags | PSH,
                payload=b"".join(each.payload for each in those),
                packets=len(those),
            )


def test_a_connections_packets_are_one_segment_whatever_lies_between_them() -> None:
    one, other = (tcp_run(60, 80, ports=(port, 80), tcp_options=OPTIONS) for port in (1, 2))
    mixed = [packet for i in range(0, 60, 3) for run in (one, other) for packet in run[i : i + 3]]
    short = tcp_packet(*V4, b"end", ports=(1, 80), sequence=7 + 4800, tcp_options=OPTIONS, flags=ACK | PSH)
    segments, _ = gathered([mixed[:45], mixed[45:90], mixed[90:], [short]])
    assert [(segment.packets, segment.payload) for _, segment in segments] == [
        (61, PAYLOAD[:4800] + b"end"),
        (60, PAYLOAD[:4800]),
    ]


@settings(deadline=None, max_examples=examples(300))
@given(packets, st.integers(0, 700).map(lambda bit: max(0, bit - 300)))
def test_the_fast_path_agrees_with_the_general_one(drawn: Drawn, damage: int) -> None:
    """One look at a plain header finds what the functions for all packets find, also with a bit turned."""
    addresses, port, size, fields = drawn
    fields = {name: value for name, value in fields.items() if name not in ("skipped", "broken")}
    packet = bytearray(tcp_packet(*addresses, PAYLOAD[:size], ports=(port, 80), sequence=7, **fields))
    packet[damage // 8 % len(packet)] ^= damage and 1 << damage % 8
    burst, arrivals = burst_of(bytes(packet)), Arrivals()
    others = arrivals.gather(burst, OURS)
    assert not others or damage
    parsed = ip.parse(burst.packet(0))
    assert isinstance(parsed, ip.Packet) or others
    if isinstance(parsed, ip.Packet) and not others:
        assert list(arrivals.take()) == [lone(parsed)]


def test_a_short_packet_among_long_ones_stays_in_its_place() -> None:
    one = tcp_run(40, 120, ports=(1, 80), tcp_options=OPTIONS)
    short = tcp_packet(*V4, PAYLOAD[4800:4803], ports=(1, 80), sequence=7 + 4800, tcp_options=OPTIONS)
    rest = tcp_packet(*V4, PAYLOAD[4803:4923], ports=(1, 80), sequence=7 + 4803, tcp_options=OPTIONS)
    (segment,) = [segment for _, segment in gathered([[*one, short, rest]])[0]]
    assert (segment.packets, segment.payload) == (42, PAYLOAD[:4923])


def test_packets_with_longer_headers_than_the_others_keep_their_own_payloads() -> None:
    several = tcp_run(20, 100, ports=(1, 80), tcp_options=OPTIONS)
    longer = [
        tcp_packet(*V4, PAYLOAD[at : at + 88], ports=(2, 80), sequence=at, tcp_options=SACK) for at in (500, 600, 700)
    ]
    segments, _ = gathered([[*several, *longer]])
    assert [(segment.number, segment.payload) for _, segment in segments[1:]] == [
        (at, PAYLOAD[at : at + 88]) for at in (500, 600, 700)
    ]
