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
from contextlib import suppress
from typing import Final

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
    sys.exit(f"cannot become user {{user}}: {{error.strerror}}; a unit of systemd needs CAP_SETUID and CAP_SETGID")
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
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return _failed(question, Reason.HANDLER_ERROR, str(error.strerror))
    try:
        async with asyncio.timeout(seconds):
            output, errors = await _talk(process, question.text.encode())
    except TimeoutError:
        return _failed(question, Reason.HANDLER_TIMEOUT, f"no answer in {seconds:g} seconds")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what a shell script has started
        await process.wait()
    if process.returncode:
        said = errors.decode(errors="replace").strip().splitlines()
        return _failed(question, Reason.HANDLER_ERROR, said[-1] if said else f"exit status {process.returncode}")
    try:
        return read_answer(output)
    except ValueError as error:
        return _failed(question, Reason.HANDLER_INVALID, str(error))


async def _talk(process: asyncio.subprocess.Process, text: bytes) -> tuple[bytes, bytes]:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write(text)
    process.stdin.close()
    output, errors = await asyncio.gather(_read(process.stdout), _read(process.stderr))
    await process.wait()
    return output, errors


async def _read(stream: asyncio.StreamReader) -> bytes:
    """All of a stream, or its beginning if it is too long for an answer."""
    content = b""
    while piece := await stream.read(_LONGEST):
        content = (content + piece)[: _LONGEST + 1]
    return content


def _failed(question: Question, reason: Reason, why: str) -> Reason:
    log.warning("handler %s: %s (session %s is refused)", question.handler, why, question.session)
    return reason
