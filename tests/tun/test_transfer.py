"""Real transfers between two namespaces whose TUNs are joined by nothing but split and merge."""

from __future__ import annotations

import ctypes
import json
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import pytest

from tests.support.netns import Namespace
from tests.support.peers import iperf3
from wgpy.tun.linux import LinuxTun

ADDRESSES = {4: ("10.9.0.1", "10.9.0.2"), 6: ("fd09::1", "fd09::2")}
MTU = 1420

pytestmark = pytest.mark.root


class Cable:
    """Two namespaces, a LinuxTun in each, and a thread that writes to either what it reads from the other."""

    def __init__(self, *, offload: bool) -> None:
        self.left, self.right = Namespace(), Namespace()
        self.longest = 0
        self.packets = 0
        self.tuns: list[LinuxTun] = []
        self._offload = offload
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for namespace in (self.left, self.right):
            with open(f"/run/netns/{namespace.name}") as file:
                assert ctypes.CDLL(None).setns(file.fileno(), 0) == 0  # of this thread alone
            tun = LinuxTun.open("wg0", offload=self._offload)
            tun.mtu = MTU
            self.tuns.append(tun)
        self._ready.set()
        left, right = self.tuns
        other = {left: right, right: left}
        while not self._stop.is_set():
            for tun in select.select(self.tuns, [], [], 0.05)[0]:
                for _ in range(8):
                    burst = tun.read()
                    if burst is None:
                        break
                    self.longest = max(self.longest, len(burst))
                    self.packets += len(burst)
                    other[tun].write(burst)

    def rx_packets(self, namespace: Namespace) -> int:
        link = json.loads(namespace.run("ip", "-json", "-statistics", "link", "show", "wg0"))[0]
        return int(link["stats64"]["rx"]["packets"])

    def lost(self) -> set[str]:
        """Why packets were dropped; the first interface greets a second that is still down."""
        return {reason for tun in self.tuns for reason in tun.drops} - {"down"}

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5)
        for namespace, own in ((self.left, 0), (self.right, 1)):
            namespace.run("ip", "link", "set", "wg0", "mtu", str(MTU), "up")
            namespace.run("ip", "address", "add", f"{ADDRESSES[4][own]}/24", "dev", "wg0")
            namespace.run("ip", "address", "add", f"{ADDRESSES[6][own]}/64", "dev", "wg0", "nodad")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        for tun in self.tuns:
            tun.close()
        self.left.delete()
        self.right.delete()


RECEIVE_TCP = """
import hashlib, socket, sys
server = socket.create_server((sys.argv[1], 5000), family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
print('ready', flush=True)
stream, digest, total = server.accept()[0], hashlib.sha256(), 0
while chunk := stream.recv(1 << 16):
    digest.update(chunk); total += len(chunk)
print(total, digest.hexdigest(), flush=True)
"""
SEND_TCP = """
import hashlib, random, socket, sys
data = random.Random(1).randbytes(int(sys.argv[2]))
with socket.create_connection((sys.argv[1], 5000)) as stream:
    stream.sendall(data)
print(len(data), hashlib.sha256(data).hexdigest())
"""
RECEIVE_UDP = """
import random, socket, sys
sock = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
sock.bind((sys.argv[1], 5000)); sock.settimeout(10)
print('ready', flush=True)
seed = random.Random(2)
expected = [seed.randbytes(1000 if i % 40 != 39 else 1 + i % 1000) for i in range(800)]
for i in range(800):
    got = sock.recv(2000)
    assert got == expected[i], (i, len(got), len(expected[i]))
print('800 in order', flush=True)
"""
SEND_UDP = """
import random, socket, sys, time
sock = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(17, 103, 1000)
sock.connect((sys.argv[1], 5000))
seed = random.Random(2)
datagrams = [seed.randbytes(1000 if i % 40 != 39 else 1 + i % 1000) for i in range(800)]
for i in range(0, 800, 40):
    sock.send(b''.join(datagrams[i : i + 40]))
    time.sleep(0.005)
"""


@contextmanager
def listening(namespace: Namespace, *command: str) -> Iterator[subprocess.Popen[str]]:
    process = namespace.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    assert "ready" in process.stdout.readline()
    yield process


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("offload", [True, False])
def test_a_tcp_stream_arrives_byte_for_byte(offload: bool, version: int) -> None:
    with Cable(offload=offload) as cable:
        address = ADDRESSES[version][1]
        before = cable.packets
        with listening(cable.right, sys.executable, "-c", RECEIVE_TCP, address) as receiver:
            sent = cable.left.run(sys.executable, "-c", SEND_TCP, address, "20000000")
            received, _ = receiver.communicate(timeout=30)
        assert received == sent
        assert cable.lost() == set()
        assert (cable.longest > 10) is offload
        written = cable.rx_packets(cable.left) + cable.rx_packets(cable.right)
        assert (written < (cable.packets - before) / 3) is offload


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("offload", [True, False])
def test_udp_datagrams_arrive_whole_and_in_order(offload: bool, version: int) -> None:
    with Cable(offload=offload) as cable:
        address = ADDRESSES[version][1]
        with listening(cable.right, sys.executable, "-c", RECEIVE_UDP, address) as receiver:
            cable.left.run(sys.executable, "-c", SEND_UDP, address)
            received, _ = receiver.communicate(timeout=30)
        assert received == "800 in order\n"
        assert (cable.longest == 40) is offload
        assert cable.lost() == set()


@pytest.mark.parametrize("offload", [True, False])
def test_iperf3(offload: bool) -> None:
    with Cable(offload=offload) as cable:
        for arguments in ("-4 -n 10M", "-6 -n 10M", "-4 -P 4 -R -n 10M", "-4 -u -b 50M -n 2M", "-6 -u -b 50M -n 2M"):
            address = ADDRESSES[6 if "-6" in arguments else 4][1]
            end = iperf3(cable.left, cable.right, address, *arguments.split())
            assert end["sum" if "-u" in arguments else "sum_received"]["bytes"] >= 2_000_000, arguments
        assert cable.lost() <= {"full"}
