"""Remote access: laptops get access to a private network, each to what its group may use, until it is revoked."""

from __future__ import annotations

import subprocess
from ipaddress import ip_network

from wgpy.config.values import InterfaceConfig
from wgpy.config.wgquick import parse
from wgpy.labs.gateway import Gateway
from wgpy.labs.lab import Lab
from wgpy.labs.topology import Cable, Node, Topology, Tunnel
from wgpy.labs.traffic import fetch, ping, serve_names, serve_web, wait_for

PROGRAMS = ("nft", "curl")
TOPOLOGY = Topology(
    "Laptops in a private network",
    nodes=(
        Node("laptop", 0, 0.5, note="Alice"),
        Node("wifi", 1, 0, "gateway", note="a router with NAT"),
        Node("lte", 1, 1.1, "gateway", note="a router with NAT"),
        Node("desktop", 0, 2.2, note="Bob"),
        Node("internet", 2, 1.1, "internet"),
        Node("shop", 2, 2.4, note="a public web site"),
        Node("gateway", 3, 1.1, "gateway", note="pool 10.99.0.0/24"),
        Node("wiki", 4, 0.4, note="wiki.corp.test, DNS"),
        Node("db", 4, 1.8, note="databases"),
    ),
    cables=(
        Cable("laptop", "192.168.1.2/24", "192.168.1.1/24", "wifi"),
        Cable("laptop", "192.168.2.2/24", "192.168.2.1/24", "lte"),
        Cable("wifi", "203.0.113.1/24", "203.0.113.254/24", "internet"),
        Cable("lte", "203.0.114.1/24", "203.0.114.254/24", "internet"),
        Cable("desktop", "203.0.115.2/24", "203.0.115.254/24", "internet"),
        Cable("shop", "192.0.2.80/24", "192.0.2.254/24", "internet"),
        Cable("gateway", "198.51.100.1/24", "198.51.100.254/24", "internet"),
        Cable("wiki", "10.50.1.10/24", "10.50.1.1/24", "gateway"),
        Cable("db", "10.50.2.10/24", "10.50.2.1/24", "gateway"),
    ),
    tunnels=(Tunnel("gateway", "laptop", "split"), Tunnel("desktop", "gateway", "full")),
)
NAT = "table ip nat { chain out { type nat hook postrouting priority srcnat; oifname internet masquerade; }; }"
CURL = ("curl", "-s", "-m", "90")
RULES = (  # the most specific prefix that contains a destination decides
    ("offices", "10.50.0.0/16", "staff"),
    ("databases", "10.50.2.0/24", "database-admins"),
    ("internet", "0.0.0.0/0", "staff"),
)
SIZE = 4_000_000  # bytes of the download during which Alice moves


def run(lab: Lab) -> None:
    laptop, desktop = lab["laptop"], lab["desktop"]
    wiki, db, shop = (f"http://{lab.address(name)}/" for name in ("wiki", "db", "shop"))
    for router in ("wifi", "lte"):
        lab[router].run("nft", NAT)
    for name in ("wiki", "db", "shop"):
        if name != "shop":
            lab[name].run("ip", "route", "delete", "default")
        serve_web(lab[name], lab.address(name), 80, f"{name} greets CLIENT")
    serve_names(lab["wiki"], lab.address("wiki"), **{"wiki.corp.test": lab.address("wiki")})

    lab.step("`wgpy gateway`: two groups, a rule each, and Alice and Bob, who are in none of them yet")
    gateway = Gateway(lab)
    gateway.init(f"--pool 10.99.0.0/24 --dns {lab.address('wiki')}")
    for rule, prefix, group in RULES:
        gateway.command(f"group add {group}", check=False)
        gateway.command(f"rule add {rule} {prefix} --group {group}")
    gateway.command("route add 10.50.0.0/16")
    gateway.command("user add alice")
    gateway.device("alice", user="alice")
    gateway.command("endpoint set --full-tunnel")
    gateway.command("route add 0.0.0.0/0")
    gateway.command("user add bob")
    gateway.device("bob", user="bob")
    gateway.run()
    lab.show(gateway.command("device list"))
    networks = {name: read(lab, name).peers[0].allowed_ips for name in ("alice", "bob")}
    text = "; ".join(f"{name}: {', '.join(map(str, each))}" for name, each in networks.items())
    good = ip_network("0.0.0.0/0") in networks["bob"] and ip_network("0.0.0.0/0") not in networks["alice"]
    lab.check("Alice's file has the private network, Bob's has everything", good, text)
    page = by_name(lab, seconds=2)
    lab.check("nobody is authorized yet", not page, repr(page))
    gateway.command("user set alice --group staff")
    gateway.command("user set bob --group staff --group database-admins")
    wait_for(lambda: bool(by_name(lab, seconds=2)))
    page = by_name(lab)
    lab.check("Alice reads the wiki by name, with the DNS of her file", page == "wiki greets 10.50.1.1", repr(page))

    lab.step("`wgpy up` on both. The wiki needs no route to the pool, because it sees the gateway's address")
    for name in ("alice", "bob"):
        without_dns(lab, name)
    lab.up(alice="laptop", bob="desktop")
    hers, his = fetch(laptop, wiki), fetch(desktop, wiki)
    lab.check("both read the wiki", hers == his == "wiki greets 10.50.1.1", f"Alice {hers!r}, Bob {his!r}")
    hers, his = fetch(laptop, db, seconds=2), fetch(desktop, db)
    good = not hers and his == "db greets 10.50.2.1"
    lab.check("the longest prefix decides: only Bob reaches the databases", good, f"Alice {hers!r}, Bob {his!r}")
    hers, his = fetch(laptop, shop), fetch(desktop, shop)
    good = hers == "shop greets 203.0.113.1" and his == "shop greets 198.51.100.1"
    lab.check("Alice's tunnel is split, Bob's full", good, f"Alice {hers!r}, Bob {his!r}")

    lab.step("Alice leaves the Wi-Fi in the middle of a download")
    before = str(gateway.peer("alice").endpoint)
    command = (*CURL, "--limit-rate", "1M", "-w", "%{size_download}", "-o", "/dev/null", f"{wiki}bytes/{SIZE}")
    download = laptop.popen(*command, stdout=subprocess.PIPE)
    wait_for(lambda: gateway.peer("alice").tx_bytes > SIZE // 8, 30)
    laptop.run("ip", "link", "set", "wifi", "down")
    laptop.run("ip", "route", "replace", "default", "via", "192.168.2.1")
    size = download.communicate(timeout=100)[0]
    lab.check("the download completes", size == str(SIZE), f"{size} of {SIZE} bytes")
    after = str(gateway.peer("alice").endpoint)
    moved = before.startswith("203.0.113.1:") and after.startswith("203.0.114.1:")
    lab.check("the gateway sends to her new address", moved, f"from {before} to {after}")

    lab.step("`wgpy gateway device disable alice`, while she is connected")
    gateway.command("device disable alice")
    wait_for(lambda: not ping(laptop, lab.address("wiki"), count=1), 5)
    pings = {"Alice": ping(laptop, lab.address("wiki"), count=2), "Bob": ping(desktop, lab.address("wiki"), count=2)}
    text = ", ".join(f"{name} {found}" for name, found in pings.items())
    lab.check("Alice is cut off, and Bob is not affected", not pings["Alice"] and pings["Bob"].received == 2, text)
    gateway.command("device enable alice")
    back = wait_for(lambda: bool(ping(laptop, lab.address("wiki"), count=1)), 60)  # first her tunnel must seem dead
    lab.check("`wgpy gateway device enable alice`: she is connected again", back, "yes" if back else "no")
    lab.show(gateway.command("log"))


def by_name(lab: Lab, seconds: int = 20) -> str:
    """Fetch the wiki as Alice, by name, through a tunnel that needs no privileges."""
    curl = ("curl", "-s", "-m", str(seconds), "http://wiki.corp.test/")
    return lab.wgpy("laptop", "exec", str(lab.file("alice.conf")), "--", *curl, check=False).strip()


def without_dns(lab: Lab, name: str) -> None:
    """Remove DNS from a file: all nodes of a lab share this machine's resolver, which `up` must not change."""
    file = lab.file(f"{name}.conf")
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("DNS")))


def read(lab: Lab, name: str) -> InterfaceConfig:
    return parse(lab.file(f"{name}.conf").read_text()).config
