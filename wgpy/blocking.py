"""connect() for programs without asyncio: the tunnel runs in its own thread, and its sockets are ordinary ones."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

from wgpy.config.values import ALL_OFFLOADS, InterfaceConfig, Offloads
from wgpy.device.changes import DeviceChange
from wgpy.device.effects import Event
from wgpy.device.status import DeviceStatus
from wgpy.errors import TunnelClosedError
from wgpy.keys import PublicKey
from wgpy.relay.forward import forwarded
from wgpy.rootless.connect import SETUP_TIMEOUT, NetworkChoice
from wgpy.rootless.connect import connect as connect_in_loop
from wgpy.rootless.names import AddressInfo
from wgpy.rootless.tunnel import RootlessTunnel

T = TypeVar("T")


@contextmanager
def connect(
    config: str | os.PathLike[str] | InterfaceConfig,
    *,
    network: NetworkChoice = "auto",
    on_event: Callable[[Event], None] | None = None,
    offloads: Offloads = ALL_OFFLOADS,
    timeout: float | None = SETUP_TIMEOUT,
) -> Iterator[BlockingTunnel]:
    """As wgpy.connect, for a `with` block. `on_event` is called in the tunnel's thread. Raises what that raises.

    ::

        with wgpy.blocking.connect("wg0.conf") as tunnel:
            sock = tunnel.create_connection(("10.0.0.2", 5432), timeout=5)
    """
    loop = asyncio.new_event_loop()
    ready: Future[BlockingTunnel] = Future()

    async def live() -> None:
        try:
            async with connect_in_loop(
                config, network=network, on_event=on_event, offloads=offloads, timeout=timeout
            ) as tunnel:
                ready.set_result(BlockingTunnel(tunnel, loop))
                await asyncio.Event().wait()  # until the task is cancelled
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    task = loop.create_task(live())
    thread = threading.Thread(target=_run, args=(loop, task), name="wgpy tunnel", daemon=True)
    thread.start()
    here = os.getpid()
    try:
        yield ready.result()
    finally:
        if os.getpid() == here:  # in a fork's child that leaves the block, the thread is the parent's
            with suppress(RuntimeError):  # the loop is closed already
                loop.call_soon_threadsafe(task.cancel)
            thread.join()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    try:
        loop.run_until_complete(task)
    finally:
        loop.run_until_complete(_cancel_the_others())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _cancel_the_others() -> None:
    """Cancel the calls that other threads are still waiting for."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class BlockingTunnel:
    """A tunnel that runs in another thread, made by `connect`. Call its methods from any thread except that one.

    It belongs to the process that opened it. In a child made by fork, every method raises TunnelClosedError. A socket
    that was made before the fork is shared with the child, as any socket is, and works as long as the parent has the
    tunnel: a server may listen, fork, and accept in each child.
    """

    def __init__(self, tunnel: RootlessTunnel, loop: asyncio.AbstractEventLoop) -> None:
        self._tunnel = tunnel
        self._loop = loop

    def __reduce__(self) -> NoReturn:
        self._tunnel.__reduce__()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            self._tunnel.check_open()
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except TunnelClosedError:
            coroutine.close()
            raise
        except RuntimeError as error:
            coroutine.close()
            raise TunnelClosedError("the tunnel is closed") from error
        try:
            return future.result()
        except CancelledError:
            raise TunnelClosedError("the tunnel was closed") from None
        except BaseException:  # raised in this thread, as KeyboardInterrupt: the result is no longer wanted
            future.cancel()
            raise

    def _do(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._call(call())

    @property
    def network(self) -> str:
        """As RootlessTunnel.network: "namespace" or "stack"."""
        return self._tunnel.network

    def create_connection(self, address: tuple[str, int], timeout: float | None = None) -> socket.socket:
        """As socket.create_connection, through the tunnel. `timeout`, in seconds, is also set on the socket.

        Raises OSError of the last address, TimeoutError, ResolveError, TunnelClosedError.
        """

        async def connected() -> socket.socket:
            async with asyncio.timeout(timeout):
                return await self._tunnel.connected_socket(*address)

        sock = self._call(connected())
        sock.settimeout(timeout)
        return sock

    def create_server(self, address: tuple[str | None, int], *, backlog: int = 1024) -> socket.socket:
        """A listening socket at an address of the tunnel, or at all of them if the host is None."""
        sock = self._call(self._tunnel.listening_socket(address, backlog=backlog))
        sock.setblocking(True)
        return sock

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> socket.socket:
        """As socket.socket, in the tunnel's namespace. Raises NamespaceError if its network is a stack."""
        sock = self._call(self._tunnel.socket(family, type, proto))
        sock.setblocking(True)
        return sock

    @contextmanager
    def forwarded(self, host: str, port: int) -> Iterator[tuple[str, int]]:
        """As wgpy.forwarded: a port of 127.0.0.1 that leads to a host in the tunnel, for psycopg and others."""
        forward = forwarded(self._tunnel, host, port)
        address = self._call(forward.__aenter__())
        try:
            yield address
        finally:
            with suppress(TunnelClosedError):
                self._call(forward.__aexit__(None, None, None))

    def getaddrinfo(
        self,
        host: str | None,
        port: int | str | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """As socket.getaddrinfo, by the configuration's DNS. Raises ResolveError, TunnelClosedError."""
        return self._call(self._tunnel.getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags))

    def ping(self, host: str, *, size: int = 56, timeout: float = 5.0) -> float:
        """As RootlessTunnel.ping: the seconds until the reply came."""
        return self._call(self._tunnel.ping(host, size=size, timeout=timeout))

    def wait_for_handshake(self, peer: PublicKey, timeout: float = 10.0) -> None:
        """As Tunnel.wait_for_handshake; `timeout` in seconds."""
        self._call(self._tunnel.wait_for_handshake(peer, timeout))

    def status(self) -> DeviceStatus:
        """As Tunnel.status."""
        return self._do(self._tunnel.status)

    def configure(self, change: DeviceChange) -> None:
        """As Tunnel.configure."""
        self._do(lambda: self._tunnel.configure(change))

    def reconfigure(self, config: InterfaceConfig) -> None:
        """As Tunnel.reconfigure."""
        self._call(self._tunnel.reconfigure(config))
