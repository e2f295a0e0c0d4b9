"""The errors that the system's own sockets would raise, with their numbers."""

from __future__ import annotations

import errno
from typing import Final

_TEXTS: Final = {
    errno.EACCES: "Permission denied",
    errno.EADDRINUSE: "Address already in use",
    errno.EADDRNOTAVAIL: "Cannot assign requested address",
    errno.ECONNABORTED: "Software caused connection abort",
    errno.ECONNREFUSED: "Connection refused",
    errno.ECONNRESET: "Connection reset by peer",
    errno.EHOSTUNREACH: "No route to host",
    errno.EMSGSIZE: "Message too long",
    errno.ENETUNREACH: "Network is unreachable",
    errno.ENOBUFS: "No buffer space available",
    errno.EPIPE: "Broken pipe",
    errno.ETIMEDOUT: "Connection timed out",
}


def failure(number: int) -> OSError:
    """The error of this number: of the subclass that the number has, such as ConnectionRefusedError."""
    return OSError(number, _TEXTS[number])
