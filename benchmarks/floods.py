"""Which peers get through while an attacker floods the port, and how soon a crowd is served.

The flood's messages have a valid mac1, so each demands a cookie or a key exchange. Handshakes are counted, not timed. A
try is one initiation; the next follows after three seconds or a cookie, instead of after WireGuard's five seconds.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from statistics import mean
from struct import pack, unpack_from
from typing import Final

from benchmarks.plan import Plan
from benchmarks.tunnels import OUTER, Program, cable
from tests.support.peers import Side
from wgpy.constants import MESSAGE_RESPONSE
from wgpy.keys import PrivateKey, PublicKey
from wgpy.net.binding import IP_PKTINFO
from wgpy.noise.cookie import CookieStamp
from wgpy.noise.handshake import LocalStatic, RemoteStatic, create_initiation
from wgpy.noise.tai64n import tai64n

STRANGERS: Final = "10.66.0.0/17"  # the flood's source addresses
NEWCOMERS: Final = IPv4Address("10.66.200.1")  # of the first newcomer
NETWORK: Final = "10.66.0.0/16"
NEIGHBOUR: Final = "10.66.250.1"  # shared by the crowd
TRY_AGAIN_AFTER: Final = 3.0  # seconds, longer than messages wait in a queue without load
RETRANSMIT_AFTER: Final = 5.0  # seconds, as in WireGuard

SPOOFED_RATE: Final = 9_000  # messages a second, like all rates of floods here
SPOOFED_TRIES: Final = 17
BETWEEN_HANDSHAKES: Final = 0.1  # seconds: below the 20 a second that an address is allowed
NEWCOMER_COUNT: Final = 6
MOST_TRIES: Final = 12
WINDOW: Final = 64
WINDOW_PEERS: Final = 2_000
CROWD: Final = 5_000
CROWD_COMES_IN: Final = 1.0  # seconds
CROWD_WAITS: Final = 30.0


class Initiator:
    """One peer that begins handshakes from a given address, and does nothing else."""

    def __init__(self, victim: PublicKey, number: int = 0) -> None:
        self.key = PrivateKey.generate()
        self._local = LocalStatic(self.key)
        self._remote = RemoteStatic.of(self._local, victim)
        self._stamp = CookieStamp(victim)
        self.index = number

    def initiation(self) -> bytes:
        """A new initiation, with the cookie if there is one."""
        stamp = tai64n(time.time_ns())
        message, _ = create_initiation(self._local, self._remote, PrivateKey.generate(), self.index, stamp)
        return self._stamp.stamp(message, time.monotonic())

    def is_answered(self, reply: bytes) -> bool:
        """Whether the reply completes the handshake; a cookie is kept for the next initiation."""
        if reply[0] == MESSAGE_RESPONSE:
            return True
        self._stamp.consume_reply(reply, time.monotonic())
        return False

    def tries(self, sock: socket.socket, victim: Side, source: str, most: int) -> int:
        """How many initiations it takes until one is answered; `most` + 1 if none is."""
        for number in range(1, most + 1):
            if self.initiate(sock, victim, source):
                return number
        return most + 1

    def initiate(self, sock: socket.socket, victim: Side, source: str) -> bool:
        """Send one initiation; whether a response comes."""
        send(sock, victim, source, self.initiation())
        until = time.monotonic() + TRY_AGAIN_AFTER
        while (left := until - time.monotonic()) > 0 and select.select([sock], [], [], left)[0]:
            reply = sock.recv(256)
            if self.index == addressed(reply):
                return self.is_answered(reply)
        return False


def send(sock: socket.socket, victim: Side, source: str, message: bytes) -> None:
    control = pack("=i4s4s", 0, IPv4Address(source).packed, bytes(4))
    sock.sendmsg([message], [(socket.IPPROTO_IP, IP_PKTINFO, control)], 0, (victim.outer, victim.port))


def addressed(reply: bytes) -> int:
    """The index a response or cookie reply is for."""
    kind, first, second = unpack_from("<III", reply)
    return int(second if kind == MESSAGE_RESPONSE else first)


class Scene:
    """A daemon, and the network at the other end of its cable, from which all others send."""

    def __init__(self, program: Program, cleanup: ExitStack) -> None:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        self.left, self.right = cable(cleanup)
        self.daemon = program.open(self.right, self.left, directory)
        cleanup.callback(self.daemon.close)
        self.right.namespace.run("ip", "route", "add", NETWORK, "via", self.left.outer)
        self.left.namespace.run("ip", "route", "add", "local", NETWORK, "dev", "lo")
        self._directory, self._program, self._cleanup = directory, program, cleanup

    def initiators(self, count: int) -> list[Initiator]:
        """Peers that are configured in the daemon and have not sent anything yet."""
        initiators = [Initiator(self.right.public_key, number) for number in range(count)]
        path = self._directory / "peers.conf"
        path.write_text("".join(map(_peer_section, initiators)))
        self.right.namespace.run("wg", "addconf", self.right.name, str(path))
        return initiators

    def socket(self) -> socket.socket:
        sock = self._cleanup.enter_context(self.left.namespace.udp_socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.setblocking(False)
        return sock

    def connect(self) -> None:
        """Run the same program at the other end, and wait until the tunnel carries packets."""
        self._cleanup.callback(self._program.open(self.left, self.right, self._directory).close)
        self.left.namespace.run("ping", "-c1", "-i0.2", "-w10", self.right.inner4)

    @contextmanager
    def flood(self, rate: int, sources: str) -> Iterator[None]:
        victim = f"{self.right.public_key.base64()}@{self.right.outer}:{self.right.port}"
        command = ("nice", "-n19", sys.executable, "-m", "tests.support.flood", "initiations", victim, sources)
        process = self.left.namespace.popen(*command, f"--rate={rate}", stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(1.5)  # until the daemon notices that it is under load
            yield
            assert process.poll() is None
        finally:
            process.terminate()
            process.communicate(timeout=60)

    @contextmanager
    def trickle(self) -> Iterator[None]:
        """Send a packet through the tunnel every 2 ms."""
        ping = self.left.namespace.popen("ping", "-q", "-i0.002", self.right.inner4, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            ping.terminate()
            ping.wait(10)


def _peer_section(initiator: Initiator) -> str:
    address = IPv4Address("10.77.0.0") + initiator.index
    return f"[Peer]\nPublicKey = {initiator.key.public_key.base64()}\nAllowedIPs = {address}/32\n"


def spoofed(program: Program) -> float:
    """How many of a peer's handshakes are answered while an attacker sends initiations from the peer's address."""
    with ExitStack() as cleanup:
        scene = Scene(program, cleanup)
        (initiator,), sock = scene.initiators(1), scene.socket()
        with scene.flood(SPOOFED_RATE, f"{OUTER[4][0]}/32"):
            initiator.initiate(sock, scene.right, scene.left.outer)  # may bring only a cookie
            answered = 0
            for _ in range(SPOOFED_TRIES):
                time.sleep(BETWEEN_HANDSHAKES)
                answered += initiator.initiate(sock, scene.right, scene.left.outer)
            return answered


def newcomers(program: Program, rate: int) -> list[int]:
    """How many tries each of some peers at new addresses needs during a flood, while a tunnel is in use.

    They come together, and the tunnel carries a packet every 2 ms.
    """
    with ExitStack() as cleanup:
        scene = Scene(program, cleanup)
        initiators = scene.initiators(NEWCOMER_COUNT)
        sockets = [scene.socket() for _ in initiators]
        scene.connect()
        pool = cleanup.enter_context(ThreadPoolExecutor(NEWCOMER_COUNT))

        def tries(initiator: Initiator, sock: socket.socket) -> int:
            return initiator.tries(sock, scene.right, str(NEWCOMERS + initiator.index), MOST_TRIES)

        with scene.trickle(), scene.flood(rate, STRANGERS):
            return list(pool.map(tries, initiators, sockets))


def window(program: Program) -> int:
    """How many initiations are answered at the first try, each from another peer behind the same address."""
    with ExitStack() as cleanup:
        scene = Scene(program, cleanup)
        initiators, sock = scene.initiators(WINDOW_PEERS), scene.socket()
        unsent = iter([(initiator.index, initiator.initiation()) for initiator in initiators])
        waiting, answered = set[int](), 0
        while True:
            while len(waiting) < WINDOW and (following := next(unsent, None)):
                waiting.add(following[0])
                send(sock, scene.right, NEIGHBOUR, following[1])
            if not waiting or not select.select([sock], [], [], TRY_AGAIN_AFTER)[0]:
                if not waiting:
                    return answered
                waiting.clear()
                continue
            for reply in _replies(sock):
                if addressed(reply) in waiting:
                    waiting.remove(addressed(reply))
                    answered += reply[0] == MESSAGE_RESPONSE


def crowd(program: Program) -> float:
    """Seconds until a whole crowd behind one address, which arrives within one second, is connected."""
    with ExitStack() as cleanup:
        scene = Scene(program, cleanup)
        initiators, sock = scene.initiators(CROWD), scene.socket()
        messages = [initiator.initiation() for initiator in initiators]
        began = now = time.monotonic()
        due = {initiator.index: began + CROWD_COMES_IN * initiator.index / CROWD for initiator in initiators}
        last = began
        while due and now < began + CROWD_WAITS:
            for index, at in list(due.items()):
                if at > now:
                    continue
                message = messages[index] if at < began + CROWD_COMES_IN else initiators[index].initiation()
                send(sock, scene.right, NEIGHBOUR, message)
                due[index] = now + RETRANSMIT_AFTER
            select.select([sock], [], [], 0.002)
            for reply in _replies(sock):
                if initiators[addressed(reply)].is_answered(reply) and due.pop(addressed(reply), 0.0):
                    last = time.monotonic()
            now = time.monotonic()
        return CROWD_WAITS if due else last - began


def _replies(sock: socket.socket) -> Iterator[bytes]:
    for _ in range(WINDOW):
        try:
            yield sock.recv(256)
        except BlockingIOError:
            return


MEASURED: Final[dict[str, Callable[[Program], float]]] = {
    "flood_spoofed": spoofed,
    "flood_12000": lambda program: mean(newcomers(program, 12_000)),
    "flood_60000": lambda program: mean(newcomers(program, 60_000)),
    "flood_window": window,
    "flood_crowd": crowd,
}


def measure(plan: Plan) -> None:
    for number, program in plan.turns(daemons=True):
        for name, measured in MEASURED.items():
            plan.attempt(f"{program.name}: {name}", partial(_add, plan, name, number, program, measured))


def _add(plan: Plan, name: str, number: int, program: Program, measured: Callable[[Program], float]) -> None:
    plan.add(name, program.name, number, measured(program), "DAEMON, a flood, and peers of benchmarks/floods.py")
