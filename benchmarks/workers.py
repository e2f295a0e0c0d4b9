"""A gateway with two workers against the same gateway with one: 64 peers in each direction, handshakes, memory.

What takes time beside the gateway is done beforehand, so that two workers have nearly all of two cores: the peers'
datagrams are sealed before they are sent, and what the gateway sends is dropped by sockets that nobody reads.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from ipaddress import IPv4Address, ip_network
from itertools import cycle
from pathlib import Path
from struct import pack
from typing import Final

from benchmarks.goals import WGPY
from benchmarks.handshakes import answered
from benchmarks.plan import Plan
from benchmarks.tunnels import cable
from tests.support.peers import Side, Wgpy
from tests.support.reference import udp_packet
from wgpy.burst import Datagrams, ViewCache
from wgpy.constants import TRANSPORT_OVERHEAD
from wgpy.daemon import uapi_client
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey
from wgpy.net.binding import UDP_GRO
from wgpy.net.sending import UDP_SEGMENT
from wgpy.tun.checksum import checksum, pseudo_header_sum
from wgpy.tun.splitting import SLOTS_SIZE, split
from wgpy.tun.virtio import GSO_TCPV4, NEEDS_CSUM, VnetHeader

PEERS: Final = 64
MTU: Final = 1420
HEADERS, UDP_HEADERS = 40, 28  # of IPv4 and TCP without options, and of IPv4 and UDP
MSS: Final = MTU - HEADERS
SEGMENTS: Final = 44
BURSTS: Final = 128  # of each peer, to be opened: half a gigabyte in all
WINDOW: Final = 8 << 20  # bytes that may be on their way into the gateway: the queue of one worker would hold them all
SECONDS: Final = 2.0  # for which it seals
PAUSE: Final = 0.003  # seconds, in which the gateway does not empty its queues; reading its counters takes time, too
PATIENCE: Final = 5.0  # seconds without progress after which bytes are lost
NOWHERE: Final = "10.99.0.1"  # has no route on the gateway, which drops what the peers send once it is written
FIRST: Final = IPv4Address("10.7.0.1")  # the first peer's inner address
PORT: Final = 5000
OUTER: Final = "veth0"  # the gateway's cable
_SUPER: Final = VnetHeader(NEEDS_CSUM, GSO_TCPV4, HEADERS, MSS, 20, 16)


@dataclass
class Peer:
    """One of the gateway's peers, with a socket of its own."""

    sock: socket.socket
    inner: str
    key: PrivateKey = field(default_factory=PrivateKey.generate)
    device: Device = field(init=False)

    def __post_init__(self) -> None:
        self.device = Device(random=os.urandom, wall_clock=time.time_ns)
        self.sock.settimeout(5)
        self.sock.setsockopt(socket.SOL_UDP, UDP_GRO, 1)  # a burst is dropped whole, and not cut into datagrams before

    def connect(self, gateway: Side) -> None:
        """Shake hands."""
        endpoint = Endpoint(gateway.outer, gateway.port)
        peer = PeerChange(
            public_key=gateway.public_key,
            endpoint=endpoint,
            allowed_ips=(AllowedIPChange(ip_network("0.0.0.0/0")),),
        )
        self.device.configure(DeviceChange(private_key=self.key, peers=(peer,)), 0.0)
        self.device.start(0.0)
        self.sock.connect((gateway.outer, gateway.port))
        (initiation,) = self.device.send(udp_packet(self.inner, NOWHERE, b""), 0.0).transmits
        self.sock.send(initiation.datagrams.view)
        answer = self.sock.recv(1 << 16)
        for transmit in self.device.receive(Datagrams.of(answer), endpoint, 0.0).transmits:
            self.sock.send(transmit.datagrams.view)

    def sealed(self, number: int) -> memoryview:
        """The datagrams of a super-packet of a TCP flow, its `number`th, end to end."""
        packet = _super_packet(IPv4Address(self.inner).packed, number * SEGMENTS * MSS & 0xFFFFFFFF)
        burst = split(_SUPER, memoryview(packet), ViewCache(memoryview(bytearray(SLOTS_SIZE))), (MTU,))
        assert burst is not None
        (transmit,) = self.device.send(burst, 0.0).transmits
        return transmit.datagrams.view

    def answer(self, gateway: Side) -> memoryview:
        """A datagram of the other direction of the flow that `sealed`, below, sends through the gateway."""
        packet = udp_packet(self.inner, gateway.inner4, b"answer", ports=(PORT, PORT))
        (transmit,) = self.device.send(packet, 0.0).transmits
        return transmit.datagrams.view


def _super_packet(source: bytes, sequence: int) -> bytearray:
    """IPv4 and TCP without options; the TCP checksum is left to the offload."""
    size = 40 + SEGMENTS * MSS
    packet = bytearray(size)
    packet[:20] = pack(">BBHHHBBH", 0x45, 0, size, 0, 0x4000, 64, 6, 0) + source + IPv4Address(NOWHERE).packed
    packet[10:12] = checksum(packet[:20]).to_bytes(2, "big")
    total = pseudo_header_sum(packet[12:20], 6, size - 20)
    packet[20:40] = pack(">HHIIBBHHH", PORT, PORT, sequence, 1, 5 << 4, 0x10, 1000, total, 0)
    return packet


@dataclass
class Gateway:
    """A gateway that some number of workers serve, and its peers, which have sessions."""

    side: Side
    daemon: Wgpy
    peers: list[Peer]

    def counter(self, interface: str, direction: int) -> int:
        """Bytes that an interface has received (0) or sent (1)."""
        lines = Path(f"/proc/{self.pid}/net/dev").read_text().splitlines()
        numbers = next(line for line in lines if line.lstrip().startswith(f"{interface}:")).partition(":")[2]
        return int(numbers.split()[8 * direction])

    @cached_property
    def pid(self) -> int:
        return uapi_client.serving_pid(self.side.name)

    def pids(self) -> list[int]:
        """The daemon's processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]


@contextmanager
def gateway(workers: int) -> Iterator[Gateway]:
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        left, right = cable(cleanup)
        peers = [Peer(cleanup.enter_context(left.namespace.udp_socket()), str(FIRST + i)) for i in range(PEERS)]
        sections = [
            f"[Peer]\nPublicKey = {peer.key.public_key.base64()}\nAllowedIPs = {peer.inner}/32" for peer in peers
        ]
        daemon = Wgpy(right, directory, *sections, options=("--workers", str(workers)))
        cleanup.callback(daemon.close)
        for peer in peers:
            peer.connect(right)
        yield Gateway(right, daemon, peers)


def measure(plan: Plan) -> None:
    """Two workers against one: 64 peers in each direction, handshakes, memory."""
    for number in range(plan.rounds):
        for workers in (1, 2) if number % 2 else (2, 1):
            for name, rate in ROWS.items():
                what = f"{workers} workers: {name}"
                plan.attempt(what, partial(_row, plan, number, name, workers, rate))
        plan.attempt("memory of a worker", partial(_memory, plan, number))


def _row(plan: Plan, number: int, name: str, workers: int, rate: Callable[[int], float]) -> None:
    measure = f"workers_{name}" if workers > 1 else f"workers_{name}_one"
    plan.add(measure, WGPY, number, rate(workers), f"wgpy up CONFIG --workers {workers}")


class Window:
    """Keeps as many bytes on their way into the gateway as its queues hold without loss."""

    def __init__(self, there: Gateway, direction: int) -> None:
        """They are counted once the gateway has written them to its TUN (direction 0) or has read them (1)."""
        self._count = partial(there.counter, there.side.name, direction)
        self._before = self._count()
        self._sent = self._done = 0
        self._moved_at = time.monotonic()

    def send(self, size: int) -> None:
        """Wait until `size` bytes more may be sent."""
        self._sent += size
        self.wait(WINDOW)

    def wait(self, allowed: int = 0) -> None:
        """Wait until at most so many bytes are on their way."""
        while self._sent - self._done > allowed:
            now, done = time.monotonic(), self._count() - self._before
            if done > self._done:
                self._done, self._moved_at = done, now
            elif now > self._moved_at + PATIENCE:
                raise RuntimeError(f"{self._sent - self._done:,} bytes of {self._sent:,} are lost")
            else:
                time.sleep(PAUSE)


def opened(workers: int) -> float:
    """Datagrams a second that the gateway opens and writes."""
    with gateway(workers) as there:
        bursts = [peer.sealed(number) for number in range(BURSTS) for peer in there.peers]
        window, segment = Window(there, 0), _segments(MTU + TRANSPORT_OVERHEAD)
        began = time.monotonic()
        for peer, burst in zip(cycle(there.peers), bursts, strict=False):
            window.send(HEADERS + SEGMENTS * MSS)  # as it is written if it is merged
            peer.sock.sendmsg([burst], segment)
        window.wait()
        return len(bursts) * SEGMENTS / (time.monotonic() - began)


def sealed(workers: int, *, are_answered: bool = True) -> float:
    """Mbit/s of datagrams that the gateway makes of what it reads from its TUN, of a UDP flow to each peer.

    Unless the flows `are_answered`, the kernel does not know which worker's queue a flow belongs in.
    """
    with gateway(workers) as there, there.side.namespace.udp_socket() as sender:
        sender.bind((there.side.inner4, PORT))
        size = MTU - UDP_HEADERS
        payload, segment = bytes(SEGMENTS * size), _segments(size)
        answers = [[peer.answer(there.side) for peer in there.peers] for _ in range(2 * int(SECONDS) + 2)]
        window = Window(there, 1)
        before, began = 0, 0.0
        for half_second, each in enumerate(answers):
            for peer, answer in zip(there.peers, each, strict=True):
                if are_answered:
                    peer.sock.send(answer)
            if half_second == 1:
                before, began = there.counter(OUTER, 1), time.monotonic()
            end = time.monotonic() + 0.5
            for peer in cycle(there.peers):
                window.send(UDP_HEADERS + len(payload))
                sender.sendmsg([payload], segment, 0, (peer.inner, PORT))
                if time.monotonic() > end:
                    break
        return (there.counter(OUTER, 1) - before) * 8 / 1e6 / (time.monotonic() - began)


def _segments(size: int) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_UDP, UDP_SEGMENT, pack("=H", size))]


def handshakes(workers: int) -> float:
    """Handshakes a second that the gateway answers."""

    def opener(side: Side, other: Side, directory: Path) -> Wgpy:
        return Wgpy(side, directory, options=("--workers", str(workers)))

    return answered(opener, on_one_core=False)


ROWS: Final[dict[str, Callable[[int], float]]] = {
    "in": opened,
    "out": sealed,
    "one_way": partial(sealed, are_answered=False),
    "handshakes": handshakes,
}


def _memory(plan: Plan, number: int) -> None:
    """What a third worker takes: pages that it shares count in part (Pss)."""
    used = []
    for workers in (2, 3):
        with gateway(workers) as there:
            used.append(sum(map(_proportional, there.pids())))
    plan.add("workers_memory", WGPY, number, (used[1] - used[0]) / 1000, "grep Pss /proc/PID/smaps_rollup")


def _proportional(pid: int) -> int:
    """A process's memory in kB, of which shared pages count in part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
