"""What a command of `wgpy exec` is before it becomes that command: a process that enters the tunnel's namespaces.

Its name servers are the tunnel's: a resolv.conf of its own, and no way to the host's resolvers, which answer on unix
sockets that network namespaces do not close.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from wgpy.system.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    die_with_parent,
    mount,
    setns,
    unmount,
    unshare,
)

_RESOLV_CONF: Final = "/etc/resolv.conf"
_PLACE: Final = "/proc"
_RESOLVERS: Final = ("/run/systemd/resolve", "/run/nscd", "/run/avahi-daemon", "/run/unscd")
_NOT_FOUND, _NOT_EXECUTABLE, _NOT_ENTERED = 127, 126, 125  # as the shell and env(1) have them


def main(namespaces: Sequence[int], resolv_conf: str, command: Sequence[str]) -> None:
    """Become `command`, in the network and perhaps the user namespace that these descriptors are. Never returns."""
    try:
        die_with_parent(signal.SIGKILL)
        for fd, kind in reversed(list(zip(namespaces, (CLONE_NEWNET, CLONE_NEWUSER), strict=False))):
            setns(fd, kind)  # the user namespace first, for it grants the other
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # these, and what the caller's event loop left open
    except OSError as error:
        _end(_NOT_ENTERED, f"the tunnel's namespace cannot be entered: {error.strerror}")
    try:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        _resolve_by(resolv_conf)
    except OSError as error:
        from wgpy.system.refusals import explain_step

        _end(_NOT_ENTERED, explain_step("mount", error.errno or 0))
    try:
        os.execvp(command[0], list(command))
    except FileNotFoundError:
        _end(_NOT_FOUND, f"{command[0]}: command not found")
    except OSError as error:
        _end(_NOT_EXECUTABLE, f"{command[0]}: {error.strerror}")


def _resolve_by(text: str) -> None:
    """Show /etc/resolv.conf with this text, and nothing of the host's resolvers."""
    target = os.path.realpath(_RESOLV_CONF)
    for directory in _RESOLVERS:
        if os.path.isdir(directory):
            mount("tmpfs", directory, "tmpfs")
    if target.startswith(_RESOLVERS):  # it was hidden a moment ago
        _write(target, text)
    elif os.path.exists(target):
        # A directory that is always there, covered for a moment: so nothing is written, and no disk need be writable.
        mount("tmpfs", _PLACE, "tmpfs")
        _write(f"{_PLACE}/resolv.conf", text)
        mount(f"{_PLACE}/resolv.conf", target, flags=MS_BIND)
        unmount(_PLACE)


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def _end(status: int, message: str) -> Any:
    with suppress(OSError):
        os.write(2, f"wgpy: {message}\n".encode())
    os._exit(status)
