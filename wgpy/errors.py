"""Everything wgpy raises on purpose.

::

    WgpyError
    ├── KeyFormatError     ValueError       not 32 bytes of base64 or hex
    ├── ConfigError        ValueError       a configuration that cannot be used
    ├── ProtocolError                       a failed exchange; never leaves the core
    ├── TunError           OSError          the TUN, or an interface that went away
    ├── SocketError        OSError          the UDP port or a socket option
    ├── NetworkError       OSError          an address, route, rule, link or name
    ├── ControlError       OSError          a running interface that does not answer
    ├── NamespaceError     OSError          a network namespace cannot be made
    ├── ResolveError       socket.gaierror  no answer about a name in a tunnel
    ├── HandshakeTimeout   TimeoutError     a peer did not answer in time
    ├── TunnelClosedError  ConnectionError  the tunnel of a connection is gone
    └── LabError                            a step of a lab failed

The second column is the built-in class that each is a subclass of, too: code that catches what asyncio and the socket
module raise also catches these. A remote peer never makes wgpy raise: what it sends wrong is counted under a
`DropReason`.
"""

from __future__ import annotations

from socket import EAI_NONAME, gaierror


class WgpyError(Exception):
    """The base class of all errors. `str()` is one line for a person, with a remedy where there is one."""


class _SystemError(WgpyError, OSError):
    """The system refused an operation."""

    @property
    def errno(self) -> int | None:  # type: ignore[override]
        """The `errno` of the error that caused this one; None if there was none."""
        return getattr(self.__cause__, "errno", None)

    @property
    def strerror(self) -> str:  # type: ignore[override]
        """The message."""
        return str(self)


class KeyFormatError(WgpyError, ValueError):
    """A text or bytes that are not a key. The message says what was expected and never repeats the input."""


class ConfigError(WgpyError, ValueError):
    """A configuration that cannot be used."""


class ProtocolError(WgpyError):
    """A handshake message that has a wrong key, comes in a wrong state, or fails to authenticate."""


class TunError(_SystemError):
    """The TUN device could not be opened or went away."""


class SocketError(_SystemError):
    """The UDP sockets could not be opened."""


class NetworkError(_SystemError):
    """Netlink, the resolver or the firewall refused a step."""


class ControlError(_SystemError):
    """A running interface could not be reached."""


class NamespaceError(_SystemError):
    """A network namespace could not be made, or its helper ended: the message says what the system refused."""


class ResolveError(_SystemError, gaierror):
    """The name servers of a tunnel's configuration gave no address; `errno` is a socket.EAI_* constant."""

    def __init__(self, message: str, errno: int = EAI_NONAME) -> None:
        super().__init__(message)
        self._errno = errno

    @property
    def errno(self) -> int:  # type: ignore[override]
        """One of the constants `socket.EAI_*`."""
        return self._errno


class HandshakeTimeout(WgpyError, TimeoutError):
    """A peer did not complete a handshake in the time given."""


class TunnelClosedError(WgpyError, ConnectionError):
    """The tunnel was closed, or failed, while something still used it."""


class LabError(WgpyError):
    """A step of a lab failed. The message has the command and its output."""
