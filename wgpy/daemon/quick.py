"""Configures the host for an interface: addresses, MTU, routes, rules, DNS and hooks, as wg-quick(8) does.

`down` undoes what was done, in reverse, after a failed `up` and a signal, too. `leftovers` keeps on disk what would
outlive a killed daemon. Everything here blocks, so it runs in a thread beside the event loop: a hook may well
talk to the daemon that runs it.
"""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from itertools import islice
from pathlib import Path
from typing import Final

from wgpy.config.redact import redacted
from wgpy.config.values import InterfaceConfig, tunnel_mtu
from wgpy.daemon import dns, firewall
from wgpy.daemon.leftovers import Leftovers
from wgpy.device.allowedips import AllowedIPs
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import NetworkError, WgpyError
from wgpy.net.netlink import MAIN_TABLE, IPInterface, IPNetwork, Netlink, table_number
from wgpy.system.priority import begins_session

FALLBACK_MTU: Final = 1500
FIRST_TABLE: Final = 51820
MAX_ROUTE_REQUESTS: Final = 1000  # to the kernel, one after the other; a second or less
EVERYTHING: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))
SRC_VALID_MARK: Final = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")


class Quick:
    """The host's configuration for one interface.

    `say` reports a step; `set_fwmark` sets the mark of the daemon's own datagrams; `save` is for SaveConfig.
    """

    def __init__(
        self,
        name: str,
        config: InterfaceConfig,
        *,
        say: Callable[[str], None],
        set_fwmark: Callable[[int], None],
        close_interface: Callable[[], None],
        save: Callable[[], None],
    ) -> None:
        self.name = name
        self.config: InterfaceConfig = config
        self._mark = config.fwmark
        self._say = say
        self._set_fwmark = set_fwmark
        self._close_interface = close_interface
        self._save = save
        self._left = Leftovers(name)
        self._begun = self._is_up = False
        self._mtu_before: int | None = None  # bytes, before the last `apply`
        self._dns: tuple[str, ...] = ()  # servers and search domains that are set
        self._is_clamping = False
        self._defaults: dict[int, ExitStack] = {}  # by IP version, what undoes the rules of a default route

    def clear_leftovers(self) -> None:
        """Undo what a killed daemon of this name left. Call this first, because that may block DNS lookups."""
        self._left.clear(self._say)

    def up(self, endpoints: Iterable[Endpoint]) -> None:
        """Configure the host; unless the configuration sets an MTU, it is chosen by the routes to `endpoints`.

        Raises NetworkError for the step that failed; call `down` then, too.
        """
        endpoints = list(endpoints)
        self._begun = True
        self._run_hooks("PreUp", self.config.pre_up)
        with Netlink() as netlink:
            for address in self.config.addresses:
                self._add_address(netlink, address)
            mtu = self.config.mtu or self._suitable_mtu(netlink, endpoints)
            self._say(f"ip link set mtu {mtu} up dev {self.name}")
            netlink.set_mtu(self.name, mtu)
            netlink.set_up(self.name)
            self._set_dns()
            self._clamp_mss()
            for network, table in routes(self.config, self._networks()):
                if table is None:
                    self._add_default_route(netlink, network)
                else:
                    self._add_route(netlink, network, table)
            self._warn_of_loops(netlink, endpoints)
        self._is_up = True
        self._run_hooks("PostUp", self.config.post_up)

    def apply(self, config: InterfaceConfig, endpoints: Iterable[Endpoint], status: DeviceStatus) -> None:
        """Change the host's configuration to that of an edited file, and only where it differs.

        `status` is the device's before the change: routes to its allowed IPs are removed if they are no longer wanted.
        Other routes stay, and so do addresses that are in neither configuration. Hooks are not run; the new ones take
        effect from now on. If `up` was not called, because wg-quick did its work, DNS and default routes stay as well.
        Raises NetworkError for the step that failed; the steps before it stay until `go_back`.
        """
        endpoints = list(endpoints)
        before, self.config = self.config, config
        if not self._begun:
            self._mark = status.fwmark
            if config.dns or (config.table == "auto" and self._networks().intersection(EVERYTHING)):
                self._say("DNS and default routes are left to wg-quick, which brought the interface up")
        with Netlink() as netlink:
            present = self._mtu_before = netlink.link_mtu(self.name)
            mtu = config.mtu or (before.mtu and self._suitable_mtu(netlink, endpoints)) or present
            if mtu > present:  # before the addresses: below 1280 bytes IPv6 addresses cannot be set
                self._set_mtu(netlink, mtu)
            self._apply_addresses(netlink, before)
            if mtu < present:
                self._set_mtu(netlink, mtu)
            if self._begun:
                self._set_dns()
                self._clamp_mss()
            self._apply_routes(netlink, before, {network for peer in status.peers for network in peer.allowed_ips})
            self._warn_of_loops(netlink, endpoints)

    def go_back(self, config: InterfaceConfig, status: DeviceStatus) -> None:
        """Undo an `apply` that failed: `config` is the one before it, and `status` the device's now.

        Raises NetworkError for a step that cannot be undone.
        """
        self.apply(replace(config, mtu=self._mtu_before), (), status)
        self.config = config

    def down(self) -> None:
        """Undo what `up` and `apply` did, in reverse, and save the configuration first if SaveConfig is true.

        A step that cannot be undone is reported, and the others are undone nevertheless.
        """
        if self._is_up:
            self._run_hooks("PreDown", self.config.pre_down, forgiving=True)
            if self.config.save_config:
                self._forgiving("save", self._save)
        for version in list(self._defaults):
            self._defaults.pop(version).close()
        if self._dns:
            self._forgiving(f"restore DNS without {self.name}", partial(self._left.undo, "dns"))
        if self._is_clamping:
            self._forgiving(f"delete {firewall.clamp_rules(self.name)}", partial(self._left.undo, "mss"))
        self._close_interface()
        if self._begun:
            self._run_hooks("PostDown", self.config.post_down, forgiving=True)

    def _run_hooks(self, key: str, commands: Iterable[str], *, forgiving: bool = False) -> None:
        for command in commands:
            command = command.replace("%i", self.name)
            shown = redacted(command)  # steps end up in a log
            self._say(shown)
            status = subprocess.run(
                ["bash", "-c", command],
                stdin=subprocess.DEVNULL,
                check=False,
                umask=dns.UMASK,
                start_new_session=begins_session(),  # what it leaves running must not have the daemon's priority
            ).returncode
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"failed with status {status}"
            if status and not forgiving:
                raise NetworkError(f"{key} {how}: {shown}")
            if status:
                self._say(f"{key} {how}; continuing")

    def _forgiving(self, said: str, step: Callable[[], None]) -> None:
        self._say(said)
        try:
            step()
        except WgpyError as error:
            self._say(f"{error}; continuing")

    # MTU, addresses and DNS.

    def _clamp_mss(self) -> None:
        if self.config.clamp_mss == self._is_clamping:
            return
        if why_not := firewall.why_not():
            raise NetworkError(f"ClampMss needs nft or iptables: {why_not}")
        rules = firewall.clamp_rules(self.name)
        if self.config.clamp_mss:
            self._say(f"add {rules}")
            self._left.add("mss")
            self._is_clamping = True
            firewall.clamp(self.name)
        else:
            self._say(f"delete {rules}")
            self._is_clamping = False
            self._left.undo("mss")

    def _set_mtu(self, netlink: Netlink, mtu: int) -> None:
        self._say(f"ip link set mtu {mtu} dev {self.name}")
        netlink.set_mtu(self.name, mtu)

    def _suitable_mtu(self, netlink: Netlink, endpoints: Iterable[Endpoint]) -> int:
        """The tunnel's MTU by the smallest path MTU to an endpoint, or else by that of the default route."""
        hosts = _first(endpoint.host for endpoint in endpoints)
        known = [mtu for mtu in map(netlink.path_mtu, hosts) if mtu]
        path_mtu = min(known) if known else netlink.default_route_mtu() or FALLBACK_MTU
        return tunnel_mtu(path_mtu, (*self.config.addresses, *self._networks()))

    def _add_address(self, netlink: Netlink, address: IPInterface) -> None:
        self._say(f"ip -{address.version} address add {address} dev {self.name}")
        netlink.add_address(self.name, address)

    def _apply_addresses(self, netlink: Netlink, before: InterfaceConfig) -> None:
        wanted = self.config.addresses
        present = netlink.addresses(self.name, (*wanted, *before.addresses))
        for address in wanted:
            if address not in present:
                self._add_address(netlink, address)
        for address in (present.intersection(before.addresses) if self._begun else present).difference(wanted):
            self._say(f"ip -{address.version} address delete {address} dev {self.name}")
            netlink.delete_address(self.name, address)
        if set(wanted) != set(before.addresses):
            for version in self._defaults:
                self._guard(version)

    def _set_dns(self) -> None:
        wanted = (*self.config.dns, *self.config.dns_search) if self.config.dns else ()
        if wanted == self._dns:
            return
        if wanted:
            self._say(f"set DNS of {self.name} to {', '.join(wanted)}")
            dns.set_dns(self.name, self.config.dns, self.config.dns_search)
            if not self._dns:
                self._left.add("dns")
        else:
            self._say(f"restore DNS without {self.name}")
            self._left.undo("dns")
        self._dns = wanted

    # Routes.

    def _networks(self) -> set[IPNetwork]:
        return {network for peer in self.config.peers for network in peer.allowed_ips}

    def _apply_routes(self, netlink: Netlink, before: InterfaceConfig, carried: set[IPNetwork]) -> None:
        config = self.config
        old, wanted = routes(before if self._begun else config, carried), routes(config, self._networks())
        stays = set(wanted)
        if self._defaults and config.fwmark not in (0, self._mark):  # default routes need new rules for a new mark
            stays = {(network, table) for network, table in wanted if table is not None}
        tables = {table for _, table in (*old, *wanted) if table is not None}
        present = {table: netlink.routes(self.name, table) for table in tables}
        for network, table in old:
            if (network, table) in stays:
                continue
            if table is None:
                self._delete_default_route(netlink, network)
            elif network in present[table]:
                self._delete_route(netlink, network, table)
        for network, table in wanted:
            if table is None:
                self._add_default_route(netlink, network)
            elif network not in present[table]:
                self._add_route(netlink, network, table)
        mark = config.fwmark or (self._mark if self._defaults or not self._begun else 0)
        if mark != self._mark:
            self._mark = mark
            self._set_fwmark(mark)

    def _warn_of_loops(self, netlink: Netlink, endpoints: Iterable[Endpoint]) -> None:
        """Warn of endpoints that the kernel routes into the interface itself: datagrams to them never leave."""
        inside: AllowedIPs[bool] = AllowedIPs()
        for network in self._networks():
            inside.insert(network, True)
        for host in _first(endpoint.host for endpoint in endpoints if inside.lookup(endpoint.address_bytes)):
            if netlink.leads_into(host, self.name, self._mark):
                self._say(
                    f"warning: {host} is routed into {self.name} itself, so it cannot be reached: for all traffic "
                    "use AllowedIPs = 0.0.0.0/0, ::/0; otherwise add a route to it, or set FwMark and add a rule"
                )

    def _add_route(self, netlink: Netlink, network: IPNetwork, table: int) -> None:
        if table == MAIN_TABLE and netlink.route_covered(network, self.name):
            return
        self._say(f"ip -{network.version} route add {network} dev {self.name}{_suffix(table)}")
        netlink.add_route(network, self.name, table)

    def _delete_route(self, netlink: Netlink, network: IPNetwork, table: int) -> None:
        self._say(f"ip -{network.version} route delete {network} dev {self.name}{_suffix(table)}")
        netlink.delete_route(network, self.name, table)

    def _delete_default_route(self, netlink: Netlink, network: IPNetwork) -> None:
        if undo := self._defaults.pop(network.version, None):
            undo.close()
            self._delete_route(netlink, network, self._mark)

    def _add_default_route(self, netlink: Netlink, network: IPNetwork) -> None:
        """Route everything through the tunnel except its own, marked datagrams (wg-quick's add_default)."""
        version = network.version
        if version in self._defaults or not self._begun:
            return
        self._mark = self.config.fwmark or self._mark or netlink.unused_table(FIRST_TABLE)  # the same for IPv4 and IPv6
        self._set_fwmark(self._mark)
        self._add_route(netlink, network, self._mark)
        undo = self._defaults[version] = ExitStack()  # from here on `_delete_default_route` has a route to delete
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        barrier = netlink.add_barrier(family, self._mark)  # takes over when the interface, and so its route, is gone
        self._left.add(barrier)
        self._say(f"ip -{version} route add {barrier}")
        undo.callback(self._forgiving, f"ip -{version} route delete {barrier}", partial(self._left.undo, barrier))
        for add in (
            partial(netlink.add_rule_not_fwmark, family, self._mark, self._mark),
            partial(netlink.add_rule_suppress_default, family),
        ):
            rule = add()
            self._left.add(rule)
            self._say(f"ip -{version} rule add {rule}")
            undo.callback(self._forgiving, f"ip -{version} rule delete {rule}", partial(self._left.undo, rule))
        if why_not := firewall.why_not():
            self._say(f"no firewall rules against spoofed IPv{version} packets: {why_not}")
        else:
            rules = firewall.rules(self.name, version)
            self._left.add(version)
            undo.callback(self._forgiving, f"delete {rules}", partial(self._left.undo, version))
            self._say(f"add {rules}")
            self._guard(version)
        if version == 4:
            self._validate_marks()

    def _guard(self, version: int) -> None:
        if not firewall.why_not():
            firewall.replace(self.name, version, self.config.addresses, self._mark)

    def _validate_marks(self) -> None:
        """Let reverse path filtering consider the mark. Containers often cannot set this, and most need not."""
        try:
            if SRC_VALID_MARK.read_text().strip() == "1":
                return
            self._say("sysctl -q net.ipv4.conf.all.src_valid_mark=1")
            SRC_VALID_MARK.write_text("1")
        except OSError as error:
            self._say(
                f"net.ipv4.conf.all.src_valid_mark cannot be set here ({error.strerror}): "
                "set it to 1 on the host if replies are dropped"
            )


def _first(hosts: Iterable[str]) -> list[str]:
    """The different hosts among these, but no more than the kernel is asked about: so many peers share few routes."""
    return list(islice(dict.fromkeys(hosts), MAX_ROUTE_REQUESTS))


def routes(config: InterfaceConfig, networks: Iterable[IPNetwork]) -> list[tuple[IPNetwork, int | None]]:
    """The routes that wg-quick sets for these networks, longest prefix first: each network with its table's number.

    The table is None for a default route, which gets a table of its own and policy rules. Raises NetworkError for a
    table name that the system does not know.
    """
    if config.table == "off":
        return []
    table = config.table if isinstance(config.table, int) else MAIN_TABLE
    if isinstance(config.table, str) and config.table != "auto":
        table = table_number(config.table)
    by_policy = config.table == "auto"
    ordered = sorted(networks, key=lambda network: (-network.prefixlen, network.version, network))
    return [(network, None if by_policy and network.prefixlen == 0 else table) for network in ordered]


def _suffix(table: int) -> str:
    return "" if table == MAIN_TABLE else f" table {table}"
