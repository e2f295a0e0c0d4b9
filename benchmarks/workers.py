"""A gateway with two workers against the same gateway with one: 64 peers in each direction, handshakes, memory.

On two cores, whatever makes the traffic while the clock runs takes processor time from two workers, and none from one.
So nothing does: the gateway's processes are stopped (SIGSTOP) for as long as it takes to fill their queues, which are
made long enough to hold a second's work and more. The clock runs from the moment when they go on until an interface's
counter has all of it. The peers' datagrams are sealed before, and what the gateway sends is dropped by sockets that
nobody reads. This measures what the workers carry when they have more to do than they can. With one worker as with
two, it leaves out what the kernel does before a queue: a network card's interrupts, and the sorting by worker.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from struct import pack
from typing import Final

from benchmarks.goals import WGPY
from benchmarks.handshakes import answered
from benchmarks.plan import Plan
from benchmarks.tunnels import cable
from tests.support.peers import Side, StartedWgpy, wait_for
from tests.support.reference import udp_packet
from wgpy.burst import Datagrams, ViewCache
from wgpy.constants import MAX_DATAGRAM, TRANSPORT_OVERHEAD
from wgpy.daemon import uapi_client
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey
from wgpy.net.binding import SO_RCVBUFFORCE, SO_SNDBUFFORCE, UDP_GRO
from wgpy.net.sending import UDP_SEGMENT
from wgpy.tun.checksum import checksum, pseudo_header_sum
from wgpy.tun.splitting import SLOTS_SIZE, split
from wgpy.tun.virtio import GSO_TCPV4, NEEDS_CSUM, VnetHeader

PEERS: Final = 64
MTU: Final = 1420
HEADERS, UDP_HEADERS = 40, 28  # of IPv4 and TCP without options, and of IPv4 and UDP
OUTER_HEADERS: Final = UDP_HEADERS + 14  # with Ethernet's
MSS: Final = MTU - HEADERS
SEGMENTS: Final = 44
BURSTS: Final = 192  # for each peer: 0.8 GB in all, for which one worker needs a second or two
FLOWS: Final = 4  # from the TUN to each peer: the kernel's hash divides many flows more evenly between workers than few
PAUSE: Final = 0.01  # seconds between two looks at a counter, which take processor time
PATIENCE: Final = 5.0  # seconds without progress after which bytes are lost
NOWHERE: Final = "10.99.0.1"  # has no route on the gateway, which drops what the peers send once it is written
FIRST: Final = IPv4Address("10.7.0.1")  # the first peer's inner address
PORT: Final = 5000
ANSWER: Final = b"answer"
OUTER: Final = "veth0"  # the gateway's cable
_PIDFD_GETFD: Final = 438  # the system call's number, on every machine
_libc: Final = ctypes.CDLL(None, use_errno=True)
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

    def answer(self, gateway: Side, port: int) -> memoryview:
        """A datagram of the other direction of the flow that `sealed`, below, sends from `port` of the gateway."""
        packet = udp_packet(self.inner, gateway.inner4, ANSWER, ports=(PORT, port))
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
    daemon: StartedWgpy
    peers: list[Peer]

    def counter(self, interface: str, direction: int) -> int:
        """Bytes that an interface has received (0) or sent (1)."""
        lines = Path(f"/proc/{self.pid}/net/dev").read_text().splitlines()
        numbers = next(line for line in lines if line.lstrip().startswith(f"{interface}:")).partition(":")[2]
        return int(numbers.split()[8 * direction])

    @cached_property
    def pid(self) -> int:
        return uapi_client.serving_pid(self.side.name)

    def seconds(self, sends: Sequence[Callable[[], object]], interface: str, direction: int, size: int) -> float:
        """How long the gateway works on bursts that are sent while its processes are stopped.

        It ends when an interface has received (0) or sent (1) `size` bytes for each of them.
        """
        before, total = self.counter(interface, direction), len(sends) * size
        self._signal(signal.SIGSTOP)
        try:
            assert wait_for(lambda: all(map(_is_stopped, self.pids())))
            self._make_room(len(sends))
            for send in sends:
                send()
        finally:
            self._signal(signal.SIGCONT)
        began = moved_at = time.monotonic()
        done = 0
        while True:
            time.sleep(PAUSE)
            now, last, done = time.monotonic(), done, self.counter(interface, direction) - before
            if done >= total:
                return now - began
            if done > last:
                moved_at = now
            elif now > moved_at + PATIENCE:
                raise RuntimeError(f"{total - done:,} bytes of {total:,} are lost")

    def _make_room(self, bursts: int) -> None:
        """Let so many bursts of full packets wait in any of its queues: the TUN's, the port's, and between workers."""
        room = 2 * bursts  # the kernel has a few packets of its own for the TUN
        self.side.namespace.run("ip", "link", "set", self.side.name, "txqueuelen", str(room))
        for sock in _sockets(self.pid):  # control, if there is one, has them all
            with sock:
                for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
                    sock.setsockopt(socket.SOL_SOCKET, option, bursts * MAX_DATAGRAM)

    def _signal(self, number: int) -> None:
        for pid in self.pids():
            os.kill(pid, number)

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
        daemon = StartedWgpy(right, directory, *sections, options=("--workers", str(workers)))
        cleanup.callback(daemon.close)
        for peer in peers:
            peer.connect(right)
        yield Gateway(right, daemon, peers)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _sockets(pid: int) -> Iterator[socket.socket]:
    """Copies of a process's sockets (Linux 5.6)."""
    process = os.pidfd_open(pid)
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(link).startswith("socket:"):
                fd = _libc.syscall(_PIDFD_GETFD, process, int(link.name), 0)
                if fd < 0:
                    raise OSError(ctypes.get_errno(), "pidfd_getfd")
                yield socket.socket(fileno=fd)
    finally:
        os.close(process)


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


def opened(workers: int) -> float:
    """Datagrams a second that the gateway opens and writes."""
    with gateway(workers) as there:
        segment = _segments(MTU + TRANSPORT_OVERHEAD)
        sends = [
            partial(peer.sock.sendmsg, [peer.sealed(number)], segment)
            for number in range(BURSTS)
            for peer in there.peers
        ]
        seconds = there.seconds(sends, there.side.name, 0, HEADERS + SEGMENTS * MSS)  # as is written if it is merged
        return len(sends) * SEGMENTS / seconds


def sealed(workers: int, *, are_answered: bool = True) -> float:
    """Mbit/s of datagrams that the gateway makes of what it reads from its TUN, of some UDP flows to each peer.

    Unless the flows `are_answered`, the kernel does not know which worker's queue a flow belongs in.
    """
    with gateway(workers) as there, ExitStack() as cleanup:
        ports = range(PORT, PORT + FLOWS)
        senders = [cleanup.enter_context(there.side.namespace.udp_socket()) for _ in ports]
        for sender, port in zip(senders, ports, strict=True):
            sender.bind((there.side.inner4, port))
        size = MTU - UDP_HEADERS
        payload, segment = bytes(SEGMENTS * size), _segments(size)
        sends = [
            partial(sender.sendmsg, [payload], segment, 0, (peer.inner, PORT))
            for sender in senders
            for peer in there.peers
        ] * (BURSTS // FLOWS)
        if are_answered:
            for peer in there.peers:
                for port in ports:
                    peer.sock.send(peer.answer(there.side, port))
            answers = FLOWS * (UDP_HEADERS + len(ANSWER))
            written = PEERS * (UDP_HEADERS + answers)  # with what each peer said when it connected
            assert wait_for(lambda: there.counter(there.side.name, 0) >= written)
        burst = OUTER_HEADERS + SEGMENTS * (MTU + TRANSPORT_OVERHEAD)
        return len(sends) * burst * 8 / 1e6 / there.seconds(sends, OUTER, 1, burst)


def _segments(size: int) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_UDP, UDP_SEGMENT, pack("=H", size))]


def handshakes(workers: int) -> float:
    """Handshakes a second that the gateway answers."""

    def opener(side: Side, other: Side, directory: Path) -> StartedWgpy:
        return StartedWgpy(side, directory, options=("--workers", str(workers)))

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
