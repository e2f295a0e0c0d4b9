"""Asks the client connect handler: a program, or a function of Python, which also runs in a process of its own.

It gets none of our environment but PYTHONPATH and TZ, and a limit of memory and of processor time. With the endpoint's
setting `handler_user` it runs as that user; without it, as ours.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import signal
import sys
from typing import BinaryIO, Final, cast

from wgpy.gateway.enforcement.dataplane import PYTHON
from wgpy.gateway.policy.handler import TIMEOUT, Answer, read_answer
from wgpy.gateway.policy.sessions import Reason
from wgpy.gateway.service.live import Question

log: Final = logging.getLogger("wgpy.gateway")

MOST: Final = 16  # handlers that run at the same time
_LONGEST: Final = 1 << 16  # bytes of an answer
MEMORY: Final = 512 << 20  # bytes, without what is only reserved, as by a Java machine
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT: Final = ("PYTHONPATH", "TZ")
# What is needed is imported before the user is changed, who need not be able to read our Python.
_CONFINE: Final = f"""
import importlib, json, os, resource, sys
handler, user, uid, gid, *groups = sys.argv[1:]
for limit, most in ((resource.RLIMIT_DATA, {MEMORY}), (resource.RLIMIT_CPU, {TIMEOUT:.0f}), (resource.RLIMIT_CORE, 0)):
    resource.setrlimit(limit, (most, most))
try:
    if user:
        os.setgroups([*map(int, groups)])
        os.setgid(int(gid))
        os.setuid(int(uid))
except OSError as error:
    remedy = "a unit of systemd needs CAP_SETUID, CAP_SETGID and CAP_KILL"
    sys.exit(f"cannot become user {{user}}: {{error.strerror}}; {{remedy}}")
"""
_EXECUTE: Final = f"""{_CONFINE}
try:
    os.execv(handler, [handler])
except OSError as error:
    sys.exit(error.strerror)
"""
_CALL: Final = f"""{_CONFINE}
module, name = handler.split(":")
json.dump(getattr(importlib.import_module(module), name)(json.load(sys.stdin)), sys.stdout)
"""


async def ask(question: Question, seconds: float = TIMEOUT) -> Answer | Reason:
    """Ask, and return the answer, or why there is none: too late, the program failed, or it said something else."""
    if question.handler.startswith("/"):
        command = [sys.executable, "-I", "-S", "-c", _EXECUTE, question.handler]
    else:
        command = [*PYTHON, "-c", _CALL, question.handler]
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", **{name: os.environ[name] for name in _KEPT if name in os.environ}}
    try:
        user = pwd.getpwnam(question.user) if question.user else pwd.getpwuid(os.getuid())
        groups = map(str, os.getgrouplist(user.pw_name, user.pw_gid))
        command += [question.user, str(user.pw_uid), str(user.pw_gid), *groups]
        environment |= {"USER": user.pw_name, "HOME": user.pw_dir}
    except KeyError:
        if question.user:
            return _failed(question, Reason.HANDLER_ERROR, f"there is no user {question.user}")
        command += ["", "", ""]  # our number has no name
    loop = asyncio.get_running_loop()
    try:
        with _file(question.text) as asked:
            transport, handler = await loop.subprocess_exec(
                _Handler, *command, stdin=asked, cwd="/", env=environment, start_new_session=True
            )
    except OSError as error:
        return _failed(question, Reason.HANDLER_ERROR, str(error.strerror))
    late = ""
    try:
        async with asyncio.timeout(seconds):
            await handler.over.wait()
    except TimeoutError:
        late = f"no answer in {seconds:g} seconds"
    finally:
        if ended := transport.get_returncode() is not None or handler.kill():
            transport.close()
            await handler.over.wait()
    if late:
        return _failed(question, Reason.HANDLER_TIMEOUT, late if ended else f"{late}, and ending it takes CAP_KILL")
    output, errors = handler.said[1], handler.said[2]
    if status := transport.get_returncode():
        said = errors.decode(errors="replace").strip().splitlines()
        return _failed(question, Reason.HANDLER_ERROR, said[-1] if said else f"exit status {status}")
    try:
        return read_answer(output)
    except ValueError as error:
        return _failed(question, Reason.HANDLER_INVALID, str(error))


def _file(text: str) -> BinaryIO:
    """A file in memory: there is nothing left to write, as in a pipe, if a program does not read."""
    file = os.fdopen(os.memfd_create("question"), "w+b")
    file.write(text.encode())
    file.seek(0)
    return file


class _Handler(asyncio.SubprocessProtocol):
    """A program that runs. It is over once it has ended and its pipes are closed, by all who have them or by us."""

    def __init__(self) -> None:
        self.said = {1: b"", 2: b""}  # by file descriptor; only the beginning of what is too long for an answer
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._group = cast(asyncio.SubprocessTransport, transport).get_pid()  # uvloop's is no subclass of it

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.said[fd] = (self.said[fd] + data)[: _LONGEST + 1]

    def process_exited(self) -> None:
        self.kill()  # what a shell script has started, which may hold the pipes

    def kill(self) -> bool:
        """End the program and what it has started; False if that is another user's, and we may not."""
        try:
            os.killpg(self._group, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except PermissionError:
            return False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()


def _failed(question: Question, reason: Reason, why: str) -> Reason:
    log.warning("handler %s: %s (session %s is refused)", question.handler, why, question.session)
    return reason
