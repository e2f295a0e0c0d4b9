"""What stands for a socket where there is none of the system's: `transport.get_extra_info("socket")`."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from errno import ENOPROTOOPT
from typing import Any, Final

from wgpy.stack.tcp.patience import Settings

# Linux's numbers where the system's module has no such name.
_KEEPIDLE: Final = getattr(socket, "TCP_KEEPIDLE", 4)
_KEEPINTVL: Final = getattr(socket, "TCP_KEEPINTVL", 5)
_KEEPCNT: Final = getattr(socket, "TCP_KEEPCNT", 6)
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", 18)
_TCP: Final = socket.IPPROTO_TCP
_SOCKET: Final = socket.SOL_SOCKET
_NO_EFFECT: Final = {(_SOCKET, socket.SO_REUSEADDR), (_SOCKET, socket.SO_RCVBUF), (_SOCKET, socket.SO_SNDBUF)}


def sockaddr(address: bytes, port: int) -> tuple[Any, ...]:
    """An address of 4 or 16 bytes and a port, as the system's sockets tell them."""
    if len(address) == 4:
        return socket.inet_ntop(socket.AF_INET, address), port
    return socket.inet_ntop(socket.AF_INET6, address), port, 0, 0


class SocketView:
    """The part of a socket that programs ask of transports: its names, and the options that mean something here.

    `fileno()` is -1, as there is no descriptor.
    """

    def __init__(
        self,
        kind: socket.SocketKind,
        own: tuple[Any, ...],
        peer: tuple[Any, ...] | None = None,
        settings: Settings | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.family: socket.AddressFamily = socket.AF_INET6 if len(own) == 4 else socket.AF_INET
        self.type = kind
        self.proto: int = _TCP if kind == socket.SOCK_STREAM else socket.IPPROTO_UDP
        self.breaks_on_close: bool = False  # SO_LINGER with no time: closing it resets the connection
        self._own, self._peer, self._settings, self._changed = own, peer, settings, changed

    def fileno(self) -> int:
        return -1

    def getsockname(self) -> tuple[Any, ...]:
        return self._own

    def getpeername(self) -> tuple[Any, ...]:
        """Raises OSError where there is none."""
        if self._peer is None:
            raise OSError(107, "Transport endpoint is not connected")
        return self._peer

    def gettimeout(self) -> float:
        return 0.0

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Times are as the kernel's option has them. Raises OSError, ENOPROTOOPT for an option not known here."""
        settings, key = self._settings, (level, option)
        if key == (_SOCKET, socket.SO_LINGER):
            on, seconds = struct.unpack("ii", value) if isinstance(value, bytes) else (value, 0)
            self.breaks_on_close = bool(on) and not seconds
            return
        number = int.from_bytes(value, "little") if isinstance(value, bytes) else value
        if settings is None and key not in _NO_EFFECT:
            raise OSError(ENOPROTOOPT, "Protocol not available")
        if settings is not None:
            if key == (_TCP, socket.TCP_NODELAY):
                settings.nodelay = bool(number)
            elif key == (_SOCKET, socket.SO_KEEPALIVE):
                settings.keepalive = (settings.keepalive or 7200.0) if number else None
            elif key == (_TCP, _KEEPIDLE):
                settings.keepalive = float(number) if settings.keepalive is not None else None
            elif key == (_TCP, _KEEPINTVL):
                settings.keepalive_interval = float(number)
            elif key == (_TCP, _KEEPCNT):
                settings.keepalive_count = number
            elif key == (_TCP, _USER_TIMEOUT):
                settings.user_timeout = number / 1000 or None
            elif key not in _NO_EFFECT:
                raise OSError(ENOPROTOOPT, "Protocol not available")
        self._changed()

    def getsockopt(self, level: int, option: int, size: int = 0) -> int:
        """Raises OSError, ENOPROTOOPT for an option not known here."""
        settings, key = self._settings, (level, option)
        if key == (_SOCKET, socket.SO_ERROR):
            return 0
        if key == (_SOCKET, socket.SO_TYPE):
            return int(self.type)
        known: dict[tuple[int, int], Any] = {}
        if settings is not None:
            known = {
                (_TCP, socket.TCP_NODELAY): settings.nodelay,
                (_SOCKET, socket.SO_KEEPALIVE): settings.keepalive is not None,
                (_TCP, _KEEPIDLE): settings.keepalive or 7200,
                (_TCP, _KEEPINTVL): settings.keepalive_interval,
                (_TCP, _KEEPCNT): settings.keepalive_count,
                (_TCP, _USER_TIMEOUT): (settings.user_timeout or 0) * 1000,
            }
        if key not in known:
            raise OSError(ENOPROTOOPT, "Protocol not available")
        return int(known[key])
