"""Binding the sockets of one UDP port and setting their options: one per queue for each family, or one per family."""

from __future__ import annotations

import errno
import logging
import socket
from contextlib import suppress
from struct import Struct
from typing import Final

from wgpy.errors import SocketError
from wgpy.net.queues import QUEUES, drop_broadcasts, sort
from wgpy.system.kernel import release, version
from wgpy.system.refusals import explain, net_admin

# Linux constants that the socket module of Python 3.11 lacks.
IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
PMTUDISC_DONT: Final = 0
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
UDP_GRO: Final = 104

BUFFER_SIZE: Final = 7 << 20  # bytes in the kernel for data, in each direction: about 10 ms at 5 Gbit/s
QUEUE_SIZE: Final = 4 << 20  # bytes in the kernel for any other queue, which it doubles: about 10,000 messages
BIND_ATTEMPTS: Final = 100  # as in the kernel's wg_socket_init

_FAMILY_ABSENT: Final = frozenset({errno.EAFNOSUPPORT, errno.EPFNOSUPPORT, errno.EADDRNOTAVAIL})

_SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_U32: Final = Struct("=I")

_log = logging.getLogger(__name__)


def bind_port(port: int, *, workers: int = 1) -> list[list[socket.socket]]:
    """Non-blocking sockets bound to `port` on all addresses of both families; for 0, to a port that is free in both.

    Each of `workers` gets a list of its own. The last socket of a family in it is the one for data. Raises SocketError
    if the port is in use or privileged, or if there are several workers and the kernel cannot tell whose a datagram is.
    """
    for _ in range(BIND_ATTEMPTS):
        sockets: list[socket.socket] = []
        of_workers: list[list[socket.socket]] = [[] for _ in range(workers)]
        try:
            for family in (socket.AF_INET, socket.AF_INET6):
                bound = _bind_family(family, sockets[0].getsockname()[1] if sockets else port, workers)
                sockets += bound
                for number, own in enumerate(of_workers):
                    own += bound[number * QUEUES : (number + 1) * QUEUES]
            return of_workers
        except OSError as error:
            for sock in sockets:
                sock.close()
            if isinstance(error, SocketError):
                raise
            if port or not sockets or error.errno != errno.EADDRINUSE:
                raise _refusal(error, port) from error
    raise SocketError("found no UDP port that is free in both IPv4 and IPv6; choose one with ListenPort")


def _bind_family(family: socket.AddressFamily, port: int, workers: int) -> list[socket.socket]:
    """A family's sockets, one worker's after another's, each in the order of its queues; none if there is no family.

    A single worker may get one socket for all.
    """
    try:
        first = _bind(family, port, shared=False)
    except OSError as error:
        if error.errno in _FAMILY_ABSENT:
            return []
        raise
    sockets = [first]
    try:
        # Set only now: had it been bound with it, another wgpy of this user could bind the same port.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        while len(sockets) < workers * QUEUES:
            sockets.append(_bind(family, first.getsockname()[1], shared=True))
            drop_broadcasts(sockets[-1])
        sort(first, (), workers=workers)
    except OSError as error:
        if workers > 1:
            for sock in sockets:
                sock.close()
            if error.errno in _SHORTAGE:
                raise
            raise SocketError(f"this kernel cannot sort a port's datagrams among workers: {error.strerror}") from error
        _log.info("handshakes and data share a queue here: %s", error.strerror)
        for sock in sockets[1:]:
            sock.close()
        with suppress(OSError):
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        return [first]
    return sockets


def _bind(family: socket.AddressFamily, port: int, *, shared: bool) -> socket.socket:
    """A non-blocking socket on all addresses of a family. More sockets of this user can bind a `shared` port."""
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock


def set_mark(sock: socket.socket, mark: int) -> None:
    """Mark everything that the socket sends from now on (0 for none). Raises SocketError."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _U32.pack(mark))
    except PermissionError as error:
        raise SocketError(f"cannot set fwmark: {explain(net_admin())}, or leave FwMark out") from error
    except OSError as error:
        raise SocketError(f"cannot set fwmark {mark}: {error.strerror}") from error


def _refusal(error: OSError, port: int) -> SocketError:
    if error.errno == errno.EADDRINUSE:
        return SocketError(
            f"UDP port {port} is in use: stop the program that `ss -ulpn` shows, or choose another ListenPort"
        )
    if error.errno == errno.EACCES:
        return SocketError(f"UDP port {port} is privileged: needs CAP_NET_BIND_SERVICE, or a ListenPort above 1023")
    return SocketError(f"cannot open UDP port {port}: {error.strerror}")


def set_options(sock: socket.socket, size: int, *, gro: bool) -> None:
    """Set the options that the kernel has, and buffers of `size` bytes; without the others, wgpy works less well."""
    ip, ipv6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
    if sock.family == socket.AF_INET:
        options = [(ip, IP_PKTINFO, 1), (ip, socket.IP_RECVTOS, 1), (ip, IP_MTU_DISCOVER, PMTUDISC_DONT)]
    else:
        options = [(ipv6, socket.IPV6_RECVPKTINFO, 1), (ipv6, socket.IPV6_RECVTCLASS, 1)]
        options += [(ipv6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)]
    # Both: the forced sizes fail without CAP_NET_ADMIN, the others are limited.
    options += [(socket.SOL_SOCKET, o, size) for o in (socket.SO_RCVBUF, socket.SO_SNDBUF)]
    options += [(socket.SOL_SOCKET, o, size) for o in (SO_RCVBUFFORCE, SO_SNDBUFFORCE)]
    if gro and version(release()) >= (5, 12):  # earlier kernels merge datagrams that must stay apart
        options.append((socket.SOL_UDP, UDP_GRO, 1))
    for level, option, value in options:
        try:
            sock.setsockopt(level, option, value)
        except OSError as error:
            _log.debug("socket option %d of level %d: %s", option, level, error.strerror)
