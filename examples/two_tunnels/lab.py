"""Two tunnels between two clouds: traffic uses the preferred one, moves to the other if that fails, and moves back."""

from __future__ import annotations

import time

from wgpy.labs.lab import Lab
from wgpy.labs.topology import Cable, Node, Topology, Tunnel
from wgpy.labs.traffic import Ping, ping, wait_for

TOPOLOGY = Topology(
    "Two clouds and two ways between them",
    nodes=(
        Node("west-vm", 0, 0.7),
        Node("west", 1, 0.7, "gateway"),
        Node("isp1", 2, 0, "internet"),
        Node("isp2", 2, 1.4, "internet"),
        Node("east", 3, 0.7, "gateway"),
        Node("east-vm", 4, 0.7),
    ),
    cables=(
        Cable("west-vm", "10.10.0.2/16", "10.10.0.1/16", "west"),
        Cable("east-vm", "10.20.0.2/16", "10.20.0.1/16", "east"),
        Cable("west", "198.51.100.1/24", "198.51.100.254/24", "isp1"),
        Cable("west", "198.51.101.1/24", "198.51.101.254/24", "isp2"),
        Cable("east", "203.0.113.1/24", "203.0.113.254/24", "isp1"),
        Cable("east", "203.0.114.1/24", "203.0.114.254/24", "isp2"),
    ),
    tunnels=(Tunnel("west", "east", "tunnel 1, metric 100"), Tunnel("west", "east", "tunnel 2, metric 200")),
)
PATIENCE = 30.0  # seconds


def run(lab: Lab) -> None:
    east = lab.address("east-vm")
    lab.step("`wgpy up` of two tunnels, one over each provider")
    for gateway, others in (("west", ("203.0.113", "203.0.114")), ("east", ("198.51.100", "198.51.101"))):
        for number, other in enumerate(others, 1):
            own = lab.topology.addresses(gateway)[number].rpartition(".")[0]
            lab[gateway].run("ip", "route", "add", f"{other}.0/24", "via", f"{own}.254")
    lab.file("watch.sh")
    lab.up(west1="west", west2="west", east1="east", east2="east")
    both = wait_for(lambda: all(routes(lab, gateway) == [1, 2] for gateway in ("west", "east")), PATIENCE)
    lab.show(lab["west"].run("ip", "route", "show", "10.20.0.0/16"))
    lab.check("each gateway has a route through both", both, "metrics 100 and 200" if both else "no")
    now = carrier(lab, 1)
    lab.check("tunnel 1 carries the traffic", now == 1, f"{ping(lab['west-vm'], east)} pings, through tunnel {now}")

    lab.step("The first provider drops everything")
    gap = moved(lab, forwarding="0", to=2)
    now = carrier(lab, 2)
    lab.check("traffic moved to tunnel 2", now == 2, f"through tunnel {now}, {gap:.1f} s without an answer")
    lab.check("pings were lost for a few seconds only", 0 < gap < PATIENCE, f"{gap:.1f} s")
    lab.step("The first provider is back")
    gap = moved(lab, forwarding="1", to=1)
    now = carrier(lab, 1)
    lab.check("traffic is back on tunnel 1", now == 1, f"through tunnel {now}, {gap:.1f} s without an answer")


def routes(lab: Lab, gateway: str) -> list[int]:
    """The tunnels through which a gateway has a route to the other cloud, the preferred one first."""
    network = "10.20.0.0/16" if gateway == "west" else "10.10.0.0/16"
    lines = lab[gateway].run("ip", "route", "show", network).splitlines()
    return [int(line.partition(f"dev {gateway}")[2][0]) for line in lines if f"dev {gateway}" in line]


def carrier(lab: Lab, expected: int) -> int:
    """The tunnel that carries ten pings from cloud to cloud, by its counters, once it is the expected one.

    0 if both carried some: on a busy machine, watch.sh may run late and remove a route for a moment.
    """
    found = 0

    def settled() -> bool:
        nonlocal found
        before = [sent(lab, number) for number in (1, 2)]
        ping(lab["west-vm"], lab.address("east-vm"), "-s", "1000", count=10, interval=0.02)
        carried = [sent(lab, number) - was > 10_000 for number, was in zip((1, 2), before, strict=True)]
        found = carried.index(True) + 1 if carried.count(True) == 1 else 0
        return found == expected

    wait_for(settled, PATIENCE)
    return found


def sent(lab: Lab, number: int) -> int:
    return lab.status(f"west{number}").peers[0].tx_bytes


def moved(lab: Lab, *, forwarding: str, to: int) -> float:
    """Break or repair the first provider during pings; returns the longest time without an answer, in seconds."""
    pings = Ping(lab["west-vm"], lab.address("east-vm"), interval=0.05)
    lab["isp1"].run("sysctl", "-qw", f"net.ipv4.ip_forward={forwarding}")
    there = [2] if to == 2 else [1, 2]
    wait_for(lambda: all(routes(lab, gateway) == there for gateway in ("west", "east")), PATIENCE)
    wait_for(lambda: bool(ping(lab["west-vm"], lab.address("east-vm"), count=1)), PATIENCE)
    time.sleep(0.5)  # in which the last ones are answered
    return pings.result().gap
