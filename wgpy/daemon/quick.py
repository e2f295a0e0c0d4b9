"""What the host must know about an interface: addresses, MTU, routes, rules, DNS and hooks, as wg-quick(8) sets them.

Each step notes what undoes it before the next begins, so that `down`, a failed `up` and a signal all leave the same
nothing behind: the steps undone in reverse. Everything here blocks; it runs in a thread beside the event loop, because
a hook may well talk to the daemon that is running it.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from wgpy.config.values import InterfaceConfig
from wgpy.endpoint import Endpoint
from wgpy.errors import NetworkError
from wgpy.net import dns, firewall
from wgpy.net.netlink import MAIN_TABLE, Netlink, Rule, table_number

OUTER_OVERHEAD: Final = 80  # bytes: IPv6 and UDP headers, and a transport message's own 32
FALLBACK_MTU: Final = 1500
FIRST_TABLE: Final = 51820
SRC_VALID_MARK: Final = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")


class Quick:
    """One interface's surroundings. `say` prints a step; `set_fwmark` marks the daemon's own datagrams."""

    def __init__(
        self,
        name: str,
        config: InterfaceConfig,
        *,
        say: Callable[[str], None],
        set_fwmark: Callable[[int], None],
        close_interface: Callable[[], None],
    ) -> None:
        self.name = name
        self.config = config
        self.mtu = config.mtu or 0
        self._mark = config.fwmark
        self._say = say
        self._set_fwmark = set_fwmark
        self._close_interface = close_interface
        self._undo = ExitStack()

    def up(self, endpoints: Iterable[Endpoint]) -> None:
        """Take every step; the MTU is chosen by the routes to `endpoints`.

        Raises NetworkError for the step that failed; call `down` then too.
        """
        config = self.config
        if config.save_config:
            self._say("SaveConfig is not carried out: the file stays as it is")
        self._undo.callback(self._run_hooks, "PostDown", config.post_down, forgiving=True)
        self._undo.callback(self._close_interface)
        self._run_hooks("PreUp", config.pre_up)
        with Netlink() as netlink:
            for address in config.addresses:
                self._say(f"ip -{address.version} address add {address} dev {self.name}")
                netlink.add_address(self.name, address)
            self.mtu = self.mtu or _suitable_mtu(netlink, endpoints)
            self._say(f"ip link set mtu {self.mtu} up dev {self.name}")
            netlink.set_mtu(self.name, self.mtu)
            netlink.set_up(self.name)
            self._set_dns()
            self._add_routes(netlink)
        self._undo.callback(self._run_hooks, "PreDown", config.pre_down, forgiving=True)
        self._run_hooks("PostUp", config.post_up)

    def down(self) -> None:
        """Undo, in reverse, whatever `up` came to do: PreDown, routes, rules, DNS, the interface, PostDown.

        A step that cannot be undone is said, and does not keep the others from being undone.
        """
        self._undo.close()

    def _run_hooks(self, key: str, commands: Iterable[str], *, forgiving: bool = False) -> None:
        for command in commands:
            command = command.replace("%i", self.name)
            self._say(command)
            status = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, check=False).returncode
            if status and not forgiving:
                raise NetworkError(f"{key} ended with status {status}: {command}")
            if status:
                self._say(f"{key} ended with status {status}; going on")

    def _undo_with(self, said: str, undo: Callable[[], None]) -> None:
        def step() -> None:
            self._say(said)
            try:
                undo()
            except NetworkError as error:
                self._say(f"{error}; going on")

        self._undo.callback(step)

    def _set_dns(self) -> None:
        if not self.config.dns:
            return
        self._say(f"set DNS of {self.name} to {', '.join([*self.config.dns, *self.config.dns_search])}")
        dns.set_dns(self.name, self.config.dns, self.config.dns_search)
        self._undo_with(f"restore DNS without {self.name}", partial(dns.unset_dns, self.name))

    def _add_routes(self, netlink: Netlink) -> None:
        """Routes for all allowed IPs, longest prefix first; /0 goes to a table of its own with rules before it."""
        if self.config.table == "off":
            return
        table = self.config.table
        number = table_number(table) if isinstance(table, str) and table != "auto" else table
        networks = {network for peer in self.config.peers for network in peer.allowed_ips}
        for network in sorted(networks, key=lambda network: (-network.prefixlen, network.version, network)):
            if isinstance(number, int):
                self._add_route(netlink, network, number)
            elif network.prefixlen == 0:
                self._add_default_route(netlink, network)
            elif not netlink.route_covered(network, self.name):
                self._add_route(netlink, network, MAIN_TABLE)

    def _add_route(self, netlink: Netlink, network: IPv4Network | IPv6Network, table: int) -> None:
        suffix = "" if table == MAIN_TABLE else f" table {table}"
        self._say(f"ip -{network.version} route add {network} dev {self.name}{suffix}")
        netlink.add_route(network, self.name, table)

    def _add_default_route(self, netlink: Netlink, network: IPv4Network | IPv6Network) -> None:
        """All through the tunnel but the tunnel's own datagrams, which bear the mark (wg-quick's add_default)."""
        mark = self._mark = self._mark or netlink.unused_table(FIRST_TABLE)  # one for IPv4 and IPv6
        self._set_fwmark(mark)
        self._add_route(netlink, network, mark)
        version = network.version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        for add in (
            partial(netlink.add_rule_not_fwmark, family, mark, mark),
            partial(netlink.add_rule_suppress_default, family),
        ):
            rule = add()
            self._say(f"ip -{version} rule add {rule}")
            self._undo_with(f"ip -{version} rule delete {rule}", partial(_delete_rule, rule))
        self._guard(version, mark)
        if version == 4:
            self._validate_marks()

    def _guard(self, version: int, mark: int) -> None:
        if not firewall.is_there():
            self._say(f"without nft, IPv{version} packets from outside the tunnel to its addresses are not dropped")
            return
        table = firewall.table(self.name, version)
        self._say(f"nft add table {table}")
        firewall.add(self.name, version, self.config.addresses, mark)
        self._undo_with(f"nft delete table {table}", partial(firewall.remove, self.name, version))

    def _validate_marks(self) -> None:
        """Have reverse path filtering heed the mark. Containers often may not set this; most need not."""
        try:
            if SRC_VALID_MARK.read_text().strip() == "1":
                return
            self._say("sysctl -q net.ipv4.conf.all.src_valid_mark=1")
            SRC_VALID_MARK.write_text("1")
        except OSError as error:
            self._say(
                f"net.ipv4.conf.all.src_valid_mark cannot be set here ({error.strerror}): "
                "set it to 1 on the host if answers are dropped"
            )


def _delete_rule(rule: Rule) -> None:
    with Netlink() as netlink:
        netlink.delete_rule(rule)


def _suitable_mtu(netlink: Netlink, endpoints: Iterable[Endpoint]) -> int:
    """The smallest MTU on the way to an endpoint, or of the default route, less what the tunnel adds."""
    known = [mtu for mtu in (netlink.path_mtu(endpoint.host) for endpoint in endpoints) if mtu]
    return (min(known) if known else netlink.default_route_mtu() or FALLBACK_MTU) - OUTER_OVERHEAD
