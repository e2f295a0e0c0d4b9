"""What wg-quick uses `ip` for, over netlink: links, addresses, routes, rules and path MTUs.

It uses pyroute2, which is synchronous and cannot run inside a running event loop: call it before the loop starts, or
from another thread. pyroute2 is imported on first use, because that takes long.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from wgpy.errors import NetworkError
from wgpy.net.pyroute import make_light
from wgpy.system.refusals import explain, ipv6_is_off, net_admin

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

MAIN_TABLE: Final = 254
_UNICAST: Final = 1  # RTN_UNICAST: a route that leads somewhere, not one that refuses, such as unreachable
_PROTOCOL_BOOT: Final = 3  # RTPROT_BOOT: set by a tool, such as `ip route add`
_SCOPE_LINK: Final = {4: 253, 6: 0}
_LAST_METRIC: Final = 0xFFFFFFFE
_RULE_INVERT: Final = 2  # FIB_RULE_INVERT: `not`
_LOWEST_DEFAULT_PRIORITY: Final = 32766  # the rule for table main
_TABLES: Final = {"default": 253, "main": MAIN_TABLE, "local": 255}
_TABLE_NAMES: Final = (Path("/usr/share/iproute2"), Path("/etc/iproute2"))
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class Rule(NamedTuple):
    """A policy rule that wgpy added, with what is needed to delete it and no other, even in a later process."""

    family: int
    priority: int
    table: int
    not_fwmark: int | None = None  # for packets without this mark
    suppress_default: bool = False  # ignore the table's default routes

    def __str__(self) -> str:
        selector = "" if self.not_fwmark is None else f"not fwmark {self.not_fwmark} "
        suffix = " suppress_prefixlength 0" if self.suppress_default else ""
        return f"{selector}table {self.table}{suffix} priority {self.priority}"


class Barrier(NamedTuple):
    """An unreachable default route behind all others in a table, for the time after their interface is gone."""

    family: int
    table: int

    def __str__(self) -> str:
        return f"unreachable default table {self.table} metric {_LAST_METRIC}"


class _Networks:
    """A set of networks, by prefix length: a lookup takes one step for each length in use, not for each of 129."""

    def __init__(self) -> None:
        self._bits: dict[tuple[int, int], set[int]] = {}  # by IP version and prefix length

    def add(self, network: IPNetwork) -> None:
        self._bits.setdefault((network.version, network.prefixlen), set()).add(_leading(network, network.prefixlen))

    def cover(self, network: IPNetwork) -> bool:
        """Whether one of them contains all of `network`."""
        return any(
            version == network.version and length <= network.prefixlen and _leading(network, length) in bits
            for (version, length), bits in self._bits.items()
        )


class Netlink:
    """A netlink socket in the calling thread's network namespace. A failed step raises NetworkError with its name."""

    def __init__(self) -> None:
        make_light()
        from pyroute2.iproute.linux import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        self._netlink_error: type[Exception] = NetlinkError
        with self._step("open a netlink socket"):
            self._ip: Any = IPRoute(strict_check=True)  # the kernel filters what it dumps
        self._own_routes: dict[str, _Networks] = {}

    def close(self) -> None:
        self._ip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # Links.

    def link_exists(self, name: str) -> bool:
        try:
            socket.if_nametoindex(name)
        except OSError:
            return False
        return True

    def link_index(self, name: str) -> int:
        """The interface's index."""
        try:
            return socket.if_nametoindex(name)
        except OSError:
            raise NetworkError(f'Cannot find device "{name}"') from None

    def links(self, kind: str) -> set[str]:
        """The names of the interfaces of a kind, as `ip link show type KIND`."""
        with self._step(f"list interfaces of kind {kind}"):
            found = list(self._ip.link("dump"))
        return {
            link.get_attr("IFLA_IFNAME") for link in found if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == kind
        }

    def link_mtu(self, name: str) -> int:
        """The interface's MTU in bytes."""
        return self._device_mtu(self.link_index(name))

    def set_mtu(self, name: str, mtu: int) -> None:
        self._set_link(name, f"set the MTU of {name} to {mtu}", mtu=mtu)

    def set_up(self, name: str) -> None:
        self._set_link(name, f"set {name} up", state="up")

    def set_down(self, name: str) -> None:
        self._set_link(name, f"set {name} down", state="down")

    def add_link(self, name: str, kind: str) -> None:
        """Do `ip link add NAME type KIND`."""
        with self._step(f"add {name} of kind {kind}"):
            self._ip.link("add", ifname=name, kind=kind)

    def delete_link(self, name: str) -> None:
        index = self.link_index(name)
        with self._step(f"delete {name}"):
            self._ip.link("del", index=index)

    # Addresses and routes.

    def add_address(self, name: str, address: IPInterface) -> None:
        """Do `ip address add ADDRESS dev NAME`. The prefix becomes a route once the interface is up."""
        index = self.link_index(name)
        self._own_routes.pop(name, None)
        with self._step(f"add address {address} to {name}", ipv6=name if address.version == 6 else ""):
            self._ip.addr(
                "add",
                index=index,
                family=_family(address),
                address=str(address.ip),
                local=str(address.ip),
                prefixlen=address.network.prefixlen,
            )

    def delete_address(self, name: str, address: IPInterface) -> None:
        """Do `ip address delete ADDRESS dev NAME`. Routes that use the address go with it."""
        index = self.link_index(name)
        self._own_routes.pop(name, None)
        with self._step(f"delete address {address} from {name}"):
            self._ip.addr(
                "delete",
                index=index,
                family=_family(address),
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
            )

    def addresses(self, name: str, wanted: Iterable[IPInterface] = ()) -> set[IPInterface]:
        """The interface's addresses, without IPv6 link-local ones (the kernel's own) that are not in `wanted`."""
        index = self.link_index(name)
        with self._step(f"list addresses of {name}"):
            found = [ipaddress.ip_interface(f"{a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}")
                     for a in self._ip.addr("dump", index=index)]  # fmt: skip
        kernels = {address for address in found if address.is_link_local and address.version == 6}
        return set(found) - kernels.difference(wanted)

    def all_addresses(self) -> list[tuple[str, IPInterface]]:
        """The host's own addresses with their interfaces' names, without IPv6 link-local ones."""
        with self._step("list addresses"):
            found = [
                (each["index"], ipaddress.ip_interface(f"{local}/{each['prefixlen']}"))
                for each in self._ip.addr("dump")
                if (local := each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"))
            ]
        return [(_name(index), each) for index, each in found if not (each.version == 6 and each.is_link_local)]

    def all_routes(self) -> list[tuple[str, IPNetwork]]:
        """Where routes of all tables lead to, with their interfaces' names, without IPv6 link-local destinations."""
        found = [
            (route.get_attr("RTA_OIF") or 0, _destination(route))
            for family in _FAMILIES
            for route in self._routes(family)
            if route["type"] == _UNICAST and route["table"] != _TABLES["local"]
        ]
        return [(_name(index), each) for index, each in found if not (each.version == 6 and each.is_link_local)]

    def delete_route(self, network: IPNetwork, name: str, table: int = MAIN_TABLE) -> None:
        """Do `ip route delete NETWORK dev NAME table TABLE`."""
        index = self.link_index(name)
        self._own_routes.pop(name, None)
        with self._step(f"delete route {network} dev {name} table {table}"):
            scope = _SCOPE_LINK[network.version]
            self._ip.route("delete", family=_family(network), dst=str(network), oif=index, table=table, scope=scope)

    def routes(self, name: str, table: int = MAIN_TABLE) -> set[IPNetwork]:
        """The destinations of routes through the interface, without those that the kernel makes for its addresses."""
        index = self.link_index(name)
        return {
            _destination(route)
            for family in _FAMILIES
            for route in self._routes(family, oif=index, table=table)
            if route["proto"] == _PROTOCOL_BOOT
        }

    def has_default_route(self, name: str, table: int) -> bool:
        """Whether a table has a default route through the interface; never for table 0."""
        return bool(table) and any(network.prefixlen == 0 for network in self.routes(name, table))

    def add_route(self, network: IPNetwork, name: str, table: int = MAIN_TABLE) -> None:
        """Do `ip route add NETWORK dev NAME table TABLE`."""
        index = self.link_index(name)
        with self._step(f"add route {network} dev {name} table {table}", ipv6=name if network.version == 6 else ""):
            self._ip.route(
                "add",
                family=_family(network),
                dst=str(network),
                oif=index,
                table=table,
                proto=_PROTOCOL_BOOT,
                scope=_SCOPE_LINK[network.version],
            )
        if table == MAIN_TABLE and name in self._own_routes:
            self._own_routes[name].add(network)

    def add_barrier(self, family: int, table: int) -> Barrier:
        """Do `ip route add unreachable default table TABLE metric 4294967294`."""
        barrier = Barrier(family, table)
        with self._step(f"add route {barrier}"):
            self._ip.route("add", proto=_PROTOCOL_BOOT, **_barrier_attributes(barrier))
        return barrier

    def delete_barrier(self, barrier: Barrier) -> None:
        with self._step(f"delete route {barrier}"):
            self._ip.route("delete", **_barrier_attributes(barrier))

    def route_covered(self, network: IPNetwork, name: str) -> bool:
        """Whether one route through the interface leads to all of `network`: `ip route show dev NAME match NETWORK`."""
        if name not in self._own_routes:
            index = self.link_index(name)
            own = _Networks()
            for family in _FAMILIES:
                for route in self._routes(family, oif=index, table=MAIN_TABLE):
                    own.add(_destination(route))
            self._own_routes[name] = own
        return self._own_routes[name].cover(network)

    def path_mtu(self, address: str) -> int | None:
        """The MTU in bytes towards a numeric address: its route's, or else the device's. None without a route."""
        host, _, zone = address.partition("%")
        try:
            scope = {"oif": int(zone) if zone.isdigit() else self.link_index(zone)} if zone else {}
            with self._step(f"find the route to {address}"):
                route = next(iter(self._ip.route("get", family=_family(ipaddress.ip_address(host)), dst=host, **scope)))
        except NetworkError:
            return None
        return self._route_mtu(route)

    def leads_into(self, address: str, name: str, mark: int = 0) -> bool:
        """Whether a datagram with this mark to a numeric address leaves through the interface."""
        host, _, zone = address.partition("%")
        if zone:
            return False
        selector = {"mark": mark} if mark else {}
        with suppress(NetworkError), self._step(f"find the route to {address}"):
            family = _family(ipaddress.ip_address(host))
            route = next(iter(self._ip.route("get", family=family, dst=host, **selector)))
            return bool(route.get_attr("RTA_OIF") == self.link_index(name))
        return False

    def default_route_mtu(self) -> int | None:
        """The MTU in bytes of the preferred default route, IPv4's if there is one; None without a default route."""
        for family in _FAMILIES:
            defaults = [route for route in self._routes(family, table=MAIN_TABLE) if route["dst_len"] == 0]
            for route in sorted(defaults, key=lambda route: route.get_attr("RTA_PRIORITY") or 0):
                if mtu := self._route_mtu(route):
                    return mtu
        return None

    # Rules.

    def unused_table(self, start: int = 51820) -> int:
        """The first table number from `start` on that has no route and is in no rule."""
        named = {rule.get_attr("FRA_TABLE") for family in _FAMILIES for rule in self._rules(family)}
        table = start
        while table in named or any(self._routes(family, table=table) for family in _FAMILIES):
            table += 1
        return table

    def add_rule_not_fwmark(self, family: int, mark: int, table: int) -> Rule:
        """Do `ip rule add not fwmark MARK table TABLE`: only our own datagrams bypass the tunnel."""
        return self._add_rule(Rule(family, self._next_priority(family), table, not_fwmark=mark))

    def add_rule_suppress_default(self, family: int) -> Rule:
        """Do `ip rule add table main suppress_prefixlength 0`: routes other than default routes still come first."""
        return self._add_rule(Rule(family, self._next_priority(family), MAIN_TABLE, suppress_default=True))

    def prohibit_unmarked(self, family: int, name: str, mark: int, priority: int) -> None:
        """Do `ip rule add iif NAME fwmark 0/MARK prohibit`: refuse what arrives there without any of these bits.

        Nothing is changed if the rule is there, and the interface need not be.
        """
        rule = {"iifname": name, "fwmark": 0, "fwmask": mark, "priority": priority, "action": "prohibit"}
        with suppress(_Present), self._step(f"add rule iif {name} fwmark 0/{mark:#x} prohibit priority {priority}"):
            self._ip.rule("add", family=family, **rule)

    def delete_prohibitions(self, family: int, name: str, priority: int) -> None:
        """Delete what `prohibit_unmarked` added, if it did."""
        with suppress(_Missing), self._step(f"delete rule iif {name} prohibit priority {priority}"):
            self._ip.rule("del", family=family, iifname=name, priority=priority, action="prohibit")

    def delete_rule(self, rule: Rule) -> None:
        """Delete that rule and no other."""
        with self._step(f"delete rule {rule}"):
            self._ip.rule("del", **_rule_attributes(rule))

    def _add_rule(self, rule: Rule) -> Rule:
        with self._step(f"add rule {rule}"):
            self._ip.rule("add", **_rule_attributes(rule))
        return rule

    def _next_priority(self, family: int) -> int:
        """A priority before all rules but the one for local addresses, as the kernel would choose."""
        taken = {rule.get_attr("FRA_PRIORITY") or 0 for rule in self._rules(family)} - {0}
        return max(1, min(taken, default=_LOWEST_DEFAULT_PRIORITY) - 1)

    # Dumps.

    def _rules(self, family: int) -> list[Any]:
        with self._step("list rules"):
            return list(self._ip.rule("dump", family=family))

    def _routes(self, family: int, **selector: int) -> list[Any]:
        with suppress(_Missing), self._step("list routes"):
            return list(self._ip.route("dump", family=family, **selector))
        return []

    def _route_mtu(self, route: Any) -> int | None:
        if mtu := route.get_nested("RTA_METRICS", "RTAX_MTU"):
            return int(mtu)
        index = route.get_attr("RTA_OIF")
        return self._device_mtu(index) if index else None

    def _device_mtu(self, index: int) -> int:
        with self._step(f"read the MTU of device {index}"):
            return int(next(iter(self._ip.link("get", index=index))).get_attr("IFLA_MTU"))

    def _set_link(self, name: str, step: str, **change: int | str) -> None:
        index = self.link_index(name)
        self._own_routes.pop(name, None)
        with self._step(step):
            self._ip.link("set", index=index, **change)

    @contextmanager
    def _step(self, step: str, *, ipv6: str = "") -> Iterator[None]:
        """Turn a netlink error into one line: the step, and why. `ipv6` names an interface that needs IPv6 for it."""
        try:
            yield
        except (OSError, self._netlink_error) as error:
            number = getattr(error, "code", None) or getattr(error, "errno", None) or 0
            raised = {errno.ENOENT: _Missing, errno.EEXIST: _Present}.get(number, NetworkError)
            causes = (net_admin(),) if number == errno.EPERM else ipv6_is_off(ipv6) if ipv6 else ()
            raise raised(f"cannot {step}: {os.strerror(number)}{f' ({explain(*causes)})' if causes else ''}") from error


def table_number(name: str) -> int:
    """The number of a routing table from its name, as iproute2 reads it. Raises NetworkError for an unknown name."""
    numbers = dict(_TABLES)
    for directory in _TABLE_NAMES:
        for path in (directory / "rt_tables", *sorted(directory.glob("rt_tables.d/*.conf"))):
            with suppress(OSError):
                for line in path.read_text(errors="replace").splitlines():
                    match line.partition("#")[0].split():
                        case [number, known] if number.isdigit():
                            numbers[known] = int(number)
    if name not in numbers:
        raise NetworkError(f"routing table {name!r} has no number: add it to /etc/iproute2/rt_tables, or use a number")
    return numbers[name]


class _Missing(NetworkError):
    """The object does not exist, for example a table without routes."""


class _Present(NetworkError):
    """The object exists already."""


def _name(index: int) -> str:
    """The name of an interface; a question mark if it is gone, or a route has several."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return "?"


def _family(address: IPNetwork | IPInterface | ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _leading(network: IPNetwork, length: int) -> int:
    return int(network.network_address) >> (network.max_prefixlen - length)


def _destination(route: Any) -> IPNetwork:
    unspecified = "0.0.0.0" if route["family"] == socket.AF_INET else "::"
    return ipaddress.ip_network(f"{route.get_attr('RTA_DST') or unspecified}/{route['dst_len']}")


def _barrier_attributes(barrier: Barrier) -> dict[str, int | str]:
    everything = "0.0.0.0/0" if barrier.family == socket.AF_INET else "::/0"
    return {
        "family": barrier.family,
        "dst": everything,
        "type": "unreachable",
        "table": barrier.table,
        "priority": _LAST_METRIC,
    }


def _rule_attributes(rule: Rule) -> dict[str, int]:
    attributes = {"family": rule.family, "priority": rule.priority, "table": rule.table}
    if rule.not_fwmark is not None:
        attributes |= {"fwmark": rule.not_fwmark, "flags": _RULE_INVERT}
    if rule.suppress_default:
        attributes["suppress_prefixlen"] = 0
    return attributes
