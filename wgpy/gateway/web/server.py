"""The web server: uvicorn's HTTP/1.1 in the loop of `wgpy gateway run`, with listeners of our own.

uvicorn bounds neither the number of connections nor how long a request may take to come in or an answer to be taken,
and a TLS handshake counts as no connection there. Here all connections share one capacity, from their first packet on
(`wgpy.net.admission`), so that nobody can take the descriptors that the gateway itself needs.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import h11
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from wgpy.daemon.files import own_directory
from wgpy.errors import ControlError
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.web.certificate import Certificate
from wgpy.gateway.web.security import LONGEST_HEAD
from wgpy.net.admission import BACKLOG, Admission, Admitted, client_of, descriptors
from wgpy.net.streams import KEEPALIVE, listening_reason

log: Final = logging.getLogger("wgpy.gateway")

DIRECTORY: Final = Path("/run/wgpy")
MOST: Final = 256  # connections at the port; at the unix socket, which only administrators may open, a quarter of it
THREADS: Final = 40  # handlers that run at the same time: more than may wait for passwords and directories
HEAD_TIME: Final = 10.0  # seconds for a TLS handshake, and for the head of a request, counted from the last answer
BODY_TIME: Final = 60.0  # seconds for the rest of a request
STALL_TIME: Final = 30.0  # seconds in which a client has to take some of an answer
ENDING_TIME: Final = 5.0  # seconds for requests under way when the gateway ends
_PAUSE: Final = 1.0  # seconds without new connections if the system has no descriptor for one
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: process, user, group


def socket_path(interface: str) -> Path:
    """The unix socket of the gateway that has this interface."""
    return DIRECTORY / f"gateway-{interface}.sock"


class WebServer:
    """Serves an ASGI application from the running event loop."""

    def __init__(self, application: ASGIApp) -> None:
        self._config = Config(
            application,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=int(HEAD_TIME) // 2,
            h11_max_incomplete_event_size=LONGEST_HEAD,
        )
        self._config.load()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # anybody may send what it would warn of
        self._state = ServerState()
        self._listening: dict[socket.socket, asyncio.TimerHandle | None] = {}  # until when a listener pauses
        self._opening: set[asyncio.Task[None]] = set()
        self._closing = ExitStack()
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS

    def listen_unix(self, path: Path) -> None:
        """Listen at a unix socket with mode 0600, where everybody who can connect is an administrator.

        Raises ControlError.
        """
        listener = self._closing.enter_context(socket.socket(socket.AF_UNIX))
        try:
            with own_directory(path.parent):
                pass  # checks that nobody else can replace the socket
            if _answers(path):
                raise ControlError(f"{path}: another gateway answers there; stop that first")
            path.unlink(missing_ok=True)
            os.fchmod(listener.fileno(), 0o600)  # which the name gets when it is bound
            listener.bind(str(path))
            own = path.stat()
        except ControlError:
            raise
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror}") from error
        self._closing.callback(_unlink, path, own)
        self._listen(listener, MOST // 4, _administrator)

    def listen_tcp(self, address: str, certificate: Certificate | None, proxy: Address | None = None) -> int:
        """Listen at HOST:PORT with TLS, or without it for connections from a proxy only. Returns the port.

        Raises ControlError.
        """
        assert (certificate is None) == (proxy is not None)
        host, _, port = address.rpartition(":")
        if not port.isdecimal() or int(port) > 0xFFFF or not host:
            raise ControlError(f"--https {address}: expected HOST:PORT, such as 0.0.0.0:443 or [::]:443")
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = self._closing.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if where[0] == "::":
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(where)
        except OSError as error:
            raise ControlError(f"--https {address}: {listening_reason(error)}") from error
        admits = partial(_comes_from, proxy) if proxy else _anybody
        self._listen(listener, MOST, admits, certificate)
        return int(listener.getsockname()[1])

    async def close(self) -> None:
        """End all connections; what a request has begun in a thread goes on to its end."""
        with self._closing:  # the listeners are closed even if a connection's end raises
            for listener, pause in self._listening.items():
                asyncio.get_running_loop().remove_reader(listener)
                if pause:
                    pause.cancel()
            await asyncio.sleep(0)  # what was accepted last has begun, so it closes its socket when it is cancelled
            for task in self._opening:
                task.cancel()
            for connection in list(self._state.connections):
                connection.shutdown()
            if self._state.tasks:
                await asyncio.wait(self._state.tasks, timeout=ENDING_TIME)
            for connection in list(self._state.connections):
                connection.transport.abort()
            for request in list(self._state.tasks):
                request.cancel()
            await asyncio.gather(*self._opening, *self._state.tasks, return_exceptions=True)

    def _listen(
        self,
        listener: socket.socket,
        most: int,
        admits: Callable[[socket.socket, Any], bool],
        certificate: Certificate | None = None,
    ) -> None:
        listener.setblocking(False)
        listener.listen(BACKLOG)
        admission = Admission(min(most, descriptors() // 2), f"{listener.getsockname()} has {most} connections")
        self._resume(listener, admission, admits, certificate)

    def _resume(self, listener: socket.socket, *how: Any) -> None:
        self._listening[listener] = None
        asyncio.get_running_loop().add_reader(listener, self._accept, listener, *how)

    def _accept(self, listener: socket.socket, *how: Any) -> None:
        """Take a connection. If the system has no descriptor for it, others are taken after a pause."""
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("the web server can accept no connection: %s", error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            self._listening[listener] = loop.call_later(_PAUSE, self._resume, listener, *how)
            return
        client.setblocking(False)
        task = asyncio.create_task(self._open(client, address, *how))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(
        self,
        client: socket.socket,
        address: Any,
        admission: Admission,
        admits: Callable[[socket.socket, Any], bool],
        certificate: Certificate | None,
    ) -> None:
        """Do the TLS handshake, if there is one, and hand the connection to its protocol.

        An error here ends this task only: other connections are accepted all the same.
        """
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task
        opening = _Opening(task)
        admitted = admission.admit(client_of(address), 1, opening.close)
        try:
            if not admits(client, address):
                raise ConnectionRefusedError
            context = certificate.context() if certificate else None
            if client.family != socket.AF_UNIX:
                for option in KEEPALIVE:
                    client.setsockopt(*option)
            limits = {"ssl_handshake_timeout": HEAD_TIME, "ssl_shutdown_timeout": ENDING_TIME} if context else {}
            factory = partial(_Connection, self._config, self._state, admitted, loop)
            opening.transport, _ = await loop.connect_accepted_socket(factory, client, ssl=context, **limits)
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is an OSError
            pass
        finally:
            if opening.transport is None:
                client.close()
                admitted.release()


class _Opening:
    """How a connection is closed if others need its descriptor: before its handshake is complete, or after."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task
        self.transport: Any = None

    def close(self) -> None:
        if self.transport is None:
            self._task.cancel()
        else:
            self.transport.abort()


class _ClosedOnce:
    """A transport whose `close` does nothing if it is closing already.

    uvicorn may close a connection that is closing: its client has begun that, or an earlier answer. asyncio's TLS
    transport forgets its connection at the second close (Lib/asyncio/sslproto.py). To abort it then frees nothing until
    its shutdown has timed out, and raises AttributeError in Python 3.11.2, which Debian 12 has.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.close()


class _Connection(H11Protocol):
    """A connection that is given up if its client is too slow, and counts until it is closed."""

    def __init__(self, config: Config, state: ServerState, admitted: Admitted, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, state, {}, loop)
        self._admitted = admitted
        self._timer: asyncio.TimerHandle | None = None
        self._timed: object = None  # the request whose rest is awaited

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_ClosedOnce(transport))  # type: ignore[arg-type]
        client = transport.get_extra_info("socket")
        self.app_state = {"peer": _user_of(client) if client.family == socket.AF_UNIX else None}
        self._allow(HEAD_TIME)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.ProtocolError:  # more rubbish, after a bad request was answered
            self.transport.abort()
        self._follow()

    def connection_lost(self, exc: Exception | None) -> None:
        self._allow(None)
        self._admitted.release()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._allow(STALL_TIME if self.flow.write_paused else HEAD_TIME)
        try:
            super().on_response_complete()
        except h11.ProtocolError:
            self.transport.abort()
        self._follow()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._allow(STALL_TIME)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._allow(None if self._is_answering() else HEAD_TIME)

    def _follow(self) -> None:
        """After something has come in: what is awaited now?"""
        if not self._is_answering() or self.flow.write_paused:
            return
        self._admitted.touch()
        if not self.cycle.more_body:
            self._allow(None)  # it is the handler's turn
        elif self._timed is not self.cycle:
            self._timed = self.cycle
            self._allow(BODY_TIME)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _allow(self, seconds: float | None) -> None:
        """Abort the connection after so many seconds, or not at all."""
        if self._timer:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def _anybody(client: socket.socket, address: Any) -> bool:
    return True


def _comes_from(proxy: Address, client: socket.socket, address: Any) -> bool:
    found = ip_address(address[0].partition("%")[0])
    return (getattr(found, "ipv4_mapped", None) or found) == proxy


def _administrator(client: socket.socket, address: Any) -> bool:
    return _user_of(client) in (0, os.geteuid())


def _user_of(client: socket.socket) -> int:
    """The user id of the program at the other end, which the kernel knows."""
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        return asking.connect_ex(str(path)) not in (errno.ENOENT, errno.ECONNREFUSED)


def _unlink(path: Path, own: os.stat_result) -> None:
    with suppress(OSError):
        if os.path.samestat(path.stat(), own):
            path.unlink()
