"""Attaching to a TUN interface, and no more: what a process needs that hands the file descriptor to another."""

from __future__ import annotations

import os
from contextlib import suppress
from fcntl import ioctl
from struct import Struct
from typing import Final

TUN_PATH: Final = "/dev/net/tun"
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
ifreq_flags: Final = Struct("=16sH22x")

_TUNSETIFF: Final = 0x400454CA
_TUNGETIFF: Final = 0x800454D2
_ADDR_GEN_NONE: Final = "1"  # IN6_ADDR_GEN_MODE_NONE of linux/if_link.h


def attach(name: str, *, offload: bool = True) -> int:
    """The file descriptor, non-blocking, of an interface in the caller's network namespace, made if there is none.

    "%d" in the name becomes the first free number. Raises OSError.
    """
    flags = IFF_TUN | IFF_NO_PI | (IFF_VNET_HDR if offload else 0)
    fd = os.open(TUN_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        ioctl(fd, _TUNSETIFF, ifreq_flags.pack(name.encode(), flags))
        name = ioctl(fd, _TUNGETIFF, bytes(ifreq_flags.size))[:16].rstrip(b"\0").decode()
    except OSError:
        os.close(fd)
        raise
    # As the kernel's: no link-local address of its own making, whose solicitations would go into the tunnel.
    with suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{name}/addr_gen_mode", "w") as file:
        file.write(_ADDR_GEN_NONE)
    return fd
