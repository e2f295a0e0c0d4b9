"""As in a container of Docker's defaults: an ordinary user without /dev/net/tun, who may make no namespaces."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import wgpy
import wgpy.blocking
from tests.interop.conftest import Cable
from tests.interop.conftest import cable as cable
from tests.namespace.conftest import PORT, Server
from tests.namespace.conftest import server as server
from tests.namespace.test_commands import serving
from tests.namespace.test_connect import download, upload
from tests.support.nobody import NOBODY, become_nobody, let_pass
from tests.support.seccomp import refuse_namespaces
from wgpy.system.syscalls import CLONE_NEWNET, CLONE_NEWUSER, unshare

pytestmark = pytest.mark.root


def confined(server: Server, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function with no privileges, no TUN device, and a root that cannot be written to."""

    def body() -> None:
        become_nobody(tun_mode=0o600, read_only=True)
        refuse_namespaces()
        asyncio.run(main())

    server.client.call(body)


def test_nobody_has_no_privileges_here(server: Server) -> None:
    async def main() -> None:
        assert os.geteuid() == NOBODY
        for flags in (CLONE_NEWUSER, CLONE_NEWNET):
            with pytest.raises(PermissionError):
                unshare(flags)
        with pytest.raises(OSError, match=r"ermitted|denied") as closed:
            os.open("/dev/net/tun", os.O_RDWR)
        assert closed.value.errno in (errno.EACCES, errno.EPERM)
        for place in ("/", "/tmp", "/var/tmp", "/run"):
            with pytest.raises(OSError, match="Read-only"):
                os.open(f"{place}/x", os.O_CREAT | os.O_WRONLY)
        with pytest.raises(wgpy.NamespaceError):
            async with wgpy.connect(server.config, network="namespace"):
                pass

    confined(server, main)


@pytest.mark.parametrize("family", ["inner4", "inner6"])
def test_connect_carries_data(server: Server, family: str) -> None:
    address = getattr(server.side, family)

    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel, asyncio.timeout(60):
            assert tunnel.network == "stack"
            await download(tunnel, address, 20_000_000)
            await upload(tunnel, address, os.urandom(5_000_000))
            assert await tunnel.ping(address, timeout=60) > 0
            with pytest.raises(wgpy.NamespaceError, match="`wgpy proxy` or `wgpy forward`"):
                await tunnel.create_subprocess_exec("true")

    confined(server, main)


def test_blocking_sockets(server: Server) -> None:
    def talk() -> None:
        with (
            wgpy.blocking.connect(server.config) as tunnel,
            tunnel.create_connection((server.address, PORT), timeout=60) as sock,
            sock.makefile("rwb") as file,
        ):
            assert tunnel.network == "stack"
            file.write(b"send 3000000\n")
            file.flush()
            assert hashlib.sha256(file.read(3_000_000)).digest() == file.read(32)

    async def main() -> None:
        await asyncio.to_thread(talk)

    confined(server, main)


def test_proxy_forward_and_stdio_carry_data(cable: Cable, server: Server) -> None:
    async def fetch(port: int, begin: bytes = b"", answer: int = 0) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        if answer:
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"send 5000000\n")
        data = await reader.readexactly(5_000_000)
        assert await reader.readexactly(32) == hashlib.sha256(data).digest()
        writer.close()

    async def main() -> None:
        place = f"{server.address}:{PORT}"
        network = "network: wgpy's own TCP/IP stack"
        with serving("proxy", conf, "--http", "3128") as said:
            assert said[0] == network
            await fetch(3128, f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode(), 200)
        with serving("forward", conf, "-L", f"8081:{place}") as said:
            assert said[0] == network
            await fetch(8081)
        command = [sys.executable, "-m", "wgpy", "stdio", str(conf), place]
        done = await asyncio.to_thread(
            subprocess.run, command, input=b"take 5\nhello", capture_output=True, timeout=60, check=False
        )
        assert (done.stdout, done.stderr) == (hashlib.sha256(b"hello").digest(), b"")
        refused = await asyncio.to_thread(
            subprocess.run, [*command[:3], "exec", str(conf), "true"], capture_output=True, timeout=60, check=False
        )
        assert refused.returncode == 1
        assert refused.stderr.endswith(b"; `wgpy proxy`, `forward` and `stdio` need none\n")

    conf = Path(cable.directory) / "wg0.conf"
    conf.touch(mode=0o600)
    conf.write_text(server.text)
    os.chown(conf, NOBODY, NOBODY)
    let_pass(cable.directory)
    server.client.run("ip", "link", "set", "lo", "up")
    confined(server, main)
