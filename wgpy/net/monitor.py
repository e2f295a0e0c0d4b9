"""Word from the kernel that links, addresses or routes of this network namespace have changed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_SOL_NETLINK: Final = 270
_NETLINK_LISTEN_ALL_NSID: Final = 8
# RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR and _IPV6_ROUTE of linux/rtnetlink.h
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400


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
        loop.add_reader(self._socket.fileno(), self._readable)

    def listen_elsewhere(self, *, wanted: bool) -> bool:
        """Hear of the namespaces, too, that links went to from here; whether that is new.

        A socket in such a namespace would keep it from going away.
        """
        if wanted is self._elsewhere:
            return False
        with suppress(OSError):  # without CAP_NET_BROADCAST
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, wanted)
        self._elsewhere = wanted
        return wanted

    def _readable(self) -> None:
        with suppress(OSError):  # nothing more; or ENOBUFS, more than fitted: then something has changed, too
            while self._socket.recv(1 << 16):
                pass
        self._changed()

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
