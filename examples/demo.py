"""Two offices joined by a tunnel, on one machine, with real traffic, in a minute.

Makes two network namespaces joined by a cable, writes a wg-quick file for each, brings both up with `wgpy up`, sends
pings and TCP through the tunnel over IPv4 and IPv6, prints the output of `wgpy show`, and removes everything again.
Needs root, iproute2, ping and iperf3. Run it with `make demo`, or: python examples/demo.py
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from wgpy.keys import PresharedKey, PrivateKey

SECONDS = 5  # of each iperf3 run


class Office(NamedTuple):
    """One end: its namespace, its address on the cable, its addresses in the tunnel."""

    name: str
    outer: str
    inner4: str
    inner6: str


NORTH = Office("wgpy-north", "192.0.2.1", "10.99.0.1", "fd99::1")
SOUTH = Office("wgpy-south", "192.0.2.2", "10.99.0.2", "fd99::2")


def main() -> int:
    if problem := missing():
        print(f"demo: {problem}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begin = time.monotonic()
    try:
        with ExitStack() as cleanup:
            show_tunnel(cleanup)
    except subprocess.CalledProcessError as error:
        print(f"demo: {' '.join(map(str, error.cmd))} ended with status {error.returncode}", file=sys.stderr)
        print((error.stdout or "") + (error.stderr or ""), file=sys.stderr)
        return 1
    if left := leftovers():
        print(f"demo: left behind: {left}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - begin:.0f} s. Namespaces, interfaces and processes are removed.")
    return 0


def show_tunnel(cleanup: ExitStack) -> None:
    step("Two network namespaces, joined by a cable (192.0.2.1 and 192.0.2.2)")
    for office in (NORTH, SOUTH):
        run("ip", "netns", "add", office.name)
        cleanup.callback(run, "ip", "netns", "delete", office.name)
        run("ip", "-n", office.name, "link", "set", "lo", "up")
    run("ip", "link", "add", "cable", "netns", NORTH.name, "type", "veth", "peer", "cable", "netns", SOUTH.name)
    for office in (NORTH, SOUTH):
        run("ip", "-n", office.name, "address", "add", f"{office.outer}/24", "dev", "cable")
        run("ip", "-n", office.name, "link", "set", "cable", "up")

    step("A wg-quick file for each, with fresh keys")
    directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-demo-")))
    keys = {office: PrivateKey.generate() for office in (NORTH, SOUTH)}
    psk = PresharedKey.generate()
    for office, other in ((NORTH, SOUTH), (SOUTH, NORTH)):
        text = wg_quick_file(office, keys[office], other, keys[other], psk)
        path = directory / f"{office.name}.conf"
        path.touch(mode=0o600)
        path.write_text(text)
        if office is NORTH:
            hidden = text.replace(keys[office].base64(), "(hidden)").replace(psk.base64(), "(hidden)")
            print("\n".join(f"      {line}" for line in hidden.splitlines()))

    step("`wgpy up` in each namespace")
    for office in (NORTH, SOUTH):
        wgpy = wgpy_in(office)
        subprocess.run([*wgpy, "up", str(directory / f"{office.name}.conf")], check=True)
        cleanup.callback(subprocess.run, [*wgpy, "down", office.name], check=False)

    for version, inner, flag in (
        ("IPv4 (its first packet brings about the handshake)", SOUTH.inner4, "-4"),
        ("IPv6", SOUTH.inner6, "-6"),
    ):
        step(f"ping through the tunnel, {version}")
        print(indent(inside(NORTH, "ping", flag, "-c", "3", "-i", "0.2", "-W", "5", inner)))
    server = subprocess.Popen(
        ["ip", "netns", "exec", SOUTH.name, "iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    cleanup.callback(stop, server)
    for version, inner in (("IPv4", SOUTH.inner4), ("IPv6", SOUTH.inner6)):
        step(f"TCP through the tunnel with iperf3, {version}, {SECONDS} seconds")
        received = measured(inner)
        print(f"      {received['bytes'] / 2**20:.0f} MiB at {received['bits_per_second'] / 1e6:.0f} Mbit/s")

    step("`wgpy show`")
    print(
        indent(subprocess.run([*wgpy_in(NORTH), "show", NORTH.name], check=True, capture_output=True, text=True).stdout)
    )
    step("`wgpy down` in each namespace")


def wg_quick_file(office: Office, key: PrivateKey, other: Office, other_key: PrivateKey, psk: PresharedKey) -> str:
    return f"""\
[Interface]
# {office.name}
Address = {office.inner4}/24, {office.inner6}/64
PrivateKey = {key.base64()}
ListenPort = 51820

[Peer]
# {other.name}
PublicKey = {other_key.public_key.base64()}
PresharedKey = {psk.base64()}
Endpoint = {other.outer}:51820
AllowedIPs = {other.inner4}/32, {other.inner6}/128
"""


def measured(address: str) -> dict[str, float]:
    """What iperf3 says of TCP from north to an address of south, whose server does not say when it is ready again."""
    command = ("ip", "netns", "exec", NORTH.name, "iperf3", "-c", address, "-t", str(SECONDS), "--json")
    for _ in range(20):
        report = json.loads(subprocess.run(command, check=False, capture_output=True, text=True).stdout)
        if "sum_received" in report["end"]:
            received: dict[str, float] = report["end"]["sum_received"]
            return received
        time.sleep(0.5)
    raise SystemExit(f"iperf3: {report.get('error', 'no result')}")


def wgpy_in(office: Office) -> list[str]:
    return ["ip", "netns", "exec", office.name, sys.executable, "-m", "wgpy"]


def inside(office: Office, *command: str) -> str:
    return run("ip", "netns", "exec", office.name, *command)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


def step(text: str) -> None:
    print(f"\n==> {text}", flush=True)


def indent(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.strip().splitlines())


def missing() -> str:
    """What prevents the demo from running, and the remedy; empty if nothing does."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces and TUN: run it with sudo"
    absent = [tool for tool in ("ip", "ping", "iperf3") if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)}: apt-get install iproute2 iputils-ping iperf3"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun: modprobe tun"
    return ""


def leftovers() -> str:
    """What is left of the demo."""
    namespaces = [line.split()[0] for line in run("ip", "netns", "list").splitlines()]
    sockets = [path.name for path in Path("/var/run/wireguard").glob("wgpy-*.sock")]
    return ", ".join([name for name in namespaces if name in (NORTH.name, SOUTH.name)] + sockets)


if __name__ == "__main__":
    raise SystemExit(main())
