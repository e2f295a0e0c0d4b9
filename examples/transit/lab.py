"""A transit router with a routing table for each attachment: three networks are apart, and all use shared services."""

from __future__ import annotations

from wgpy.labs.lab import Lab
from wgpy.labs.topology import Cable, Node, Topology, Tunnel
from wgpy.labs.traffic import Ping, fetch, ping, serve_web, wait_for

PROGRAMS = ("curl",)
APART = ("red", "green", "blue")
NETWORKS = {"red": 1, "green": 2, "blue": 3, "shared": 9}
TOPOLOGY = Topology(
    "A transit router with a table for each attachment",
    nodes=(
        Node("transit", 1.5, 0, "gateway", note="tables 101, 102, 103, 109"),
        Node("internet", 1.5, 1.2, "internet"),
        *(Node(name, column, 2.2, "gateway") for column, name in enumerate(NETWORKS)),
        *(Node(f"{name}-vm", column, 3.2) for column, name in enumerate(NETWORKS)),
    ),
    cables=(
        Cable("transit", "198.51.100.1/24", "198.51.100.254/24", "internet"),
        *(
            cable
            for name, number in NETWORKS.items()
            for cable in (
                Cable(name, f"203.0.{112 + number}.1/24", f"203.0.{112 + number}.254/24", "internet"),
                Cable(f"{name}-vm", f"10.{number}.0.2/16", f"10.{number}.0.1/16", name),
            )
        ),
    ),
    tunnels=tuple(Tunnel(name, "transit") for name in NETWORKS),
)


def run(lab: Lab) -> None:
    lab.step("Four attachments at the router, each with its own routing table, which is still empty")
    for script in ("routes.sh", "propagate.sh"):
        lab.file(script)
    lab.up(**{f"to-{name}": "transit" for name in NETWORKS}, **{name: name for name in NETWORKS})
    serve_web(lab["shared-vm"], lab.address("shared-vm"), 80, "the shared services")
    wait_for(lambda: len(called(lab)) == len(NETWORKS), 30)
    lab.check("four networks have connected", called(lab) == [*NETWORKS], f"handshakes with {', '.join(called(lab))}")
    open_ways = reachable(lab)
    lab.check("no network reaches another", not open_ways, f"{len(open_ways)} of 12 directions")

    lab.step("Propagation: add the shared services to the three tables, and the three networks to the services' table")
    propagate(lab, "shared", *APART)
    for name in APART:
        propagate(lab, name, "shared")
    lab.show(lab["transit"].run("ip", "rule"))
    lab.show(lab["transit"].run("ip", "route", "show", "table", "101"))
    pages = [fetch(lab[f"{name}-vm"], f"http://{lab.address('shared-vm')}/") for name in APART]
    read = pages.count("the shared services")
    lab.check("all three use the shared services", read == 3, f"{read} of 3 pages")
    open_ways = reachable(lab)
    wanted = {way for name in APART for way in ((name, "shared"), ("shared", name))}
    lab.check("no other network is reached", open_ways == wanted, f"{len(open_ways)} of 12 directions are open")
    question = ("ip", "route", "get", "10.2.0.2", "from", "10.1.0.2", "iif", lab.interface("to-red"))
    answer = lab["transit"].run(*question, check=False).strip()
    lab.check("a blackhole route refuses the rest", "Invalid argument" in answer, f"ip route get: {answer}")

    lab.step("Let red and green talk: two commands, while everything runs")
    propagate(lab, "red", "green")
    propagate(lab, "green", "red")
    now = reachable(lab)
    wanted |= {("red", "green"), ("green", "red")}
    lab.check(
        "red and green reach each other, blue is still apart", now == wanted, f"{len(now)} of 12 directions are open"
    )

    lab.step("Red sends from one of green's addresses")
    lab["red-vm"].run("ip", "address", "add", "10.2.0.66/32", "dev", "red")
    forged = ping(lab["red-vm"], lab.address("shared-vm"), "-I", "10.2.0.66", count=2)
    (peer,) = lab.status("to-red").peers
    dropped = dict(peer.drops).get("disallowed_source", 0)
    lab.check("the router's AllowedIPs refuse it", not forged and dropped >= 2, f"{dropped} dropped: disallowed_source")


def propagate(lab: Lab, name: str, *into: str) -> None:
    tables = [str(100 + NETWORKS[other]) for other in into]
    script = str(lab.file("propagate.sh"))
    lab["transit"].run("sh", script, f"10.{NETWORKS[name]}.0.0/16", lab.interface(f"to-{name}"), *tables)


def called(lab: Lab) -> list[str]:
    """The networks that have completed a handshake with the router."""
    return [name for name in NETWORKS if lab.status(f"to-{name}").peers[0].last_handshake_ns]


def reachable(lab: Lab) -> set[tuple[str, str]]:
    """The pairs of networks between which a ping is answered; all are tried at once, for three seconds."""
    ways = [(a, b) for a in NETWORKS for b in NETWORKS if a != b]
    tries = [Ping(lab[f"{a}-vm"], lab.address(f"{b}-vm"), "-c", "1", "-w", "3", interval=1) for a, b in ways]
    return {way for way, tried in zip(ways, tries, strict=True) if tried.result()}
