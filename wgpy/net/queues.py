"""Which socket of a port a datagram waits in: each family has four, so that peers do not queue among strangers.

The kernel's WireGuard queues handshakes and data separately (its receive.c), so a flood of handshakes displaces no
data. Here, the datagrams of a peer that shares a socket with a flood would be lost in the socket, whatever we did
later. So each family has a group of sockets on one port (SO_REUSEPORT), and a filter in the kernel chooses among them:
by the message type in the first word, by whether a peer is known at the source, and by whether an initiation shows a
cookie. Where several workers share the port (device/share), each has such sockets of its own, and the filter first
chooses the worker. The choice among a worker's sockets is only a guess that keeps peers from waiting behind strangers.
Datagrams that the kernel merged follow the first of them, so any queue may contain anything.
"""

from __future__ import annotations

import asyncio
import socket
import time
from array import array
from collections.abc import Callable, Collection, Iterable
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
from wgpy.device.share import Share

# The queues of a family, in the order in which their sockets are bound; the filter returns these numbers.
# 0: anything else, and initiations from hosts without a known peer that show a cookie. They do not wait behind those
#    that ask for a cookie, because they would have to be lucky twice.
# 1: handshakes from such hosts that show no cookie.
# 2 and 3: handshakes and data from hosts with a known peer.
QUEUES: Final = 4
_OTHERS, _STRANGERS, _HANDSHAKES, _DATA = range(QUEUES)

MAX_KNOWN_HOSTS: Final = 256  # that the filter compares: half a microsecond, and a program that any kernel accepts
SORT_EVERY: Final = 0.05  # seconds, because installing a filter with hundreds of hosts takes a millisecond
REPORT_CROWD_EVERY: Final = 1.0  # seconds between a worker's reports while there are more hosts than the filter knows
CROWD: Final = 180.0  # seconds, a session's life: if more hosts come within it, the filter cannot know all of them

SO_ATTACH_FILTER: Final = 26  # Linux constants that the socket module of Python 3.11 lacks
SO_ATTACH_REUSEPORT_CBPF: Final = 51

# Classic BPF (linux/filter.h): code, jumps if true and if false, operand. A load beyond the end returns 0.
_INSTRUCTION: Final = Struct("=HBBI")
_PROGRAM: Final = Struct("HP")  # a struct sock_fprog: length, address
_LOAD, _LOAD_BYTE, _LOAD_STORED, _STORE = 0x20, 0x30, 0x60, 0x02
_LOAD_CONSTANT, _LOAD_X, _TAKE_X, _PUT_X = 0x00, 0x01, 0x87, 0x07
_ADD_X, _XOR_X, _MULTIPLY, _MODULO, _AND, _SHIFT_LEFT, _SHIFT_RIGHT = 0x0C, 0xAC, 0x24, 0x94, 0x54, 0x64, 0x74
_JUMP, _IF_EQUAL, _RETURN, _RETURN_LOADED = 0x05, 0x15, 0x06, 0x16
_IP_HEADER: Final = (1 << 32) - 0x100000  # SKF_NET_OFF: offsets from here on count from the IP header
_PACKET_TYPE: Final = (1 << 32) - 0x1000 + 4  # SKF_AD_PKTTYPE
_TO_THIS_HOST: Final = 0  # PACKET_HOST
_NO_COOKIE: Final = 0  # in the first word of mac2
_WHOLE: Final = (1 << 32) - 1

_SOURCE_WORDS: Final = {socket.AF_INET: (12,), socket.AF_INET6: (8, 12)}  # offsets in the IP header; of IPv6, the /64
# Offsets of the whole address, and of the UDP ports behind the header. Behind IPv4 options or IPv6 extension headers
# something else is read, which is as good: it only has to be the same when an initiation comes again with a cookie.
_SENDER_WORDS: Final = {socket.AF_INET: (12, 20), socket.AF_INET6: (8, 12, 16, 20, 40)}
_SPREAD: Final = 0x9E3779B1  # spreads neighbouring addresses and ports (Knuth, The Art of Computer Programming, 6.4)
_QUEUES_BEFORE: Final = 2  # the filter's memory word for the number of the worker's first queue
_INITIATION, _RESPONSE, _COOKIE_REPLY, _TRANSPORT = (
    int.from_bytes(kind.to_bytes(4, "little"), "big")
    for kind in (MESSAGE_INITIATION, MESSAGE_RESPONSE, MESSAGE_COOKIE_REPLY, MESSAGE_TRANSPORT)
)

_Step = tuple[int, int, int, int]


class KnownHosts:
    """The hosts at which peers are known, and the filter of one family, which is set through its socket `sock`.

    A host is an IPv4 address in 4 bytes, or the /64 of an IPv6 address in 8. `workers` share the port.
    """

    def __init__(self, sock: socket.socket, *, workers: int = 1) -> None:
        self._socket = sock
        self._workers = workers
        self._absent = frozenset[int]()
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

    def set_absent(self, workers: Collection[int]) -> None:
        """Give what these workers would take of newcomers to the others, from now on."""
        absent = frozenset(workers)
        if absent != self._absent:
            self._absent = absent
            self._sort()

    def _sort(self) -> None:
        self._is_sort_due = False
        if self._loop is not None:
            self._sorted_at = time.monotonic()
            with suppress(OSError):  # the kernel has no memory for this filter: the last one stays
                sort(self._socket, self._hosts, are_all=self._are_all, workers=self._workers, absent=self._absent)


class ReportedHosts:
    """In a worker, the hosts at which its peers are known. Each is reported once, as the port's filter is not its own.

    Hosts that come soon after one another are reported together, at most MAX_KNOWN_HOSTS: the filter knows no more.
    While there are more than that, the filter forgets them again and again, and they are reported less often.
    """

    def __init__(self, report: Callable[[list[bytes]], None]) -> None:
        self._report = report
        self._hosts: set[bytes] = set()
        self._waiting: list[bytes] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_report_due = False
        self._reported_at = 0.0
        self._forgotten_at = -CROWD

    def start_sorting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report what was added, and what will be."""
        self._loop = loop
        if self._waiting:
            self._report_waiting()

    def stop_sorting(self) -> None:
        """Report nothing more."""
        self._loop = None

    def add(self, host: bytes, now: float) -> bool:
        """Add a host at `now` (seconds). Returns False, for only the owner of the filter knows when it is full."""
        if host in self._hosts:
            return False
        self._hosts.add(host)
        self._waiting.append(host)
        if self._loop is not None and not self._is_report_due:
            self._is_report_due = True
            every = SORT_EVERY if now - self._forgotten_at > CROWD else REPORT_CROWD_EVERY
            self._loop.call_later(max(0.0, self._reported_at + every - now), self._report_waiting)
        return False

    def forget(self, now: float) -> None:
        """The port's filter has forgotten all hosts, at `now`: those that are added again are reported again."""
        self._hosts.clear()
        self._waiting.clear()
        self._forgotten_at = now

    def _report_waiting(self) -> None:
        self._is_report_due = False
        if self._loop is not None and self._waiting:
            self._reported_at = time.monotonic()
            self._report(self._waiting[-MAX_KNOWN_HOSTS:])
            self._waiting.clear()


def sort(
    sock: socket.socket,
    hosts: Collection[bytes],
    *,
    are_all: bool = True,
    workers: int = 1,
    absent: Collection[int] = (),
) -> None:
    """Install the filter for the family of `sock`, with at most MAX_KNOWN_HOSTS `hosts`. Raises OSError.

    Unless `are_all` the hosts of peers, data from any host goes to the queue for peers' data. `workers` have QUEUES
    sockets each, one worker's after another's in the order of binding. Those that are `absent` take no newcomers.
    """
    family = socket.AddressFamily(sock.family)
    steps = program(family, hosts, are_all=are_all, workers=workers, absent=absent)
    _attach(sock, SO_ATTACH_REUSEPORT_CBPF, steps)


def program(
    family: socket.AddressFamily,
    hosts: Collection[bytes],
    *,
    are_all: bool,
    workers: int,
    absent: Collection[int] = (),
) -> list[_Step]:
    """The filter's instructions."""
    words = _SOURCE_WORDS[family]

    def answer(queue: int) -> list[_Step]:
        if workers == 1:
            return [(_RETURN, 0, 0, queue)]
        return [
            (_LOAD_STORED, 0, 0, _QUEUES_BEFORE),
            (_LOAD_X, 0, 0, queue),
            (_ADD_X, 0, 0, 0),
            (_RETURN_LOADED, 0, 0, 0),
        ]

    size = len(answer(0))
    steps: list[_Step] = [] if workers == 1 else _choose_worker(family, workers, absent)
    steps += [
        (_LOAD, 0, 0, 0),
        (_LOAD_X, 0, 0, _DATA),
        (_IF_EQUAL, 4 + size, 0, _TRANSPORT),
        (_LOAD_X, 0, 0, _HANDSHAKES),
        (_IF_EQUAL, 2 + size, 0, _INITIATION),
        (_IF_EQUAL, 1 + size, 0, _RESPONSE),
        (_IF_EQUAL, size, 0, _COOKIE_REPLY),
        *answer(_OTHERS),
    ]
    if workers > 1:
        steps += [(_LOAD_STORED, 0, 0, _QUEUES_BEFORE), (_ADD_X, 0, 0, 0), (_PUT_X, 0, 0, 0)]
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
        (_IF_EQUAL, 2 + size, 2 + 2 * size, _TRANSPORT),
        (_LOAD, 0, 0, INITIATION_SIZE - MAC_SIZE),
        (_IF_EQUAL, 0, 2 * size, _NO_COOKIE),
        *answer(_STRANGERS),
        *answer(_OTHERS if are_all else _DATA),
        *answer(_OTHERS),
    ]
    return steps


def _choose_worker(family: socket.AddressFamily, workers: int, absent: Collection[int]) -> list[_Step]:
    """Store the number of the first queue of the worker that a datagram is for.

    What bears an index of ours goes to the worker that drew it. Anything else is spread by its source address and port,
    so that an initiation that comes again with a cookie finds the worker that gave it. The others share what an absent
    one would get of that.
    """
    first, *rest = _SENDER_WORDS[family]
    mask = Share(0, workers).mask
    spread: list[_Step] = [(_LOAD, 0, 0, _IP_HEADER + first)]
    for offset in rest:
        spread += [(_PUT_X, 0, 0, 0), (_LOAD, 0, 0, _IP_HEADER + offset), (_XOR_X, 0, 0, 0)]
    spread += [(_PUT_X, 0, 0, 0), (_SHIFT_RIGHT, 0, 0, 16), (_XOR_X, 0, 0, 0)]
    spread += [(_MULTIPLY, 0, 0, _SPREAD), (_SHIFT_RIGHT, 0, 0, 16)]
    present = [worker for worker in range(workers) if worker not in absent]
    if absent and present:
        spread.append((_MODULO, 0, 0, workers))
        for worker in absent:
            spread += [(_IF_EQUAL, 0, 1, worker), (_LOAD_CONSTANT, 0, 0, present[worker % len(present)])]
    spread.append((_JUMP, 0, 0, 5))
    return [
        (_LOAD, 0, 0, 0),
        (_IF_EQUAL, len(spread) + 5, 0, _RESPONSE),
        (_IF_EQUAL, len(spread) + 1, 0, _TRANSPORT),
        (_IF_EQUAL, len(spread), 0, _COOKIE_REPLY),
        *spread,
        (_LOAD_BYTE, 0, 0, 4),  # the receiver's index of data and cookie replies
        (_AND, 0, 0, mask),
        (_JUMP, 0, 0, 2),
        (_LOAD_BYTE, 0, 0, 8),  # and of responses
        (_AND, 0, 0, mask),
        (_MODULO, 0, 0, workers),
        (_SHIFT_LEFT, 0, 0, QUEUES.bit_length() - 1),
        (_STORE, 0, 0, _QUEUES_BEFORE),
    ]


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
