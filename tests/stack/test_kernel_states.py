"""Against the kernel's TCP: resets in every state it can share with us, both opening at once, and congestion marks."""

from __future__ import annotations

import errno
import select
import socket
import struct

import pytest

from tests.stack.kernel import PORT, Kernel
from tests.stack.test_kernel import exchange
from tests.support.netns import in_fresh_namespace
from wgpy.device.ip import CE, ECT_0
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.header import ACK, CWR, ECE, RST
from wgpy.stack.tcp.state import State
from wgpy.tun.checksum import checksum

pytestmark = pytest.mark.root

S = State
CLOSE = 7  # the kernel's TCP_CLOSE
REACHED = (S.SYN_RECEIVED, S.ESTABLISHED, S.FIN_WAIT_1, S.FIN_WAIT_2, S.CLOSE_WAIT, S.LAST_ACK, S.CLOSING, S.TIME_WAIT)


def reach(kernel: Kernel, state: State) -> tuple[Connection, socket.socket]:
    """Ours is in this state, and what would lead out of it is lost."""
    if state is S.SYN_RECEIVED:
        listener = kernel.host.listen(None, PORT)
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((kernel.ours, PORT))
        kernel.filter = lambda packet, to_kernel: int(to_kernel or not packet[33] & ACK)
        kernel.pump(lambda: listener.half_open and select.select([], [client], [], 0)[1])
        return next(iter(listener.half_open)), client
    connection, sock = kernel.connected()
    if state in (S.CLOSE_WAIT, S.LAST_ACK):
        sock.shutdown(socket.SHUT_WR)
        kernel.pump(lambda: connection.state is S.CLOSE_WAIT)
    if state in (S.FIN_WAIT_1, S.LAST_ACK):
        kernel.filter = lambda packet, to_kernel: int(to_kernel)
    if state is S.CLOSING:
        kernel.filter = lambda packet, to_kernel: int(not to_kernel)
    if state not in (S.ESTABLISHED, S.CLOSE_WAIT):
        connection.shutdown()
        kernel.host.wake(connection)
        kernel.pump(lambda: connection.sender.next == connection.sender.end)
    if state in (S.FIN_WAIT_2, S.TIME_WAIT):
        kernel.pump(lambda: connection.state is S.FIN_WAIT_2)
    if state in (S.CLOSING, S.TIME_WAIT):
        sock.shutdown(socket.SHUT_WR)
    kernel.pump(lambda: connection.state is state)
    return connection, sock


def state_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


@pytest.mark.parametrize("state", REACHED)
@in_fresh_namespace
def test_ours_resets_in_every_state(state: State) -> None:
    kernel = Kernel()
    connection, sock = reach(kernel, state)
    resets: list[bytes] = []
    kernel.filter = lambda packet, to_kernel: resets.append(packet) or 1 if packet[33] & RST else 1  # type: ignore[func-returns-value]
    connection.abort()
    kernel.host.wake(connection)
    kernel.pump(lambda: connection.key not in kernel.host._connections and not kernel.host.has_more)
    assert bool(resets) == (state is not S.TIME_WAIT)  # more, if the kernel repeats its FIN meanwhile
    if state in (S.LAST_ACK, S.TIME_WAIT):
        return  # the kernel has all that it needs, and its socket is in TIME-WAIT or closed
    kernel.pump(lambda: state_of(sock) == CLOSE)
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert told == (errno.EPIPE if state in (S.FIN_WAIT_1, S.FIN_WAIT_2) else errno.ECONNRESET)


@pytest.mark.parametrize("state", [S.SYN_RECEIVED, S.ESTABLISHED, S.FIN_WAIT_1, S.FIN_WAIT_2, S.CLOSE_WAIT])
@in_fresh_namespace
def test_the_kernel_resets_in_every_state(state: State) -> None:
    """In the others it has nothing to reset: a program that closes leaves them to end by themselves."""
    kernel = Kernel()
    connection, sock = reach(kernel, state)
    kernel.filter = None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    kernel.pump(lambda: connection.state is S.CLOSED)
    assert connection.error is not None
    assert connection.error.errno == (errno.EPIPE if state is S.CLOSE_WAIT else errno.ECONNRESET)
    assert connection.key not in kernel.host._connections


@pytest.mark.parametrize("v6", [False, True])
@in_fresh_namespace
def test_simultaneous_open(v6: bool) -> None:
    """RFC 9293, 3.5: each SYN is on its way when the other leaves, and both become one connection."""
    kernel = Kernel(v6=v6)
    client = socket.socket(kernel.family, socket.SOCK_STREAM)
    client.bind((kernel.address, PORT))
    client.setblocking(False)
    client.connect_ex((kernel.ours, PORT))
    connection = kernel.host.connect(kernel.packed, PORT, 0.0, local_port=PORT)
    seen: list[State] = []

    def done() -> bool:
        seen.append(connection.state)
        return connection.state is S.ESTABLISHED and bool(select.select([], [client], [], 0)[1])

    kernel.pump(done)
    assert S.SYN_RECEIVED in seen
    client.setblocking(True)
    exchange(kernel, connection, client, size=100_000)


@pytest.mark.parametrize("opens", ["ours", "kernel"])
@in_fresh_namespace
def test_congestion_marks_are_echoed_and_obeyed_both_ways(opens: str) -> None:
    """RFC 3168: some packets are marked; the receiver echoes that until the sender says that it sends less."""
    kernel = Kernel()
    kernel.sysctl("ipv4/tcp_ecn", 1)
    told: set[tuple[bool, int]] = set()
    count = 0

    def mark(packet: bytes, to_kernel: bool) -> int:
        nonlocal count
        told.update((to_kernel, flag) for flag in (ECE, CWR) if packet[33] & ACK and packet[33] & flag)
        if packet[1] & 3 != ECT_0:
            return 1
        count += 1
        if count % 100:
            return 1
        marked = bytearray(packet)
        marked[1] |= CE
        marked[10:12] = bytes(2)
        marked[10:12] = checksum(marked[:20]).to_bytes(2)
        kernel.held.append((0.0, bytes(marked), to_kernel))
        return 0

    kernel.filter = mark
    connection, sock = kernel.connected() if opens == "ours" else kernel.accepted()
    exchange(kernel, connection, sock)
    assert count > 1000
    assert {(True, ECE), (True, CWR), (False, ECE), (False, CWR)} <= told
