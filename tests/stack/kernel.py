"""A Host against the kernel's TCP/IP: a TUN between them, in a namespace of the test's own, on the real clock."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from wgpy.burst import Burst
from wgpy.stack.host import Host
from wgpy.stack.news import News
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.state import State
from wgpy.tun.linux import LinuxTun

PORT = 7000
OPEN = {State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.FIN_WAIT_2}


class Kernel:
    """The kernel at one end of a TUN, ours at the other. `filter(packet, to_kernel)`: how often a packet arrives."""

    def __init__(self, *, v6: bool = False, mtu: int = 1420) -> None:
        self.v6 = v6
        self.address, self.ours = ("fd09::1", "fd09::2") if v6 else ("10.9.0.1", "10.9.0.2")
        self.family = socket.AF_INET6 if v6 else socket.AF_INET
        self.tun = LinuxTun.open("t0")
        self.tun.mtu = mtu
        for words in (
            f"address add {self.address}/{64 if v6 else 24} dev t0 {'nodad' if v6 else ''}",
            f"link set t0 mtu {mtu} up",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        self.host = Host([ip_address(self.ours).packed], mtu=mtu, random=os.urandom)
        self.packed = ip_address(self.address).packed
        self.filter: Callable[[bytes, bool], int] | None = None
        self.delay = 0.0
        self.held: list[tuple[float, bytes, bool]] = []
        self.news: list[News] = []

    def sysctl(self, name: str, value: object) -> None:
        with open(f"/proc/sys/net/{name}", "w") as file:
            file.write(str(value))

    def sent_again(self) -> int:
        """How many segments the kernel has retransmitted in this namespace; probes of a closed window count, too."""
        return _counter("snmp", "Tcp:", "RetransSegs") + _counter("netstat", "TcpExt:", "TCPWinProbe")

    def pump(self, done: Callable[[], Any], timeout: float = 60.0) -> None:
        """Move packets until `done` returns something true. Fails after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            if done():
                return
            assert now < end, f"not done within {timeout:g} s"
            for _ in range(8):
                burst = self.host.transmit(now)
                if burst is None:
                    break
                self._pass(burst, True, now)
            self._land(now)
            wait = min(self.host.next_timeout() - now, 0.02, *(at - now for at, _, _ in self.held))
            wait = 0.0 if self.host.has_more else max(0.0, wait)
            if select.select([self.tun.fileno()], [], [], wait)[0]:
                for _ in range(8):
                    burst = self.tun.read()
                    if burst is None:
                        break
                    self._pass(burst, False, now)
            now = time.monotonic()
            if self.host.next_timeout() <= now:
                self.news.append(self.host.handle_timeout(now))

    def _pass(self, burst: Burst, to_kernel: bool, now: float) -> None:
        if self.filter is None and not self.delay:
            self._deliver(burst, to_kernel, now)
            return
        for packet in burst.packets():
            for _ in range(1 if self.filter is None else self.filter(bytes(packet), to_kernel)):
                self.held.append((now + self.delay, bytes(packet), to_kernel))

    def _land(self, now: float) -> None:
        due = [entry for entry in self.held if entry[0] <= now]
        self.held = [entry for entry in self.held if entry[0] > now]
        for _, packet, to_kernel in due:
            self._deliver(Burst.of(packet), to_kernel, now)

    def _deliver(self, burst: Burst, to_kernel: bool, now: float) -> None:
        if to_kernel:
            self.tun.write(burst)
        else:
            self.news.append(self.host.receive(burst, now))

    # Both ways to a connection.

    def connect(self, port: int = PORT) -> Connection:
        """Ours opens."""
        connection = self.host.connect(self.packed, port, time.monotonic())
        self.pump(lambda: connection.state in OPEN or connection.state is State.CLOSED)
        return connection

    def listen(self, port: int = PORT) -> socket.socket:
        """The kernel listens."""
        return socket.create_server((self.address, port), family=self.family)

    def connected(self, port: int = PORT) -> tuple[Connection, socket.socket]:
        """Ours opens, the kernel accepts."""
        with self.listen(port) as server:
            connection = self.connect(port)
            self.pump(lambda: select.select([server], [], [], 0)[0])
            return connection, server.accept()[0]

    def accepted(self, port: int = PORT) -> tuple[Connection, socket.socket]:
        """The kernel opens, ours accepts."""
        listener = self.host.listen(None, port)
        client = socket.socket(self.family, socket.SOCK_STREAM)
        client.setblocking(False)
        client.connect_ex((self.ours, port))
        found: list[Connection] = []

        def taken() -> bool:
            connection = self.host.accept(listener)
            if connection is not None:
                found.append(connection)
            return bool(found)

        self.pump(taken)
        self.pump(lambda: select.select([], [client], [], 0)[1])
        client.setblocking(True)
        self.host.close_listener(listener)
        return found[0], client


class InThread:
    """Runs a blocking function of the kernel's side while the test pumps; `result` raises what it raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self._result = function()
        except BaseException as error:
            self._error = error

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    @property
    def result(self) -> Any:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result


def read_all(sock: socket.socket) -> bytes:
    """Everything until the peer closes its side."""
    parts = []
    while data := sock.recv(1 << 18):
        parts.append(data)
    return b"".join(parts)


def _counter(file: str, protocol: str, name: str) -> int:
    """A counter of this network namespace."""
    with open(f"/proc/net/{file}") as lines:
        names, values = (line.split() for line in lines if line.startswith(protocol))
    return int(values[names.index(name)])
