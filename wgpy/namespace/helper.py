"""The helper: a small process in a network namespace of its own, which makes there what its parent asks for.

Run as `main(fd)` in a fresh interpreter. Requests come over `fd`, a SOCK_SEQPACKET socket, as JSON: a word and its
arguments. Each is answered in order: `{}` and file descriptors (SCM_RIGHTS), or the step that failed and its errno.
When the socket closes, the process ends, and with it what nobody else holds of the namespace. It never learns a key.

    ["open", name, offload]             the TUN, the network namespace and, where one was made, the user namespace
    ["configure", addresses, mtu]       nothing
    ["socket", family, type, protocol]  the socket
    ["channel"]                         one more such socket, served by a process of its own until it closes
"""

from __future__ import annotations

import array
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from wgpy.system import rtnetlink
from wgpy.system.syscalls import CLONE_NEWNET, CLONE_NEWUSER, unshare
from wgpy.tun.attach import attach, super_packet_limit

MAX_MESSAGE: Final = 65536  # bytes of a request or an answer
_Channel = socket.socket


class _Failed(Exception):
    """A step the system refused."""


@contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Failed(name, error.errno or errno.EIO) from error


class _Helper:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._name = ""

    def open(self, name: str, offload: bool) -> list[int]:
        self._name = name
        made = _enter_new_namespaces()
        with _step("TUN"):
            tun = attach(name, offload=offload)
        with _step("namespace"):
            return [tun, *(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in made)]

    def configure(self, addresses: list[str], mtu: int) -> list[int]:
        with suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{self._name}/disable_ipv6", "w") as file:
            file.write("0")  # where the host has it off, so has each new namespace
        with _step("network"):
            rtnetlink.configure(self._name, addresses, mtu)
        with suppress(OSError):
            rtnetlink.set_gso_max_size(self._name, super_packet_limit(mtu))
        with suppress(OSError), open("/proc/sys/net/ipv4/ping_group_range", "w") as file:  # who is inside may ping
            file.write(f"{os.getegid()} {os.getegid()}")
        return []

    def socket(self, family: int, kind: int, protocol: int) -> list[int]:
        with _step("socket"):
            return [socket.socket(family, kind, protocol).detach()]

    def channel(self) -> list[int]:
        with _step("channel"):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if os.fork() == 0:
                with suppress(BaseException):
                    theirs.close()
                    os.close(self._fd)  # or this process would keep it open
                    self.serve(ours)
                os._exit(0)
            ours.close()
            return [theirs.detach()]

    def serve(self, channel: _Channel) -> None:
        """Answer what comes, until the other end is closed."""
        handlers: dict[str, Callable[..., list[int]]] = {
            "open": self.open,
            "configure": self.configure,
            "socket": self.socket,
            "channel": self.channel,
        }
        while request := channel.recv(MAX_MESSAGE):
            word, *arguments = json.loads(request)
            answer: dict[str, Any] = {}
            fds: list[int] = []
            try:
                fds = handlers[word](*arguments)
            except _Failed as failed:
                answer = dict(zip(("step", "errno"), failed.args, strict=True))
            try:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
                channel.sendmsg([json.dumps(answer).encode()], [rights] if fds else [])
            except BrokenPipeError:
                return
            finally:
                for held in fds:
                    os.close(held)


def _enter_new_namespaces() -> tuple[str, ...]:
    """With privileges a network namespace; without, in a user namespace that grants them. The names of those made."""
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise _Failed("network namespace", error.errno) from error
    else:
        return ("net",)
    uid, gid = os.geteuid(), os.getegid()
    with _step("user namespace"):
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    return ("net", "user")


def main(fd: int) -> None:
    """Serve until the parent is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a channel's process ended
    with socket.socket(fileno=fd) as channel:
        _Helper(fd).serve(channel)
