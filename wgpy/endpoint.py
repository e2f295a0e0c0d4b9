"""Where a datagram comes from or goes to: a numeric address and port, and the local address to answer from."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

_LITERAL: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)(?:%(?P<scope>[0-9]{1,10}))?\]|(?P<v4>[0-9.]+)):(?P<port>[0-9]{1,5})"
)


class Endpoint(NamedTuple):
    """A peer's UDP address and, once it was heard, the local address it sent to (the kernel's struct endpoint)."""

    host: str
    """A numeric IPv4 or IPv6 address without brackets or zone."""
    port: int
    """The UDP port."""
    scope_id: int = 0
    """The interface index of an IPv6 link-local host, else 0."""
    source: bytes = b""
    """The local address that the last datagram came to, 4 or 16 bytes; empty to let the route decide."""
    source_ifindex: int = 0
    """The index of the interface that it came in by; 0 to let the route decide."""

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read `1.2.3.4:5`, `[::1]:5` or `[fe80::1%3]:5`. Raises ValueError; names are resolved elsewhere."""
        match = _LITERAL.fullmatch(text)
        if match is None or int(match["port"]) > 0xFFFF or int(match["scope"] or 0) > 0xFFFFFFFF:
            raise ValueError(f"not an endpoint: {text!r} (expected 192.0.2.1:51820 or [2001:db8::1]:51820)")
        host = IPv6Address(match["v6"]) if match["v6"] else ip_address(match["v4"])
        return cls(str(host), int(match["port"]), int(match["scope"] or 0))

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host

    @property
    def address_bytes(self) -> bytes:
        """The host as 4 or 16 bytes. Raises ValueError when it is not a numeric address."""
        host = self.host
        # This takes a tenth of the time of ip_address; in a flood it is called twice for each datagram.
        return IPv6Address(host).packed if ":" in host else bytes(map(int, host.split(".")))

    @property
    def packed(self) -> bytes:
        """Address and big-endian port: what a cookie is bound to (paper, 5.4.7)."""
        return self.address_bytes + self.port.to_bytes(2, "big")

    def without_source(self) -> Endpoint:
        """The same remote address; the routes choose the local one."""
        return self._replace(source=b"", source_ifindex=0) if self.source or self.source_ifindex else self

    def same_remote(self, other: Endpoint) -> bool:
        """Whether host, port and scope are the same, whatever the local address."""
        return self[:3] == other[:3]

    def __str__(self) -> str:
        if not self.is_ipv6:
            return f"{self.host}:{self.port}"
        return f"[{self.host}%{self.scope_id}]:{self.port}" if self.scope_id else f"[{self.host}]:{self.port}"


SenderChange = tuple[int, Endpoint, int]
"""Where another sender's datagrams begin among those that were read together.

The number of its first datagram, its endpoint, and the ECN field of its datagrams (0 to 3)."""
