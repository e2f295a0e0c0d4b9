"""Who gets through while somebody floods the port, and how soon a crowd is served: handshakes counted, not timed.

A flood passes mac1, so each of its messages asks for a cookie or for an exchange of keys. A try is one initiation; the
next one follows after three seconds or a cookie, in place of WireGuard's five seconds.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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

STRANGERS: Final = "10.66.0.0/17"  # whose addresses the flood has
NEWCOMERS: Final = IPv4Address("10.66.200.1")  # the first newcomer's
NETWORK: Final = "10.66.0.0/16"
NEIGHBOUR: Final = "10.66.250.1"  # shared by the crowd
TRY_AGAIN_AFTER: Final = 3.0  # seconds: longer than a queue without load may take
RETRANSMIT_AFTER: Final = 5.0  # of WireGuard

SPOOFED_RATE: Final = 9_000  # a second, as all floods here
SPOOFED_TRIES: Final = 17
BETWEEN_HANDSHAKES: Final = 0.1  # seconds: within 20 a second, which is what an address may do
NEWCOMER_COUNT: Final = 6
MOST_TRIES: Final = 12
WINDOW: Final = 64
WINDOW_PEERS: Final = 2_000
CROWD: Final = 5_000
CROWD_COMES_IN: Final = 1.0  # seconds
CROWD_WAITS: Final = 30.0


class Knocker:
    """One peer that begins handshakes from a given address, and does no more."""

    def __init__(self, victim: PublicKey, number: int = 0) -> None:
        self.key = PrivateKey.generate()
        self._local = LocalStatic(self.key)
        self._remote = RemoteStatic.of(self._local, victim)
        self._stamp = CookieStamp(victim)
        self.index = number

    def initiation(self) -> bytes:
        """A new one, with the cookie if there is one."""
        stamp = tai64n(time.time_ns())
        message, _ = create_initiation(self._local, self._remote, PrivateKey.generate(), self.index, stamp)
        return self._stamp.stamp(message, time.monotonic())

    def is_answered(self, reply: bytes) -> bool:
        """Whether that completes the handshake; a cookie is kept for the next one."""
        if reply[0] == MESSAGE_RESPONSE:
            return True
        self._stamp.consume_reply(reply, time.monotonic())
        return False

    def tries(self, sock: socket.socket, victim: Side, source: str, most: int) -> int:
        """How many initiations it takes to be answered; one more than `most` for never."""
        for number in range(1, most + 1):
            if self.knock(sock, victim, source):
                return number
        return most + 1

    def knock(self, sock: socket.socket, victim: Side, source: str) -> bool:
        """Whether one initiation is answered by a response."""
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
    """A daemon, and the network on the other end of its cable that everybody else comes from."""

    def __init__(self, program: Program, cleanup: ExitStack) -> None:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        self.left, self.right = cable(cleanup)
        self.daemon = program.open(self.right, self.left, directory)
        cleanup.callback(self.daemon.close)
        self.right.namespace.run("ip", "route", "add", NETWORK, "via", self.left.outer)
        self.left.namespace.run("ip", "route", "add", "local", NETWORK, "dev", "lo")
        self._directory, self._program, self._cleanup = directory, program, cleanup

    def knockers(self, count: int) -> list[Knocker]:
        """Peers that the daemon knows and has not met."""
        knockers = [Knocker(self.right.public_key, number) for number in range(count)]
        path = self._directory / "peers.conf"
        path.write_text("".join(map(_peer_section, knockers)))
        self.right.namespace.run("wg", "addconf", self.right.name, str(path))
        return knockers

    def socket(self) -> socket.socket:
        sock = self._cleanup.enter_context(self.left.namespace.udp_socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.setblocking(False)
        return sock

    def connect(self) -> None:
        """Serve the other end by the same program, and wait for the tunnel."""
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
            time.sleep(1.5)  # until load is noticed, and lasts
            yield
            assert process.poll() is None
        finally:
            process.terminate()
            process.communicate(timeout=60)

    @contextmanager
    def trickle(self) -> Iterator[None]:
        """A packet through the tunnel every 2 ms."""
        ping = self.left.namespace.popen("ping", "-q", "-i0.002", self.right.inner4, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            ping.terminate()
            ping.wait(10)


def _peer_section(knocker: Knocker) -> str:
    address = IPv4Address("10.77.0.0") + knocker.index
    return f"[Peer]\nPublicKey = {knocker.key.public_key.base64()}\nAllowedIPs = {address}/32\n"


def spoofed(program: Program) -> float:
    """Of the handshakes of a peer, how many are answered while somebody sends initiations from the peer's address."""
    with ExitStack() as cleanup:
        scene = Scene(program, cleanup)
        (knocker,), sock = scene.knockers(1), scene.socket()
        with scene.flood(SPOOFED_RATE, f"{OUTER[4][0]}/32"):
            knocker.knock(sock, scene.right, scene.left.outer)  # which may bring a cookie only
            answered = 0
            for _ in range(SPOOFED_TRIES):
                time.sleep(BETWEEN_HANDSHAKES)
                answered += knocker.knock(sock, scene.right, scene.left.outer)
            return answered


def newcomers(program: Program, rate: int) -> list[int]:
    """Tries that peers at new addresses need while others flood and a tunnel carries a packet every 2 ms."""
    with ExitStack() as cleanup:
        scene = Scene(program, cleanup)
        knockers, sock = scene.knockers(NEWCOMER_COUNT), scene.socket()
        scene.connect()
        with scene.trickle(), scene.flood(rate, STRANGERS):
            places = (str(NEWCOMERS + knocker.index) for knocker in knockers)
            return [
                knocker.tries(sock, scene.right, place, MOST_TRIES)
                for knocker, place in zip(knockers, places, strict=True)
            ]


def window(program: Program) -> int:
    """Of so many initiations, each of another peer behind one address, how many are answered without a second try."""
    with ExitStack() as cleanup:
        scene = Scene(program, cleanup)
        knockers, sock = scene.knockers(WINDOW_PEERS), scene.socket()
        unsent = iter([(knocker.index, knocker.initiation()) for knocker in knockers])
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
    """Seconds until all of a crowd behind one address, which comes within one second, are connected."""
    with ExitStack() as cleanup:
        scene = Scene(program, cleanup)
        knockers, sock = scene.knockers(CROWD), scene.socket()
        messages = [knocker.initiation() for knocker in knockers]
        began = now = time.monotonic()
        due = {knocker.index: began + CROWD_COMES_IN * knocker.index / CROWD for knocker in knockers}
        last = began
        while due and now < began + CROWD_WAITS:
            for index, at in list(due.items()):
                if at > now:
                    continue
                message = messages[index] if at < began + CROWD_COMES_IN else knockers[index].initiation()
                send(sock, scene.right, NEIGHBOUR, message)
                due[index] = now + RETRANSMIT_AFTER
            select.select([sock], [], [], 0.002)
            for reply in _replies(sock):
                if knockers[addressed(reply)].is_answered(reply) and due.pop(addressed(reply), 0.0):
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
