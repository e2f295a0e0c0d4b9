"""What an authorization rule is about: a prefix, and perhaps protocols and ports.

The grammar, which wg-easy has, too::

    10.0.0.0/8                          everything in the prefix
    192.168.1.5:443/tcp                 one port of one host
    10.0.0.0/8:22,80,8000-8100/tcp      several ports
    [2001:db8::/32]:443/udp             with IPv6, brackets before a port
    10.0.0.0/8:53                       TCP and UDP
    10.0.0.0/8/udp                      all ports of a protocol: tcp, udp or icmp
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, NamedTuple

from wgpy.errors import ConfigError

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

PROTOCOLS: Final = ("icmp", "tcp", "udp")
_PORTS: Final = (1, 0xFFFF)
_TEXT: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:./]*)\]|(?P<ipv4>[^][:]*?))(?::(?P<ports>[^:/]*))?(?:/(?P<protocol>[A-Za-z]\w*))?"
)
_IPV6: Final = re.compile(
    r"[0-9A-Fa-f]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(/\d+)?"
)  # alone; brackets are needed only before ports


class Ports(NamedTuple):
    """A range of ports of one protocol, both ends included; ICMP, which has no ports, has the whole range."""

    protocol: str
    first: int
    last: int

    def __str__(self) -> str:
        if (self.first, self.last) == _PORTS:
            return self.protocol
        return f"{self.first}{f'-{self.last}' if self.last > self.first else ''}/{self.protocol}"


def merged(ports: Iterable[Ports]) -> tuple[Ports, ...]:
    """The same ports in as few ranges as possible, sorted."""
    found: list[Ports] = []
    for each in sorted(ports):
        if found and found[-1].protocol == each.protocol and each.first <= found[-1].last + 1:
            found[-1] = found[-1]._replace(last=max(found[-1].last, each.last))
        else:
            found.append(each)
    return tuple(found)


def includes(ports: Collection[Ports], protocol: str, port: int) -> bool:
    """Whether these ports, or all if there are none, include this one; `port` is ignored unless for TCP or UDP."""
    return not ports or any(
        each.protocol == protocol and (protocol == "icmp" or each.first <= port <= each.last) for each in ports
    )


@dataclass(frozen=True, slots=True)
class Destination:
    """A prefix, and what of it: `ports` is empty for everything, also for protocols other than TCP, UDP and ICMP."""

    network: Network
    ports: tuple[Ports, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read the grammar above. Raises ConfigError."""
        if _IPV6.fullmatch(text):
            return cls(_network(text, text))
        found = _TEXT.fullmatch(text)
        if found is None:
            raise _wrong(text, "expected a prefix such as 10.0.0.0/8, 192.168.1.5:443/tcp or [2001:db8::/32]:443/udp")
        ports, protocol = found["ports"], (found["protocol"] or "").lower()
        network = _network(text, found["ipv6"] or found["ipv4"] or "")
        if protocol and protocol not in PROTOCOLS:
            raise _wrong(text, f"{protocol} is not a protocol that rules know: tcp, udp or icmp")
        if ports is None:
            return cls(network, (Ports(protocol, *_PORTS),) if protocol else ())
        if protocol == "icmp":
            raise _wrong(text, "ICMP has no ports")
        ranges = [_range(text, part) for part in ports.split(",")]
        return cls(network, merged(Ports(each, *span) for each in ([protocol] if protocol else ["tcp", "udp"])
                                   for span in ranges))  # fmt: skip

    def __str__(self) -> str:
        is_host = self.network.prefixlen == self.network.max_prefixlen
        prefix = str(self.network.network_address if is_host else self.network)
        if not self.ports:
            return prefix
        if self.network.version == 6:
            prefix = f"[{prefix}]"
        spans: dict[str, list[str]] = {}
        for port in self.ports:
            spans.setdefault(port.protocol, []).append(str(port).partition("/")[0])
        ranges = next(iter(spans.values()))
        if ranges == [next(iter(spans))]:  # all of a protocol
            return f"{prefix}/{ranges[0]}"
        return f"{prefix}:{','.join(ranges)}" + (f"/{next(iter(spans))}" if len(spans) == 1 else "")

    def includes(self, protocol: str, port: int) -> bool:
        """Whether the ports include this one; `port` is ignored unless the protocol is TCP or UDP."""
        return includes(self.ports, protocol, port)


def _network(text: str, prefix: str) -> Network:
    try:
        return ip_network(prefix)
    except ValueError:
        pass
    try:
        meant = ip_network(prefix, strict=False)
    except ValueError:
        raise _wrong(text, f"{prefix!a} is not an address or prefix") from None
    raise _wrong(text, f"{prefix} is an address within a prefix: write {meant}, or the address alone")


def _range(text: str, part: str) -> tuple[int, int]:
    first, dash, last = part.partition("-")
    numbers = [first, last if dash else first]
    if not all(number.isdecimal() and number.isascii() and len(number) <= 5 for number in numbers):
        raise _wrong(text, f"{part!a} is not a port or a range such as 8000-8100")
    low, high = map(int, numbers)
    if not _PORTS[0] <= low <= high <= _PORTS[1]:
        raise _wrong(text, f"{part}: ports go from 1 to 65535, the lower one first")
    return low, high


def _wrong(text: str, why: str) -> ConfigError:
    return ConfigError(f"destination {text!a}: {why}")
