"""The flow log's reading of what the kernel says, with messages that a kernel sent, and with any bytes."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from wgpy.gateway.policy.flow_log import Path, accepted, denied, read_flow, read_packet, skipped
from wgpy.gateway.policy.netfilter import messages

# Linux 6.18 about one UDP datagram of a byte, from 127.0.0.1:46196 to port 9, when its time was up.
DESTROYED = bytes.fromhex(
    "c4000000020100000000000000000000020000003400018014000180080001007f000001080002007f0000011c00028005000100110000"
    "0006000200b474000006000300000900003400028014000180080001007f000001080002007f0000011c00028005000100110000000600"
    "02000009000006000300b474000008000c00d524584508000300000002081c0009800c00010000000000000000010c0002000000000000"
    "00001d1c000a800c00010000000000000000000c0002000000000000000000"
)
PHONE, SERVER = ip_address("10.99.0.2"), ip_address("10.0.0.5")


def test_a_connection_that_is_over_has_a_record_for_each_direction_with_packets() -> None:
    (message,) = messages(DESTROYED)
    flow = read_flow(message.attributes, 1000.5)
    assert flow
    loopback = ip_address("127.0.0.1")
    assert flow.path == Path(loopback, loopback, 17, 46196, 9)
    assert (flow.sent, flow.received, flow.started_at, flow.ended_at) == ((1, 29), (0, 0), 1000.5, 1000.5)
    (record,) = accepted(flow, "wg0", "phone", "alice", is_clients=True)
    assert record == {
        "interface-id": "wg0",
        "srcaddr": "127.0.0.1",
        "dstaddr": "127.0.0.1",
        "srcport": 46196,
        "dstport": 9,
        "protocol": 17,
        "packets": 1,
        "bytes": 29,
        "start": 1000,
        "end": 1000,
        "action": "ACCEPT",
        "log-status": "OK",
        "type": "IPv4",
        "flow-direction": "ingress",
        "device": "phone",
        "user": "alice",
    }


def test_a_denied_packet_has_a_record() -> None:
    packet = bytes.fromhex("4500003c00004000400600000a6300020a000005") + (40000).to_bytes(2) + (443).to_bytes(2)
    read = read_packet(packet)
    assert read == (Path(PHONE, SERVER, 6, 40000, 443), 60)
    record = denied(*read, 1000.5, "wg0", "phone", "alice", is_clients=True)
    assert (record["action"], record["packets"], record["bytes"], record["dstport"]) == ("REJECT", 1, 60, 443)
    later_fragment = packet[:6] + b"\x20\x01" + packet[8:]
    assert read_packet(later_fragment) == (Path(PHONE, SERVER, 6), 60)
    ping = packet[:9] + b"\x01" + packet[10:]
    assert read_packet(ping) == (Path(PHONE, SERVER, 1), 60)


def test_ports_are_found_behind_extension_headers_of_ipv6() -> None:
    ends = ip_address("fd00:99::2").packed + ip_address("2001:db8::5").packed
    ports = (40000).to_bytes(2) + (53).to_bytes(2)
    plain = b"\x60\0\0\0\0\x0c\x11\x40" + ends + ports
    extended = b"\x60\0\0\0\0\x14\x3c\x40" + ends + b"\x11\0" + bytes(6) + ports
    for packet, size in ((plain, 52), (extended, 60)):
        path = Path(ip_address("fd00:99::2"), ip_address("2001:db8::5"), 17, 40000, 53)
        assert read_packet(packet) == (path, size)


def test_what_is_lost_is_told() -> None:
    record = skipped("wg0", 940.0, 1000.5, 7)
    assert record == {"interface-id": "wg0", "start": 940, "end": 1000, "log-status": "SKIPDATA", "lost": 7}


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    read_packet(data)
    read_flow(data, 0.0)
    for message in messages(data):
        read_flow(message.attributes, 0.0)


@given(st.integers(0, len(DESTROYED) - 1), st.binary(min_size=1, max_size=8))
def test_no_damage_makes_it_raise(place: int, damage: bytes) -> None:
    for message in messages(DESTROYED[:place] + damage + DESTROYED[place + len(damage) :]):
        read_flow(message.attributes, 0.0)
