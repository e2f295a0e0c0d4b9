"""The configuration of an interface as frozen values: everything that a wg-quick file can say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Final

from wgpy.constants import MAX_MTU, MAX_WORKERS, MIN_IPV6_MTU, MIN_MTU, OUTER_OVERHEAD
from wgpy.errors import ConfigError
from wgpy.fields import Field, expect, take
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

_ENDPOINT: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+(?:%(?=[^]]{1,15}])[\w=+-]+(?:\.[\w=+-]+)*)?)\]|([^\[\]%]+)):([0-9]{1,5})", re.ASCII
)
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*\.?")
MTU_FOR_IPV6: Final = f"at least {MIN_IPV6_MTU}, because IPv6 needs that, or no IPv6 address"
_REMOTE: Final = "vpn.example.org:51820, 192.0.2.1:51820 or [2001:db8::1]:51820"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointName:
    """A peer's endpoint: a host name or a numeric address (IPv6 also with `%scope`), and a UDP port."""

    host: str
    """A host name, or a numeric address without brackets."""
    port: int
    """The UDP port, 1 to 65535."""

    def __post_init__(self) -> None:
        take(self, _ENDPOINT_FIELDS)

    @classmethod
    def parse(cls, text: str) -> EndpointName:
        """Read HOST:PORT. As for `wg`, an IPv6 address may lack its brackets: the port is after the last colon.

        Raises ValueError.
        """
        match = _ENDPOINT.fullmatch(text)
        if match is None or not 0 < int(match[3]) <= 0xFFFF:
            raise ValueError(f"expected {_REMOTE}, not {text!a}")
        host = match[1] or match[2]
        if match[1] or ":" in host:
            host = str(IPv6Address(host))
        elif not host.strip("0123456789."):
            host = str(ip_address(host))
        elif not _HOST_NAME.fullmatch(host):
            raise ValueError(f"{host!a} is not a valid host name")
        return cls(host=host, port=int(match[3]))

    @property
    def is_host_name(self) -> bool:
        """Whether the host has to be looked up."""
        try:
            ip_address(self.host.partition("%")[0])
        except ValueError:
            return True
        return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offloads:
    """Which offloads of the kernel may be used. An allowed one is used if the kernel has it and implements it right."""

    udp_gso: bool = True
    """One call sends several datagrams."""
    udp_gro: bool = True
    """One call receives several datagrams."""
    tun: bool = True
    """One read or write of the TUN carries several packets."""

    def __and__(self, other: Offloads) -> Offloads:
        """The offloads that both allow."""
        return Offloads(
            udp_gso=self.udp_gso and other.udp_gso,
            udp_gro=self.udp_gro and other.udp_gro,
            tun=self.tun and other.tun,
        )


ALL_OFFLOADS: Final = Offloads()
NO_OFFLOADS: Final = Offloads(udp_gso=False, udp_gro=False, tun=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """One peer.

    Text in the place of a key, an endpoint or a network is read as in a file. Raises KeyFormatError or ConfigError for
    a wrong text and for a number out of range, TypeError for anything else; so does InterfaceConfig.
    """

    public_key: PublicKey
    """The peer's identity; each peer has another one."""
    preshared_key: PresharedKey | None = None
    """A secret that both ends mix into the handshake besides their keys; None or all zero for none."""
    endpoint: EndpointName | None = None
    """Where to find the peer; None for a peer that calls first."""
    persistent_keepalive: int = 0
    """Seconds, 0 to 65535, between packets sent to keep a NAT's mapping open; 0 for none."""
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = ()
    """The networks whose packets go to this peer, and the sources it may send from."""
    name: str = ""
    """For people: from a comment `# Name = ...`, and shown wherever the peer is."""

    def __post_init__(self) -> None:
        take(self, _PEER_FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceConfig:
    """One interface and its peers. Without any argument: no identity, any free port, no addresses, no peers."""

    private_key: PrivateKey | None = None
    """The interface's identity; without one no handshake is possible."""
    listen_port: int = 0
    """The UDP port to listen on, 0 to 65535; 0 for any free one."""
    fwmark: int = 0
    """The firewall mark, 32 bits, of the datagrams that carry the tunnel; 0 for none."""
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    """The interface's own addresses, with their prefix lengths."""
    mtu: int | None = None
    """The largest inner packet in bytes, 68 to 65535; None to derive it from the routes to the endpoints."""
    dns: tuple[str, ...] = ()
    """Numeric addresses of name servers."""
    dns_search: tuple[str, ...] = ()
    """Search domains."""
    table: int | str = "auto"
    """Where routes to the allowed IPs go: "auto", "off", or the number or name of a routing table."""
    pre_up: tuple[str, ...] = ()
    """Commands for bash, run before the interface is configured; in these and the next three `%i` is its name."""
    post_up: tuple[str, ...] = ()
    """Commands run when the interface is up."""
    pre_down: tuple[str, ...] = ()
    """Commands run before the interface is taken down."""
    post_down: tuple[str, ...] = ()
    """Commands run when the interface is gone."""
    save_config: bool = False
    """Whether `wgpy down` writes the state of the interface into its file."""
    udp_gso: bool = True
    """False for `# UdpGso = off`: every datagram is sent by itself."""
    tun_offload: bool = True
    """False for `# TunOffload = off`: every packet of the TUN is read and written by itself."""
    clamp_mss: bool = False
    """True for `# ClampMss = on`: TCP connections of others that pass through the interface use segments that fit."""
    workers: int | str = "auto"
    """How many processes share the peers, 1 to 64; "auto" for one per core, but no more than 8 or than peers."""
    peers: tuple[PeerConfig, ...] = ()
    """The peers, each with a public key of its own."""

    def __post_init__(self) -> None:
        take(self, _INTERFACE_FIELDS)
        if self.mtu and self.mtu < MIN_IPV6_MTU and any(address.version == 6 for address in self.addresses):
            raise ConfigError(f"InterfaceConfig.mtu: expected {MTU_FOR_IPV6}, not {self.mtu}")

    @property
    def offloads(self) -> Offloads:
        """What the configuration allows."""
        return Offloads(udp_gso=self.udp_gso, tun=self.tun_offload)


_NOTHING: Final = type(None)
_ADDRESSES: Final = (IPv4Address, IPv6Address)


def _up_to(highest: int, *, lowest: int = 0) -> Callable[[int | None], bool]:
    return lambda number: number is None or lowest <= number <= highest


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_workers(number: int | str) -> bool:
    return number == "auto" if isinstance(number, str) else 1 <= number <= MAX_WORKERS


_FLAG: Final = Field((bool,), "True or False")
_TEXT: Final = Field((str,), "a string")
_TEXTS: Final = Field((str,), "a string", many=True)
_ENDPOINT_FIELDS: Final = {
    "host": Field((str,), "a string", str, _ADDRESSES),
    "port": Field((int,), "a port number, 1 to 65535", accepts=_up_to(0xFFFF, lowest=1)),
}
_NETWORK: Final = "an ipaddress.ip_network or its text, as 10.0.0.0/8"
_PEER_FIELDS: Final = {
    "public_key": Field((PublicKey,), "a PublicKey or its base64", PublicKey.from_base64),
    "preshared_key": Field((PresharedKey, _NOTHING), "a PresharedKey or its base64", PresharedKey.from_base64),
    "endpoint": Field((EndpointName, _NOTHING), f"an EndpointName or its text, as {_REMOTE}", EndpointName.parse),
    "persistent_keepalive": Field((int,), "a number of seconds, 0 to 65535", accepts=_up_to(0xFFFF)),
    "allowed_ips": Field((IPv4Network, IPv6Network), _NETWORK, ip_network, (str, *_ADDRESSES), many=True),
    "name": _TEXT,
}
_SERVER: Final = "a name server's address (a search domain goes into dns_search)"
_LOCAL: Final = "an ipaddress.ip_interface or its text, as 10.0.0.2/24"
_INTERFACE_FIELDS: Final = {
    "private_key": Field((PrivateKey, _NOTHING), "a PrivateKey or its base64", PrivateKey.from_base64),
    "listen_port": Field((int,), "a port number, 0 to 65535", accepts=_up_to(0xFFFF)),
    "fwmark": Field((int,), "a number of 32 bits", accepts=_up_to(0xFFFFFFFF)),
    "addresses": Field((IPv4Interface, IPv6Interface), _LOCAL, ip_interface, (str, *_ADDRESSES), many=True),
    "mtu": Field((int, _NOTHING), "a number of bytes, 68 to 65535, or None", accepts=_up_to(MAX_MTU, lowest=MIN_MTU)),
    "dns": Field((str,), _SERVER, str, _ADDRESSES, many=True, accepts=_is_address),
    "dns_search": _TEXTS,
    "table": Field((int, str), '"auto", "off", or the number or name of a routing table'),
    **dict.fromkeys(("pre_up", "post_up", "pre_down", "post_down"), _TEXTS),
    **dict.fromkeys(("save_config", "udp_gso", "tun_offload", "clamp_mss"), _FLAG),
    "workers": Field((int, str), f'a number of processes, 1 to {MAX_WORKERS}, or "auto"', accepts=_is_workers),
    "peers": Field((PeerConfig,), "a PeerConfig", many=True),
}


def expect_config(given: object) -> None:
    """Raises TypeError for what is not an InterfaceConfig."""
    expect("config", given, InterfaceConfig, ", as wgpy.config.parse(text).config is")


def tunnel_mtu(path_mtu: int, inside: Iterable[IPv4Interface | IPv6Interface | IPv4Network | IPv6Network]) -> int:
    """The MTU of a tunnel in bytes, `path_mtu` being the smallest MTU on the way to an endpoint.

    With IPv6 `inside` it is at least 1280 (RFC 8200 section 5); datagrams that are then too long are fragmented.
    """
    mtu = path_mtu - OUTER_OVERHEAD
    return max(mtu, MIN_IPV6_MTU) if any(address.version == 6 for address in inside) else mtu
