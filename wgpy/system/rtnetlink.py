"""The netlink requests (rtnetlink(7)) that must be quick: a helper's set-up, and what a tunnel asks about routes.

`wgpy.net.netlink` can do all this and more, but takes a tenth of a second to import.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from struct import Struct, pack
from typing import Final

_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE, _GET_ROUTE = 16, 20, 24, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACKNOWLEDGE, _CREATE, _DUMP = 0x1, 0x4, 0x400, 0x300
_SOL_NETLINK: Final = 270
_NETLINK_GET_STRICT_CHK: Final = 12  # the kernel filters what it dumps: Linux 4.20
_IFF_UP: Final = 1
_IFLA_MTU: Final = 4
_IFLA_GSO_MAX_SIZE: Final = 41
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_NODAD: Final = 0x02  # no duplicate address detection: nobody else is on the link
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_METRICS, _RTA_MARK = 1, 2, 4, 8, 16
_RTAX_MTU: Final = 2
_MTU_METRIC: Final = pack("=HH", 8, _RTAX_MTU)  # how the metric begins: its length and type
_MAIN_TABLE, _BOOT, _UNICAST = 254, 3, 1
_SCOPE_LINK: Final = {4: 253, 6: 0}
_nlmsghdr = Struct("=IHHII")
_nlattr = Struct("=HH")
_i32 = Struct("=i")
_ifinfomsg = Struct("=BxHiII")
_ifaddrmsg = Struct("=BBBBI")
_rtmsg = Struct("=BBBBBBBBI")


def set_up(name: str, mtu: int | None = None) -> None:
    """Set a link up, and its MTU in bytes if one is given. Raises OSError."""
    attributes = _attribute(_IFLA_MTU, pack("=I", mtu)) if mtu else b""
    _request(_NEW_LINK, _ifinfomsg.pack(0, 0, socket.if_nametoindex(name), _IFF_UP, _IFF_UP) + attributes)


def set_gso_max_size(name: str, size: int) -> None:
    """Limit the super-packets that a link is given to `size` bytes (ip-link(8), gso_max_size). Raises OSError."""
    attribute = _attribute(_IFLA_GSO_MAX_SIZE, pack("=I", size))
    _request(_NEW_LINK, _ifinfomsg.pack(0, 0, socket.if_nametoindex(name), 0, 0) + attribute)


def add_address(name: str, address: IPv4Interface | IPv6Interface) -> None:
    """Add an address to a link; its network becomes a route. Raises OSError."""
    index, packed = socket.if_nametoindex(name), address.ip.packed
    body = _ifaddrmsg.pack(_family(address.version), address.network.prefixlen, _IFA_NODAD, 0, index)
    _request(_NEW_ADDRESS, body + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed))


def add_default_route(name: str, version: int) -> None:
    """Route all of IPv4 or IPv6 into a link. Raises OSError."""
    scope = _SCOPE_LINK[version]
    body = _rtmsg.pack(_family(version), 0, 0, 0, _MAIN_TABLE, _BOOT, scope, _UNICAST, 0)
    _request(_NEW_ROUTE, body + _attribute(_RTA_OIF, pack("=I", socket.if_nametoindex(name))))


def route_mtus(netlink: socket.socket, index: int) -> set[int]:
    """The MTUs in bytes of routes through a link that have their own (`ip route add ... mtu`), in all tables.

    `netlink` is a NETLINK_ROUTE socket. If the kernel refuses an answer, what is known so far is returned.
    """
    found, link = set(), pack("=I", index)
    with suppress(OSError):
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in _dump(netlink, _rtmsg.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + _attribute(_RTA_OIF, link)):
                if _MTU_METRIC in message:  # rare, and this test is quick, because a table may be large
                    route = _attributes(message[_rtmsg.size :])
                    mtu = _attributes(route.get(_RTA_METRICS, b"")).get(_RTAX_MTU)
                    if mtu and route.get(_RTA_OIF, link) == link:  # a route with several links has no RTA_OIF
                        found.add(int.from_bytes(mtu, sys.byteorder))
    return found


def outgoing_interface(
    netlink: socket.socket, destination: bytes, source: bytes, *, scope_id: int = 0, mark: int = 0
) -> int:
    """The index of the interface that a packet from `source` to `destination` would leave by: `ip route get`.

    The addresses have 4 or 16 bytes; `scope_id` is the interface that a link-local destination is on, `mark` the
    packet's firewall mark. `netlink` is a NETLINK_ROUTE socket. Raises OSError if there is no route, or if an IPv4
    source is not an address of this machine; of an IPv6 source the kernel does not check that.
    """
    bits = 8 * len(destination)
    body = _rtmsg.pack(_family(4 if bits == 32 else 6), bits, bits, 0, 0, 0, 0, 0, 0)
    body += _attribute(_RTA_DST, destination) + _attribute(_RTA_SRC, source)
    body += _attribute(_RTA_OIF, pack("=I", scope_id)) + _attribute(_RTA_MARK, pack("=I", mark))
    netlink.send(_nlmsghdr.pack(_nlmsghdr.size + len(body), _GET_ROUTE, _REQUEST, 1, 0) + body)
    answer = netlink.recv(4096)
    for kind, start, end in _each(_nlmsghdr, answer):
        link = _attributes(answer[start + _rtmsg.size : end]).get(_RTA_OIF) if kind == _NEW_ROUTE else None
        if link:
            return int.from_bytes(link, sys.byteorder)
    raise _refusal(answer)


def configure(name: str, addresses: list[str], mtu: int) -> None:
    """Set loopback and the link up, and add its addresses, with a default route for each family. Raises OSError."""
    set_up("lo")
    set_up(name, mtu)
    interfaces = [ip_interface(address) for address in addresses]
    for interface in interfaces:
        add_address(name, interface)
    for version in sorted({interface.version for interface in interfaces}):
        add_default_route(name, version)


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _attribute(kind: int, value: bytes) -> bytes:
    return pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    """The attributes by kind. Raises OSError (EBADMSG) if one exceeds `data`."""
    return {kind: data[start:end] for kind, start, end in _each(_nlattr, data)}


def _each(header: Struct, data: bytes) -> Iterator[tuple[int, int, int]]:
    """The kind of each message or attribute in `data`, and where its body begins and ends.

    Raises OSError (EBADMSG) for a length below the header's, with which this might not end, or beyond the data.
    """
    at = 0
    while at < len(data):
        length, kind = header.unpack_from(data, at)[:2] if len(data) - at >= header.size else (0, 0)
        if not header.size <= length <= len(data) - at:
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        yield kind, at + header.size, at + length
        at += length + -length % 4


def _dump(netlink: socket.socket, body: bytes) -> Iterator[bytes]:
    """The bodies of the messages about the routes that `body` selects. Raises OSError."""
    with suppress(OSError):
        netlink.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
    netlink.send(_nlmsghdr.pack(_nlmsghdr.size + len(body), _GET_ROUTE, _REQUEST | _DUMP, 1, 0) + body)
    while True:
        answer = netlink.recv(1 << 16)
        for kind, start, end in _each(_nlmsghdr, answer):
            if kind in (_DONE, _ERROR):
                return
            yield answer[start:end]


def _request(kind: int, body: bytes) -> None:
    flags = _REQUEST | _ACKNOWLEDGE | _CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.sendto(_nlmsghdr.pack(_nlmsghdr.size + len(body), kind, flags, 1, 0) + body, (0, 0))
        answer = netlink.recv(4096)
    if (refusal := _refusal(answer)).errno:
        raise refusal


def _refusal(answer: bytes) -> OSError:
    """The error that an answer tells; its number is 0 for an acknowledgement. Raises OSError if the answer is none."""
    number = errno.EBADMSG
    for kind, start, end in _each(_nlmsghdr, answer):
        if kind == _ERROR and end - start >= _i32.size:
            number = -_i32.unpack_from(answer, start)[0]
    return OSError(number, os.strerror(number))
