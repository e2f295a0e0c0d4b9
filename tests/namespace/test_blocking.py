"""A tunnel without a loop, as an unprivileged user, against Debian's wireguard-go."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import wgpy
import wgpy.blocking
from tests.namespace.conftest import PORT, Server
from tests.support.nobody import as_nobody
from tests.support.peers import wait_for
from wgpy.device.changes import DeviceChange
from wgpy.errors import ConfigError, HandshakeTimeout, NamespaceError, TunnelClosedError

pytestmark = pytest.mark.root


def without_a_loop(server: Server, body: Callable[[], None]) -> None:
    async def main() -> None:
        await asyncio.to_thread(body)

    as_nobody(server.client, main)


def helpers() -> int:
    """Processes of ours that serve a namespace."""
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    return sum(b"wgpy.namespace.helper" in line for line in lines)


def test_sockets_work_as_ordinary_ones(server: Server, network: str) -> None:
    def body() -> None:
        with wgpy.blocking.connect(server.config) as tunnel:
            (peer,) = server.config.peers
            tunnel.wait_for_handshake(peer.public_key, 10)
            assert tunnel.status().peers[0].last_handshake_ns
            with tunnel.create_connection((server.address, PORT), timeout=10) as sock, sock.makefile("rwb") as file:
                assert sock.gettimeout() == 10
                file.write(b"send 1000000\n")
                file.flush()
                content = file.read(1_000_000)
                assert file.read(32) == hashlib.sha256(content).digest()
            assert tunnel.network == network
            assert tunnel.ping(server.address) < 5
            if network == "namespace":
                with tunnel.socket(type=socket.SOCK_DGRAM) as sock:
                    sock.settimeout(10)
                    sock.sendto(b"echo", (server.address, PORT))
                    assert sock.recv(100) == b"echo"
            else:
                with pytest.raises(NamespaceError, match="use open_connection, connected_socket or listening_socket"):
                    tunnel.socket()
            assert tunnel.getaddrinfo("localhost", 1)
            listening = tunnel.create_server((None, 0))
            with listening, tunnel.create_connection(("localhost", listening.getsockname()[1])) as sock:
                accepted, _ = listening.accept()
                with accepted:
                    accepted.sendall(b"hello")
                assert sock.recv(5) == b"hello"
            tunnel.configure(DeviceChange(replace_peers=True))
            assert tunnel.status().peers == ()

    without_a_loop(server, body)


@pytest.mark.usefixtures("network")
def test_errors_are_raised_and_nothing_is_left_behind(server: Server) -> None:
    def body() -> None:
        before = helpers()
        threads = threading.active_count()
        with pytest.raises(ConfigError, match="PrivateKey"), wgpy.blocking.connect(wgpy.InterfaceConfig()):
            pass
        with wgpy.blocking.connect(server.config) as tunnel:
            with pytest.raises(ConnectionRefusedError):
                tunnel.create_connection((server.address, 1))
            with pytest.raises(TimeoutError):
                tunnel.create_connection((server.address, PORT), timeout=1e-6)
            with pytest.raises(ConfigError, match="not a peer"):
                tunnel.wait_for_handshake(wgpy.PrivateKey.generate().public_key)
            assert not issubclass(TunnelClosedError, HandshakeTimeout)
        with pytest.raises(TunnelClosedError):
            tunnel.status()
        with pytest.raises(KeyboardInterrupt), wgpy.blocking.connect(server.config):
            raise KeyboardInterrupt
        assert wait_for(lambda: helpers() == before)
        assert threading.active_count() == threads

    without_a_loop(server, body)


@pytest.mark.usefixtures("network")
def test_a_thread_that_waits_when_the_tunnel_closes_gets_an_error(server: Server) -> None:
    def body() -> None:
        told: list[BaseException] = []

        def wait(tunnel: wgpy.blocking.BlockingTunnel) -> None:
            try:
                tunnel.create_connection(("10.99.0.1", 1))
            except Exception as error:
                told.append(error)

        with wgpy.blocking.connect(server.config) as tunnel:
            waiting = threading.Thread(target=wait, args=(tunnel,))
            waiting.start()
            time.sleep(0.3)
        waiting.join(10)
        assert not waiting.is_alive()
        assert isinstance(told[0], TunnelClosedError | OSError)

    without_a_loop(server, body)
