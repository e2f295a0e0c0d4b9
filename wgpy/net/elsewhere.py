"""A socket in a network namespace that this process is not in."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

from wgpy.namespace.syscalls import CLONE_NEWNET, setns


def is_ours(namespace: int) -> bool:
    """Whether the descriptor `namespace` is of the namespace that this thread is in. Raises OSError."""
    return os.path.samestat(os.fstat(namespace), os.stat("/proc/thread-self/ns/net"))


def open_socket(namespace: int, family: int, kind: int) -> socket.socket:
    """One in the namespace that the descriptor `namespace` is of. Raises OSError."""

    def enter_and_open() -> socket.socket:
        setns(namespace, CLONE_NEWNET)
        return socket.socket(family, kind)

    with ThreadPoolExecutor(1) as executor:  # setns moves the calling thread, and no other
        return executor.submit(enter_and_open).result()
