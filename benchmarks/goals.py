"""What is measured, in which unit, and the goals: the rows of docs/performance.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from statistics import median
from typing import Final, NamedTuple

from benchmarks.results import Results

WGPY, GO, OLD_GO, BORINGTUN, GOTATUN = "wgpy", "wireguard-go", "wireguard-go (Debian)", "boringtun", "gotatun"
OPENVPN, KERNEL, IPSEC = "OpenVPN", "Linux", "IPsec"
GVISOR: Final = "wireguard-go with gVisor"
CUBIC, BBR = "Linux's CUBIC", "Linux's BBR"
MANY_PEERS: Final = 10_000
MANY_ALLOWED_IPS: Final = 130_561


class Measure(NamedTuple):
    title: str
    unit: str
    more_is_better: bool = True
    name: str = ""  # its name for `python -m benchmarks`, if it is not the measure's key


MEASURES: Final = {
    "tcp": Measure("TCP, one flow", "Mbit/s"),
    "tcp8": Measure("TCP, 8 flows", "Mbit/s"),
    "tcp50": Measure("TCP, 50 flows", "Mbit/s"),
    "tcp_both": Measure("TCP, both directions at once", "Mbit/s"),
    "tcp_inner6": Measure("TCP, IPv6 inner", "Mbit/s"),
    "tcp_outer6": Measure("TCP, IPv6 outer", "Mbit/s"),
    "udp": Measure("UDP, single datagrams of 1,300 bytes, without loss", "Mbit/s"),
    "udp_gso": Measure("UDP with GSO, without loss", "Mbit/s"),
    "ping_idle": Measure("ping, idle, 5 a second", "ms", False),
    "ping_often": Measure("ping, idle, 1,000 a second", "ms", False),
    "ping_load": Measure("ping, under TCP", "ms", False),
    "memory": Measure("resident memory after load", "MiB", False),
    "handshakes": Measure("handshakes answered, one core", "/s"),
    "flood_spoofed": Measure("17 handshakes while 9,000/s come in the peer's name: answered", "", True, "floods"),
    "flood_12000": Measure("newcomers while 12,000/s flood: initiations until answered", "", False, "floods"),
    "flood_60000": Measure("newcomers while 60,000/s flood: initiations until answered", "", False, "floods"),
    "flood_window": Measure("2,000 behind one address, 64 at once: answered", "", True, "floods"),
    "flood_crowd": Measure("5,000 behind one address in a second: until connected", "s", False, "floods"),
    "rootless": Measure("TCP without root, by open_connection", "Mbit/s"),
    "rooted": Measure("TCP, one flow, to wireguard-go", "Mbit/s", True, "rootless"),
    "stack_download": Measure("own TCP/IP: download, one connection", "Mbit/s", True, "stack"),
    "stack_upload": Measure("own TCP/IP: upload, one connection", "Mbit/s", True, "stack"),
    "stack_downloads": Measure("own TCP/IP: download, 50 connections", "Mbit/s", True, "stack"),
    "stack_requests": Measure("own TCP/IP: HTTP requests on one connection", "/s", True, "stack"),
    "stack_requests16": Measure("own TCP/IP: HTTP requests on 16 connections", "/s", True, "stack"),
    "stack_connections": Measure("own TCP/IP: HTTP connections, 16 at once", "/s", True, "stack"),
    "stack_memory": Measure("own TCP/IP: resident memory at the start", "MB", False, "stack"),
    "stack_idle": Measure("own TCP/IP: resident memory of an idle connection", "kB", False, "stack"),
    "line_loss_up": Measure("own TCP/IP: sending over a line that loses 1 % (20 ms)", "Mbit/s", True, "lines"),
    "line_loss_down": Measure("own TCP/IP: receiving over it from CUBIC", "Mbit/s", True, "lines"),
    "line_late_up": Measure("own TCP/IP: sending over a line with 1 % late by 3 ms (4 ms)", "Mbit/s", True, "lines"),
    "line_late_down": Measure("own TCP/IP: receiving over it from CUBIC", "Mbit/s", True, "lines"),
    "peers_configure": Measure(f"{MANY_PEERS:,} peers: configure", "s", False, "peers"),
    "peers_memory": Measure(f"{MANY_PEERS:,} peers: resident memory of each", "kB", False, "peers"),
    "peers_tcp_few": Measure("TCP, one flow, 1 peer", "Mbit/s", True, "peers"),
    "peers_tcp_many": Measure(f"TCP, one flow, {MANY_PEERS:,} peers", "Mbit/s", True, "peers"),
    "allowed_configure": Measure(f"{MANY_ALLOWED_IPS:,} allowed IPs: configure", "s", False, "allowed_ips"),
    "allowed_lookup": Measure(f"{MANY_ALLOWED_IPS:,} allowed IPs: lookup", "us", False, "allowed_ips"),
    "merging_lost": Measure("beside packets that cannot be merged: pings lost", "%", False, "merging"),
    "merging_ping": Measure("beside packets that cannot be merged: ping", "ms", False, "merging"),
    "merging_cpu": Measure("beside packets that cannot be merged: a core's share", "%", False, "merging"),
    "merging_taken_in": Measure("packets that cannot be merged: taken in", "%", True, "merging"),
    "workers_in": Measure("64 peers: datagrams opened and written, 2 workers", "/s", True, "workers"),
    "workers_in_one": Measure("64 peers: datagrams opened and written, 1 worker", "/s", True, "workers"),
    "workers_out": Measure("64 peers: from the TUN, 2 workers", "Mbit/s", True, "workers"),
    "workers_out_one": Measure("64 peers: from the TUN, 1 worker", "Mbit/s", True, "workers"),
    "workers_one_way": Measure("64 peers: from the TUN, never answered, 2 workers", "Mbit/s", True, "workers"),
    "workers_one_way_one": Measure("64 peers: from the TUN, never answered, 1 worker", "Mbit/s", True, "workers"),
    "workers_handshakes": Measure("handshakes answered, 2 workers", "/s", True, "workers"),
    "workers_handshakes_one": Measure("handshakes answered, 1 worker", "/s", True, "workers"),
    "workers_memory": Measure("memory of each further worker", "MB", False, "workers"),
    "clients_up": Measure("8 clients of a gateway with 2 workers: uploads", "Mbit/s", True, "clients"),
    "clients_down": Measure("8 clients of a gateway with 2 workers: downloads", "Mbit/s", True, "clients"),
    "wakeups": Measure("idle tunnel: CPU wakeups", "/s", False, "idle"),
    "import": Measure("`import wgpy`", "ms", False, "starting"),
    "show": Measure("`wgpy show`", "ms", False, "starting"),
    "up": Measure("from `wgpy up` to the first byte", "s", False, "starting"),
}


class Verdict(Enum):
    TARGET = "target reached"
    MINIMUM = "minimum reached"
    MISSED = "**missed**"
    UNKNOWN = "not measured"


@dataclass(frozen=True)
class Goal:
    """A minimum and a target for wgpy's median, or for its ratio to a rival in the same round.

    If less is better, the minimum is the largest value that is acceptable.
    """

    measure: str
    minimum: float | None
    target: float
    rival: str | None = None
    rival_measure: str | None = None  # if it is not `measure`

    @property
    def title(self) -> str:
        title = MEASURES[self.measure].title
        if self.rival_measure:
            return f"{title}, against {MEASURES[self.rival_measure].title}"
        return f"{title}, against {self.rival}" if self.rival else title

    def reached(self, results: Results) -> float | None:
        """wgpy's value or ratio; None if it was not measured."""
        if self.rival is None:
            return results.median(self.measure, WGPY)
        ratios = results.ratios(self.measure, WGPY, self.rival_measure or self.measure, self.rival)
        return median(ratios) if ratios else None

    def verdict(self, results: Results) -> Verdict:
        reached = self.reached(results)
        if reached is None:
            return Verdict.UNKNOWN
        if self.rival:
            reached = round(reached, 2)  # as the table shows it
        for goal, verdict in ((self.target, Verdict.TARGET), (self.minimum, Verdict.MINIMUM)):
            if goal is None:
                continue
            if reached >= goal if MEASURES[self.measure].more_is_better else reached <= goal:
                return verdict
        return Verdict.MISSED

    def format(self, value: float) -> str:
        """The value as the table shows it: a ratio followed by x, or a value with its unit."""
        return f"{value:.2f} x" if self.rival else f"{figure(value)} {MEASURES[self.measure].unit}"


GOALS: Final = (
    Goal("tcp", 0.85, 1.0, GO),
    Goal("tcp", 1.5, 2.5, GOTATUN),
    Goal("tcp", 3.0, 5.0, BORINGTUN),
    Goal("tcp", 3.0, 5.0, OPENVPN),
    *(Goal(measure, 0.85, 1.0, GO) for measure in ("tcp8", "tcp50")),
    Goal("tcp_both", 0.75, 1.0, GO),
    *(Goal(measure, 0.6, 1.0, GO) for measure in ("tcp_inner6", "tcp_outer6")),
    Goal("rootless", 0.7, 1.0, WGPY, "rooted"),
    Goal("stack_download", 1.0, 1.3, GVISOR),
    Goal("stack_upload", 1.5, 3.0, GVISOR),
    Goal("stack_downloads", 0.9, 1.2, GVISOR),
    Goal("stack_requests", 0.9, 1.0, GVISOR),
    Goal("stack_requests16", 0.8, 1.0, GVISOR),
    Goal("stack_connections", 0.6, 1.0, GVISOR),
    Goal("stack_memory", 60, 40),
    Goal("stack_idle", 8, 4),
    *(Goal(measure, 1.0, 1.0, CUBIC) for measure in ("line_loss_up", "line_late_up")),
    # The kernel sends either way: nothing that a receiver does makes it faster than to the kernel's receiver.
    *(Goal(measure, 0.95, 1.0, CUBIC) for measure in ("line_loss_down", "line_late_down")),
    *(Goal(measure, None, 1.0, BBR) for measure in ("line_loss_up", "line_late_up")),
    Goal("udp", 1.0, 1.7, GO),
    Goal("udp_gso", 0.6, 1.0, GO),
    Goal("ping_idle", 1.5, 0.9, GO),
    *(Goal(measure, 1.25, 0.9, GO) for measure in ("ping_often", "ping_load")),
    Goal("memory", 0.3, 0.1, GO),
    Goal("handshakes", 2000, 4000),
    Goal("handshakes", None, 1.0, GO),
    Goal("flood_spoofed", 1.0, 1.0, GO),
    Goal("flood_12000", 2.0, 1.0),
    Goal("flood_60000", 4.0, 2.0),
    Goal("flood_window", 1.0, 1.0, GO),
    Goal("flood_crowd", 1.5, 1.0, GO),
    Goal("merging_lost", 1.0, 0.0),
    Goal("merging_cpu", 3.0, 1.0, GO),
    Goal("peers_configure", 3.0, 1.0),
    Goal("peers_memory", 8.0, 4.0),
    Goal("peers_tcp_many", 0.95, 1.0, WGPY, "peers_tcp_few"),
    Goal("allowed_configure", 1.0, 0.5),
    Goal("allowed_lookup", 1.0, 0.5),
    Goal("workers_in", 1.6, 1.85, WGPY, "workers_in_one"),
    Goal("workers_out", 1.5, 1.8, WGPY, "workers_out_one"),
    Goal("workers_one_way", 1.5, 1.8, WGPY, "workers_one_way_one"),
    Goal("workers_handshakes", 1.6, 1.9, WGPY, "workers_handshakes_one"),
    Goal("workers_memory", 40, 25),
    *(Goal(measure, 0.8, 1.0, GO) for measure in ("clients_up", "clients_down")),
    Goal("wakeups", 0.0, 0.0),
    Goal("import", 80, 60),
    Goal("show", 200, 120),
    Goal("up", 1.0, 0.5),
)


def figure(value: float) -> str:
    """Three significant digits, with commas between thousands."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
