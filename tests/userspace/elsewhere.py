"""A stand-in for systems that are not Linux, which are not here: what they lack is taken away before wgpy is imported.

Run as a program, it imports every public name that is not for Linux only, and moves data between two stacks: over a
network in memory, and over UDP sockets of the system as any has them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from importlib import import_module
from typing import Any

ONLY_LINUX = {"LinuxTun", "NamespaceTunnel"}
MODULES = {"crypt", "fcntl", "grp", "pty", "pwd", "pyroute2", "resource", "spwd", "syslog", "termios", "tty", "uvloop"}
# Names of the socket module that Windows does not have, or macOS.
SOCKET = """
AF_NETLINK AF_PACKET CMSG_LEN CMSG_SPACE EAI_SYSTEM IPV6_PKTINFO IPV6_RECVPKTINFO IPV6_RECVTCLASS IP_PKTINFO
IP_RECVTOS MSG_CMSG_CLOEXEC MSG_DONTWAIT MSG_ERRQUEUE MSG_NOSIGNAL NETLINK_ROUTE SCM_RIGHTS SOCK_CLOEXEC SOCK_NONBLOCK
SOCK_SEQPACKET SO_BINDTODEVICE SO_DOMAIN SO_MARK SO_PROTOCOL SO_REUSEPORT TCP_KEEPCNT TCP_KEEPIDLE TCP_KEEPINTVL
TCP_USER_TIMEOUT
"""
SYSTEM = """
O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH geteuid getuid memfd_create register_at_fork setns uname
unshare
"""


class Absent:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in MODULES:
            raise ImportError(f"{name} is Linux's")


def take_away(platform: str) -> None:
    for name in ("random", "subprocess", "ssl", "logging", "concurrent.futures.thread", "asyncio.sslproto", "numpy"):
        import_module(name)  # Python's own and others' would be other ones there
    sys.meta_path.insert(0, Absent())
    for module, names in ((socket, SOCKET.split()), (os, SYSTEM.split()), (time, ["CLOCK_BOOTTIME"])):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = platform


async def exchange(here: Any, there: Any) -> None:
    """Bytes there and back by TCP, a datagram by UDP, and a ping."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async with here, there:
        await there.start_server(echo, port=80)
        reader, writer = await here.open_connection("10.0.0.2", 80)
        sent = bytes(range(256)) * 4000
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent
        writer.close()
        assert await here.ping("10.0.0.2") < 5


async def over_loopback(wgpy: Any, configs: Any) -> None:
    from dataclasses import replace

    one, other = configs(("127.0.0.1", "127.0.0.1"))
    there = wgpy.Stack(replace(other, listen_port=0, peers=(replace(other.peers[0], endpoint=None),)))
    async with there:
        to = wgpy.EndpointName(host="127.0.0.1", port=there.listen_port)
        config = replace(one, listen_port=0, peers=(replace(one.peers[0], endpoint=to),))
        async with wgpy.connect(config) as here:
            assert here.network == "stack"
            server = await there.start_server(lambda reader, writer: writer.close(), port=80)
            reader, writer = await here.open_connection("10.0.0.2", 80)
            assert await reader.read() == b""
            writer.close()
            server.close()


def main() -> None:
    take_away(sys.argv[1])
    import wgpy
    from wgpy import virtual

    for name in set(wgpy.__all__) - ONLY_LINUX:
        getattr(wgpy, name)
    from tests.userspace.pair import configs

    async def in_memory() -> None:
        network = wgpy.MemoryNetwork(delay=0.01)
        clock = asyncio.get_running_loop().time
        stacks = [
            wgpy.Stack(config, udp=network.host(f"192.0.2.{i + 1}"), clock=clock) for i, config in enumerate(configs())
        ]
        await exchange(*stacks)

    virtual.run(in_memory())
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:  # the platform is not really another
        runner.run(over_loopback(wgpy, configs))
    assert not MODULES & {name.partition(".")[0] for name in sys.modules if sys.modules[name]} - BEFORE
    print("done")


BEFORE = {name.partition(".")[0] for name in sys.modules}

if __name__ == "__main__":
    main()
