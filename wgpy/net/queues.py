"""Which socket of a port a datagram waits in: each family has four, so that peers do not queue among strangers.

The kernel's WireGuard queues handshakes and data separately (its receive.c), so a flood of handshakes displaces no
data. Here, the datagrams of a peer that shares a socket with a flood would be lost in the socket, whatever we did
later. So each family has a group of sockets on one port (SO_REUSEPORT), and a filter in the kernel chooses among them:
by the message type in the first word, by whether a peer is known at the source, and by whether an initiation shows a
cookie. The filter's choice is only a guess that keeps peers from waiting behind strangers. Datagrams that the kernel
merged follow the first of them, so any queue may contain anything.
"""

from __future__ import annotations

import asyncio
import socket
import time
from array import array
from collections.abc import Collection, Iterable
from contextlib import suppress
from struct import Struct
from typing import Final

from wgpy.constants import (
    INITIATION_SIZE,
    MAC_SIZE,
    MESSAGE_COOKIE_REPLY,
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    MESSAGE_TRANSPORT,
)

# The queues of a family, in the order in which their sockets are bound; the filter returns these numbers.
# 0: anything else, and initiations from hosts without a known peer that show a cookie. They do not wait behind those
#    that ask for a cookie, because they would have to be lucky twice.
# 1: handshakes from such hosts that show no cookie.
# 2 and 3: handshakes and data from hosts with a known peer.
QUEUES: Final = 4
_OTHERS, _STRANGERS, _HANDSHAKES, _DATA = range(QUEUES)

MAX_KNOWN_HOSTS: Final = 256  # that the filter compares: half a microsecond, and a program that any kernel accepts
SORT_EVERY: Final = 0.05  # seconds, because installing a filter with hundreds of hosts takes a millisecond
CROWD: Final = 180.0  # seconds, a session's life: if more hosts come within it, the filter cannot know all of them

SO_ATTACH_FILTER: Final = 26  # Linux constants that the socket module of Python 3.11 lacks
SO_ATTACH_REUSEPORT_CBPF: Final = 51

# Classic BPF (linux/filter.h): code, jumps if true and if false, operand. A load beyond the end returns 0.
_INSTRUCTION: Final = Struct("=HBBI")
_PROGRAM: Final = Struct("HP")  # a struct sock_fprog: length, address
_LOAD, _STORE, _LOAD_STORED, _LOAD_X, _TAKE_X = 0x20, 0x02, 0x60, 0x01, 0x87
_IF_EQUAL, _RETURN, _RETURN_LOADED = 0x15, 0x06, 0x16
_IP_HEADER: Final = (1 << 32) - 0x100000  # SKF_NET_OFF: offsets from here on count from the IP header
_PACKET_TYPE: Final = (1 << 32) - 0x1000 + 4  # SKF_AD_PKTTYPE
_TO_THIS_HOST: Final = 0  # PACKET_HOST
_NO_COOKIE: Final = 0  # in the first word of mac2
_WHOLE: Final = (1 << 32) - 1

_SOURCE_WORDS: Final = {socket.AF_INET: (12,), socket.AF_INET6: (8, 12)}  # offsets in the IP header; of IPv6, the /64
_INITIATION, _RESPONSE, _COOKIE_REPLY, _TRANSPORT = (
    int.from_bytes(kind.to_bytes(4, "little"), "big")
    for kind in (MESSAGE_INITIATION, MESSAGE_RESPONSE, MESSAGE_COOKIE_REPLY, MESSAGE_TRANSPORT)
)

_Step = tuple[int, int, int, int]


class KnownHosts:
    """The hosts at which peers are known, and the filter of one family, which is set through its socket `sock`.

    A host is an IPv4 address in 4 bytes, or the /64 of an IPv6 address in 8.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._hosts: set[bytes] = set()
        self._full_at = -CROWD
        self._are_all = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_sort_due = False
        self._sorted_at = 0.0

    def start_sorting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Install the filter now, and from the loop after each change of the hosts."""
        self._loop = loop
        self._sort()

    def stop_sorting(self) -> None:
        """Leave the filter as it is; the socket may be closed afterwards."""
        self._loop = None

    def add(self, host: bytes, now: float) -> bool:
        """Add a host at `now` (seconds). Returns whether there were too many, so that all others were forgotten."""
        if host in self._hosts:
            return False
        is_full = len(self._hosts) >= MAX_KNOWN_HOSTS
        if is_full:
            self._are_all = now - self._full_at > CROWD
            self._full_at = now
            self._hosts.clear()
        self._hosts.add(host)
        if self._loop is not None and not self._is_sort_due:
            self._is_sort_due = True
            self._loop.call_later(max(0.0, self._sorted_at + SORT_EVERY - now), self._sort)
        return is_full

    def _sort(self) -> None:
        self._is_sort_due = False
        if self._loop is not None:
            self._sorted_at = time.monotonic()
            with suppress(OSError):  # the kernel has no memory for this filter: the last one stays
                sort(self._socket, self._hosts, are_all=self._are_all)


def sort(sock: socket.socket, hosts: Collection[bytes], *, are_all: bool = True) -> None:
    """Install the filter for the family of `sock`, with at most MAX_KNOWN_HOSTS `hosts`. Raises OSError.

    Unless `are_all` the hosts of peers, data from any host goes to the queue for peers' data.
    """
    words = _SOURCE_WORDS[socket.AddressFamily(sock.family)]
    steps: list[_Step] = [
        (_LOAD, 0, 0, 0),
        (_LOAD_X, 0, 0, _DATA),
        (_IF_EQUAL, 5, 0, _TRANSPORT),
        (_LOAD_X, 0, 0, _HANDSHAKES),
        (_IF_EQUAL, 3, 0, _INITIATION),
        (_IF_EQUAL, 2, 0, _RESPONSE),
        (_IF_EQUAL, 1, 0, _COOKIE_REPLY),
        (_RETURN, 0, 0, _OTHERS),
    ]
    for i, offset in enumerate(words):  # once, because reading the IP header is expensive
        steps += [(_LOAD, 0, 0, _IP_HEADER + offset), (_STORE, 0, 0, i)]
    for host in hosts:
        for i in range(len(words)):
            word = int.from_bytes(host[4 * i : 4 * i + 4], "big")
            steps += [(_LOAD_STORED, 0, 0, i), (_IF_EQUAL, 0, 2 * (len(words) - i), word)]
        steps += [(_TAKE_X, 0, 0, 0), (_RETURN_LOADED, 0, 0, 0)]
    steps += [
        (_LOAD, 0, 0, 0),
        (_IF_EQUAL, 2, 0, _INITIATION),
        (_IF_EQUAL, 3, 0, _RESPONSE),
        (_IF_EQUAL, 3, 4, _TRANSPORT),
        (_LOAD, 0, 0, INITIATION_SIZE - MAC_SIZE),
        (_IF_EQUAL, 0, 2, _NO_COOKIE),
        (_RETURN, 0, 0, _STRANGERS),
        (_RETURN, 0, 0, _OTHERS if are_all else _DATA),
        (_RETURN, 0, 0, _OTHERS),
    ]
    _attach(sock, SO_ATTACH_REUSEPORT_CBPF, steps)


def drop_broadcasts(sock: socket.socket) -> None:
    """Have a socket drop broadcasts and multicasts, of which each socket of a port would get a copy. Raises OSError."""
    steps = [
        (_LOAD, 0, 0, _PACKET_TYPE),
        (_IF_EQUAL, 0, 1, _TO_THIS_HOST),
        (_RETURN, 0, 0, _WHOLE),
        (_RETURN, 0, 0, 0),
    ]
    _attach(sock, SO_ATTACH_FILTER, steps)


def _attach(sock: socket.socket, option: int, steps: Iterable[_Step]) -> None:
    instructions = array("B", b"".join(_INSTRUCTION.pack(*step) for step in steps))
    address, length = instructions.buffer_info()
    sock.setsockopt(socket.SOL_SOCKET, option, _PROGRAM.pack(length // _INSTRUCTION.size, address))
