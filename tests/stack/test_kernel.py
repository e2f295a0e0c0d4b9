"""Against the kernel's TCP in both roles: who opens, who closes, resets, windows, options, ECN, and bad lines."""

from __future__ import annotations

import random
import select
import socket
import struct
import subprocess
import time

import pytest

from tests.stack.kernel import InThread, Kernel, read_all
from tests.stack.line import digest
from tests.support.netns import in_fresh_namespace
from wgpy.constants import MAX_SEGMENTS
from wgpy.stack.ip import Drop
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.state import State

pytestmark = pytest.mark.root

UP = random.Random(1).randbytes(3_000_000)
DOWN = random.Random(2).randbytes(2_000_003)


class Mover:
    """Writes `data` to our end and closes its side; keeps what comes."""

    def __init__(self, kernel: Kernel, connection: Connection, data: bytes) -> None:
        self.kernel = kernel
        self.connection = connection
        self.data = memoryview(data)
        self.received = bytearray()

    def __call__(self) -> bool:
        """Go on; whether both directions are over."""
        connection, worked = self.connection, False
        while self.data and connection.sender.buffer.end - connection.sender.buffer.start < 1 << 20:
            connection.write(bytes(self.data[:65536]))
            self.data = self.data[65536:]
            worked = True
        if not self.data and not connection.sender.fin_wanted:
            connection.shutdown()
            worked = True
        while data := connection.read():
            self.received += data
            worked = True
        if worked:
            self.kernel.host.wake(connection)
        return connection.is_at_end and connection.sender.acknowledged == connection.sender.end


def exchange(
    kernel: Kernel, connection: Connection, sock: socket.socket, timeout: float = 60.0, size: int = len(UP)
) -> None:
    """Up to `size` bytes both ways at once, by hash; both close."""
    up, down = UP[:size], DOWN[:size]

    def theirs() -> bytes:
        def send() -> None:
            sock.sendall(down)
            sock.shutdown(socket.SHUT_WR)

        sending = InThread(send)
        data = read_all(sock)
        _ = sending.result
        return data

    thread, mover = InThread(theirs), Mover(kernel, connection, up)
    kernel.pump(lambda: mover() and thread.is_done, timeout)
    assert digest(thread.result) == digest(up)
    assert digest(mover.received) == digest(down)
    sock.close()


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("opens", ["ours", "kernel"])
@in_fresh_namespace
def test_bytes_both_ways(v6: bool, opens: str) -> None:
    kernel = Kernel(v6=v6)
    exchange(kernel, *(kernel.connected() if opens == "ours" else kernel.accepted()))
    # On a machine that stalls, the kernel's timers send again what had arrived, or probe a window that is closed.
    assert kernel.host.drops.total() <= kernel.sent_again()
    assert set(kernel.host.drops) <= {Drop.NOT_IN_WINDOW}


@pytest.mark.parametrize(
    "setting",
    ["tcp_timestamps=0", "tcp_sack=0", "tcp_window_scaling=0", "tcp_ecn=1", "tcp_ecn=0", "tcp_dsack=0"],
)
@pytest.mark.parametrize("opens", ["ours", "kernel"])
@in_fresh_namespace
def test_the_kernels_options_are_negotiated(setting: str, opens: str) -> None:
    kernel = Kernel()
    name, _, value = setting.partition("=")
    kernel.sysctl(f"ipv4/{name}", value)
    chance = random.Random(3)
    kernel.filter = lambda packet, to_kernel: int(chance.random() > 0.002)
    exchange(kernel, *(kernel.connected() if opens == "ours" else kernel.accepted()))


@pytest.mark.parametrize("fault", ["loss", "much loss", "repeats", "reordering", "corruption"])
@in_fresh_namespace
def test_transfers_survive_bad_lines(fault: str) -> None:
    kernel = Kernel()
    chance = random.Random(4)

    def passes(packet: bytes, to_kernel: bool) -> int:
        if fault == "corruption" and chance.random() < 0.02:
            damaged = bytearray(packet)
            damaged[chance.randrange(20, len(damaged))] ^= 0x10
            kernel.held.append((0.0, bytes(damaged), to_kernel))
            return 0
        if fault == "reordering" and chance.random() < 0.05:
            kernel.held.append((time.monotonic() + 0.003, packet, to_kernel))
            return 0
        if fault == "repeats" and chance.random() < 0.05:
            return 2
        return int(chance.random() > {"loss": 0.02, "much loss": 0.2}.get(fault, 0.0))

    kernel.filter = passes
    kernel.delay = 0.002
    exchange(kernel, *kernel.connected(), timeout=120, size=200_000)


@in_fresh_namespace
def test_a_closed_port_refuses() -> None:
    kernel = Kernel()
    connection = kernel.connect()
    assert isinstance(connection.error, ConnectionRefusedError)
    client = socket.socket()
    client.settimeout(60)
    thread = InThread(lambda: client.connect((kernel.ours, 9)))
    kernel.pump(lambda: thread.is_done)
    with pytest.raises(ConnectionRefusedError):
        _ = thread.result


@pytest.mark.parametrize("opens", ["ours", "kernel"])
@pytest.mark.parametrize("closes", ["ours", "kernel"])
@in_fresh_namespace
def test_half_close(opens: str, closes: str) -> None:
    """The end that closes its side first still receives all that the other sends."""
    kernel = Kernel()
    connection, sock = kernel.connected() if opens == "ours" else kernel.accepted()
    if closes == "ours":
        connection.shutdown()
        kernel.host.wake(connection)
        thread = InThread(lambda: read_all(sock))
        kernel.pump(lambda: thread.is_done and connection.state is State.FIN_WAIT_2)
        sock.sendall(b"after")
        sock.close()
        kernel.pump(lambda: connection.state is State.TIME_WAIT)
        assert connection.read() == b"after"
        assert connection.is_at_end
    else:
        sock.shutdown(socket.SHUT_WR)
        kernel.pump(lambda: connection.state is State.CLOSE_WAIT)
        connection.write(b"after")
        connection.shutdown()
        kernel.host.wake(connection)
        thread = InThread(lambda: read_all(sock))
        kernel.pump(lambda: thread.is_done and connection.state is State.CLOSED)
        assert thread.result == b"after"
        sock.close()


@pytest.mark.parametrize("opens", ["ours", "kernel"])
@in_fresh_namespace
def test_resets(opens: str) -> None:
    kernel = Kernel()
    connection, sock = kernel.connected() if opens == "ours" else kernel.accepted()
    connection.abort()
    kernel.host.wake(connection)
    thread = InThread(lambda: sock.recv(1))
    kernel.pump(lambda: thread.is_done)
    with pytest.raises(ConnectionResetError):
        _ = thread.result
    connection, sock = kernel.connected(7001) if opens == "ours" else kernel.accepted(7001)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    kernel.pump(lambda: connection.state is State.CLOSED)
    assert isinstance(connection.error, ConnectionResetError)


@in_fresh_namespace
def test_both_ends_wait_for_a_zero_window_to_open() -> None:
    kernel = Kernel()
    connection, sock = kernel.connected()
    for _ in range(160):
        connection.write(UP[:65536])
    kernel.host.wake(connection)
    kernel.pump(lambda: connection.sender.window < connection.sender.segment)
    thread = InThread(lambda: len(read_all(sock)))
    connection.shutdown()
    kernel.host.wake(connection)
    kernel.pump(lambda: thread.is_done)
    assert thread.result == 160 * 65536

    sock.setblocking(False)
    sent = 0

    def fill() -> bool:
        nonlocal sent
        try:
            sent += sock.send(DOWN[:65536])
        except BlockingIOError:
            return connection.receiver.window() < connection.sender.segment
        return False

    kernel.pump(fill)
    received = 0

    def drain() -> bool:
        nonlocal received
        while data := connection.read():
            received += len(data)
        kernel.host.wake(connection)
        return received == sent

    kernel.pump(drain)
    sock.close()


@pytest.mark.parametrize("size", [1, 100, 1367, 1368, 1369, 65536])
@in_fresh_namespace
def test_writes_of_every_size(size: int) -> None:
    kernel = Kernel()
    connection, sock = kernel.connected()
    count = min(3000, 2_000_000 // size)
    data = UP[: size * count] if size * count <= len(UP) else UP
    thread = InThread(lambda: read_all(sock))
    for at in range(0, len(data), size):
        connection.write(data[at : at + size])
        kernel.host.wake(connection)
        if at % (size * 16) == 0:
            kernel.pump(lambda: True)
    connection.shutdown()
    kernel.host.wake(connection)
    kernel.pump(lambda: thread.is_done)
    assert digest(thread.result) == digest(data)
    sock.close()


@pytest.mark.parametrize("opens", ["ours", "kernel"])
@in_fresh_namespace
def test_the_mtu_changes_in_flight(opens: str) -> None:
    """On both ends, down and up again, while bytes go both ways: none is lost, and ours uses what it may."""
    kernel = Kernel()
    connection, sock = kernel.connected() if opens == "ours" else kernel.accepted()
    lengths: list[int] = []
    mtus = iter((1300, 700, 1420, 576, 1420))

    def look(packet: bytes, to_kernel: bool) -> int:
        if not to_kernel:
            return 1
        lengths.append(len(packet))
        if len(lengths) % 500 == 0 and (mtu := next(mtus, 0)):
            subprocess.run(["ip", "link", "set", "t0", "mtu", str(mtu)], check=True)
            kernel.tun.mtu = mtu
            kernel.host.resize(mtu, time.monotonic())
        return 1

    kernel.filter = look
    exchange(kernel, connection, sock)
    assert next(mtus, 0) == 0
    for number, mtu in enumerate((1300, 700, 1420, 576), 1):  # the burst in which it changed had left
        assert max(lengths[number * 500 + MAX_SEGMENTS : (number + 1) * 500]) == mtu


@pytest.mark.parametrize("v6", [False, True])
@in_fresh_namespace
def test_ping_and_udp(v6: bool) -> None:
    kernel = Kernel(v6=v6)
    ping = InThread(lambda: subprocess.run(["ping", "-c", "2", "-i", "0.1", "-s", "4000", kernel.ours], check=True))
    kernel.pump(lambda: ping.is_done)
    assert ping.result.returncode == 0
    kernel.host.ping(kernel.packed, 1, 2, bytes(4000), time.monotonic())
    kernel.pump(lambda: any(news.echoes for news in kernel.news))

    ours = kernel.host.bind_udp(None, 5353)
    with socket.socket(kernel.family, socket.SOCK_DGRAM) as theirs:
        theirs.bind((kernel.address, 0))
        theirs.sendto(UP[:9000], (kernel.ours, 5353))
        kernel.pump(lambda: ours.received)
        datagram = ours.take()
        assert datagram is not None
        assert datagram.payload == UP[:9000]
        kernel.host.send_udp(ours, DOWN[:9000], datagram.source, time.monotonic())
        kernel.pump(lambda: select.select([theirs], [], [], 0)[0])
        assert theirs.recv(10_000) == DOWN[:9000]
        theirs.connect((kernel.ours, 9))
        theirs.send(b"nobody there")
        kernel.pump(lambda: select.select([theirs], [], [], 0)[0])
        with pytest.raises(ConnectionRefusedError):
            theirs.recv(1)
    ours.peer = (kernel.packed, 9)
    kernel.host.send_udp(ours, b"nobody there", ours.peer, time.monotonic())
    kernel.pump(lambda: ours.error)
