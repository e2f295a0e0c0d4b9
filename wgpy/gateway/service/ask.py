"""Asks the client connect handler: a program, or a function of Python, which also runs in a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from typing import Final

from wgpy.gateway.enforcement.dataplane import PYTHON
from wgpy.gateway.policy.handler import TIMEOUT, Answer, read_answer
from wgpy.gateway.policy.sessions import Reason
from wgpy.gateway.service.gateway import Question

log: Final = logging.getLogger("wgpy.gateway")

MOST: Final = 16  # handlers that run at the same time
_LONGEST: Final = 1 << 16  # bytes of an answer
_CALL: Final = (
    "import importlib, json, sys; module, name = sys.argv[1].split(':'); "
    "json.dump(getattr(importlib.import_module(module), name)(json.load(sys.stdin)), sys.stdout)"
)


async def ask(question: Question, seconds: float = TIMEOUT) -> Answer | Reason:
    """Ask, and return the answer, or why there is none: too late, the program failed, or it said something else."""
    is_program = question.handler.startswith("/")
    command = [question.handler] if is_program else [*PYTHON, "-c", _CALL, question.handler]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
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
