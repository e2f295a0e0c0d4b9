"""Notifications from the kernel that links, addresses or routes of this network namespace have changed."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_SOL_NETLINK: Final = 270
_NETLINK_LISTEN_ALL_NSID: Final = 8
# RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR and _IPV6_ROUTE of linux/rtnetlink.h
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400

# Where there are very many routes, they change often and looking at them takes long. It gets a twentieth of a core.
_REST: Final = 20
_SAVED: Final = 0.05  # seconds: a look takes 0.4 ms if there are few routes, and going down and up another 2 ms


class Allowance:
    """A twentieth of the time, for something that is done again and again; after a quiet second it may run at once."""

    def __init__(self, now: float) -> None:
        self._left = _SAVED
        self._at = now

    def rest(self, took: float, now: float) -> float:
        """For how long not to do it again, if it has just taken `took`; all in seconds."""
        self._left = min(self._left + (now - self._at) / _REST, _SAVED) - took
        self._at = now
        return max(0.0, -self._left * _REST)


class Monitor:
    """Calls `changed` from the event loop, once for any number of changes at the same time.

    It does not say what changed. The callback looks for itself, so nothing is missed when the kernel drops messages.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))
        self._elsewhere = False
        self._loop = loop
        self._changed = changed
        self._allowance = Allowance(loop.time())
        self._rest: asyncio.TimerHandle | None = None
        self._listen()

    def listen_in_other_namespace(self, *, wanted: bool) -> bool:
        """Whether to listen in the other namespaces too that this one knows; returns whether that has just begun.

        A socket in such a namespace would keep the namespace alive.
        """
        if wanted is self._elsewhere:
            return False
        with suppress(OSError):  # CAP_NET_BROADCAST is missing
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, wanted)
        self._elsewhere = wanted
        return wanted

    def _listen(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        began = time.thread_time()
        with suppress(OSError):  # nothing is left; or ENOBUFS, messages were lost, so something has changed
            while self._socket.recv(1 << 16):
                pass
        self._changed()
        rest = self._allowance.rest(time.thread_time() - began, self._loop.time())
        if rest and self._socket.fileno() >= 0:  # `changed` has not closed this monitor
            self._loop.remove_reader(self._socket.fileno())
            self._rest = self._loop.call_later(rest, self._listen)

    def close(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
