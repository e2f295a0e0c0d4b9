"""The UDP port of several workers, as control holds it: all sockets, and the filter that sorts datagrams into them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Collection, Iterable
from typing import Final

from wgpy.errors import SocketError
from wgpy.net.binding import bind_port, set_mark
from wgpy.net.queues import KnownHosts

_HOST_SIZES: Final = {4: socket.AF_INET, 8: socket.AF_INET6}


class Port:
    """An open port. Control neither sends nor receives; each worker gets copies of its own sockets."""

    def __init__(self, port: int, workers: int, *, fwmark: int = 0) -> None:
        """Bind as `UdpSockets.open` does, in the running loop.

        Raises SocketError, also if the kernel cannot sort datagrams by worker.
        """
        self._sockets = bind_port(port, workers=workers)
        self.number: int = self._sockets[0][0].getsockname()[1]
        self._known_hosts = {sock.family: KnownHosts(sock, workers=workers) for sock in self._sockets[0]}
        try:
            if fwmark:
                self.set_fwmark(fwmark)
        except SocketError:
            self.close()
            raise
        for known in self._known_hosts.values():
            known.start_sorting(asyncio.get_running_loop())

    def sockets(self, worker: int) -> list[int]:
        """The file descriptors of a worker's sockets."""
        return [sock.fileno() for sock in self._sockets[worker]]

    def set_fwmark(self, mark: int) -> None:
        """Mark everything sent from now on, by any worker (0 for none). Raises SocketError."""
        for sockets in self._sockets:
            for sock in sockets:
                set_mark(sock, mark)

    def add_hosts(self, hosts: Iterable[bytes]) -> bool:
        """Let the filter know hosts of peers. Returns whether it has forgotten all others, as there are too many."""
        now, has_forgotten = time.monotonic(), False
        for host in hosts:
            known = self._known_hosts.get(_HOST_SIZES.get(len(host), socket.AF_UNSPEC))
            if known is not None:
                has_forgotten |= known.add(host, now)
        return has_forgotten

    def set_absent(self, workers: Collection[int]) -> None:
        """As `KnownHosts.set_absent`."""
        for known in self._known_hosts.values():
            known.set_absent(workers)

    def close(self) -> None:
        """Close control's copies: the port is free when the workers have closed theirs."""
        for known in self._known_hosts.values():
            known.stop_sorting()
        for sockets in self._sockets:
            for sock in sockets:
                sock.close()
