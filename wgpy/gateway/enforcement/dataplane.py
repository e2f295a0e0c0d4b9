"""The gateway's WireGuard interface, with its addresses and peers. It outlives this process, as the table does.

A policy rule of the kernel's routing goes with it, which `ip rule` shows as `iif wg0 fwmark 0/0x8000000 prohibit`. It
refuses to forward what a client sends unless the gateway's table marks it. So whoever removes the table, while the
gateway runs or not, lets no client into a network.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Final

from wgpy import control
from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.errors import ControlError, NetworkError
from wgpy.gateway.enforcement.ruleset import JUDGED
from wgpy.gateway.policy.destinations import Network
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.pools import own_address
from wgpy.gateway.policy.snapshot import Policy
from wgpy.keys import PrivateKey, PublicKey
from wgpy.net.netlink import Netlink

_SYSCTLS: Final = Path("/proc/sys/net")
_FORWARDING: Final = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
_FLAGS: Final = ["-I"] if sys.flags.isolated else [] if sys.path[0] in ("", os.getcwd()) else ["-P"]
PYTHON: Final = (sys.executable, *_FLAGS)
"""Python as we were started: it imports from the current directory, where others may put things, only if we do."""
_PATIENCE: Final = 30.0  # seconds for the daemon to start
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_PRIORITY: Final = 100  # of the rule, before those that lead to routes to other hosts


class DataPlane:
    """The interface of an endpoint. Blocking; call it from a thread without an event loop.

    Methods raise ControlError and NetworkError: what the system or the daemon refused.
    """

    def is_up(self, interface: str) -> bool:
        """Whether the interface exists."""
        return control.is_up(interface)

    def check(self, name: str, key: PrivateKey) -> None:
        """Raises ControlError if the interface of this name is not the gateway's, because it has another key."""
        if name in control.interfaces():
            if control.status(name).private_key in (None, key):
                return
            found, remedy = "has another private key", f"`ip link delete {name}` removes it, or "
        else:
            with Netlink() as netlink:
                if not netlink.link_exists(name):
                    return
            found, remedy = "is not WireGuard's", ""
        raise ControlError(
            f"{name}: this interface exists and {found}; {remedy}`wgpy gateway endpoint set --interface` chooses "
            "another name"
        )

    def up(self, policy: Policy) -> None:
        """Make the interface if it is missing, and give it its key, port, peers, addresses and MTU."""
        endpoint = policy.endpoint
        if not control.is_up(endpoint.interface):
            _make(endpoint)
        self.follow(policy)

    def follow(self, policy: Policy) -> None:
        """Make what differs from the policy the same. The peers that do not change keep their sessions."""
        endpoint = policy.endpoint
        if change := policy.change_of(control.status(endpoint.interface)):
            control.configure(endpoint.interface, change)
        wanted = {ip_interface(f"{own_address(pool)}/{pool.prefixlen}") for pool in endpoint.pools}
        with Netlink() as netlink:
            present = netlink.addresses(endpoint.interface)
            for address in present - wanted:
                netlink.delete_address(endpoint.interface, address)
            if endpoint.mtu is not None and netlink.link_mtu(endpoint.interface) != endpoint.mtu:
                netlink.set_mtu(endpoint.interface, endpoint.mtu)
            for address in wanted - present:
                netlink.add_address(endpoint.interface, address)
            netlink.set_up(endpoint.interface)
        self.guard(endpoint.interface)
        for version in {pool.version for pool in endpoint.pools}:
            _forward(_SYSCTLS / _FORWARDING[version])

    def guard(self, interface: str) -> None:
        """Have the kernel refuse to forward what no table has judged; nothing changes if it does already."""
        with Netlink() as netlink:
            for family in _FAMILIES:
                netlink.prohibit_unmarked(family, interface, JUDGED, _PRIORITY)

    def forget(self, interface: str, keys: Iterable[PublicKey]) -> None:
        """Remove peers, which `follow` adds again: until they come back, nothing is sent to where they were."""
        changes = tuple(PeerChange(public_key=key, remove=True) for key in keys)
        if changes and control.is_up(interface):
            control.configure(interface, DeviceChange(peers=changes))

    def clients(self, interface: str) -> dict[PublicKey, tuple[str, str]]:
        """The address and port that each client sends from."""
        return {
            peer.public_key: (peer.endpoint.host, str(peer.endpoint.port))
            for peer in control.status(interface).peers
            if peer.endpoint
        }

    def networks_of_host(self, *interfaces: str) -> dict[str, list[Network]]:
        """What the host has and reaches without these interfaces, for `wgpy.gateway.policy.pools.check`."""
        found: dict[str, list[Network]] = {}
        with Netlink() as netlink:
            for name, address in netlink.all_addresses():
                if name not in interfaces:
                    found.setdefault(f"this host's address on {name},", []).append(ip_network(address.ip))
            for name, network in netlink.all_routes():
                if name not in interfaces and network.prefixlen > 1:  # a VPN may have halves for a default route
                    found.setdefault(f"this host's route through {name} to", []).append(network)
        return found

    def down(self, interface: str) -> None:
        """Remove the WireGuard interface, whether the kernel or a process serves it."""
        with Netlink() as netlink:
            if interface in control.interfaces() and netlink.link_exists(interface):
                netlink.delete_link(interface)
            for family in _FAMILIES:
                netlink.delete_prohibitions(family, interface, _PRIORITY)


def _make(endpoint: Endpoint) -> None:
    if endpoint.data_plane != "wgpy":
        try:
            with Netlink() as netlink:
                netlink.add_link(endpoint.interface, "wireguard")
            return
        except NetworkError:
            if endpoint.data_plane == "kernel":
                raise
    command = [*PYTHON, "-m", "wgpy", "serve", endpoint.interface]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ControlError(f"{endpoint.interface}: wgpy serve did not start within {_PATIENCE:g} seconds") from error
    if done.returncode:
        raise ControlError(f"{endpoint.interface}: {done.stderr.strip() or 'wgpy serve failed'}")


def _forward(setting: Path) -> None:
    with suppress(OSError):
        if setting.read_text().strip() != "0":
            return
    try:
        setting.write_text("1")
    except OSError as error:
        name = ".".join(setting.relative_to(_SYSCTLS.parent).parts)
        raise NetworkError(f"{name}: {error.strerror}; set it before: sysctl -w {name}=1") from error
