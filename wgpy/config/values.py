"""What a configuration says, as frozen values: the whole of a wg-quick file, whoever wrote or generated it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address
from typing import Final

from wgpy.keys import PresharedKey, PrivateKey, PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointName:
    """Where a peer is to be found: a host name or a numeric address, IPv6 perhaps with `%scope`, and a UDP port."""

    host: str
    port: int

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
    """Which offloads of the kernel may be used. What may be is used where the kernel has it and gets it right.

    `udp_gso`: one call sends several datagrams. `udp_gro`: one call receives several. `tun`: one read or write of the
    TUN carries several packets.
    """

    udp_gso: bool = True
    udp_gro: bool = True
    tun: bool = True

    def __and__(self, other: Offloads) -> Offloads:
        """What both allow: every switch only ever switches off."""
        return Offloads(
            udp_gso=self.udp_gso and other.udp_gso,
            udp_gro=self.udp_gro and other.udp_gro,
            tun=self.tun and other.tun,
        )


ALL_OFFLOADS: Final = Offloads()
NO_OFFLOADS: Final = Offloads(udp_gso=False, udp_gro=False, tun=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """One peer. `persistent_keepalive` is in seconds, 0 is off."""

    public_key: PublicKey
    preshared_key: PresharedKey | None = None
    endpoint: EndpointName | None = None
    persistent_keepalive: int = 0
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = ()
    name: str = ""  # for people, from a comment `# Name = ...`


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceConfig:
    """One interface and its peers. Without any argument: no identity, any free port, no addresses, no peers."""

    private_key: PrivateKey | None = None
    listen_port: int = 0  # 0: any free port
    fwmark: int = 0  # 32 bits; 0: none
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    mtu: int | None = None  # bytes; None: chosen by the routes to the endpoints
    dns: tuple[str, ...] = ()  # numeric addresses of servers
    dns_search: tuple[str, ...] = ()
    table: int | str = "auto"  # "auto", "off", or the number or name of a routing table
    pre_up: tuple[str, ...] = ()  # commands for bash, in which %i is the interface's name
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    save_config: bool = False
    udp_gso: bool = True  # False: `# UdpGso = off`
    tun_offload: bool = True  # False: `# TunOffload = off`
    peers: tuple[PeerConfig, ...] = ()

    @property
    def offloads(self) -> Offloads:
        """What the configuration allows."""
        return Offloads(udp_gso=self.udp_gso, tun=self.tun_offload)
