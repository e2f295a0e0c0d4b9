"""Slow, obvious twins: the checksum and segmentation as their RFCs put them, one byte after another."""

from __future__ import annotations

import ipaddress
from struct import pack, unpack_from

TCP, UDP = 6, 17
FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80


def internet_checksum(data: bytes) -> int:
    """RFC 1071: add up the 16-bit words, end-around carry, complement."""
    total = 0
    for i in range(0, len(data), 2):
        total += data[i] << 8 | (data[i + 1] if i + 1 < len(data) else 0)
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ip_packet(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    identification: int = 0,
    traffic_class: int = 0,
    hop_limit: int = 64,
    dont_fragment: bool = True,
    options: bytes = b"",
) -> bytes:
    """An IPv4 or IPv6 packet around a transport payload whose checksum is already right."""
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if a.version == 6:
        head = pack(">IHBB", 6 << 28 | traffic_class << 20, len(payload), protocol, hop_limit)
        return head + a.packed + b.packed + payload
    first = 0x45 + len(options) // 4
    total = 20 + len(options) + len(payload)
    fragment = 0x4000 if dont_fragment else 0
    head = pack(">BBHHHBBH", first, traffic_class, total, identification, fragment, hop_limit, protocol, 0)
    head += a.packed + b.packed + options
    return head[:10] + pack(">H", internet_checksum(head)) + head[12:] + payload


def pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    """RFC 9293 section 3.1 for IPv4, RFC 8200 section 8.1 for IPv6."""
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    tail = pack(">BBH", 0, protocol, length) if a.version == 4 else pack(">IHBB", length, 0, 0, protocol)
    return a.packed + b.packed + tail


def tcp_packet(
    source: str,
    destination: str,
    payload: bytes,
    *,
    ports: tuple[int, int] = (1000, 2000),
    sequence: int = 1,
    acknowledgement: int = 1,
    flags: int = ACK,
    window: int = 1000,
    tcp_options: bytes = b"",
    identification: int = 0,
    traffic_class: int = 0,
    hop_limit: int = 64,
    dont_fragment: bool = True,
    ip_options: bytes = b"",
) -> bytes:
    offset = (5 + len(tcp_options) // 4) << 4
    segment = pack(">HHIIBBHHH", *ports, sequence, acknowledgement, offset, flags, window, 0, 0) + tcp_options + payload
    check = internet_checksum(pseudo_header(source, destination, TCP, len(segment)) + segment) or 0xFFFF
    return ip_packet(
        source,
        destination,
        TCP,
        segment[:16] + pack(">H", check) + segment[18:],
        identification=identification,
        traffic_class=traffic_class,
        hop_limit=hop_limit,
        dont_fragment=dont_fragment,
        options=ip_options,
    )


def udp_packet(
    source: str,
    destination: str,
    payload: bytes,
    *,
    ports: tuple[int, int] = (1000, 2000),
    identification: int = 0,
    traffic_class: int = 0,
    hop_limit: int = 64,
    dont_fragment: bool = True,
    with_checksum: bool = True,
) -> bytes:
    datagram = pack(">HHHH", *ports, 8 + len(payload), 0) + payload
    check = internet_checksum(pseudo_header(source, destination, UDP, len(datagram)) + datagram) or 0xFFFF
    return ip_packet(
        source,
        destination,
        UDP,
        datagram[:6] + pack(">H", check if with_checksum else 0) + datagram[8:],
        identification=identification,
        traffic_class=traffic_class,
        hop_limit=hop_limit,
        dont_fragment=dont_fragment,
    )


def checksums_hold(packet: bytes) -> bool:
    """Whether the IP header's and the TCP or UDP checksum of a packet without extension headers are right."""
    if packet[0] >> 4 == 4:
        start, addresses, protocol = (packet[0] & 15) * 4, packet[12:20], packet[9]
        if internet_checksum(packet[:start]) != 0:
            return False
    else:
        start, addresses, protocol = 40, packet[8:40], packet[6]
    segment = packet[start:]
    return internet_checksum(addresses + pack(">II", len(segment), protocol) + segment) == 0


def segment_packet(packet: bytes, size: int) -> list[bytes]:
    """What a TCP or UDP packet becomes when it is cut into payloads of `size` bytes, one after another."""
    v4 = packet[0] >> 4 == 4
    start = (packet[0] & 15) * 4 if v4 else 40
    protocol = packet[9] if v4 else packet[6]
    end = start + ((packet[start + 12] >> 4) * 4 if protocol == TCP else 8)
    payloads = [packet[i : i + size] for i in range(end, len(packet), size)]
    segments = []
    for i, payload in enumerate(payloads):
        head = bytearray(packet[:end])
        length = len(payload) + end - start
        if v4:
            head[2:4] = pack(">H", start + length)
            head[4:6] = pack(">H", (unpack_from(">H", packet, 4)[0] + i) & 0xFFFF)
            head[10:12] = bytes(2)
            head[10:12] = pack(">H", internet_checksum(bytes(head[:start])))
            addresses = packet[12:20]
        else:
            head[4:6] = pack(">H", length)
            addresses = packet[8:40]
        if protocol == TCP:
            head[start + 4 : start + 8] = pack(">I", (unpack_from(">I", packet, start + 4)[0] + i * size) & 0xFFFFFFFF)
            if i > 0:
                head[start + 13] &= 0xFF ^ CWR
            if i < len(payloads) - 1:
                head[start + 13] &= 0xFF ^ (FIN | PSH)
            check = start + 16
        else:
            head[start + 4 : start + 6] = pack(">H", length)
            check = start + 6
        head[check : check + 2] = bytes(2)
        value = internet_checksum(addresses + pack(">II", length, protocol) + bytes(head[start:]) + payload)
        head[check : check + 2] = pack(">H", value or 0xFFFF)
        segments.append(bytes(head) + payload)
    return segments
