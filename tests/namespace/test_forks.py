"""Servers that fork with a tunnel open: the child gets an error at once, and the parent's tunnel goes on."""

from __future__ import annotations

import asyncio
import os
import pickle
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import wgpy
import wgpy.blocking
from tests.namespace.conftest import PORT, Server
from tests.namespace.test_blocking import without_a_loop
from tests.support.nobody import as_nobody
from tests.support.peers import wait_for
from wgpy.device.changes import DeviceChange
from wgpy.errors import TunnelClosedError

pytestmark = pytest.mark.root

PATIENCE = 20  # seconds until a child is killed, which fails the test


def in_child(body: Callable[[], None]) -> None:
    """Run `body` in a fork and wait for it; what it raises fails the test here."""
    if (pid := os.fork()) == 0:
        signal.alarm(PATIENCE)
        status = 1
        try:
            body()
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(TunnelClosedError, match="forked from"):
        call()


def echo(tunnel: wgpy.blocking.BlockingTunnel, server: Server) -> None:
    with tunnel.create_connection((server.address, PORT), timeout=10) as sock:
        sock.sendall(b"take 5\nhello")
        assert len(sock.recv(32)) == 32


@pytest.mark.usefixtures("network")
def test_in_a_forks_child_every_method_raises_at_once_and_the_parent_goes_on(server: Server) -> None:
    (peer,) = server.config.peers

    def body() -> None:
        with wgpy.blocking.connect(server.config) as tunnel:
            echo(tunnel, server)

            def child() -> None:
                for call in (
                    lambda: tunnel.create_connection((server.address, PORT), timeout=1),
                    lambda: tunnel.create_connection((server.address, PORT)),
                    lambda: tunnel.create_server((None, 0)),
                    tunnel.socket,
                    lambda: tunnel.forwarded("10.0.0.1", 1).__enter__(),
                    lambda: tunnel.getaddrinfo("localhost", 1),
                    lambda: tunnel.wait_for_handshake(peer.public_key),
                    tunnel.status,
                    lambda: tunnel.configure(DeviceChange()),
                    lambda: tunnel.reconfigure(server.config),
                ):
                    refused(call)

            for _ in range(3):
                in_child(child)
                echo(tunnel, server)

    without_a_loop(server, body)


LEAVING = """
import gc, multiprocessing, os, signal, socket, sys, wgpy.blocking
from contextlib import ExitStack
def ask():
    try: tunnel.status()
    except wgpy.TunnelClosedError: sys.exit(8)
config, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
with ExitStack() as stack:
    tunnel = stack.enter_context(wgpy.blocking.connect(config))
    address = stack.enter_context(tunnel.forwarded(host, port))
    forwarded = stack.enter_context(socket.create_connection(address, 10))
    direct = stack.enter_context(tunnel.create_connection((host, port), timeout=10))
    if (pid := os.fork()) == 0:
        signal.alarm(20)
        gc.collect()
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    process = multiprocessing.get_context("fork").Process(target=ask)
    process.start()
    process.join(20)
    assert process.exitcode == 8
    late = stack.enter_context(tunnel.create_connection((host, port), timeout=10))
    for sock in (forwarded, direct, late):
        sock.sendall(b"take 5\\nhello")
        assert len(sock.recv(32)) == 32
print("unharmed")
"""


def test_a_child_may_leave_the_block_and_exit_without_harm(server: Server, tmp_path: Path) -> None:
    """By SystemExit through every `with`, a garbage collection, and what runs at Python's end."""
    path = tmp_path / "wg0.conf"
    path.touch(mode=0o600)
    path.write_text(server.text)
    # Python 3.12 and later warn of a fork beside threads, which is what this test is about.
    command = (sys.executable, "-W", "ignore::DeprecationWarning", "-c", LEAVING, str(path), server.address, str(PORT))
    assert server.client.run(*command, timeout=60) == "unharmed\n"


def test_a_child_can_open_its_own_tunnel(server: Server) -> None:
    def body() -> None:
        with wgpy.blocking.connect(server.config) as tunnel:
            echo(tunnel, server)

            def child() -> None:
                with wgpy.blocking.connect(server.config) as own:
                    echo(own, server)

            in_child(child)

            async def main() -> None:
                async with wgpy.connect(server.config) as own:
                    _, writer = await own.open_connection(server.address, PORT)
                    writer.close()

            in_child(lambda: asyncio.run(main()))

    without_a_loop(server, body)


def test_workers_accept_from_a_socket_made_before_the_fork(server: Server) -> None:
    def body() -> None:
        with wgpy.blocking.connect(server.config) as tunnel, tunnel.create_server((None, 0)) as listening:
            port = listening.getsockname()[1]
            if (pid := os.fork()) == 0:
                signal.alarm(PATIENCE)
                accepted, _ = listening.accept()
                accepted.sendall(b"hello")
                os._exit(0)
            with tunnel.create_connection(("localhost", port), timeout=10) as sock:
                assert sock.recv(5) == b"hello"
            os.waitpid(pid, 0)

    without_a_loop(server, body)


@pytest.mark.usefixtures("network")
def test_a_child_serves_what_its_parent_has_accepted(server: Server) -> None:
    """As socketserver.ForkingTCPServer does."""

    def body() -> None:
        with wgpy.blocking.connect(server.config) as tunnel, tunnel.create_server((None, 0)) as listening:
            for _ in range(3):
                calling = tunnel.create_connection(("localhost", listening.getsockname()[1]), timeout=10)
                accepted, _ = listening.accept()
                if (pid := os.fork()) == 0:
                    signal.alarm(PATIENCE)
                    calling.close()
                    accepted.sendall(accepted.recv(5).upper())
                    os._exit(0)
                accepted.close()
                with calling:
                    calling.sendall(b"hello")
                    assert calling.recv(5) == b"HELLO"
                    assert calling.recv(5) == b"", "the child alone had it open"
                os.waitpid(pid, 0)

    without_a_loop(server, body)


def test_on_the_stack_only_the_parent_accepts(server: Server) -> None:
    """The child's attempt takes no connection from the parent, and its copies keep no connection from ending."""

    def body() -> None:
        with wgpy.blocking.connect(server.config, network="stack") as tunnel:
            listening = tunnel.create_server((None, 0))
            here = str(server.config.addresses[0].ip)
            calling = tunnel.create_connection((here, listening.getsockname()[1]), timeout=10)
            assert select.select([listening], [], [], 10)[0]

            def child() -> None:
                for _ in range(2):
                    with pytest.raises(TunnelClosedError, match="`wgpy forward -R` bring them to a port"):
                        listening.accept()

            in_child(child)
            if (worker := os.fork()) == 0:
                time.sleep(6 * PATIENCE)
                os._exit(0)
            listening.settimeout(10)
            accepted, _ = listening.accept()
            accepted.settimeout(10)
            calling.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
        try:  # the tunnel is closed, and the worker lives
            with calling, accepted, suppress(ConnectionResetError):
                assert not calling.recv(5)
            with listening, pytest.raises(TunnelClosedError, match="the tunnel was closed"):
                listening.accept()
        finally:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)

    without_a_loop(server, body)


def test_the_same_holds_for_a_fork_in_an_event_loop(server: Server) -> None:
    """Forked while the loop runs, as by multiprocessing: the child neither asks the helper nor carries packets."""

    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel:
            make = await tunnel.socket_factory()
            reader, writer = await tunnel.open_connection(server.address, PORT)
            (peer,) = server.config.peers

            def child() -> None:
                refused(make)
                for coroutine in (
                    tunnel.socket(),
                    tunnel.open_connection(server.address, PORT),
                    tunnel.start_server(lambda _, __: None),
                    tunnel.wait_for_handshake(peer.public_key),
                    tunnel.create_subprocess_exec("true"),
                ):
                    with pytest.raises(TunnelClosedError, match="forked from"):
                        coroutine.send(None)
                exiting = tunnel.__aexit__(None, None, None)
                with pytest.raises(StopIteration):
                    exiting.send(None)
                tunnel.close()

            in_child(child)
            writer.write(b"take 5\nhello")
            assert len(await reader.readexactly(32)) == 32
            make().close()
            (await tunnel.socket()).close()
            tunnel.device.forget_sessions()
            await tunnel.wait_for_handshake(peer.public_key)

    as_nobody(server.client, main)


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def test_a_child_keeps_nothing_of_the_tunnel(server: Server) -> None:
    """A worker that outlives its parent's tunnel holds neither the UDP port nor the interface."""

    def body() -> None:
        config = server.config
        worker = 0
        try:
            with wgpy.blocking.connect(config) as tunnel:
                port = tunnel.status().listen_port
                if (worker := os.fork()) == 0:
                    time.sleep(6 * PATIENCE)
                    os._exit(0)
            assert wait_for(partial(is_free, port))
        finally:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)

    without_a_loop(server, body)


def test_a_tunnel_cannot_be_pickled(server: Server) -> None:
    """As multiprocessing would, where it does not fork."""

    def body() -> None:
        with (
            wgpy.blocking.connect(server.config) as tunnel,
            pytest.raises(TypeError, match="a tunnel stays in its process"),
        ):
            pickle.dumps(tunnel)

    without_a_loop(server, body)
