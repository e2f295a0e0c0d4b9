"""What it costs other peers when one peer sends tiny packets that look as if they could be merged, but cannot be.

They are TCP segments of two bytes in sequence whose TTL alternates, sent at a steady rate to a network that the other
end drops. Meanwhile a second peer pings. Measured are its losses and round trips, and the daemon's share of a core.

`python -m benchmarks.merging VICTIM-KEY ADDRESS:PORT` is such an attacker, until it is killed. It reads its own key
from standard input.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_network
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from benchmarks.plan import Plan
from benchmarks.tunnels import Program, cable
from tests.support.bursts import burst_of
from tests.support.packets import ipv4_packet
from tests.support.peers import Side
from tests.support.reference import tcp_packet
from wgpy.daemon import uapi_client
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey, PublicKey
from wgpy.net.udp import UdpSockets

ATTACKER: Final = "10.77.0.1"
NOWHERE: Final = "10.99.0.0/16"
RATE: Final = 26e6 / 8 / (80 + 28)  # packets per second: 26 Mbit/s of datagrams with their IP and UDP headers
BURST: Final = 50  # packets sent at once
BURSTS: Final = 40  # until the sequence numbers start again
WARM_UP: Final = 1.0  # seconds
PINGS: Final = 200
PING_EVERY: Final = 0.02  # seconds


class Impact(NamedTuple):
    """Lost pings in percent, the others' median in ms, and the daemon's share of a core in percent.

    `taken_in` is the percentage of the attacker's packets that the daemon receives; only these cost it work.
    """

    lost: float
    ping: float
    cpu: float
    taken_in: float


def attack(key: PrivateKey, victim: PublicKey, endpoint: Endpoint) -> None:
    """Send at the rate until killed; prints "ready" once there is a session."""
    device = Device(random=os.urandom, wall_clock=time.time_ns)
    peer = PeerChange(public_key=victim, endpoint=endpoint, allowed_ips=(AllowedIPChange(ip_network("0.0.0.0/0")),))
    device.configure(DeviceChange(private_key=key, peers=(peer,)), 0.0)
    device.start(0.0)
    udp = UdpSockets.open()
    (hello,) = device.send(ipv4_packet(ATTACKER, "10.99.0.1"), time.monotonic()).transmits
    udp.send(hello.datagrams, endpoint, 0)
    while not device.status().peers[0].last_handshake_ns:
        time.sleep(0.01)
        for sock in udp.sockets:
            while received := udp.receive(sock):
                for transmit in device.receive(received.datagrams, endpoint, time.monotonic()).transmits:
                    udp.send(transmit.datagrams, endpoint, 0)
    print("ready", flush=True)
    made = [
        tcp_packet(ATTACKER, "10.99.0.1", b"xy", sequence=2 * number, hop_limit=60 + number % 2)
        for number in range(BURSTS * BURST)
    ]
    bursts = [burst_of(*made[first : first + BURST]) for first in range(0, len(made), BURST)]
    due = time.monotonic()
    for burst in cycle(bursts):
        due += BURST / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        for transmit in device.send(burst.copy(), time.monotonic()).transmits:
            udp.send(transmit.datagrams, endpoint, 0)


def impact_on(program: Program) -> Impact:
    """Attack one end of a tunnel, and ping it from the other end."""
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        left, right = cable(cleanup)
        for side, other in ((left, right), (right, left)):
            cleanup.callback(program.open(side, other, directory).close)
        run, key = right.namespace.run, PrivateKey.generate()
        run("wg", "set", right.name, "peer", key.public_key.base64(), "allowed-ips", f"{ATTACKER}/32")
        run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        run("ip", "route", "add", "blackhole", NOWHERE)
        run("ip", "route", "add", f"{ATTACKER}/32", "dev", right.name)
        left.namespace.run("ping", "-c1", "-i0.2", "-w10", right.inner4)
        command = (sys.executable, "-m", "benchmarks.merging", right.public_key.base64(), right.endpoint)
        attacker = left.namespace.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        cleanup.callback(attacker.wait)
        cleanup.callback(attacker.terminate)
        assert attacker.stdin is not None
        assert attacker.stdout is not None
        attacker.stdin.write(key.base64() + "\n")
        attacker.stdin.flush()
        assert attacker.stdout.readline() == "ready\n"
        time.sleep(WARM_UP)
        pid = uapi_client.serving_pid(right.name)
        before, counted, began = _seconds_used(pid), _received(right, key), time.monotonic()
        said = left.namespace.run("ping", f"-c{PINGS}", f"-i{PING_EVERY}", "-W1", right.inner4, check=False, timeout=60)
        seconds = time.monotonic() - began
        cpu = (_seconds_used(pid) - before) / seconds
        taken_in = (_received(right, key) - counted) / 80 / seconds / RATE
        assert attacker.poll() is None
        lost = re.search(r"([\d.]+)% packet loss", said)
        times = [float(time) for time in re.findall(r"time=([\d.]+)", said)]
        assert lost, said
        return Impact(float(lost[1]), median(times) if times else 1000.0, 100 * cpu, 100 * taken_in)


def _seconds_used(pid: int) -> float:
    """Processor time of all threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _received(side: Side, key: PrivateKey) -> int:
    """Bytes of datagrams received from a peer."""
    lines = (line.split() for line in side.namespace.run("wg", "show", side.name, "transfer").splitlines())
    return next(int(received) for peer, received, _ in lines if peer == key.public_key.base64())


def measure(plan: Plan) -> None:
    """A second peer beside one whose packets look as if they could be merged, but cannot be:"""
    for number, program in plan.turns(daemons=True):
        plan.attempt(f"{program.name}: merging", partial(_add, plan, program, number))


def _add(plan: Plan, program: Program, number: int) -> None:
    impact = impact_on(program)
    for name, value in impact._asdict().items():
        plan.add(f"merging_{name}", program.name, number, value, "DAEMON, and a peer of benchmarks/merging.py")


if __name__ == "__main__":
    host, _, port = sys.argv[2].rpartition(":")
    own = PrivateKey.from_base64(sys.stdin.readline().strip())
    attack(own, PublicKey.from_base64(sys.argv[1]), Endpoint(host, int(port)))
