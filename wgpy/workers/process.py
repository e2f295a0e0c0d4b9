"""A worker's process, seen from control: starting it, asking it, and noticing its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from wgpy.errors import ControlError
from wgpy.system.interpreter import ROOT, isolated
from wgpy.workers.channel import Body, Channel, Kind, Message

log: Final = logging.getLogger("wgpy")

PATIENCE: Final = 60.0  # seconds for an answer; a worker that takes longer is killed, and replaced
END_TIMEOUT: Final = 2.0  # seconds for a worker to end by itself when its channel is closed
MAX_SAID: Final = 4096  # bytes of its standard error that are kept at a time


def import_path() -> list[str]:
    """Where a worker finds modules: where this process does, except in the directory in which it was started.

    `python -m wgpy` looks there first (sys.path[0]). Somebody who may write there could have planted a module since
    then, and have it run by killing a worker, or waiting for one to die.
    """
    first = 0 if sys.flags.safe_path or sys.path[:1] == [ROOT] else 1
    return [*filter(None, sys.path[first:]), ROOT]


class WorkerEnded(ControlError):
    """The worker's process has ended, so there will be no answer."""


class WorkerProcess:
    """A worker's process that was started just now.

    `told` is called with each message that is no answer. If it raises ControlError, the worker is killed. `ended` is
    called from the loop, once, with the process's id and how it ended.
    """

    def __init__(
        self, interface: str, number: int, *, told: Callable[[Message], None], ended: Callable[[int, str], None]
    ) -> None:
        """Raises ControlError if the system starts no process."""
        self._name = f"({interface}) worker {number}"
        self._told = told
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._answers: deque[asyncio.Future[bytes]] = deque()
        self._why = ""
        self._gone: asyncio.Future[None] = self._loop.create_future()
        try:
            self._process, self._pidfd, ours, self._said = _start(interface, number)
        except OSError as error:
            raise ControlError(f"a worker cannot be started: {error.strerror}") from error
        self._channel = Channel(ours, takes_fds=False)
        self._loop.add_reader(self._pidfd, self._exited)
        self._loop.add_reader(self._said, self._log_what_it_says)
        self._listening = self._loop.create_task(self._listen())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, kind: Kind, body: Body = b"", fds: Sequence[int] = ()) -> None:
        """Send a message that has no answer."""
        self._channel.send(kind, body, fds)

    async def ask(self, kind: Kind, body: Body = b"", fds: Sequence[int] = (), patience: float = PATIENCE) -> bytes:
        """The body of the answer. A process that has not answered within `patience` seconds hangs, and is killed.

        Raises WorkerEnded, or ControlError with what the worker could not do.
        """
        if self._gone.done():
            raise WorkerEnded(f"{self._name} has ended")
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._answers.append(answer)
        self._channel.send(kind, body, fds)
        late = self._loop.call_later(patience, self.kill, f"did not answer for {patience:g} s")
        try:
            return await answer
        finally:
            late.cancel()

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            try:
                if message.kind in (Kind.DONE, Kind.FAILED):
                    self._take_answer(message)
                else:
                    self._told(message)
            except ControlError as error:
                self.kill(f"said something wrong: {error}")
                return
            await asyncio.sleep(0)  # control has its turn, however much a worker says
        if self._pidfd >= 0:  # it is ending, and how it ended will be known
            self._loop.call_later(END_TIMEOUT, self.kill, "closed its channel")

    def _take_answer(self, message: Message) -> None:
        if not self._answers:
            raise ControlError("an answer to nothing")
        answer = self._answers.popleft()
        if answer.done():  # whoever asked was cancelled
            return
        if message.kind is Kind.DONE:
            answer.set_result(message.body)
        else:
            answer.set_exception(ControlError(message.body.decode(errors="replace")[:MAX_SAID]))

    def _log_what_it_says(self) -> bool:
        """Log what it writes to standard error, which is nothing unless Python or a library fails; whether it did."""
        try:
            said = os.read(self._said, MAX_SAID)
        except OSError:
            said = b""
        for line in said.decode(errors="replace").splitlines():
            log.error("%s: %s", self._name, line)
        if not said:
            self._loop.remove_reader(self._said)
        return bool(said)

    def kill(self, why: str) -> None:
        """Kill it; `why` says how it ended."""
        if self._pidfd >= 0:
            self._why = self._why or why
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        status = self._process.wait()
        while self._log_what_it_says():
            pass
        os.close(self._said)
        self._listening.cancel()
        self._channel.close()
        self._gone.set_result(None)
        how = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        if self._why and status < 0:
            how = self._why
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(WorkerEnded(f"{self._name} {how}"))
        self._answers.clear()
        self._ended(self.pid, how)

    async def end(self) -> None:
        """Have it end by itself, or kill it, and wait until it is gone."""
        self._why = "was told to end"
        self._channel.close()
        late = self._loop.call_later(END_TIMEOUT, self.kill, "")
        await self._gone
        late.cancel()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _start(interface: str, number: int) -> tuple[subprocess.Popen[bytes], int, socket.socket, int]:
    """The process, a pidfd of it, our end of its channel, and that of its standard error. Raises OSError."""
    with ExitStack() as theirs, ExitStack() as ours:  # what is ours is undone if a step fails
        channel, their_channel = socket.socketpair()
        theirs.enter_context(their_channel)
        ours.enter_context(channel)
        said, stderr = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, stderr)
        ours.callback(os.close, said)
        os.set_blocking(said, False)
        fd = their_channel.fileno()
        process = subprocess.Popen(
            [*isolated("workers.worker", str(fd), import_path()), interface, f"worker {number}"],
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd="/",
            start_new_session=True,  # Ctrl-C is control's
        )
        ours.callback(process.wait)
        ours.callback(process.kill)
        pidfd = os.pidfd_open(process.pid)
        ours.pop_all()
        return process, pidfd, channel, said
