"""The interface that a TUN's file descriptor is attached to, asked about by ioctls (linux/if_tun.h) and netlink.

It may be renamed, and moved into another network namespace, while it is in use. So nothing is remembered: its name and
its namespace are asked for each time.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from typing import Final, NamedTuple

from wgpy.constants import DEFAULT_MTU
from wgpy.system.netns import is_ours, open_socket
from wgpy.system.rtnetlink import route_mtus, set_gso_max_size
from wgpy.tun.attach import ifreq_flags, ifreq_int, super_packet_limit

_TUNGETIFF: Final = 0x800454D2
_TUNGETDEVNETNS: Final = 0x54E3
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFMTU: Final = 0x8921
_SIOCGIFINDEX: Final = 0x8933
_IFF_UP: Final = 0x1

_CONTROL: Final = (
    socket.AF_NETLINK,
    socket.SOCK_RAW,
)  # takes an interface's ioctls, as any socket does, and lists routes


class Link(NamedTuple):
    """What `look` found."""

    is_in_other_namespace: bool
    """Whether the interface is in another network namespace than ours."""
    is_up: bool = False
    """Whether it is up."""
    mtu: int | None = None
    """Its MTU in bytes; None if we may not look where it is."""
    route_mtus: frozenset[int] = frozenset()
    """The MTUs in bytes that routes into it have of their own."""


def name_and_flags(fd: int) -> tuple[str, int]:
    """The interface's name now, and the IFF_ flags it was opened with. Raises OSError if `fd` has no interface."""
    encoded, flags = ifreq_flags.unpack(ioctl(fd, _TUNGETIFF, bytes(ifreq_flags.size)))
    return encoded.rstrip(b"\0").decode(), flags


def look(fd: int) -> Link:
    """Find out where the interface is, and its state there. Raises OSError if it went away.

    It takes time if there are very many routes.
    """
    name, _ = name_and_flags(fd)
    encoded = name.encode()
    is_in_other_namespace, there = False, None
    with _namespace(fd) as namespace:
        try:
            is_in_other_namespace = namespace is not None and not is_ours(namespace)
            if namespace is not None and is_in_other_namespace:
                there = open_socket(namespace, *_CONTROL)
            there = there or socket.socket(*_CONTROL)
        except OSError:
            return Link(is_in_other_namespace)
    with there as sock:  # closed at once, because it keeps the namespace alive
        try:
            _, flags = ifreq_flags.unpack(ioctl(sock, _SIOCGIFFLAGS, ifreq_flags.pack(encoded, 0)))
            _, mtu = ifreq_int.unpack(ioctl(sock, _SIOCGIFMTU, ifreq_int.pack(encoded, 0)))
            _, index = ifreq_int.unpack(ioctl(sock, _SIOCGIFINDEX, ifreq_int.pack(encoded, 0)))
        except OSError:
            return Link(is_in_other_namespace)
        return Link(is_in_other_namespace, bool(flags & _IFF_UP), mtu, frozenset(route_mtus(sock, index)))


def limit_super_packets(fd: int, mtu: int) -> None:
    """Have the kernel hand over super-packets that one sendmsg takes, at an MTU in bytes (`super_packet_limit`).

    In another namespace the interface is left as it is: its name may be another's here. Super-packets are longer then.
    """
    with suppress(OSError), _namespace(fd) as namespace:
        if namespace is not None and is_ours(namespace):
            set_gso_max_size(name_and_flags(fd)[0], super_packet_limit(mtu))


def mtu_of(name: str) -> int:
    """An interface's MTU in bytes, or WireGuard's default if there is none of this name in our network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = ioctl(sock, _SIOCGIFMTU, ifreq_int.pack(name.encode(), 0))
        except OSError:
            return DEFAULT_MTU
    return int(ifreq_int.unpack(answer)[1])


@contextmanager
def _namespace(fd: int) -> Iterator[int | None]:
    """A descriptor of the interface's network namespace; None without CAP_NET_ADMIN there, or before Linux 5.2."""
    try:
        namespace = ioctl(fd, _TUNGETDEVNETNS)
    except OSError:
        yield None
        return
    try:
        yield namespace
    finally:
        os.close(namespace)
