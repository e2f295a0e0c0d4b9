"""Word from the kernel that links, addresses or routes of this network namespace have changed."""

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

# Where there are very many routes, to look takes long, and they change often: a twentieth of a core is enough for it.
_REST: Final = 20


class Monitor:
    """Calls `changed` from the event loop, once for any number of changes at once.

    What changed is not told: who wants to know looks, and then nothing is missed when messages are lost.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))
        self._elsewhere = False
        self._loop = loop
        self._changed = changed
        self._rest: asyncio.TimerHandle | None = None
        self._listen()

    def listen_in_other_namespace(self, *, wanted: bool) -> bool:
        """Hear of the namespaces, too, that links went to from here; whether that is new.

        A socket in such a namespace would keep it from going away.
        """
        if wanted is self._elsewhere:
            return False
        with suppress(OSError):  # without CAP_NET_BROADCAST
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, wanted)
        self._elsewhere = wanted
        return wanted

    def _listen(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        began = time.thread_time()
        with suppress(OSError):  # nothing more; or ENOBUFS, more than fitted: then something has changed, too
            while self._socket.recv(1 << 16):
                pass
        self._changed()
        if self._socket.fileno() >= 0:  # it has not closed us
            self._loop.remove_reader(self._socket.fileno())
            self._rest = self._loop.call_later(_REST * (time.thread_time() - began), self._listen)

    def close(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
