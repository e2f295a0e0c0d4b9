"""What passes without a session: packets to the portal and to name servers, so that a person can sign in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import product

import pytest

from tests.gateway.enforcement.probes import Probe
from tests.gateway.enforcement.test_packets import (
    BOTH,
    CLIENTS,
    NEITHER,
    POOLS,
    PROBES,
    SERVER,
    STAFF,
    World,
    in_world,
    serve,
)
from tests.gateway.scenarios import PLACES
from wgpy.gateway.policy.compiler import compiled
from wgpy.gateway.policy.portal import DNS, Service

pytestmark = pytest.mark.root
OWN = ("10.99.0.1", "fd00:99::1")
LAN = ("10.77.0.1", "fd77::1")
PORTAL = Service("tcp", 443)
NAMES = [Service(protocol, DNS, ip_address(address)) for address in SERVER for protocol in ("udp", "tcp")]


def put(world: World, services: Iterable[Service], *clients: int) -> None:
    """Put a policy in force that knows these clients, who are all in staff."""
    members = {ip_address(address): {"staff"} for client in clients for address in CLIENTS[client]}
    world.firewall.replace(POOLS, compiled(STAFF, members), [], services)


@contextmanager
def serving(world: World) -> Iterator[None]:
    """The gateway answers on three ports, and the servers also as name servers."""
    with subprocess.Popen([*PROBES, "serve", "443", "8080", "53"], stdout=subprocess.PIPE, text=True) as here:
        try:
            there = world.servers.popen(*PROBES, "serve", "53", stdout=subprocess.PIPE)
            for process in (here, there):
                assert process.stdout
                assert process.stdout.readline() == "ready\n"
            yield
        finally:
            here.kill()


def reached(world: World, client: int) -> set[tuple[str, str, int]]:
    """All that a client reaches, of all there is."""
    places = {**PLACES, "gateway": OWN, "gateway's other address": LAN}
    ports = (("tcp", 53), ("tcp", 443), ("tcp", 8080), ("udp", 53), ("udp", 443), ("icmp", 0))
    every = list(product(places, (0, 1), ports))
    probes = (Probe(CLIENTS[client][at], places[place][at], *port) for place, at, port in every)
    answers = world.clients.answers(*probes)
    found: dict[tuple[str, str, int], int] = {}
    for (place, _, port), answer in zip(every, answers, strict=True):
        if answer:
            found[place, *port] = found.get((place, *port), 0) + 1
    assert set(found.values()) <= {2}, f"the same in IPv4 and in IPv6: {found}"
    return set(found)


def received(world: World) -> int:
    """How many datagrams have come to the clients."""
    v4, v6 = (world.clients.namespace.run("cat", f"/proc/net/{name}") for name in ("snmp", "snmp6"))
    return int(v4.split("\nUdp: ")[2].split()[0]) + int(v6.split("Udp6InDatagrams")[1].split()[0])


UNASKED = """
import socket, sys
source, target = sys.argv[1:]
with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.bind((source, 53))
    sender.sendto(b"answer", (target, 443))
"""
OPEN = {
    ("gateway", "tcp", 443),
    ("gateway's other address", "tcp", 443),
    ("development host", "tcp", 53),
    ("development host", "udp", 53),
}  # fmt: skip


@in_world
def test_a_device_without_a_session_reaches_the_portal_and_name_servers_and_nothing_else(world: World) -> None:
    with serving(world):
        put(world, [PORTAL, *NAMES], 2)
        assert reached(world, 2) == OPEN
        assert reached(world, 3) == set(), "a device that may have no session"
        put(world, [Service("tcp", 443, ip_address(OWN[0])), Service("tcp", 443, ip_address(OWN[1]))], 2)
        assert reached(world, 2) == {("gateway", "tcp", 443)}
        put(world, [Service("tcp", 443, ip_address("0.0.0.0"))], 2)
        assert world.clients.reaches(2, to=OWN) == world.clients.reaches(2, to=LAN) == [True, False]
        assert world.clients.reaches(2) == NEITHER
        put(world, [], 2)
        assert reached(world, 2) == set()


@in_world
def test_what_passes_without_a_session_begins_none_and_anything_else_asks_for_one(world: World) -> None:
    with serving(world):
        put(world, [PORTAL, *NAMES], 2)
        assert world.clients.reaches(2, to=OWN) == BOTH
        assert world.clients.reaches(2, 53, "udp") == BOTH
        assert world.notices.read().clients == set()
        assert world.clients.reaches(2, protocol="udp") == NEITHER
        assert world.notices.read().clients == set(map(ip_address, CLIENTS[2]))


@in_world
def test_a_device_with_a_session_reaches_both_as_well_and_loses_all_else_with_it(world: World) -> None:
    with serving(world):
        put(world, [PORTAL, *NAMES], 2)
        world.open(CLIENTS[2])
        assert world.clients.reaches(2, to=OWN) == BOTH
        assert world.clients.reaches(2, 8080, to=OWN) == NEITHER, "of the gateway, only the portal"
        to = {"portal": OWN[0], "server": SERVER[0]}
        world.clients.connect(**{name: Probe(CLIENTS[2][0], address) for name, address in to.items()})
        world.close(CLIENTS[2])
        assert world.clients.goes_on("portal")
        assert not world.clients.goes_on("server")
        assert world.clients.reaches(2, 53, "udp") == BOTH


@in_world
def test_nobody_reaches_a_device_without_a_session_through_what_is_open(world: World) -> None:
    """A name server cannot begin a connection, nor send from its port what was not asked for."""
    put(world, [PORTAL, *NAMES], 2)
    serve(world.clients.namespace)
    for pair in zip(SERVER, CLIENTS[2], strict=True):
        world.servers.run(sys.executable, "-c", UNASKED, *pair)
    assert received(world) == 0
    question = [Probe(*pair, "udp") for pair in zip(SERVER, CLIENTS[2], strict=True)]
    assert json.loads(world.servers.run(*PROBES, "ask", input=json.dumps(question))) == ["", ""]
