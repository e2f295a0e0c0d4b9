"""Many peers and many allowed IPs: the time to configure them, their memory, and their effect on a flow."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from benchmarks.goals import MANY_ALLOWED_IPS, MANY_PEERS, WGPY
from benchmarks.plan import Plan
from benchmarks.traffic import tcp
from benchmarks.tunnels import Program, Tunnel, resident, tunnel, wait_until_up
from tests.support.peers import Side
from wgpy.device.allowedips import AllowedIPs
from wgpy.keys import PublicKey

COUNTS: Final = (1, 10, 100, 1000, MANY_PEERS)
# Prefix lengths, about as frequent as in the Internet's routing table.
LENGTHS: Final = {24: 60, 23: 10, 22: 12, 21: 6, 20: 5, 19: 3, 18: 2, 16: 2}
LOOKUPS: Final = 200_000


def peers(plan: Plan) -> None:
    """Many peers: time to configure them, memory, and one flow with and without them."""
    for number, program in plan.turns(daemons=True):
        plan.attempt(f"{program.name}: {MANY_PEERS:,} peers", partial(_many_peers, plan, number, program))


def by_peers(plan: Plan) -> None:
    """The charts of memory and of the time to configure, by number of peers."""
    memory = plan.results.curves.setdefault("peers_memory", {})
    times = plan.results.curves.setdefault("peers_configure", {})
    for program in plan.charted(daemons=True):

        def measure(program: Program = program) -> None:
            with tunnel(program) as through:
                pid, had = through.pids()[0], 0
                for count in COUNTS:
                    seconds = configure(through.left, through.directory, peer_sections(count))
                    had += count
                    times.setdefault(program.name, []).append((count, seconds))
                    memory.setdefault(program.name, []).append((had, resident(pid) / 1024))

        plan.attempt(f"{program.name}: by number of peers", measure)


def allowed_ips(plan: Plan) -> None:
    """Very many allowed IPs of one peer, as when a country's networks are routed through a tunnel."""
    networks = random_networks(MANY_ALLOWED_IPS)
    section = f"[Peer]\nPublicKey = {PublicKey(os.urandom(32)).base64()}\nAllowedIPs = {','.join(map(str, networks))}\n"
    for number, program in plan.turns(daemons=True):

        def measure(number: int = number, program: Program = program) -> None:
            with tunnel(program) as through:
                seconds = configure(through.left, through.directory, [section])
                plan.add("allowed_configure", program.name, number, seconds, "time wg addconf INTERFACE FILE")

        plan.attempt(f"{program.name}: {MANY_ALLOWED_IPS:,} allowed IPs", measure)
    if WGPY in (program.name for program in plan.programs()):
        for number in range(plan.rounds):
            plan.add(
                "allowed_lookup", WGPY, number, lookup_microseconds(networks), "AllowedIPs.lookup of ever new addresses"
            )


def lookup_microseconds(networks: Iterable[IPv4Network]) -> float:
    """Microseconds of AllowedIPs.lookup for always new addresses, half of them in one of the networks."""
    table: AllowedIPs[str] = AllowedIPs()
    within = []
    for network in networks:
        table.insert(network, "peer")
        within.append(network.network_address.packed)
    addresses = [address for pair in zip(within, map(os.urandom, [4] * len(within)), strict=True) for address in pair]
    random.shuffle(addresses)
    lookup = table.lookup
    begin = time.perf_counter()
    for address in addresses[:LOOKUPS]:
        lookup(address)
    return (time.perf_counter() - begin) / LOOKUPS * 1e6


def _many_peers(plan: Plan, number: int, program: Program) -> None:
    with ExitStack() as cleanup:
        few, many = cleanup.enter_context(tunnel(program)), cleanup.enter_context(tunnel(program))
        pid = many.pids()[0]
        before = resident(pid)
        seconds = configure(many.left, many.directory, peer_sections(MANY_PEERS))
        add = partial(plan.add, program=program.name, round_=number)
        add("peers_configure", value=seconds, command="time wg addconf INTERFACE FILE")
        memory = (resident(pid) - before) / MANY_PEERS
        add("peers_memory", value=memory, command="grep VmRSS /proc/PID/status, before and after")
        configure(many.right, many.directory, peer_sections(MANY_PEERS))
        flows: list[tuple[str, Tunnel]] = [("peers_tcp_few", few), ("peers_tcp_many", many)]
        for measure, through in flows[:: -1 if number % 2 else 1]:
            wait_until_up(through)
            rate, command = tcp(through, plan.seconds)
            add(measure, value=rate, command=command)


def configure(side: Side, directory: Path, sections: Iterable[str]) -> float:
    """Seconds that `wg addconf` takes, until the daemon answers the next request."""
    path = directory / "many.conf"
    path.write_text("".join(sections))
    begin = time.perf_counter()
    side.namespace.run("wg", "addconf", side.name, str(path), timeout=120)
    return time.perf_counter() - begin


def peer_sections(count: int) -> Iterable[str]:
    """Sections of random peers, each with one allowed IP."""
    for number in range(count):
        key = PublicKey(os.urandom(32)).base64()
        yield f"[Peer]\nPublicKey = {key}\nAllowedIPs = {IPv4Address('10.128.0.0') + number}/32\n"


def random_networks(count: int) -> list[IPv4Network]:
    """Random networks without duplicates, the same in each run."""
    chance = random.Random(count)
    lengths, weights = list(LENGTHS), list(LENGTHS.values())
    found: dict[IPv4Network, None] = {}
    while len(found) < count:
        (length,) = chance.choices(lengths, weights)
        address = chance.randrange(1 << 24, 223 << 24) >> (32 - length) << (32 - length)
        found[IPv4Network((address, length))] = None
    return list(found)
