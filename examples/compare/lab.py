"""Join the same two sites by wgpy, wireguard-go, OpenVPN and the kernel's IPsec, and compare them."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from wgpy.errors import LabError
from wgpy.labs.lab import Lab
from wgpy.labs.netns import Namespace
from wgpy.labs.topology import Cable, Node, Topology, Tunnel
from wgpy.labs.traffic import iperf3, ping, wait_for

PROGRAMS = ("iperf3", "wg", "wireguard-go", "openvpn", "openssl", "tcpdump")
TOPOLOGY = Topology(
    "Two sites, joined in four ways",
    nodes=(
        Node("west-pc", 0, 0),
        Node("west", 1, 0, "gateway"),
        Node("internet", 2, 0, "internet"),
        Node("scanner", 2, 1.1, note="looks for open ports"),
        Node("east", 3, 0, "gateway"),
        Node("east-pc", 4, 0),
    ),
    cables=(
        Cable("west-pc", "10.1.0.2/24", "10.1.0.1/24", "west"),
        Cable("west", "198.51.100.1/24", "198.51.100.254/24", "internet"),
        Cable("east", "203.0.113.1/24", "203.0.113.254/24", "internet"),
        Cable("east-pc", "10.2.0.2/24", "10.2.0.1/24", "east"),
        Cable("scanner", "192.0.2.2/24", "192.0.2.254/24", "internet"),
    ),
    tunnels=(Tunnel("west", "east", "wgpy · wireguard-go · OpenVPN · IPsec"),),
)
PAYLOAD = 1000  # bytes in the pings that measure the overhead
PINGS = 50
# A WireGuard initiation made without a key; OpenVPN's first packet, P_CONTROL_HARD_RESET_CLIENT_V2; and garbage.
PROBES = {
    "an initiation": b"\1\0\0\0" + bytes(144),
    "a reset": b"\x38" + b"sessions" + bytes(5),
    "garbage": b"\xff" * 64,
}
_PROBE = """\
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1)
sock.connect((sys.argv[1], int(sys.argv[2])))
sock.send(bytes.fromhex(sys.argv[3]))
try:
    print(len(sock.recv(4096)), "bytes")
except TimeoutError:
    print("nothing")
except ConnectionRefusedError:
    print("closed")
"""


class Vpn(ABC):
    """One way to join the sites. `port` is the UDP port of both ends, `files` the files that a person writes.

    `first` and `data` are the first byte of what opens a handshake, and of what carries packets after it.
    """

    name: ClassVar[str]
    port: ClassVar[int]
    files: ClassVar[tuple[str, str]]
    first: ClassVar[int] = 1
    data: ClassVar[int] = 4

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def missing(self) -> str:
        """Why it does not work on this machine; empty if it does."""
        return ""

    @abstractmethod
    def up(self) -> None: ...

    @abstractmethod
    def down(self) -> None: ...


class Wgpy(Vpn):
    name, port, files = "wgpy", 51820, ("wgpy-west.conf", "wgpy-east.conf")

    def up(self) -> None:
        self.lab.up(**{"wgpy-west": "west", "wgpy-east": "east"})

    def down(self) -> None:
        for node in ("west", "east"):
            self.lab.wgpy(node, "down", self.lab.interface(f"wgpy-{node}"))


class WireguardGo(Vpn):
    name, port, files = "wireguard-go", 51821, ("go-west.conf", "go-east.conf")

    def up(self) -> None:
        for node, network in (("west", "10.2.0.0/24"), ("east", "10.1.0.0/24")):
            self.lab.wireguard_go(node, f"go-{node}")
            self.lab[node].run("ip", "route", "add", network, "dev", self.lab.interface(f"go-{node}"))

    def down(self) -> None:
        for node in ("west", "east"):
            self.lab[node].run("ip", "link", "delete", self.lab.interface(f"go-{node}"))


class OpenVpn(Vpn):
    name, port, files = "OpenVPN", 1194, ("openvpn-west.ovpn", "openvpn-east.ovpn")
    first, data = 0x38, 0x48  # P_CONTROL_HARD_RESET_CLIENT_V2, P_DATA_V2, both of key 0

    def up(self) -> None:
        prints = {node: certificate(self.lab.directory / node) for node in ("west", "east")}
        for node, other in (("west", "east"), ("east", "west")):
            path = self.lab.file(f"openvpn-{node}.ovpn")
            path.write_text(path.read_text().replace("FINGERPRINT", prints[other]))
            command = ("openvpn", "--cd", str(self.lab.directory), "--config", str(path), "--verb", "0")
            self.lab[node].popen(*command, "--writepid", f"{node}.pid", stdout=subprocess.DEVNULL)

    def down(self) -> None:
        for node in ("west", "east"):
            self.lab[node].run("sh", "-c", f"kill $(cat {self.lab.directory}/{node}.pid)")
            gone = wait_for(lambda node=node: "ovpn" not in self.lab[node].run("ip", "link"))  # type: ignore[misc]
            if not gone:
                raise LabError("OpenVPN does not end")


class Ipsec(Vpn):
    """ESP in tunnel mode by the kernel, with manual keys: the simplest form of IPsec, without a handshake."""

    name, port, files = "IPsec", 500, ("ipsec-west.sh", "ipsec-east.sh")

    first = data = 0  # nothing to hear

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.keys = [f"0x{secrets.token_hex(36)}" for _ in "12"]  # one each way: 32 bytes, and 4 of salt

    def missing(self) -> str:
        try:
            self.up()
        except LabError as error:
            return f"this kernel has no ESP: {str(error).splitlines()[-1]}"
        finally:
            self.down()
        return ""

    def up(self) -> None:
        for node, path in zip(("west", "east"), self.files, strict=True):
            self.lab[node].run("sh", "-e", str(self.lab.file(path)), *self.keys)

    def down(self) -> None:
        for node in ("west", "east"):
            for kind in ("policy", "state"):
                self.lab[node].run("ip", "xfrm", kind, "flush")


def run(lab: Lab) -> None:
    rows = [("VPN", "lines to write", "up after", "handshake", "TCP", "ping", "overhead", "a port scan gets")]
    for kind in (Wgpy, WireguardGo, OpenVpn, Ipsec):
        vpn = kind(lab)
        lab.step(vpn.name)
        if problem := vpn.missing():
            lab.show(f"{vpn.name} is skipped: {problem}")
            continue
        heard = listen(lab, vpn.port)
        began = time.monotonic()
        vpn.up()
        joined = wait_for(lambda: bool(ping(lab["west-pc"], lab.address("east-pc"), "-W", "0.2", count=1)), 30)
        seconds = time.monotonic() - began
        if not joined:
            lab.check(f"{vpn.name} joins the sites", False, f"no answer within {seconds:.0f} s")
            continue
        handshake = f"{shaken(heard, vpn.first, vpn.data) * 1000:.1f} ms" if vpn.data else "none"
        heard.terminate()
        lab.check(f"{vpn.name} joins the sites", True, f"{seconds:.1f} s after its start, handshake: {handshake}")
        report = iperf3(lab["west-pc"], lab["east-pc"], lab.address("east-pc"), "-t", "2")
        rate = report["sum_received"]["bits_per_second"] / 1e6
        lab.check(f"{vpn.name} carries TCP", rate > 0, f"{rate:.0f} Mbit/s")
        times = ping(lab["west-pc"], lab.address("east-pc"), count=20, interval=0.02)
        lab.check(f"{vpn.name} answers a ping", bool(times), f"{times.median_ms:.2f} ms")
        bytes_more = overhead(lab)
        lab.check(f"{vpn.name} adds to a packet", 20 <= bytes_more <= 150, f"{bytes_more} bytes")
        answers = {name: probe(lab["scanner"], "198.51.100.1", vpn.port, data) for name, data in PROBES.items()}
        alike = len(set(answers.values())) == 1
        seen = answers["garbage"] if alike else ", ".join(f"{answer} for {name}" for name, answer in answers.items())
        silent = set(answers.values()) <= {"nothing", "closed"}  # nobody serves a port for ESP
        lab.check(f"{vpn.name} does not answer a port scan", silent, seen)
        lines = sum(len(written(lab, name)) for name in vpn.files)
        figures = (
            f"{seconds:.1f} s",
            handshake,
            f"{rate:.0f} Mbit/s",
            f"{times.median_ms:.2f} ms",
            f"{bytes_more} bytes",
        )
        rows.append((vpn.name, str(lines), *figures, seen))
        vpn.down()
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lab.step("Comparison: both ends and the traffic ran on this machine's processors")
    lab.show("\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows))
    closed = probe(lab["scanner"], "198.51.100.1", 9, b"x")
    lab.check("the scanner recognizes a closed port", closed == "closed", closed)


def listen(lab: Lab, port: int) -> subprocess.Popen[str]:
    """Run tcpdump on the packets that pass the Internet to and from a port."""
    command = ("tcpdump", "--immediate-mode", "-ttnlxi", "west", "-Z", "root", "udp", "port", str(port))
    heard = lab["internet"].popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert heard.stderr is not None
    if not any("listening on" in line for line in heard.stderr):
        raise LabError("tcpdump did not start")
    return heard


def shaken(heard: subprocess.Popen[str], first: int, data: int) -> float:
    """Seconds from the first datagram of the last handshake to the last datagram before data, by their first bytes."""
    assert heard.stdout is not None
    now = began = ended = 0.0
    for line in heard.stdout:
        if not line.startswith("\t"):
            now = float(line.split()[0])
        elif line.startswith("\t0x0010:"):  # the last 12 of the IP header's 20 bytes, the UDP header's 8, and that byte
            byte = int(line.split()[7][:2], 16)
            if byte == first:
                began = now
            elif byte == data:
                return ended - began
            ended = now
    raise LabError("tcpdump ended")


def overhead(lab: Lab) -> int:
    """Bytes that are added to a packet on the Internet: the average over many pings, with all else that is sent."""
    counter = "/sys/class/net/internet/statistics/tx_bytes"
    before = int(lab["west"].run("cat", counter))
    found = ping(lab["west-pc"], lab.address("east-pc"), "-s", str(PAYLOAD), count=PINGS, interval=0.01)
    outside = (int(lab["west"].run("cat", counter)) - before) / found.sent - 14  # without the Ethernet header
    return round(outside - (PAYLOAD + 28))


def probe(scanner: Namespace, address: str, port: int, data: bytes) -> str:
    """The answer to a datagram: "nothing", "closed", or a number of bytes."""
    return scanner.run(sys.executable, "-c", _PROBE, address, str(port), data.hex()).strip()


def written(lab: Lab, name: str) -> list[str]:
    """The lines of a file that are neither empty nor comments."""
    lines = (line.strip() for line in lab.file(name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def certificate(path: Path) -> str:
    """A self-signed certificate, PATH.pem, with its key; its SHA-256 fingerprint."""
    kind = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    files = ("-keyout", f"{path}.key", "-out", f"{path}.pem", "-subj", f"/CN={path.name}")
    for command in (("req", *kind, *files), ("x509", "-in", f"{path}.pem", "-noout", "-fingerprint", "-sha256")):
        done = subprocess.run(("openssl", *command), capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"openssl: {done.stderr}")
    return done.stdout.partition("=")[2].strip()
