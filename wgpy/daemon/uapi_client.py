"""The client's side of the userspace API socket: reading and changing an interface that a daemon serves."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from pathlib import Path
from typing import Final

from wgpy.config.uapi import UapiError, format_apply, format_set, parse_applied, parse_status
from wgpy.device.changes import DeviceChange
from wgpy.device.status import DeviceStatus
from wgpy.errors import ControlError

DIRECTORY: Final = Path("/var/run/wireguard")
TIMEOUT: Final = 10.0  # seconds to wait for a daemon's answer
APPLY_TIMEOUT: Final = 60.0  # seconds; looking up names and setting DNS can be slow
IFNAMSIZ: Final = 16
_SET_ANSWER: Final = re.compile(r"errno=-?([0-9]{1,9})\n\n")  # negative as the kernel's; some daemons answer positive


def socket_path(name: str) -> Path:
    return DIRECTORY / f"{name}.sock"


def interfaces() -> list[str]:
    """The names of all interfaces with a socket that a daemon serves, or to which we may not connect.

    Raises ControlError if the sockets cannot be listed.
    """
    try:
        files = os.listdir(DIRECTORY)
    except FileNotFoundError:
        return []
    except OSError as error:
        remedy = ": run as root" if os.geteuid() else ""
        raise ControlError(f"Unable to list interfaces: {DIRECTORY}: {error.strerror}{remedy}") from error
    names = (name.removesuffix(".sock") for name in files if name.endswith(".sock"))
    return sorted(name for name in names if is_served(name))


def is_served(name: str) -> bool:
    """Whether a daemon serves a socket of that name, or we may not connect to find out."""
    return _connect_error(socket_path(name)) in (0, errno.EACCES)


def read(name: str) -> DeviceStatus:
    """Read the status of an interface. Raises ControlError if no daemon answers, or the answer is invalid."""
    answer = _exchange(name, "get=1\n\n")
    try:
        return parse_status(answer, socket.if_nametoindex)
    except UapiError as error:
        raise ControlError(f"invalid answer from the daemon: {error}") from error


def write(name: str, change: DeviceChange) -> None:
    """Change an interface. Raises ControlError with the text of the errno that the daemon answers."""
    answer = _exchange(name, format_set(change))
    if (match := _SET_ANSWER.fullmatch(answer)) is None:
        raise ControlError("invalid answer from the daemon")
    if code := int(match[1]):
        raise ControlError(os.strerror(code))


def apply(name: str, text: str) -> tuple[list[str], str]:
    """Have wgpy's daemon apply a file's text. Returns the steps taken, and the error of the one that failed or "".

    Raises ControlError if no daemon answers, or one that is not wgpy's.
    """
    answer = _exchange(name, format_apply(text), APPLY_TIMEOUT)
    try:
        return parse_applied(answer)
    except UapiError:
        raise not_ours(name) from None


def not_ours(name: str) -> ControlError:
    """The error for an interface that cannot apply a file, because another program or the kernel serves it."""
    return ControlError(f"not served by wgpy; this changes its peers: wg syncconf {name} <(wgpy strip {name})")


def serving_pid(name: str) -> int:
    """The id of the process that serves the interface `name`. Raises ControlError if there is none."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(socket_path(name)))
        except OSError as error:
            if isinstance(error, PermissionError):
                raise ControlError(f"{socket_path(name)}: {error.strerror}: run as root") from error
            raise ControlError(f"no daemon serves {name} ({socket_path(name)}: {error.strerror})") from error
        return int(struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def answers(path: Path) -> bool:
    """Whether a daemon listens on a socket."""
    return _connect_error(path) == 0


def _connect_error(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path))


def _exchange(name: str, request: str, timeout: float = TIMEOUT) -> str:
    if not name or "/" in name or len(name) >= IFNAMSIZ:
        raise ControlError(os.strerror(errno.EINVAL))
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        try:
            client.connect(str(socket_path(name)))
            client.sendall(request.encode())
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(1 << 16), b"")).decode("ascii", errors="replace")
        except FileNotFoundError:
            raise ControlError(f"{os.strerror(errno.ENODEV)} ({socket_path(name)})") from None
        except OSError as error:
            remedy = ": run as root" if error.errno == errno.EACCES and os.geteuid() else ""
            raise ControlError(f"{error.strerror or 'no answer'} ({socket_path(name)}){remedy}") from error
