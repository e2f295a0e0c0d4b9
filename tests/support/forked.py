"""The program `wgpy`, for commands that end by themselves, without a Python that starts for each.

    python -m tests.support.forked

A Python that starts and loads what `wgpy up` needs takes a quarter of a second of processor time, and for a gateway's
commands half a second. Here a server has loaded that, and forks for each command. It runs with the arguments,
environment, standard streams, directory, and network and mount namespace of whoever called the program.
"""

from __future__ import annotations

import ast
import atexit
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache, partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple

from wgpy.cli import main
from wgpy.cli.commands import MODULES
from wgpy.system.syscalls import CLONE_NEWNET, CLONE_NEWNS, setns

# By _socket, since to load socket takes as long as all the rest.
_PROGRAM: Final = """#!{python} -IS
import _socket, os, sys
server = _socket.socket(_socket.AF_UNIX)
server.connect({address!r})
places = ("/proc/self/ns/net", "/proc/self/ns/mnt", "/", ".")
fds = [0, 1, 2, *(os.open(place, os.O_RDONLY) for place in places)]
sent = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
asked = repr((sys.argv[1:], dict(os.environ))).encode()
start = server.sendmsg([asked], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, sent)])
server.sendall(asked[start:])
server.shutdown(_socket.SHUT_WR)
sys.exit(int(server.recv(3) or 1))
"""
_FDS: Final = 7  # that it sends
# What commands and daemons load when they need it.
_ALSO: Final = (
    "asyncio", "json", "uvloop", "pyroute2.iproute.linux", "pyroute2.netlink.generic.wireguard", "wgpy.control",
    "wgpy.config.redact", "wgpy.daemon.leftovers", "wgpy.daemon.process", "wgpy.daemon.save", "wgpy.daemon.stop",
    "wgpy.net.resolve", "wgpy.net.udp", "wgpy.workers.pool",
)  # fmt: skip


@cache
def forked_wgpy() -> str:
    """The path of the program. Its server ends with this process."""
    server = subprocess.Popen(
        (sys.executable, "-m", "tests.support.forked"),
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # it heeds no Ctrl-C, which the commands may still be needed after
    )
    atexit.register(server.communicate)
    assert server.stdout
    program = server.stdout.readline().rstrip("\n")
    assert program, "the server has ended"
    return program


def serve() -> None:
    """Print the program's path, and answer it until the standard input ends."""
    _load()
    with (
        tempfile.TemporaryDirectory(prefix="wgpy-", dir="/tmp") as directory,  # a socket's path is short
        socket.socket(socket.AF_UNIX) as listening,
    ):
        program, address = Path(directory) / "wgpy", f"{directory}/socket"
        program.write_text(_PROGRAM.format(python=sys.executable, address=address))
        program.chmod(0o700)
        listening.bind(address)
        listening.listen()
        print(program, flush=True)
        _serve(listening)


def _serve(listening: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a command but its caller
    while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        with connection, suppress(OSError, SyntaxError):  # of a caller that was killed
            call = _receive(connection)
            if call.arguments[:1] == ["gateway"]:
                _load_gateway()
            _fork(partial(_answer, call, connection, listening))
            call.close()


class Call(NamedTuple):
    """What was asked for, and where."""

    arguments: list[str]
    environment: dict[str, str]
    streams: list[int]
    network: int
    mounts: int
    root: int
    directory: int

    def close(self) -> None:
        for fd in (*self.streams, *self[3:]):
            os.close(fd)


def _receive(connection: socket.socket) -> Call:
    asked, (*streams, network, mounts, root, directory), _, _ = socket.recv_fds(connection, 1 << 16, _FDS)
    while part := connection.recv(1 << 16):
        asked += part
    arguments, environment = ast.literal_eval(asked.decode())
    return Call(arguments, environment, streams, network, mounts, root, directory)


def _answer(call: Call, connection: socket.socket, listening: socket.socket) -> int:
    """Run it in one more child, in which nothing of ours is open: it may become a daemon."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def command() -> int:
        connection.close()
        listening.close()
        return _run(call)

    child = _fork(command)
    call.close()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.send(b"%d" % (status if status >= 0 else 128 - status))
    return 0


def _run(call: Call) -> int:
    for number, stream in enumerate(call.streams):
        os.dup2(stream, number)
    with suppress(PermissionError):  # who is not root is there already
        setns(call.network, CLONE_NEWNET)
        setns(call.mounts, CLONE_NEWNS)
        os.fchdir(call.root)
        os.chroot(".")
    os.fchdir(call.directory)
    call.close()
    os.environ.clear()
    os.environ.update(call.environment)
    sys.stdin, sys.stdout, sys.stderr = (open(number, "w" if number else "r", 1, closefd=False) for number in range(3))  # noqa: SIM115
    status = 1
    try:
        status = main(call.arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _fork(work: Callable[[], int]) -> int:
    """Do the work in a child, whose exit status it gives, without what we would do at our end. Returns its id."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def _load() -> None:
    for name in (*(f"wgpy.cli.{module}" for module in MODULES), *_ALSO):
        import_module(name)
    gc.freeze()


@cache
def _load_gateway() -> None:
    """Have loaded what commands of a gateway use."""
    with tempfile.TemporaryDirectory() as directory, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        places = ("--directory", directory, "--key", f"{directory}/key")
        assert main(["gateway", "init", "--host", "192.0.2.1", "--pool", "10.99.0.0/24", *places]) == 0
    gc.freeze()


if __name__ == "__main__":
    serve()
