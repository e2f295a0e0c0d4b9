"""The text of the gateway's nftables table. No input or output.

Every packet from and to a client is judged by the first packet of its connection, which conntrack remembers: by that
packet's source, which leads to the rules for its set of groups, and by its destination and port. So replies pass and
nothing else does, and a rule that is removed ends connections, too. Before that, both clients of a packet, or the one,
must have a session: their addresses are in a set that is asked for each packet. The kernel removes an address from that
set when the session's time is up, whether the gateway's process lives or not.

Some services, those that a person needs to sign in, are open to every enabled device without a session. What passes
there begins none.

Names that depend on the policy begin with `p-`: `replacement` removes those of the old policy and adds the new ones in
one transaction. The sets of sessions stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from wgpy.daemon.firewall import clamping
from wgpy.gateway.policy.compiler import Compiled, Interval, Reach, disjoint
from wgpy.gateway.policy.destinations import Address, Network, Ports
from wgpy.gateway.policy.portal import Service
from wgpy.gateway.policy.routes import MASQUERADE, NONE, Route

PREFIX: Final = "p-"
COUNTERS: Final = ("no_session", "denied", "spoofed", "invalid")
REMEMBERED: Final = 5  # seconds that a client without a session is not noticed again
LENGTH: Final = 64  # bytes of a logged packet that are wanted: the IP header, and ports
UNLOGGED: Final = "unlogged"
"""The counter of denied packets that are not logged, because LOGGED are."""
LOGGED: Final = "100/second burst 200 packets"
JUDGED: Final = 0x0800_0000
"""A bit of the firewall mark. A client's packets have it from the first hook until they are judged, so that a policy
rule can refuse those that no table judges: see `wgpy.gateway.enforcement.dataplane`."""
_ASKED: Final = f"size 65535; flags dynamic,timeout; timeout {REMEMBERED}s;"
_TYPES: Final = {4: "ipv4_addr", 6: "ipv6_addr"}
_FAMILIES: Final = {4: "ip", 6: "ip6"}
_ICMP: Final = "meta l4proto { icmp, ipv6-icmp }"


class Present(NamedTuple):
    """The names of what the table has."""

    chains: Sequence[str] = ()
    maps: Sequence[str] = ()


def table(interface: str) -> str:
    """The table of a gateway on an interface, as nft's commands name it."""
    return f"inet wgpy-gateway-{interface}"


def replacement(
    interface: str,
    group: int,
    pools: Iterable[Network],
    compiled: Compiled,
    routes: Iterable[Route],
    services: Iterable[Service],
    present: Present,
    *,
    log_denied: bool = False,
    anew: bool = False,
) -> str:
    """Commands that put a policy in the place of the one that is `present`, in one transaction.

    `log_denied` is for the flow log: denied packets go to the same group, with a prefix, LOGGED at the most.
    With `anew`, nothing remains of a table that is there: neither its sessions nor what somebody else has put into it.
    `group` is that of NFLOG to which packets of clients without a session go: one of a client in REMEMBERED seconds.
    `services` need no session.
    """
    name = table(interface)
    pools, routes, services = list(pools), list(routes), list(services)
    lines = [f"add table {name}", *([f"delete table {name}", f"add table {name}"] if anew else ())]
    lines += [f"flush chain {name} {chain}" for chain in present.chains]
    lines += [f"delete map {name} {each}" for each in present.maps if each.startswith(PREFIX)]
    lines += [f"delete chain {name} {chain}" for chain in present.chains if chain.startswith(PREFIX)]
    lines += [f"add counter {name} {counter}" for counter in (*COUNTERS, UNLOGGED)]
    for version, kind in _TYPES.items():
        lines += [
            f"add set {name} from{version} {{ type {kind}; flags timeout; counter; }}",
            f"add set {name} to{version} {{ type {kind}; flags timeout; counter; }}",
            f"add set {name} asked{version} {{ type {kind}; {_ASKED} }}",
            f"add set {name} pools{version} {{ type {kind}; flags interval; }}",
            f"flush set {name} pools{version}",
            f"flush set {name} asked{version}",  # whom the policy lets in now is noticed at once
            *_elements(name, f"pools{version}", (str(pool) for pool in pools if pool.version == version)),
            f"add set {name} known{version} {{ type {kind}; }}",
            f"flush set {name} known{version}",
            *_elements(name, f"known{version}", _known(compiled, version) if services else ()),
        ]
    lines += [f"table {name} {{", *_reaches(compiled), *_nat(routes), _open(services)]
    lines += [*_chains(interface, group, log_denied=log_denied), "}"]
    return "\n".join(lines) + "\n"


def made(script: str) -> Present:
    """The names of what a script of `replacement` makes."""
    words = [line.split(maxsplit=2) for line in script.splitlines()]
    names = {kind: [line[1] for line in words if line and line[0] == kind] for kind in ("chain", "map")}
    return Present(names["chain"], names["map"])


def opening(interface: str, opened: Mapping[Address, float]) -> str:
    """Commands that let addresses have a session for so many seconds, whether or not they have one now."""
    return "".join(
        f"add element {table(interface)} {each} {{ {address} }}\n"
        f"delete element {table(interface)} {each} {{ {address} }}\n"
        f"add element {table(interface)} {each} {{ {address} timeout {max(1, int(seconds))}s }}\n"
        for address, seconds in opened.items()
        for each in _sets(address)
    )


def closing(interface: str, addresses: Iterable[Address]) -> str:
    """Commands that end the session of addresses, whether or not they have one."""
    return "".join(
        f"add element {table(interface)} {each} {{ {address} }}\n"
        f"delete element {table(interface)} {each} {{ {address} }}\n"
        for address in addresses
        for each in _sets(address)
    )


def _sets(address: Address) -> tuple[str, str]:
    return f"from{address.version}", f"to{address.version}"


def _elements(name: str, target: str, elements: Iterable[str]) -> list[str]:
    text = ", ".join(elements)
    return [f"add element {name} {target} {{ {text} }}"] if text else []


def _reaches(compiled: Compiled) -> list[str]:
    """A chain for each different list of ports, one for each reach, and the maps that lead there."""
    grants = {each.grant for reach in compiled.reaches for intervals in reach for each in intervals if each.grant}
    chains = {grant: f"{PREFIX}ports{number}" for number, grant in enumerate(sorted(grants))}
    lines = [f"chain {chain} {{ {_ports(grant)} }}" for grant, chain in chains.items()]
    for number, reach in enumerate(compiled.reaches):
        lines += _reach(f"{PREFIX}reach{number}", reach, chains)
    for version, kind in _TYPES.items():
        sources = ", ".join(
            f"{address} : goto {PREFIX}reach{number}"
            for address, number in compiled.sources.items()
            if address.version == version
        )
        lines.append(_map(f"{PREFIX}sources{version}", kind, "", sources))
    return lines


def _reach(name: str, reach: Reach, chains: Mapping[tuple[Ports, ...], str]) -> list[str]:
    lines = [
        _map(f"{name}-{version}", _TYPES[version], "flags interval;", _intervals(version, intervals, chains))
        for version, intervals in ((4, reach.ipv4), (6, reach.ipv6))
    ]
    rules = "; ".join(f"ct original {_FAMILIES[version]} daddr vmap @{name}-{version}" for version in _TYPES)
    return [*lines, f"chain {name} {{ {rules}; goto denied; }}"]


def _intervals(version: int, intervals: Iterable[Interval], chains: Mapping[tuple[Ports, ...], str]) -> str:
    return ", ".join(
        f"{_span(version, first, last)} : {f'jump {chains[grant]}' if grant else 'accept'}"
        for first, last, grant in intervals
    )


def _span(version: int, first: int, last: int) -> str:
    made = IPv4Address if version == 4 else IPv6Address
    return f"{made(first)}-{made(last)}" if last > first else str(made(first))


def _map(name: str, kind: str, flags: str, elements: str) -> str:
    return f"map {name} {{ type {kind} : verdict; {flags} {f'elements = {{ {elements} }};' if elements else ''} }}"


def _ports(grant: Sequence[Ports]) -> str:
    """Rules that accept the ports. Errors about connections come as ICMP, in whichever protocol those are."""
    rules = [f"{_ICMP} ct state related accept;"]
    for protocol, first, last in grant:
        if protocol == "icmp":
            rules.append(f"{_ICMP} accept;")
        else:
            ports = f"{first}-{last}" if last > first else str(first)
            rules.append(f"meta l4proto {protocol} ct original proto-dst {ports} accept;")
    return " ".join(rules)


def _nat(routes: Sequence[Route]) -> list[str]:
    """Source NAT for clients' connections: the most specific route that contains the destination says which."""
    wanted = {route.network: route.snat for route in routes}
    chains = {snat: f"{PREFIX}snat{number}" for number, snat in enumerate(sorted({*wanted.values()} - {NONE}))}
    verdicts = {NONE: "accept", **{snat: f"goto {chain}" for snat, chain in chains.items()}}
    lines = [f"chain {chain} {{ {_snat(snat)}; }}" for snat, chain in chains.items()]
    for version, kind in _TYPES.items():
        networks = [network for network in wanted if network.version == version]
        elements = ", ".join(
            f"{_span(version, first, last)} : {verdicts[wanted[network]]}"
            for first, last, network in disjoint(networks)
        )
        lines.append(_map(f"{PREFIX}nat{version}", kind, "flags interval;", elements))
    return lines


def _snat(snat: str) -> str:
    return "masquerade" if snat == MASQUERADE else f"snat {_FAMILIES[ip_address(snat).version]} to {snat}"


def _known(compiled: Compiled, version: int) -> Iterable[str]:
    return (str(address) for address in compiled.sources if address.version == version)


def _open(services: Iterable[Service]) -> str:
    """A chain that accepts packets of enabled devices to the services, and the answers to them."""
    rules = [f"ct original {family} saddr != @known{version} return" for version, family in _FAMILIES.items()]
    for protocol, port, address in services:
        if address is None or address.is_unspecified:
            family = f"meta nfproto ipv{address.version} " if address else ""
            places = [f"{family}ct direction {each} type local" for each in ("original fib daddr", "reply fib saddr")]
        else:
            places = [f"ct original {_FAMILIES[address.version]} daddr {address}"]
        for place in places:
            rules += [
                f"{place} meta l4proto {protocol} ct original proto-dst {port} accept",
                f"{place} {_ICMP} ct state related accept",
            ]
    return f"chain open {{ {'; '.join(rules)}; }}"


def _chains(interface: str, group: int, *, log_denied: bool) -> list[str]:
    """What does not depend on the policy."""
    client, other = f'iifname "{interface}"', f'iifname != {{ "{interface}", "lo" }}'
    unmarked = f"{client} meta mark set meta mark & {~JUDGED & 0xFFFFFFFF:#x}"
    spoofed = [
        f"{other} {family} saddr @pools{version} counter name spoofed drop" for version, family in _FAMILIES.items()
    ]
    return [
        "chain from_client {",
        *(f"{family} saddr @from{version} return" for version, family in _FAMILIES.items()),
        "ct direction original jump open",
        *(
            f"{family} saddr @pools{version} {family} saddr != @asked{version} "
            f"log group {group} snaplen {LENGTH} add @asked{version} {{ {family} saddr }}"
            for version, family in _FAMILIES.items()
        ),
        "counter name no_session drop",
        "}",
        "chain to_client {",
        *(f"{family} daddr @to{version} return" for version, family in _FAMILIES.items()),
        "ct direction reply jump open",
        "counter name no_session drop",
        "}",
        "chain log_denied {",
        f"limit rate over {LOGGED} counter name {UNLOGGED} return",
        f'log prefix "denied" group {group} snaplen {LENGTH}',
        "}",
        "chain denied {",
        "counter name denied",
        *(["jump log_denied"] if log_denied else []),
        f"{client} meta l4proto tcp reject with tcp reset",  # a program fails at once, instead of waiting
        f"{client} reject with icmpx type admin-prohibited",
        "drop",
        "}",
        "chain judge {",
        "ct state invalid counter name invalid drop",
        "jump open",
        *(f"ct original {family} saddr vmap @{PREFIX}sources{version}" for version, family in _FAMILIES.items()),
        "goto denied",
        "}",
        "chain arriving {",  # after other tables' chains that set marks
        "type filter hook prerouting priority dstnat - 5; policy accept;",
        f"{client} meta mark set meta mark | {JUDGED:#x}",
        "}",
        "chain forward {",
        "type filter hook forward priority filter; policy accept;",
        unmarked,
        *spoofed,
        f"{client} jump from_client",
        f"{client} goto judge",
        f'oifname "{interface}" goto judge',
        "}",
        "chain clamp {",
        "type filter hook forward priority mangle; policy accept;",
        *clamping(interface),
        "}",
        "chain input {",
        "type filter hook input priority filter; policy accept;",
        unmarked,
        *spoofed,
        f"{client} jump from_client",
        f"{client} ct direction reply ct state established,related accept",  # to what the gateway itself asked
        f"{client} goto judge",
        "}",
        "chain leaving {",  # after the rules, so that what they deny does not count; the gateway's own packets, too
        "type filter hook postrouting priority filter; policy accept;",
        f'oifname "{interface}" jump to_client',
        "}",
        "chain postrouting {",
        "type nat hook postrouting priority srcnat; policy accept;",
        *(
            f'oifname != "{interface}" {family} saddr @pools{version} {family} daddr vmap @{PREFIX}nat{version}'
            for version, family in _FAMILIES.items()
        ),
        "}",
    ]
