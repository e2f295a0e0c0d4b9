"""Talking to a running interface, whoever serves it: the client's side of the userspace API socket."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Final

from wgpy.config.uapi import UapiError, parse_status
from wgpy.device.status import DeviceStatus
from wgpy.errors import ControlError

DIRECTORY: Final = Path("/var/run/wireguard")
TIMEOUT: Final = 10.0  # seconds to wait for a daemon's answer


def socket_path(name: str) -> Path:
    return DIRECTORY / f"{name}.sock"


def interfaces() -> list[str]:
    """The names of all interfaces with a socket."""
    return sorted(path.stem for path in DIRECTORY.glob("*.sock")) if DIRECTORY.is_dir() else []


def read(name: str) -> DeviceStatus:
    """Ask for the status. Raises ControlError when no daemon answers as it should."""
    answer = _exchange(name, b"get=1\n\n")
    try:
        return parse_status(answer.decode("ascii", errors="replace"), socket.if_nametoindex)
    except UapiError as error:
        raise ControlError(f"an answer that is not UAPI: {error}") from error


def serving_pid(name: str) -> int:
    """The process that serves the interface `name`. Raises ControlError when none answers."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(socket_path(name)))
        except OSError as error:
            raise ControlError(f"no daemon serves {name}: {socket_path(name)}: {error.strerror}") from error
        return int(struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def answers(path: Path) -> bool:
    """Whether a daemon listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _exchange(name: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        try:
            client.connect(str(socket_path(name)))
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(1 << 16), b""))
        except OSError as error:
            raise ControlError(f"{error.strerror or 'no answer'} ({socket_path(name)})") from error
