"""Each error is also the built-in class that code written for asyncio and sockets catches."""

from __future__ import annotations

import errno
import os
import pickle
import socket

import pytest

from wgpy import errors
from wgpy.config.services import Place
from wgpy.net.streams import listening_reason, reason
from wgpy.net.udp import UdpSockets
from wgpy.relay.networks import failure
from wgpy.tun.linux import LinuxTun


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (errors.KeyFormatError, ValueError),
        (errors.ConfigError, ValueError),
        (errors.TunError, OSError),
        (errors.SocketError, OSError),
        (errors.NetworkError, OSError),
        (errors.ControlError, OSError),
        (errors.NamespaceError, OSError),
        (errors.ResolveError, socket.gaierror),
        (errors.HandshakeTimeout, TimeoutError),
        (errors.TunnelClosedError, ConnectionError),
    ],
)
def test_each_error_is_what_the_standard_library_would_raise(
    ours: type[errors.WgpyError], theirs: type[Exception]
) -> None:
    assert issubclass(ours, theirs)
    error = pickle.loads(pickle.dumps(ours("what happened: what to do")))
    assert isinstance(error, theirs)
    assert str(error) == "what happened: what to do"
    if isinstance(error, errors._SystemError):
        assert error.strerror == "what happened: what to do"
    assert reason(error) == "what happened: what to do"


def test_a_refusal_keeps_its_errno() -> None:
    """Code that tries one port after another looks at it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        with pytest.raises(OSError, match="choose another") as raised:
            UdpSockets.open(other.getsockname()[1])
    assert raised.value.errno == errno.EADDRINUSE


def test_a_name_that_does_not_resolve_is_an_error_of_getaddrinfo() -> None:
    assert errors.ResolveError("x").errno == socket.EAI_NONAME
    assert errors.ResolveError("x", socket.EAI_AGAIN).errno == socket.EAI_AGAIN
    assert reason(socket.gaierror(socket.EAI_NONAME, "no such name")) == "no such name"


def test_a_descriptor_that_is_not_a_tun_is_refused_and_stays_open() -> None:
    """The message is the first one: it is not caught on its way as an OSError and said again."""
    fd = os.open("/dev/null", os.O_RDWR)
    try:
        with pytest.raises(errors.TunError, match="not a TUN interface's: Inappropriate ioctl") as raised:
            LinuxTun.adopt(fd)
        assert raised.value.errno == errno.ENOTTY
        os.fstat(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.ResolveError("nosuch.name: no server answered"), "nosuch.name:80: no server answered"),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('nosuch.name', 80)"),
            "nosuch.name:80: Connection refused",
        ),
        (TimeoutError(), "nosuch.name:80: timed out"),
    ],
)
def test_the_error_of_a_failed_connection_names_its_address_once(error: OSError, said: str) -> None:
    assert failure(Place("nosuch.name", 80), error) == said


def test_the_error_of_a_failed_listener_has_the_systems_text() -> None:
    told = "Cannot assign requested address; give an address of this host, such as 127.0.0.1"
    assert listening_reason(OSError(errno.EADDRNOTAVAIL, "error while attempting to bind on ...")) == told
    assert listening_reason(OSError("could not bind on any address out of [('192.0.2.1', 9999)]")) == told
    assert listening_reason(PermissionError(errno.EACCES, "x")).endswith("; choose a port above 1023, or run as root")
