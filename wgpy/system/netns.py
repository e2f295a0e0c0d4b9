"""Network namespaces: whether a descriptor is of ours, and a socket in another one."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

from wgpy.system.syscalls import CLONE_NEWNET, setns


def is_ours(namespace: int) -> bool:
    """Whether the file descriptor `namespace` refers to this thread's own namespace. Raises OSError."""
    return os.path.samestat(os.fstat(namespace), os.stat("/proc/thread-self/ns/net"))


def open_socket(namespace: int, family: int, kind: int) -> socket.socket:
    """Open a socket in the namespace that the file descriptor `namespace` refers to. Raises OSError."""

    def enter_and_open() -> socket.socket:
        setns(namespace, CLONE_NEWNET)
        return socket.socket(family, kind)

    with ThreadPoolExecutor(1) as executor:  # setns moves the calling thread only
        return executor.submit(enter_and_open).result()
