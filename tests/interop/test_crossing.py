"""Both ends begin at once, round after round, against the kernel and wireguard-go: no initiation is sent twice."""

from __future__ import annotations

import select
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.interop.conftest import Cable
from tests.support.peers import peer_section
from wgpy.constants import MESSAGE_INITIATION

pytestmark = [pytest.mark.root, pytest.mark.without_wgpy]

OURS, THEIRS = 7001, 7002  # where the relay is reached by wgpy, and by the other
ROUNDS = 12


class Relay:
    """Carries datagrams between two ends, and keeps the first initiation until the other end has sent one, too."""

    def __init__(self, cable: Cable) -> None:
        self.sockets = [cable.left.namespace.udp_socket() for _ in range(2)]
        for sock, port in zip(self.sockets, (OURS, THEIRS), strict=True):
            sock.bind((cable.left.outer, port))
        self.ends = [(cable.left.outer, cable.left.port), (cable.right.outer, cable.right.port)]
        self._stop, self._stopped = socket.socketpair()

    def carry(self, first: int) -> list[int]:
        """Until `stop`, which end sent each initiation: 0 for wgpy. That of end `first` arrives first."""
        initiations: list[int] = []
        held: dict[int, bytes] = {}
        while self._stopped not in (ready := select.select([*self.sockets, self._stopped], [], [])[0]):
            for sock in ready:
                end, datagram = self.sockets.index(sock), sock.recv(2048)
                if datagram[0] != MESSAGE_INITIATION:
                    self._pass_on(end, datagram)
                    continue
                initiations.append(end)
                held[end] = datagram
                if len(set(initiations)) == 2:
                    for end in sorted(held, reverse=first == 1):
                        self._pass_on(end, held[end])
                    held.clear()
        self._stopped.recv(1)
        return initiations

    def _pass_on(self, end: int, datagram: bytes) -> None:
        self.sockets[1 - end].sendto(datagram, self.ends[1 - end])

    def stop(self) -> None:
        self._stop.send(b"x")

    def close(self) -> None:
        for sock in (*self.sockets, self._stop, self._stopped):
            sock.close()


def test_handshakes_that_cross_need_no_further_handshake(cable_to_program: Cable, program: str) -> None:
    cable = cable_to_program
    left, right = cable.left, cable.right
    relay = Relay(cable)
    cable.cleanup.callback(relay.close)
    cable.open(right, peer_section(left, endpoint=f"{left.outer}:{THEIRS}"))
    cable.open(left, peer_section(right, endpoint=f"{left.outer}:{OURS}"))
    lost = 0  # rounds in which wireguard-go lost our packet
    with ThreadPoolExecutor(3) as threads:
        for number in range(ROUNDS):
            for here, there, port in ((left, right, OURS), (right, left, THEIRS)):  # as new, without a session
                peer = ("wg", "set", here.name, "peer", there.public_key.base64())
                here.namespace.run(*peer, "remove")
                allowed = f"{there.inner4}/32,{there.inner6}/128"
                here.namespace.run(*peer, "endpoint", f"{left.outer}:{port}", "allowed-ips", allowed)
            carried = threads.submit(relay.carry, number % 2)
            pings = [
                threads.submit(here.namespace.run, "ping", "-c", "1", "-w", "25", there.inner4)
                for here, there in ((left, right), (right, left))
            ]
            try:
                for ping in pings:
                    ping.result()
            finally:
                relay.stop()
            initiations = carried.result()
            if program == "wireguard-go" and len(initiations) > 2:
                lost += 1
                continue
            assert initiations.count(0) == 1, f"round {number}: wgpy began again"
            # boringtun repeats its own within these rounds, though it was answered
            assert program == "boringtun" or initiations.count(1) == 1, f"round {number}: {program} began again"
    # On a busy machine the handshake workers of Debian's wireguard-go 2023 overtake one another: now and then it drops
    # what comes in a session that it uses itself, until the next one 15 s later.
    assert lost <= 1
