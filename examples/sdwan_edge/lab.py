"""An SD-WAN edge: a branch with two uplinks, and other WireGuard software at headquarters."""

from __future__ import annotations

import subprocess

from wgpy.labs.lab import Lab
from wgpy.labs.topology import Cable, Node, Topology, Tunnel
from wgpy.labs.traffic import ping, serve_web, wait_for

PROGRAMS = ("nft", "curl", "wg", "wireguard-go")
TOPOLOGY = Topology(
    "A branch with two uplinks",
    nodes=(
        Node("pc", 0, 0.7),
        Node("branch", 1, 0.7, "gateway", note="wgpy"),
        Node("fibre", 2, 0, "gateway", note="5 ms"),
        Node("lte", 2, 1.4, "gateway", note="40 ms"),
        Node("internet", 3, 0.7, "internet"),
        Node("hq", 4, 0.7, "gateway", note="wireguard-go"),
        Node("server", 5, 0.7),
    ),
    cables=(
        Cable("pc", "10.1.0.2/24", "10.1.0.1/24", "branch"),
        Cable("branch", "10.0.2.2/24", "10.0.2.1/24", "lte", delay_ms=40),
        Cable("branch", "10.0.1.2/24", "10.0.1.1/24", "fibre", delay_ms=5),
        Cable("fibre", "203.0.113.1/24", "203.0.113.254/24", "internet"),
        Cable("lte", "203.0.114.1/24", "203.0.114.254/24", "internet"),
        Cable("hq", "198.51.100.1/24", "198.51.100.254/24", "internet"),
        Cable("server", "10.2.0.2/24", "10.2.0.1/24", "hq"),
    ),
    tunnels=(Tunnel("branch", "hq", "one tunnel"),),
)
NAT = "table ip nat { chain out { type nat hook postrouting priority srcnat; oifname internet masquerade; }; }"
FIBRE, LTE = "203.0.113.1", "203.0.114.1"
SIZE = 5_000_000  # bytes of the download during which the fibre begins to lose packets
PATIENCE = 60.0  # seconds


def run(lab: Lab) -> None:
    for router in ("fibre", "lte"):
        lab[router].run("nft", NAT)
    lab["branch"].run("ip", "route", "add", "default", "via", "10.0.1.1", "dev", "fibre", "metric", "10")

    lab.step("wireguard-go and `wg setconf` at headquarters, `wgpy up` at the branch")
    lab.wireguard_go("hq", "hq")
    lab["hq"].run("ip", "route", "add", "10.1.0.0/24", "dev", lab.interface("hq"))
    lab.file("uplinks.sh")
    lab.up(branch="branch")
    serve_web(lab["server"], lab.address("server"), 80, "headquarters")
    came = wait_for(lambda: came_by(lab) == FIBRE, PATIENCE)
    lab.show(lab["hq"].run("wg", "show", lab.interface("hq")))
    by_fibre = ping(lab["pc"], lab.address("server"), count=10)
    lab.check("the tunnel uses the faster uplink", came, f"from {came_by(lab)}, {by_fibre.median_ms:.0f} ms")

    lab.step("During a download, the fibre begins to lose a third of all packets")
    where = f"http://{lab.address('server')}/bytes/{SIZE}"
    report = ("-o", "/dev/null", "-w", "%{size_download} %{num_connects}")
    download = lab["pc"].popen("curl", "-s", "-m", "120", "--limit-rate", "1M", *report, where, stdout=subprocess.PIPE)
    wait_for(lambda: sent(lab) > SIZE // 10, PATIENCE)
    lab.quality("branch", "fibre", delay_ms=5, loss=0.33)
    moved = wait_for(lambda: came_by(lab) == LTE, PATIENCE)
    under_way = download.poll() is None
    lab.check(
        "the tunnel moves to the other uplink", moved and under_way, f"from {came_by(lab)}, while the download runs"
    )
    size, connections = download.communicate(timeout=130)[0].split()
    lab.check(
        "the download's connection is kept", size == str(SIZE), f"{size} of {SIZE} bytes by {connections} connection"
    )
    by_lte = ping(lab["pc"], lab.address("server"), count=10)
    slower = by_lte.median_ms > by_fibre.median_ms and by_lte.received > 5
    lab.check(
        "the other uplink is slower but loses hardly anything", slower, f"{by_lte.median_ms:.0f} ms, {by_lte} pings"
    )

    lab.step("The fibre works again")
    before = lab.status("branch").peers[0].last_handshake_ns
    lab.quality("branch", "fibre", delay_ms=5, loss=0)
    back = wait_for(lambda: came_by(lab) == FIBRE, PATIENCE)
    found = ping(lab["pc"], lab.address("server"), count=10)
    lab.check("the tunnel is back on the fibre", back, f"from {came_by(lab)}, {found.median_ms:.0f} ms")
    kept = lab.status("branch").peers[0].last_handshake_ns == before
    lab.check("moving costs no handshake", kept, "none" if kept else "a new one")


def came_by(lab: Lab) -> str:
    """The address from which headquarters last received a packet of the branch."""
    words = lab["hq"].run("wg", "show", lab.interface("hq"), "endpoints").split()
    return words[1].partition(":")[0]


def sent(lab: Lab) -> int:
    """Bytes that headquarters has sent into the tunnel."""
    return int(lab["hq"].run("wg", "show", lab.interface("hq"), "transfer").split()[2])
