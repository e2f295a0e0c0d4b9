"""Handshakes per second that a daemon on one core answers to an honest crowd, which tries again with cookies.

The crowd is a thousand peers, each at an address of its own, so that no limit per address or peer applies. Their
initiations are made beforehand, so that the other core has little to do. As many wait for an answer as fit in a queue.
"""

from __future__ import annotations

import os
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from struct import pack, unpack_from
from typing import Final

from benchmarks.plan import Plan
from benchmarks.tunnels import Opener, Program, cable
from wgpy.constants import MESSAGE_COOKIE_REPLY, MESSAGE_RESPONSE
from wgpy.daemon import uapi_client
from wgpy.keys import PrivateKey, PublicKey
from wgpy.net.binding import IP_PKTINFO
from wgpy.noise.cookie import CookieStamp
from wgpy.noise.handshake import LocalStatic, RemoteStatic, create_initiation
from wgpy.noise.tai64n import tai64n

PEERS: Final = 1000
EACH: Final = 4  # initiations of each peer: below the 20 a second that some programs allow
WINDOW: Final = 64  # that wait for an answer at once
LOST_AFTER: Final = 0.2  # seconds
SOURCES: Final = IPv4Address("10.66.0.10")  # the first peer's
NETWORK: Final = "10.66.0.0/16"


@dataclass
class Crowd:
    """Many peers that send from one socket."""

    victim: PublicKey
    keys: list[PrivateKey] = field(default_factory=lambda: [PrivateKey.generate() for _ in range(PEERS)])
    stamps: list[CookieStamp] = field(init=False)
    messages: list[bytes] = field(init=False)  # the first of each peer, then the second of each, and so on

    def __post_init__(self) -> None:
        self.stamps = [CookieStamp(self.victim) for _ in self.keys]
        ends = [(LocalStatic(key), RemoteStatic.of(LocalStatic(key), self.victim)) for key in self.keys]
        begin = time.time_ns()
        self.messages = []
        for number in range(EACH * PEERS):
            stamp = tai64n(begin + (number // PEERS) * 10**9)
            local, remote = ends[number % PEERS]
            self.messages.append(create_initiation(local, remote, PrivateKey.generate(), number, stamp)[0])

    def answered(self, sock: socket.socket, address: tuple[str, int]) -> float:
        """Send all initiations, at most a window ahead of the answers. Returns answers per second."""
        waiting: dict[int, float] = {}
        unsent = iter(range(len(self.messages)))
        answers, begin, last = 0, time.monotonic(), 0.0
        while True:
            now = time.monotonic()
            for number in [number for number, at in waiting.items() if now - at > LOST_AFTER]:
                del waiting[number]
            while len(waiting) < WINDOW and (number := next(unsent, -1)) >= 0:
                waiting[number] = now
                self._send(sock, address, number, now)
            if not waiting:
                return answers / (last - begin) if answers else 0.0
            for number in self._replies(sock, address, waiting):
                waiting.pop(number)
                answers, last = answers + 1, time.monotonic()

    def _replies(self, sock: socket.socket, address: tuple[str, int], waiting: dict[int, float]) -> Iterator[int]:
        """The numbers of answered initiations. One that got a cookie is sent again with it."""
        if not select.select([sock], [], [], 0.05)[0]:
            return
        for _ in range(WINDOW):
            try:
                reply = sock.recv(256)
            except BlockingIOError:
                return
            kind, first, second = unpack_from("<III", reply)
            number = second if kind == MESSAGE_RESPONSE else first
            if number not in waiting:
                continue
            if kind == MESSAGE_RESPONSE:
                yield number
            elif kind == MESSAGE_COOKIE_REPLY:
                now = time.monotonic()
                if self.stamps[number % PEERS].consume_reply(reply, now):
                    self._send(sock, address, number, now)

    def _send(self, sock: socket.socket, address: tuple[str, int], number: int, now: float) -> None:
        source = (SOURCES + number % PEERS).packed
        message = self.stamps[number % PEERS].stamp(self.messages[number], now)
        sock.sendmsg([message], [(socket.IPPROTO_IP, IP_PKTINFO, pack("=i4s4s", 0, source, bytes(4)))], 0, address)


def measure(plan: Plan) -> None:
    for number, program in plan.turns(daemons=True):
        plan.attempt(f"{program.name}: handshakes", partial(_round, plan, number, program))


def _round(plan: Plan, number: int, program: Program) -> None:
    rate = answered(program.open, on_one_core=True)
    command = f"taskset -c 1 DAEMON, and {PEERS * EACH:,} initiations of {PEERS:,} peers"
    plan.add("handshakes", program.name, number, rate, command)


def answered(opener: Opener, *, on_one_core: bool) -> float:
    """Handshakes a second that a daemon answers."""
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        left, right = cable(cleanup)
        daemon = opener(right, left, directory)
        cleanup.callback(daemon.close)
        initiator = Crowd(right.public_key)
        path = directory / "peers.conf"
        path.write_text("".join(map(_peer_section, range(PEERS), initiator.keys)))
        right.namespace.run("wg", "addconf", right.name, str(path))
        right.namespace.run("ip", "route", "add", NETWORK, "via", left.outer)
        left.namespace.run("ip", "route", "add", "local", NETWORK, "dev", "lo")
        if on_one_core:
            _keep_to_one_core(uapi_client.serving_pid(right.name), cleanup)
        sock = cleanup.enter_context(left.namespace.udp_socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setblocking(False)
        return initiator.answered(sock, (right.outer, right.port))


def _peer_section(number: int, key: PrivateKey) -> str:
    return f"[Peer]\nPublicKey = {key.public_key.base64()}\nAllowedIPs = {IPv4Address('10.77.0.0') + number}/32\n"


def _keep_to_one_core(pid: int, cleanup: ExitStack) -> None:
    """Pin all threads of a daemon to one core, and this process to the others, if there are any."""
    cores = os.sched_getaffinity(0)
    core = max(cores)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
    if others := cores - {core}:
        os.sched_setaffinity(0, others)
        cleanup.callback(os.sched_setaffinity, 0, cores)
