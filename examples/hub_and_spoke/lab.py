"""Hub and spoke: branches reach one another through a hub, whose firewall decides what each of them may do."""

from __future__ import annotations

from wgpy.labs.lab import Lab
from wgpy.labs.topology import Cable, Node, Topology, Tunnel
from wgpy.labs.traffic import Ping, fetch, ping, serve_web, wait_for

PROGRAMS = ("nft", "curl")
BRANCHES = ("lille", "nice", "brest")
TOPOLOGY = Topology(
    "Branches around a hub",
    nodes=(
        Node("hub", 2, 0, "gateway"),
        Node("internet", 2, 1, "internet"),
        *(Node(name, column, 2, "gateway") for column, name in enumerate((*BRANCHES, "metz"), 1)),
        *(Node(f"{name}-pc", column, 3) for column, name in enumerate((*BRANCHES, "metz"), 1)),
    ),
    cables=(
        Cable("hub", "198.51.100.1/24", "198.51.100.254/24", "internet"),
        *(
            cable
            for number, name in enumerate((*BRANCHES, "metz"), 1)
            for cable in (
                Cable(name, f"203.0.{112 + number}.1/24", f"203.0.{112 + number}.254/24", "internet"),
                Cable(f"{name}-pc", f"10.{number}.0.2/24", f"10.{number}.0.1/24", name),
            )
        ),
    ),
    tunnels=tuple(Tunnel(name, "hub") for name in (*BRANCHES, "metz")),
)


def run(lab: Lab) -> None:
    lab.step("`wgpy up` at the hub and three branches")
    lab.file("branches.nft")
    lab.up(hub="hub", **{name: name for name in BRANCHES})
    wait_for(lambda: len(handshakes(lab)) == len(BRANCHES), 30)
    called = handshakes(lab)
    lab.check("each branch has connected to the hub", called.keys() == set(BRANCHES), f"{len(called)} handshakes")
    pairs = [(a, b) for a in ("lille", "nice") for b in BRANCHES if a != b]
    found = [ping(lab[f"{a}-pc"], lab.address(f"{b}-pc")) for a, b in pairs]
    lab.check("branches reach one another", all(found), f"{sum(map(bool, found))} of {len(pairs)} directions")
    near, far = (ping(lab["lille-pc"], lab.address("nice-pc"), "-t", str(hops), count=2) for hops in (3, 4))
    lab.check("their packets pass the hub", not near and bool(far), f"{near} pings with a TTL of 3, {far} of 4")
    peers = [peer.name for peer in lab.status("lille").peers]
    lab.check("a branch has no peer but the hub", peers == ["hub"], f"Lille's peers: {', '.join(peers)}")

    lab.step("The hub's rules: Brest may use the others' web servers, and nothing else")
    serve_web(lab["lille-pc"], lab.address("lille-pc"), 80, "welcome")
    serve_web(lab["lille-pc"], lab.address("lille-pc"), 8080, "the books")
    shop, url = lab["brest-pc"], f"http://{lab.address('lille-pc')}"
    page, books = fetch(shop, f"{url}/"), fetch(shop, f"{url}:8080/", seconds=2)
    pings = ping(shop, lab.address("nice-pc"), count=2)
    lab.check("Brest can read Lille's web page", page == "welcome", repr(page))
    lab.check(
        "Brest can neither read Lille's books nor ping Nice", not books and not pings, f"{books!r}, {pings} pings"
    )
    books = fetch(lab["nice-pc"], f"{url}:8080/")
    lab.check("Nice, which is not restricted, can read the books", books == "the books", repr(books))

    lab.step("A fourth branch: one more [Peer] at the hub, and `wgpy apply` while the others send packets")
    before = handshakes(lab)
    talk = Ping(lab["lille-pc"], lab.address("nice-pc"), interval=0.02)
    file = lab.file("hub.conf")
    file.write_text(file.read_text() + lab.file("newcomer.conf").read_text())
    lab.show(lab.wgpy("hub", "apply", str(file)))
    lab.up(metz="metz")
    joined = wait_for(lambda: bool(ping(lab["metz-pc"], lab.address("lille-pc"), count=1)), 30)
    lab.check("Metz reaches Lille", joined, "yes" if joined else "no")
    pings = talk.result()
    unnoticed = pings.received > 0 and not pings.missed
    lab.check("the others lost no packet", unnoticed, f"{pings.missed} of {pings.sent} pings from Lille to Nice lost")
    after = handshakes(lab)
    kept = all(after[name] == before[name] for name in BRANCHES)
    lab.check("the others kept their sessions", kept, "no new handshake" if kept else f"{before}, {after}")


def handshakes(lab: Lab) -> dict[str, int]:
    """The time of the hub's last handshake with each branch that has had one."""
    return {peer.name: peer.last_handshake_ns for peer in lab.status("hub").peers if peer.last_handshake_ns}
