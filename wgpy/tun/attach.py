"""Attaching to a TUN interface: all that a helper needs, which passes the file descriptor to another process."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from fcntl import ioctl
from struct import Struct
from typing import Final

from wgpy.constants import DEFAULT_MTU, MAX_DATAGRAM, MAX_SEGMENTS, TRANSPORT_OVERHEAD, TUN_PATH

IFF_TUN: Final = 0x0001
IFF_MULTI_QUEUE: Final = 0x0100
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
ifreq_flags: Final = Struct("=16sH22x")
ifreq_int: Final = Struct("=16si20x")

_TUNSETIFF: Final = 0x400454CA
_TUNGETIFF: Final = 0x800454D2
_TUNSETQUEUE: Final = 0x400454D9
_IFF_ATTACH_QUEUE, _IFF_DETACH_QUEUE = 0x0200, 0x0400
_SIOCSIFTXQLEN: Final = 0x8943
_SIOCSIFMTU: Final = 0x8922
_ADDR_GEN_NONE: Final = "1"  # IN6_ADDR_GEN_MODE_NONE of linux/if_link.h
_MAX_TCP_HEADER: Final = 320  # the largest of any kernel configuration; the kernel subtracts it and 1 from gso_max_size
_TCPV4_HEADERS: Final = 52  # bytes, with timestamps
_NO_LIMIT: Final = 65536  # GSO_LEGACY_MAX_SIZE
_QUEUE_LENGTH: Final = (
    2000  # packets that wait to be read; with the kernel's 500, a tunnel within the tunnel loses some
)


def attach(name: str, *, offload: bool = True, multi_queue: bool = False) -> int:
    """A non-blocking file descriptor attached to an interface in the caller's network namespace, created if missing.

    "%d" in the name becomes the first free number. A new interface has an MTU of 1420 bytes, as the kernel's (device.c,
    wg_setup). An interface made with `multi_queue` takes further descriptors, each with a queue of its own, and none
    without it. Raises OSError.
    """
    is_new = name not in (existing for _, existing in socket.if_nameindex())
    fd = os.open(TUN_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _set_interface(fd, name, IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE * multi_queue, offload=offload)
        name = ioctl(fd, _TUNGETIFF, bytes(ifreq_flags.size))[:16].rstrip(b"\0").decode()
    except OSError:
        os.close(fd)
        raise
    # As for the kernel's WireGuard: no automatic link-local address, whose solicitations would go into the tunnel.
    with suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{name}/addr_gen_mode", "w") as file:
        file.write(_ADDR_GEN_NONE)
    if is_new:
        with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as control:
            ioctl(control, _SIOCSIFTXQLEN, ifreq_int.pack(name.encode(), _QUEUE_LENGTH))
            ioctl(control, _SIOCSIFMTU, ifreq_int.pack(name.encode(), DEFAULT_MTU))
    return fd


def set_in_use(queue: int, *, in_use: bool) -> None:
    """Have the kernel choose this file descriptor's queue for packets or not; what waits in it is lost when not.

    Raises OSError, also if that is so already.
    """
    flags = _IFF_ATTACH_QUEUE if in_use else _IFF_DETACH_QUEUE
    ioctl(queue, _TUNSETQUEUE, ifreq_flags.pack(b"", flags))


def _set_interface(fd: int, name: str, flags: int, *, offload: bool) -> None:
    if offload:
        try:
            ioctl(fd, _TUNSETIFF, ifreq_flags.pack(name.encode(), flags | IFF_VNET_HDR))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
        else:
            return
    ioctl(fd, _TUNSETIFF, ifreq_flags.pack(name.encode(), flags))  # gVisor has no IFF_VNET_HDR


def super_packet_limit(mtu: int) -> int:
    """The gso_max_size with which TCP makes super-packets that fit into one sendmsg with UDP_SEGMENT once sealed.

    `mtu` and the result are in bytes. The kernel's default, 64 kB, makes two or three segments too many, so that each
    super-packet would take two sends of half the size.
    """
    segments = min(MAX_SEGMENTS, MAX_DATAGRAM // (mtu + TRANSPORT_OVERHEAD))
    if segments < 2:
        return _NO_LIMIT
    return min(segments * (mtu - _TCPV4_HEADERS) + _MAX_TCP_HEADER + 1, _NO_LIMIT)
