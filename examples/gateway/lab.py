"""A gateway: three people in two groups reach what their groups may, until somebody or the clock says otherwise."""

from __future__ import annotations

import time

from wgpy.config.wgquick import parse
from wgpy.labs.gateway import Gateway
from wgpy.labs.lab import Lab
from wgpy.labs.topology import Cable, Node, Topology, Tunnel
from wgpy.labs.traffic import fetch, ping, serve_web, wait_for

PROGRAMS = ("nft", "curl", "wg", "wireguard-go")
TOPOLOGY = Topology(
    "Three people and two groups",
    nodes=(
        Node("alice", 0, 0, note="staff, wgpy"),
        Node("bob", 0, 1.1, note="ops, wireguard-go"),
        Node("carol", 0, 2.2, note="staff and ops, wgpy"),
        Node("internet", 1.4, 1.1, "internet"),
        Node("gateway", 2.8, 1.1, "gateway", note="pool 10.99.0.0/24"),
        Node("wiki", 4, 0.4, note="10.50.1.0/24"),
        Node("db", 4, 1.8, note="10.50.2.0/24"),
    ),
    cables=(
        Cable("alice", "203.0.113.2/24", "203.0.113.254/24", "internet"),
        Cable("bob", "203.0.114.2/24", "203.0.114.254/24", "internet"),
        Cable("carol", "203.0.115.2/24", "203.0.115.254/24", "internet"),
        Cable("gateway", "198.51.100.1/24", "198.51.100.254/24", "internet"),
        Cable("wiki", "10.50.1.10/24", "10.50.1.1/24", "gateway"),
        Cable("db", "10.50.2.10/24", "10.50.2.1/24", "gateway"),
    ),
    tunnels=(Tunnel("gateway", "alice", ""), Tunnel("gateway", "bob", ""), Tunnel("gateway", "carol", "")),
)
GROUPS = {"alice": ("staff",), "bob": ("ops",), "carol": ("staff", "ops")}
SIZE = 400_000_000  # bytes of a download that nobody waits for


def run(lab: Lab) -> None:
    for name in ("wiki", "db"):
        lab[name].run("ip", "route", "delete", "default")
        serve_web(lab[name], lab.address(name), 80, f"{name} greets CLIENT")

    lab.step("`wgpy gateway init`, two groups, their rules, three users with a device each, and `wgpy gateway run`")
    gateway = Gateway(lab)
    gateway.init("--pool 10.99.0.0/24 --sign-in")
    for group, prefix in (("staff", "10.50.0.0/16"), ("ops", "10.50.2.0/24")):
        gateway.command(f"group add {group}")
        gateway.command(f"rule add {group} {prefix} --group {group}")
    gateway.command("route add 10.50.0.0/16")
    for name, groups in GROUPS.items():
        gateway.command(f"user add {name} {' '.join(f'--group {group}' for group in groups)}")
        gateway.device(name, user=name)
    service, status = gateway.run(), gateway.status()
    lab.check("it runs", status["healthy"], f"{status['devices']} devices, {status['rules']} rules")

    lab.step("Each connects with a stock client. Nothing passes before the person has signed in")
    lab.up(alice="alice", carol="carol")
    stock_client(lab, "bob")
    early = {name: ["the wiki"] * bool(ping(lab[name], lab.address("wiki"), count=2)) for name in GROUPS}
    lab.check("nobody reaches anything yet", not any(early.values()), words(early))
    for name in GROUPS:
        gateway.command(f"device sign-in {name}")
    for name, place in (("alice", "wiki"), ("bob", "db"), ("carol", "db")):
        reaches(lab, name, place)
    reached = {
        name: [place for place in ("wiki", "db") if fetch(lab[name], url(lab, place), seconds=2)] for name in GROUPS
    }
    expected = {"alice": ["wiki"], "bob": ["db"], "carol": ["wiki", "db"]}
    lab.check("each reaches what their groups may", reached == expected, words(reached))
    lab.show(gateway.command("test alice 10.50.2.10:80/tcp", check=False))
    page = fetch(lab["carol"], url(lab, "wiki"))
    lab.check("servers see the gateway's address", page == "wiki greets 10.50.1.1", repr(page))

    lab.step("`wgpy gateway user disable alice`, while she downloads")
    download = lab["alice"].popen(
        "curl", "-s", "--limit-rate", "2M", "-o", "/dev/null", f"{url(lab, 'wiki')}bytes/{SIZE}"
    )
    began = wait_for(lambda: received(lab, "alice") > 1_000_000)
    lab.check("she downloads", began, f"{received(lab, 'alice')} bytes")
    gateway.command("user disable alice")
    time.sleep(1)
    counts = [received(lab, "alice")]
    time.sleep(1)
    counts.append(received(lab, "alice"))
    lab.check("a second later nothing more arrives", counts[0] == counts[1], f"{counts[0]} and {counts[1]} bytes")
    download.kill()
    bob = fetch(lab["bob"], url(lab, "db"))
    lab.check("Bob is not affected", bool(bob), repr(bob))

    lab.step("`wgpy gateway endpoint set --session-max 5s`: sessions that are older end, and Bob signs in again")
    gateway.command("endpoint set --session-max 5s")
    ended = wait_for(lambda: not gateway.sessions(), 5)
    lab.check("every session is over", ended, f"{len(gateway.sessions())} left")
    gateway.command("endpoint set --session-max 8h")
    gateway.command("device sign-in bob")
    back = reaches(lab, "bob", "db")
    lab.check("Bob is back, with the same tunnel", back, "yes" if back else "no")

    lab.step("`wgpy gateway run` is killed: sessions go on")
    service.kill()
    service.wait()
    bob = fetch(lab["bob"], url(lab, "db"))
    lab.check("Bob still reaches the database", bool(bob), repr(bob))
    lab.show(gateway.command("log"))


def stock_client(lab: Lab, name: str) -> None:
    """Run wireguard-go with a device's file. `wg` reads all of it but addresses, which `ip` sets."""
    path = lab.file(f"{name}.conf")
    config = parse(path.read_text()).config
    path.write_text(lab.wgpy(name, "strip", str(path)))
    lab.wireguard_go(name, name, *map(str, config.addresses))
    for network in config.peers[0].allowed_ips:
        lab[name].run("ip", "route", "replace", str(network), "dev", lab.interface(name))


def reaches(lab: Lab, name: str, place: str) -> bool:
    """Wait until somebody reaches a server. Returns whether they do."""
    return wait_for(lambda: bool(fetch(lab[name], url(lab, place), seconds=2)))


def received(lab: Lab, name: str) -> int:
    """How many bytes somebody's tunnel has received; a program's own count would go on with what lies in its buffer."""
    return lab.status(name).peers[0].rx_bytes


def url(lab: Lab, name: str) -> str:
    return f"http://{lab.address(name)}/"


def words(found: dict[str, list[str]]) -> str:
    return ", ".join(f"{name} {' and '.join(each) or 'nothing'}" for name, each in found.items())
