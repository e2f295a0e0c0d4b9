"""The flow log: connections that passed, and packets that the rules denied, with the keys of AWS's VPC flow logs.

https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html. As there, a connection has a record for each
direction, times are in seconds since 1970, and SKIPDATA tells that records are missing. Of our own are user, device and
lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, NamedTuple

from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.netfilter import attributes

_TUPLE_ORIGINAL, _COUNTERS_ORIGINAL, _COUNTERS_REPLY, _TIMESTAMP = 1, 9, 10, 20  # CTA_..., nfnetlink_conntrack.h
_IP, _PROTOCOL = 1, 2
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)  # CTA_IP_V4_SRC, CTA_IP_V6_SRC; CTA_IP_V4_DST, CTA_IP_V6_DST
_NANOSECONDS: Final = 1_000_000_000
_PORTS: Final = {6, 17, 33, 132, 136}  # protocols that have ports: TCP, UDP, DCCP, SCTP, UDP-Lite
_EXTENSIONS: Final = {0, 43, 60}  # of IPv6: hop-by-hop, routing, destination options


class Path(NamedTuple):
    """From where to where, by which protocol; ports are 0 where it has none."""

    source: Address
    destination: Address
    protocol: int
    source_port: int = 0
    destination_port: int = 0

    def reversed(self) -> Path:
        """The way back."""
        return Path(self.destination, self.source, self.protocol, self.destination_port, self.source_port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A connection that is over, as its client saw it: before any address was translated."""

    path: Path
    sent: tuple[int, int]
    """Packets and bytes from `path.source`."""
    received: tuple[int, int]
    started_at: float
    """In seconds since 1970."""
    ended_at: float


def read_flow(body: bytes, wall: float) -> Flow | None:
    """Read a message about a connection that conntrack forgets, at `wall`. None if it is not about addresses."""
    found = dict(attributes(body))
    original = dict(attributes(found.get(_TUPLE_ORIGINAL, b"")))
    path = _path(original.get(_IP, b""), original.get(_PROTOCOL, b""))
    if path is None:
        return None
    times = {kind: _number(value) / _NANOSECONDS for kind, value in attributes(found.get(_TIMESTAMP, b""))}
    ended = times.get(2) or wall
    return Flow(
        path=path,
        sent=_counters(found.get(_COUNTERS_ORIGINAL, b"")),
        received=_counters(found.get(_COUNTERS_REPLY, b"")),
        started_at=min(times.get(1) or ended, ended),
        ended_at=ended,
    )


def read_packet(packet: bytes) -> tuple[Path, int] | None:
    """The path and the bytes of an IP packet, of which the beginning is there; None if it is none."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        size = int.from_bytes(packet[2:4])
        protocol, begin = packet[9], (packet[0] & 15) * 4
        is_first = not int.from_bytes(packet[6:8]) & 0x1FFF
        ends: tuple[Address, Address] = (IPv4Address(packet[12:16]), IPv4Address(packet[16:20]))
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        size = 40 + int.from_bytes(packet[4:6])
        protocol, begin, is_first = packet[6], 40, True
        ends = (IPv6Address(packet[8:24]), IPv6Address(packet[24:40]))
        while protocol in _EXTENSIONS and begin + 2 <= len(packet):
            protocol, begin = packet[begin], begin + 8 * (packet[begin + 1] + 1)
    else:
        return None
    ports = packet[begin : begin + 4]
    if protocol not in _PORTS or not is_first or len(ports) < 4:
        return Path(*ends, protocol), size
    return Path(*ends, protocol, int.from_bytes(ports[:2]), int.from_bytes(ports[2:])), size


def accepted(flow: Flow, interface: str, device: str, user: str, *, is_clients: bool) -> Iterator[dict[str, Any]]:
    """The records of a connection, one for each direction in which packets went; `is_clients`: a client began it."""
    ways = ((flow.path, flow.sent, is_clients), (flow.path.reversed(), flow.received, not is_clients))
    for path, (packets, size), is_ingress in ways:
        if packets:
            times = (flow.started_at, flow.ended_at)
            yield _record(path, packets, size, times, interface, device, user, "ACCEPT", is_ingress=is_ingress)


def denied(
    path: Path, size: int, wall: float, interface: str, device: str, user: str, *, is_clients: bool
) -> dict[str, Any]:
    """The record of one packet of `size` bytes that the rules denied at `wall`."""
    return _record(path, 1, size, (wall, wall), interface, device, user, "REJECT", is_ingress=is_clients)


def skipped(interface: str, since: float, wall: float, count: int) -> dict[str, Any]:
    """The record of `count` events that were lost between two times."""
    return {
        "interface-id": interface,
        "start": int(since),
        "end": int(wall),
        "log-status": "SKIPDATA",
        "lost": count,
    }


def _record(
    path: Path,
    packets: int,
    size: int,
    times: tuple[float, float],
    interface: str,
    device: str,
    user: str,
    action: str,
    *,
    is_ingress: bool,
) -> dict[str, Any]:
    return {
        "interface-id": interface,
        "srcaddr": str(path.source),
        "dstaddr": str(path.destination),
        "srcport": path.source_port,
        "dstport": path.destination_port,
        "protocol": path.protocol,
        "packets": packets,
        "bytes": size,
        "start": int(times[0]),
        "end": int(times[1]),
        "action": action,
        "log-status": "OK",
        "type": f"IPv{path.source.version}",
        "flow-direction": "ingress" if is_ingress else "egress",
        "device": device,
        "user": user,
    }


def _path(addresses: bytes, protocol: bytes) -> Path | None:
    found = {kind: ip_address(value) for kind, value in attributes(addresses) if len(value) in (4, 16)}
    source, destination = (
        next((found[kind] for kind in kinds if kind in found), None) for kinds in (_SOURCES, _DESTINATIONS)
    )
    if source is None or destination is None or source.version != destination.version:
        return None
    numbers = {kind: _number(value) for kind, value in attributes(protocol)}
    return Path(source, destination, numbers.get(1, 0), numbers.get(2, 0), numbers.get(3, 0))


def _counters(body: bytes) -> tuple[int, int]:
    numbers = {kind: _number(value) for kind, value in attributes(body)}
    return numbers.get(1, 0), numbers.get(2, 0)


def _number(value: bytes) -> int:
    return int.from_bytes(value[:8])
