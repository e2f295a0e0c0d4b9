"""Everything wgpy raises on purpose.

::

    WgpyError
    ├── KeyFormatError      a key that is not 32 bytes of base64 or hex (also a ValueError)
    ├── ConfigError         a configuration that cannot be used: every problem found, with file and line
    ├── ProtocolError       an authenticated exchange that failed; never leaves the core
    ├── TunError            /dev/net/tun, its ioctls, or an interface that went away
    ├── SocketError         the UDP port or a socket option
    ├── NetworkError        an address, route, rule or link that could not be set
    └── ControlError        a running interface that could not be reached or refused a request

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
