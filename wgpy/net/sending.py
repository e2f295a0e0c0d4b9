"""Sending bursts of datagrams with UDP_SEGMENT, one at a time where that fails; beside wireguard-go's gso_linux.go.

One `sendmsg` carries up to 64 datagrams of equal length. Control messages say from which of our addresses they leave
(the kernel's sticky source, its socket.c) and with which traffic class.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from wgpy.burst import Datagrams
from wgpy.constants import MAX_DATAGRAM, MAX_SEGMENTS
from wgpy.endpoint import Endpoint
from wgpy.net.binding import IP_PKTINFO
from wgpy.net.datagrams import SENT, SendResult

UDP_SEGMENT: Final = 103  # a Linux constant that the socket module of Python 3.11 lacks

MAX_PAYLOAD: Final = {socket.AF_INET: MAX_DATAGRAM, socket.AF_INET6: MAX_DATAGRAM + 20}
REFUSAL_LASTS: Final = 600.0  # seconds: as long as the kernel keeps a path's MTU (net.ipv4.route.mtu_expires)
MAX_REFUSALS: Final = 1024  # hosts

# Errors that mean that the local address is gone or no longer leads there.
_SOURCE_ERRORS: Final = frozenset(
    {errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENODEV, errno.ENETDOWN}
)

_NO_SOURCE_V4: Final = bytes(4)
_PKTINFO_V4: Final = Struct("=i4s4s")  # interface index, local address, destination in the header
_PKTINFO_V6: Final = Struct("=16si")  # local address, interface index
_INT: Final = Struct("=i")
_U16: Final = Struct("=H")

_log = logging.getLogger(__name__)

_ControlMessage = tuple[int, int, bytes]


class Sender:
    """The socket that sends for one address family, and what was learnt about its segmentation offload."""

    def __init__(self, sock: socket.socket, *, gso: bool) -> None:
        self.socket = sock
        self.sendmsg: Callable[..., int] = sock.sendmsg
        self._max_payload = MAX_PAYLOAD[socket.AddressFamily(sock.family)]
        self._segmentation = gso and _has_segmentation(sock)
        self._refusals: dict[str, int] = {}  # host -> the smallest segment that exceeds its route's MTU
        self._refusals_expire = 0.0

    def segments(self, total: int, size: int, host: str) -> int:
        """How many datagrams of two or more, `total` bytes, the next sendmsg takes: equal shares, not 44 and then 2."""
        if self._refusals and time.monotonic() > self._refusals_expire:
            self._refusals.clear()
        if not self._segmentation or size >= self._refusals.get(host, size + 1):
            return 1
        count = -(-total // size)
        if total <= self._max_payload and count <= MAX_SEGMENTS:
            return count
        limit = min(MAX_SEGMENTS, self._max_payload // size) or 1
        calls = -(-count // limit)
        return -(-count // calls)

    def segmentation_failed(self, number: int, size: int, host: str) -> bool:
        """Whether a send failed with this errno because it was segmented. If so, that is not tried again.

        EIO: the outgoing device has no checksum offload (kernels before 6.11). EMSGSIZE, or EINVAL on older kernels: a
        segment exceeds the route's MTU; as a plain datagram it is fragmented instead.
        """
        if number == errno.EIO:
            self._segmentation = False
            _log.info("UDP segmentation offload does not work here and is now off (%s)", os.strerror(number))
        elif number in (errno.EMSGSIZE, errno.EINVAL):
            smallest = min(size, self._refusals.get(host, size))
            if not self._refusals:
                self._refusals_expire = time.monotonic() + REFUSAL_LASTS
            elif len(self._refusals) >= MAX_REFUSALS:
                self._refusals.clear()
            self._refusals[host] = smallest
            _log.debug("datagrams of %d bytes exceed the MTU of the route to %s: sent one at a time", size, host)
        else:
            return False
        return True

    def forget_refusals(self) -> None:
        """Try segmentation again for every host, because the routes have changed."""
        self._refusals.clear()


class Route:
    """The way to one endpoint, with one traffic class (the IPv4 TOS or IPv6 traffic class byte)."""

    __slots__ = ("_address", "_control", "_endpoint", "_host", "_sender", "_source", "_traffic_class")

    def __init__(self, sender: Sender, endpoint: Endpoint, traffic_class: int) -> None:
        self._sender = sender
        self._endpoint = endpoint
        self._host, self._source = endpoint.host, endpoint.source
        self._traffic_class = traffic_class
        self._address: tuple[Any, ...] = (endpoint.host, endpoint.port)
        if endpoint.is_ipv6:
            self._address = (*self._address, 0, endpoint.scope_id)
        self._control = _control(endpoint, traffic_class)

    def send(self, datagrams: Datagrams) -> SendResult:
        """Send from the endpoint's `source`, or from the route's choice if that no longer works.

        Never raises for what the network does: the result tells what the system refused.
        """
        sender, always, source = self._sender, self._control, self._source
        view, size, host = datagrams.view, datagrams.segment_size, self._host
        sendmsg = sender.sendmsg
        offset, end = 0, len(view)
        refused, refused_bytes, stale = 0, 0, False
        while offset < end:
            count = sender.segments(end - offset, size, host) if end - offset > size else 1
            control = always if count == 1 else [*always, (socket.SOL_UDP, UDP_SEGMENT, _U16.pack(size))]
            part = view if count * size >= end else view[offset : offset + count * size]
            try:
                sendmsg([part], control, 0, self._address)
            except BlockingIOError:
                return SendResult(Datagrams(view[offset:], size), refused, refused_bytes, stale)
            except OSError as error:
                number = error.errno or 0
                if source and number in _SOURCE_ERRORS:
                    source, stale = b"", True
                    always = _control(self._endpoint.without_source(), self._traffic_class)
                    continue
                if count > 1 and sender.segmentation_failed(number, size, host):
                    continue
                _log.debug("sending to %s failed: %s", self._endpoint, error)
                refused += count
                refused_bytes += len(part)
            offset += count * size
        if not refused and not stale:
            return SENT
        return SendResult(None, refused, refused_bytes, stale and not refused)


def _control(endpoint: Endpoint, traffic_class: int) -> list[_ControlMessage]:
    """The control messages for the local address and the traffic class, where there are any.

    The interface that an endpoint was heard on is left out, so that a better route may take over; but a scoped address
    needs its scope.
    """
    control: list[_ControlMessage] = []
    if endpoint.is_ipv6:
        if endpoint.source:
            packed = _PKTINFO_V6.pack(endpoint.source, endpoint.scope_id)
            control.append((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, packed))
        if traffic_class:
            control.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INT.pack(traffic_class)))
    else:
        if endpoint.source:
            packed = _PKTINFO_V4.pack(0, endpoint.source, _NO_SOURCE_V4)
            control.append((socket.IPPROTO_IP, IP_PKTINFO, packed))
        if traffic_class:
            control.append((socket.IPPROTO_IP, socket.IP_TOS, _INT.pack(traffic_class)))
    return control


def _has_segmentation(sock: socket.socket) -> bool:
    try:
        sock.getsockopt(socket.SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True
