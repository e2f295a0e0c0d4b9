"""A slow line between two namespaces: carries frames between two TAP interfaces, delays them, and drops some.

`python -m wgpy.labs.line NAMESPACE INTERFACE NAMESPACE INTERFACE` makes the interfaces, and then reads lines of
`DELAY LOSS` (milliseconds, and a share from 0 to 1), which hold from then on. The interfaces are TAPs because the
kernel gives complete frames with checksums to a TAP that announces no offloads, but not to a veth.
"""

from __future__ import annotations

import ctypes
import os
import random
import select
import struct
import sys
import time
from collections import deque
from fcntl import ioctl
from typing import Final

_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP_NO_PI: Final = 0x1002
_BACKLOG: Final = 2000  # frames that may wait in each direction; more are dropped, as in a router


def open_tap(namespace: str, name: str) -> int:
    """Make a TAP interface in a namespace, which this thread enters. Raises OSError."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    ioctl(tap, _TUNSETIFF, struct.pack("=16sH22x", name.encode(), _IFF_TAP_NO_PI))
    return tap


def relay(taps: tuple[int, int]) -> None:
    """Carry frames until standard input ends."""
    delay, loss = 0.0, 0.0
    waiting: dict[int, deque[tuple[float, bytes]]] = {tap: deque() for tap in taps}  # by where they go, and when
    while True:
        due = [queue[0][0] for queue in waiting.values() if queue]
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        readable, _, _ = select.select([*taps, 0], [], [], timeout)
        now = time.monotonic()
        if 0 in readable:
            line = os.read(0, 4096).decode().splitlines()
            if not line:
                return
            delay, loss = (float(word) for word in line[-1].split())
        for tap, other in (taps, taps[::-1]):
            if tap in readable and (frame := _read(tap)) and random.random() >= loss and len(waiting[other]) < _BACKLOG:
                waiting[other].append((now + delay / 1000, frame))
        for tap, queue in waiting.items():
            while queue and queue[0][0] <= now:
                _write(tap, queue.popleft()[1])


def _read(tap: int) -> bytes:
    try:
        return os.read(tap, 65536)
    except OSError:  # the interface is down
        time.sleep(0.001)
        return b""


def _write(tap: int, frame: bytes) -> None:
    try:
        os.write(tap, frame)
    except OSError:  # the interface is down, or has no room
        return


if __name__ == "__main__":
    both: Final = (open_tap(*sys.argv[1:3]), open_tap(*sys.argv[3:5]))
    print("ready", flush=True)
    relay(both)
