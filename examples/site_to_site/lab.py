"""Two offices, two subnets each, joined by their gateways over the Internet."""

from __future__ import annotations

import sys

from wgpy.labs.lab import Lab
from wgpy.labs.topology import Cable, Node, Topology, Tunnel
from wgpy.labs.traffic import fetch, iperf3, ping, serve_web

PROGRAMS = ("nft", "iperf3", "curl")
TOPOLOGY = Topology(
    "Two offices joined by a tunnel",
    nodes=(
        Node("desk", 0, 0, note="Paris, desks"),
        Node("studio", 0, 1.4, note="Paris, studio"),
        Node("paris", 1, 0.7, "gateway"),
        Node("internet", 2, 0.7, "internet"),
        Node("lyon", 3, 0.7, "gateway", note="MTU 1400"),
        Node("shop", 4, 0, note="Lyon, shop"),
        Node("files", 4, 1.4, note="Lyon, file server"),
    ),
    cables=(
        Cable("desk", "10.1.1.2/24", "10.1.1.1/24", "paris"),
        Cable("studio", "10.1.2.2/24", "10.1.2.1/24", "paris"),
        Cable("shop", "10.2.1.2/24", "10.2.1.1/24", "lyon"),
        Cable("files", "10.2.2.2/24", "10.2.2.1/24", "lyon"),
        Cable("paris", "198.51.100.1/24", "198.51.100.254/24", "internet"),
        Cable("lyon", "203.0.113.1/24", "203.0.113.254/24", "internet", mtu=1400),
    ),
    tunnels=(Tunnel("paris", "lyon", "10.1.0.0/16 ⇄ 10.2.0.0/16"),),
)
FIREWALL = """table ip firewall {
    chain output { type filter hook output priority filter; icmp type destination-unreachable drop; }
}"""
SIZE = 200_000  # bytes of a download by which to see whether TCP runs


def run(lab: Lab) -> None:
    lab.step("Without a tunnel: the Internet does not route the offices' private addresses")
    before = ping(lab["desk"], lab.address("files"), count=2)
    lab.check("without a tunnel, the offices cannot reach each other", not before, f"{before} pings")

    lab.step("`wgpy up` at both gateways")
    lab.file("clamp.nft")
    lab.up(paris="paris", lyon="lyon")
    lab.show(lab["paris"].run("ip", "route"))
    pairs = [(a, b) for a in ("desk", "studio") for b in ("shop", "files")]
    found = [ping(lab[a], lab.address(b)) for a, b in pairs] + [ping(lab[b], lab.address(a)) for a, b in pairs]
    worst = max(pings.median_ms for pings in found)
    lab.check(
        "every host reaches every host", all(found), f"{sum(map(bool, found))} of 8 directions, up to {worst:.1f} ms"
    )
    near, far = (ping(lab["desk"], lab.address("files"), "-t", str(hops), count=2) for hops in (2, 3))
    lab.check(
        "the way is two gateways and no Internet", not near and bool(far), f"{near} pings with a TTL of 2, {far} of 3"
    )

    lab.step("Lyon's line carries 1400 bytes, so the tunnel's MTU is 1320; the clamp tells TCP before anything is lost")
    mtu = lab["lyon"].run("cat", f"/sys/class/net/{lab.interface('lyon')}/mtu").strip()
    lab.check("Lyon's tunnel has the MTU of its line, less 80", mtu == "1320", mtu)
    full, more = (
        ping(lab["shop"], lab.address("studio"), "-M", "do", "-s", str(size), count=2) for size in (1292, 1293)
    )
    text = f"{full} pings of 1320 bytes, {more} of 1321"
    lab.check("a full packet passes, one with a byte more does not", bool(full) and not more, text)
    longer = ping(lab["studio"], lab.address("shop"), "-M", "do", "-s", "1392", count=2)
    lab.check("full packets from Paris arrive as fragmented datagrams", bool(longer), f"{longer} pings of 1420 bytes")

    lab.step("The worst case: firewalls drop every ICMP error; first without the clamp, then with it")
    serve_web(lab["files"], lab.address("files"), 80, "")
    for gateway in ("paris", "lyon"):
        lab[gateway].run("nft", FIREWALL)
        lab[gateway].run("nft", "flush", "chain", "ip", "clamp", "forward")
    page, counting = f"http://{lab.address('files')}/bytes/{SIZE}", ("-o", "/dev/null", "-w", "%{size_download}")
    got = fetch(lab["desk"], page, *counting, seconds=2)
    lab.check("without the clamp, TCP stalls", got != str(SIZE), f"{got} of {SIZE} bytes")
    for gateway in ("paris", "lyon"):
        lab[gateway].run("nft", "-D", f"wg={lab.interface(gateway)}", "-f", str(lab.file("clamp.nft")))
    got = fetch(lab["desk"], page, *counting)
    lab.check("with the clamp, TCP works", got == str(SIZE), f"{got} of {SIZE} bytes")
    for a, b in (("desk", "files"), ("files", "desk")):
        report = iperf3(lab[a], lab[b], lab.address(b), "-n", "4M")["sum_received"]
        lab.check(f"from {a} to {b}", report["bytes"] > 0, f"{report['bits_per_second'] / 1e6:.0f} Mbit/s")
    size = segment_size(lab)
    lab.check("the clamp set the segment size", size == 1280, f"{size} bytes")

    lab.step("`wgpy check` finds that a third office's subnet overlaps")
    said = lab.wgpy("paris", "check", str(lab.file("overlap.conf"))).replace(f"{lab.directory}/", "")
    lab.show(said)
    text = said.partition(" (warning)")[0].rpartition("AllowedIPs: ")[2]
    lab.check("the overlap is named", text.startswith("10.2.2.0/24 is part of 10.2.0.0/16"), text)


def segment_size(lab: Lab) -> int:
    """The segment size that a new connection from Paris to Lyon agrees on, in bytes."""
    program = (
        "import socket; s = socket.create_connection(('{}', 80), 20); "
        "print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))"
    )
    said = lab["desk"].run(sys.executable, "-c", program.format(lab.address("files")), check=False)
    return int(said) + 12 if said.strip().isdigit() else 0  # the kernel subtracts the room for timestamps
