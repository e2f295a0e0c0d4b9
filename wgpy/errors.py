"""Everything wgpy raises on purpose.

::

    WgpyError
    ├── KeyFormatError      a key that is not 32 bytes of base64 or hex (also a ValueError)
    ├── ConfigError         a configuration that cannot be used: every problem found, with file and line
    ├── ProtocolError       an authenticated exchange that failed; never leaves the core
    ├── TunError            /dev/net/tun, its ioctls, or an interface that went away
    ├── SocketError         the UDP port or a socket option
    ├── NetworkError        an address, route, rule or link that could not be set
    ├── ControlError        a running interface that could not be reached or refused a request
    ├── NamespaceError      a tunnel's own network namespace that could not be made, or was lost with its helper
    ├── ResolveError        a name that could not be resolved through a tunnel
    ├── HandshakeTimeout    a peer that did not answer in time (also a TimeoutError)
    ├── TunnelClosedError   the tunnel under a connection is gone (also a ConnectionError)
    └── LabError            a network of namespaces that could not be built, or a command in it that failed

A remote peer never makes wgpy raise: what it sends wrong becomes a counted `DropReason`.
"""


class WgpyError(Exception):
    """The root: `str()` is one line for a person, with a remedy where there is one."""


class KeyFormatError(WgpyError, ValueError):
    """Not a key: the message says what was expected and never repeats the input."""


class ConfigError(WgpyError):
    """A configuration that cannot be used."""


class ProtocolError(WgpyError):
    """A message that does not belong: wrong key, wrong state, failed authentication."""


class TunError(WgpyError):
    """The TUN device could not be opened or went away."""


class SocketError(WgpyError):
    """The UDP sockets could not be opened."""


class NetworkError(WgpyError):
    """Netlink, resolver or firewall refused a step."""


class ControlError(WgpyError):
    """A running interface could not be reached."""


class NamespaceError(WgpyError):
    """A network namespace could not be made, or its helper ended: the message says which door is shut."""


class ResolveError(WgpyError):
    """The name servers of a tunnel's configuration gave no address."""


class HandshakeTimeout(WgpyError, TimeoutError):
    """A peer did not complete a handshake in the time given."""


class TunnelClosedError(WgpyError, ConnectionError):
    """The tunnel was closed, or failed, while something still used it."""


class LabError(WgpyError):
    """A step of a lab failed: the message has the command and what it said."""
