"""The parent's side of the helper: start it, ask it, and notice its end."""

from __future__ import annotations

import array
import asyncio
import errno
import json
import os
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from wgpy.errors import NamespaceError, TunnelClosedError
from wgpy.namespace.helper import MAX_MESSAGE
from wgpy.system.forks import FORKED, abandon_in_child
from wgpy.system.interpreter import isolated
from wgpy.system.refusals import explain_step

_TIMEOUT: Final = 10.0  # seconds for an answer
_IN_FLIGHT: Final = 64  # requests that fit into the socket's buffer with certainty
_MAX_FDS: Final = 3


class HelperProcess:
    """A helper that has been started, which takes some milliseconds. Raises NamespaceError."""

    channel: socket.socket

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fd = theirs.fileno()
            try:
                self._process = subprocess.Popen(
                    isolated("namespace.helper", str(fd)),
                    pass_fds=[fd],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,  # Ctrl-C is the parent's
                )
            except OSError as error:
                self.channel.close()
                raise NamespaceError(f"the helper cannot be started: {error.strerror}") from error
        self.channel.setblocking(False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        """Kill it. Takes some milliseconds, as to start it does."""
        self.channel.close()
        self._process.kill()
        self._process.wait()


class Helper:
    """A running helper. `on_end` is called, from the loop, with why it ended on its own."""

    def __init__(self, process: HelperProcess) -> None:
        self.on_end: Callable[[NamespaceError], None] = lambda error: None
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[list[int]]] = deque()
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._ended: NamespaceError | TunnelClosedError | None = None
        self._process = process
        self._channel = process.channel
        abandon_in_child(self)
        self._loop.add_reader(self._channel, self._readable)

    async def ask(self, word: str, *arguments: Any, fds: int | None = None) -> list[int]:
        """The file descriptors of an answer, which are the caller's to close; `fds` is how many are expected.

        Raises NamespaceError for a step that failed, no answer in time, or the helper's end; OSError for a socket;
        TunnelClosedError in a process that was forked from the one that started it.
        """
        await self._slots.acquire()
        if self._ended is not None:
            self._slots.release()
            raise self._ended
        answer: asyncio.Future[list[int]] = self._loop.create_future()
        try:
            self._channel.send(json.dumps([word, *arguments]).encode())
        except OSError as error:
            self._slots.release()
            raise NamespaceError(f"the namespace's helper cannot be reached: {error.strerror}") from error
        self._waiting.append(answer)
        try:
            async with asyncio.timeout(_TIMEOUT):
                received = await answer
        except TimeoutError:
            raise NamespaceError(f"the namespace's helper has not answered for {_TIMEOUT:.0f} seconds") from None
        if fds is not None and len(received) != fds:
            _close(received)
            raise OSError(errno.EMFILE, "Too many open files: raise `ulimit -n`")
        return received

    def close(self) -> None:
        """End it. Who waits for an answer is told; sockets that it made live on."""
        self._finish(NamespaceError("the tunnel's namespace is closed"))

    def abandon(self) -> None:
        """In a fork's child: it is the parent's."""
        self._ended = TunnelClosedError(FORKED)
        self._slots = asyncio.Semaphore(_IN_FLIGHT)  # nobody here gives back what is taken
        self._channel.close()

    def _readable(self) -> None:
        try:
            message, fds = _receive(self._channel)
        except BlockingIOError:
            return
        except OSError:
            message, fds = b"", []
        if not message:
            hint = "close the tunnel and connect again"
            ended = NamespaceError(f"the helper (process {self._process.pid}) of the namespace ended: {hint}")
            self._finish(ended)
            self.on_end(ended)
            return
        self._slots.release()
        waiting = self._waiting.popleft()
        if waiting.done():  # whoever asked was cancelled
            _close(fds)
        elif not (answer := json.loads(message)):
            waiting.set_result(fds)
        elif answer["step"] == "socket":
            waiting.set_exception(OSError(answer["errno"], os.strerror(answer["errno"])))
        else:
            waiting.set_exception(NamespaceError(explain_step(answer["step"], answer["errno"])))

    def _finish(self, error: NamespaceError) -> None:
        if self._ended is not None:
            return
        self._ended = error
        self._loop.remove_reader(self._channel)
        self._channel.close()
        self._loop.run_in_executor(None, self._process.end)
        while self._waiting:
            self._slots.release()
            if not (waiting := self._waiting.popleft()).done():
                waiting.set_exception(error)


class SocketFactory:
    """Makes sockets in a tunnel's namespace without a loop, from any thread: for libraries that call for one."""

    def __init__(self, fd: int) -> None:
        """`fd` is a channel to the helper, which this takes over."""
        self._lock = threading.Lock()
        self._closed = ""
        self._channel = socket.socket(fileno=fd)
        self._channel.settimeout(_TIMEOUT)
        abandon_in_child(self)

    def __call__(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> socket.socket:
        """A new socket, blocking.

        Raises OSError as socket.socket does, NamespaceError when the helper is gone, TunnelClosedError.
        """
        if self._closed:
            raise TunnelClosedError(self._closed)
        with self._lock:
            try:
                self._channel.send(json.dumps(["socket", int(family), int(type), proto]).encode())
                message, fds = _receive(self._channel)
            except OSError as error:
                raise NamespaceError(f"the namespace's helper cannot be reached: {error}") from error
        if not message:
            raise NamespaceError("the namespace's helper ended: close the tunnel and connect again")
        if answer := json.loads(message):
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        if not fds:
            raise OSError(errno.EMFILE, "Too many open files: raise `ulimit -n`")
        return socket.socket(fileno=fds[0])

    def close(self) -> None:
        """Make no more; sockets that were made live on."""
        self._closed = self._closed or "the tunnel is closed"
        self._channel.close()

    def abandon(self) -> None:
        """In a fork's child: the answers that come are the parent's."""
        self._closed = FORKED
        self._channel.close()


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """A message and its file descriptors, which no program that is started meanwhile inherits."""
    # Not socket.recv_fds: that of Python 3.11 takes flags and drops them.
    fds = array.array("i")
    room = socket.CMSG_LEN(_MAX_FDS * fds.itemsize)
    message, ancillary, _, _ = channel.recvmsg(MAX_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return message, list(fds)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
