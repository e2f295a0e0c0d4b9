"""What happens to peers, one JSON object a line; and the key log that lets Wireshark read a capture."""

from __future__ import annotations

import json
import os
import time
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from wgpy.device.effects import Event, EventKind
from wgpy.errors import ControlError

# What the protocol calls giving up is, to who watches, a peer that is lost: 90 s without an answer.
_NAMES: Final = {EventKind.HANDSHAKE_ABANDONED: "peer_lost"}


def open_log(path: str) -> IO[str]:
    """A file to append to, which only its owner may read; "-" is standard output. Raises ControlError."""
    if path == "-":
        path = "/dev/stdout"
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a", buffering=1)
    except OSError as error:
        raise ControlError(f"{Path(path)}: {error.strerror}") from error


class EventLog:
    """Writes each event of an interface as one line of JSON; what cannot be written is let go."""

    def __init__(self, interface: str, file: IO[str]) -> None:
        self._interface = interface
        self._file = file

    def __call__(self, event: Event, name: str) -> None:
        """`name` is what the configuration calls the peer."""
        line = {
            "time": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
            "interface": self._interface,
            "event": _NAMES.get(event.kind, event.kind.value),
            "public_key": event.public_key.base64(),
            "name": name,
            "endpoint": str(event.endpoint) if event.endpoint else None,
        }
        with suppress(OSError):
            self._file.write(json.dumps(line) + "\n")


class KeyLog:
    """Writes the keys of each handshake in the format of Wireshark's "WireGuard key log file".

    Whoever has this file can read all traffic of its sessions, past and to come. What cannot be written is let go.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __call__(self, label: str, key: bytes) -> None:
        with suppress(OSError):
            self._file.write(f"{label} = {b64encode(key).decode()}\n")
