"""Inner packets to send through a tunnel."""

from __future__ import annotations

from ipaddress import ip_address


def ipv4_packet(source: str, destination: str, payload: bytes = b"", *, tos: int = 0) -> bytes:
    """A UDP-like IPv4 packet with a correct header checksum."""
    header = bytearray(20)
    header[0], header[1], header[8], header[9] = 0x45, tos, 64, 17
    header[2:4] = (20 + len(payload)).to_bytes(2, "big")
    header[12:16] = ip_address(source).packed
    header[16:20] = ip_address(destination).packed
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, 20, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (total ^ 0xFFFF).to_bytes(2, "big")
    return bytes(header) + payload


def ipv6_packet(source: str, destination: str, payload: bytes = b"", *, traffic_class: int = 0) -> bytes:
    """A UDP-like IPv6 packet."""
    first = (6 << 28 | traffic_class << 20).to_bytes(4, "big")
    return (
        first
        + len(payload).to_bytes(2, "big")
        + bytes((17, 64))
        + ip_address(source).packed
        + ip_address(destination).packed
        + payload
    )
