"""The program `wgpy`, for commands that end by themselves, without a Python that starts for each.

A Python that starts and loads what a gateway's commands need takes half a second of processor time. Here a copy of the
tests' process has loaded that, and copies itself once more for each command. It runs with the arguments, directory,
environment, standard streams and network namespace of whoever called the program.
"""

from __future__ import annotations

import ast
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Final, NoReturn

from wgpy.cli import main
from wgpy.system.syscalls import CLONE_NEWNET, setns

_PROGRAM: Final = """#!{python} -IS
import os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = repr((sys.argv[1:], os.getcwd(), dict(os.environ))).encode()
    socket.send_fds(server, [asked], [0, 1, 2, os.open("/proc/self/ns/net", os.O_RDONLY)])
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(3) or 1))
"""


@contextmanager
def forked_wgpy() -> Iterator[Path]:
    """The path of the program, which works until the block ends."""
    with (
        tempfile.TemporaryDirectory(prefix="wgpy-", dir="/tmp") as directory,  # a socket's path is short
        socket.socket(socket.AF_UNIX) as listening,
    ):
        program, address = Path(directory) / "wgpy", f"{directory}/socket"
        program.write_text(_PROGRAM.format(python=sys.executable, address=address))
        program.chmod(0o700)
        listening.bind(address)
        listening.listen()
        closed_with_us, held = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: none of them is needed
            server = os.fork()
        if server == 0:
            os.close(held)
            _end_with(partial(_serve, listening, closed_with_us))
        os.close(closed_with_us)
        try:
            yield program
        finally:
            os.close(held)
            os.waitpid(server, 0)


def _serve(listening: socket.socket, closed_with_tests: int) -> int:
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a command but its caller
    while True:
        ready, _, _ = select.select([listening.fileno(), closed_with_tests], [], [])
        if closed_with_tests in ready:
            return 0
        connection, _ = listening.accept()
        with connection:
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _end_with(partial(_answer, connection))


def _load() -> None:
    """Have loaded what commands of a gateway use."""
    with tempfile.TemporaryDirectory() as directory, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        places = ("--directory", directory, "--key", f"{directory}/key")
        assert main(["gateway", "init", "--host", "192.0.2.1", "--pool", "10.99.0.0/24", *places]) == 0


def _answer(connection: socket.socket) -> int:
    asked, (*streams, namespace), _, _ = socket.recv_fds(connection, 1 << 16, 4)
    while part := connection.recv(1 << 16):
        asked += part
    arguments, directory, environment = ast.literal_eval(asked.decode())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    with suppress(PermissionError):  # who is not root is there already
        setns(namespace, CLONE_NEWNET)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin, sys.stdout, sys.stderr = (open(number, "w" if number else "r", 1, closefd=False) for number in range(3))  # noqa: SIM115
    status = 1
    try:
        status = main(arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(b"%d" % status)
    return 0


def _end_with(work: Callable[[], int]) -> NoReturn:
    """End this process when the work is done, without what the tests would do at the end of theirs."""
    try:
        os._exit(work())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
