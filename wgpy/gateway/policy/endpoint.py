"""The endpoint: the gateway's interface, where clients find it, and what they are told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Final

from wgpy.errors import ConfigError
from wgpy.gateway.policy import pools
from wgpy.gateway.policy.destinations import Address, Network
from wgpy.gateway.policy.names import checked

DATA_PLANES: Final = ("auto", "kernel", "wgpy")
LONGEST_SESSION: Final = 366 * 24 * 3600  # seconds; nft refuses more than 8 digits
MOST_DEVICES: Final = 1000  # of one person
LONGEST_BANNER: Final = 1400  # characters, as in AWS
_INTERFACE: Final = re.compile(r"[a-zA-Z0-9_.-]{1,15}")  # those of nftables' names as well
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_HANDLER: Final = re.compile(r"/.+|\w+(\.\w+)*:\w+")
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_URL: Final = re.compile(
    r"https://(?:[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[(?P<ipv6>[0-9a-f:.]+)\])(?::(?P<port>[1-9]\d{0,4}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The settings of a gateway. Raises ConfigError for a value that cannot be used."""

    interface: str = "wg0"
    """The WireGuard interface."""
    host: str
    """The name or address that clients connect to."""
    port: int = 51820
    """The UDP port that clients connect to, and that the interface listens on."""
    pools: tuple[Network, ...]
    """Where clients' addresses come from."""
    dns: tuple[Address, ...] = ()
    """Name servers for clients."""
    search: tuple[str, ...] = ()
    """Search domains for clients."""
    full_tunnel: bool = False
    """Whether clients send everything through the tunnel, or only what goes to the pools and routes."""
    mtu: int | None = None
    """The MTU of the tunnel, here and at the clients; None leaves it to them."""
    banner: str = ""
    """A text for whoever opens a client's file."""
    session_max: int = 24 * 3600
    """Seconds until a session ends."""
    idle_max: int = 0
    """Seconds without a packet until a session ends; 0 for no limit."""
    sign_in: bool = False
    """Whether a device's person must sign in before each session, or the device's key is enough."""
    handler: str = ""
    """What is asked before each session: a program's absolute path, or MODULE:FUNCTION of Python; empty for nothing."""
    handler_user: str = ""
    """The user of this host that the handler runs as; empty for the gateway's own."""
    flow_log: bool = False
    """Whether the connections that pass, and the packets that are denied, are logged."""
    data_plane: str = "auto"
    """Whose WireGuard the interface is: "kernel", "wgpy", or "auto" for the kernel's where it has one."""
    url: str = ""
    """Where people and programs find the gateway's web pages: an origin (RFC 6454); empty if there are none."""
    admin_group: str = "admins"
    """The group whose members may use the console."""
    second_factor: bool = True
    """Whether a local user's password is not enough to sign in: a code of an app, or a passkey, must come with it."""
    devices_max: int = 10
    """How many devices a person may have who adds one in the portal; an administrator may add more."""

    def __post_init__(self) -> None:
        if not _INTERFACE.fullmatch(self.interface) or not self.interface.strip("."):
            raise ConfigError(f"interface {self.interface!a}: expected at most 15 letters, digits and _.-")
        if not _is_address(self.host) and not (len(self.host) <= 253 and _HOST.fullmatch(self.host)):
            raise ConfigError(f"host {self.host!a}: expected a name or an address, without a port")
        if not 1 <= self.port <= 0xFFFF:
            raise ConfigError(f"port {self.port}: ports go from 1 to 65535")
        if not self.pools:
            raise ConfigError("pool: none given; name a network for clients' addresses, such as 10.99.0.0/24")
        pools.check(self.pools, {"the endpoint's own address": self.address_networks()})
        for domain in self.search:
            if not _DOMAIN.fullmatch(domain):
                raise ConfigError(f"search domain {domain!a}: expected a name such as corp.example")
        if self.mtu is not None and not 1280 <= self.mtu <= 65535:  # RFC 8200, section 5
            raise ConfigError(f"mtu {self.mtu}: expected 1280 to 65535, because IPv6 needs 1280")
        if len(self.banner) > LONGEST_BANNER:
            raise ConfigError(f"banner: it has {len(self.banner)} characters, and {LONGEST_BANNER} is the most")
        if not 1 <= self.session_max <= LONGEST_SESSION:
            raise ConfigError(
                f"session_max {self.session_max}: expected a number of seconds, such as 28800 for 8 hours, and at most "
                f"{LONGEST_SESSION}, a year"
            )
        if self.data_plane not in DATA_PLANES:
            raise ConfigError(f"data plane {self.data_plane!a}: expected one of {', '.join(DATA_PLANES)}")
        if self.handler and not _HANDLER.fullmatch(self.handler):
            raise ConfigError(f"handler {self.handler!a}: expected a program's absolute path, or MODULE:FUNCTION")
        if self.url and not _is_origin(self.url):
            raise ConfigError(
                f"url {self.url!a}: expected https://, a name in lower case, and perhaps a port other than 443, such "
                "as https://vpn.example.org"
            )
        checked("admin_group", self.admin_group)
        if self.handler_user and not _USER.fullmatch(self.handler_user):
            raise ConfigError(f"handler user {self.handler_user!a}: expected the name of a user of this host")
        if not 0 <= self.devices_max <= MOST_DEVICES:
            raise ConfigError(f"devices_max {self.devices_max}: expected a number from 0, for none, to {MOST_DEVICES}")
        if not 0 <= self.idle_max <= LONGEST_SESSION:
            raise ConfigError(
                f"idle_max {self.idle_max}: expected a number of seconds up to {LONGEST_SESSION}, or 0 for no limit"
            )

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {
            "interface": self.interface,
            "host": self.host,
            "port": self.port,
            "pools": list(map(str, self.pools)),
            "dns": list(map(str, self.dns)),
            "search": list(self.search),
            "full_tunnel": self.full_tunnel,
            "mtu": self.mtu,
            "banner": self.banner,
            "session_max": self.session_max,
            "idle_max": self.idle_max,
            "sign_in": self.sign_in,
            "handler": self.handler,
            "handler_user": self.handler_user,
            "flow_log": self.flow_log,
            "data_plane": self.data_plane,
            "url": self.url,
            "admin_group": self.admin_group,
            "second_factor": self.second_factor,
            "devices_max": self.devices_max,
        }

    def address_networks(self) -> tuple[Network, ...]:
        """The endpoint's host as a network of one address, if it is an address and no name."""
        return (ip_network(self.host),) if _is_address(self.host) else ()


def _is_origin(text: str) -> bool:
    """Whether this is an origin as browsers write it: they leave out port 443, and a slash at the end."""
    found = _URL.fullmatch(text)
    if found is None or (found["ipv6"] and not _is_address(found["ipv6"])):
        return False
    return found["port"] is None or (found["port"] != "443" and int(found["port"]) <= 0xFFFF)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text
