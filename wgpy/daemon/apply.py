"""Making a running interface what its edited file says, without dropping a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from wgpy.config import wg
from wgpy.config.values import InterfaceConfig
from wgpy.config.wgquick import WgQuickFile
from wgpy.daemon import uapi_client
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.net.netlink import MAIN_TABLE, IPNetwork, Netlink, table_number


def apply(
    name: str, file: WgQuickFile, endpoints: Mapping[PublicKey, Endpoint], say: Callable[[str], None]
) -> list[str]:
    """Bring the keys, peers, addresses, MTU and routes of the interface `name` in line with `file`.

    Peers that stay keep their sessions; what is as it should be is not touched. Each step is said. Returns what only
    `down` and `up` can change. Raises ControlError and NetworkError for the step that failed; those before it stay.
    """
    mark = _apply_peers(name, file, endpoints, say).fwmark
    with Netlink() as netlink:
        _apply_addresses(netlink, name, file.config, say)
        return _apply_routes(netlink, name, file.config, mark, say)


def _apply_peers(
    name: str, file: WgQuickFile, endpoints: Mapping[PublicKey, Endpoint], say: Callable[[str], None]
) -> DeviceStatus:
    """Returns what the interface is afterwards."""
    status = uapi_client.read(name)
    change = wg.synchronizing(wg.parse(file.strip()).located(endpoints), status)
    # What the file leaves to chance, the port and a default route's mark, stays as it turned out.
    config = file.config
    change = replace(change, listen_port=config.listen_port or None, fwmark=config.fwmark or None)
    uapi_client.write(name, change)
    after = uapi_client.read(name)
    if after.without_counters() != status.without_counters():
        say(f"wg syncconf {name}")
    return after


def _apply_addresses(netlink: Netlink, name: str, config: InterfaceConfig, say: Callable[[str], None]) -> None:
    wanted, present = set(config.addresses), netlink.addresses(name)
    for address in config.addresses:
        if address not in present:
            say(f"ip -{address.version} address add {address} dev {name}")
            netlink.add_address(name, address)
    for address in present - wanted:
        say(f"ip -{address.version} address delete {address} dev {name}")
        netlink.delete_address(name, address)
    if config.mtu and netlink.link_mtu(name) != config.mtu:
        say(f"ip link set mtu {config.mtu} dev {name}")
        netlink.set_mtu(name, config.mtu)


def _apply_routes(
    netlink: Netlink, name: str, config: InterfaceConfig, mark: int, say: Callable[[str], None]
) -> list[str]:
    left = ["DNS and hooks"] if config.dns else []
    if config.table == "off":
        return left
    networks = {network for peer in config.peers for network in peer.allowed_ips}
    table = MAIN_TABLE
    if config.table == "auto":
        everything: set[IPNetwork] = {network for network in networks if network.prefixlen == 0}
        if everything != _carried(netlink, name, mark):
            left.append("the default route")
        networks -= everything
    else:
        table = config.table if isinstance(config.table, int) else table_number(config.table)
    suffix = "" if table == MAIN_TABLE else f" table {table}"
    present = netlink.routes(name, table)
    for network in present - networks:
        say(f"ip -{network.version} route delete {network} dev {name}{suffix}")
        netlink.delete_route(network, name, table)
    for network in sorted(networks - present, key=lambda network: -network.prefixlen):
        if table != MAIN_TABLE or not netlink.route_covered(network, name):
            say(f"ip -{network.version} route add {network} dev {name}{suffix}")
            netlink.add_route(network, name, table)
    return left


def _carried(netlink: Netlink, name: str, mark: int) -> set[IPNetwork]:
    """The default routes that go through the interface: they stand in the table whose number is its mark."""
    return {network for network in netlink.routes(name, mark) if network.prefixlen == 0} if mark else set()
