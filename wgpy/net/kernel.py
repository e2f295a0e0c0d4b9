"""What is known of the running kernel, and which offloads whoever started us has switched off."""

from __future__ import annotations

import os
import re
from typing import Final

from wgpy.config.values import Offloads

NO_UDP_GSO: Final = "WGPY_NO_UDP_GSO"
NO_TUN_OFFLOAD: Final = "WGPY_NO_TUN_OFFLOAD"

_UDP_GSO_BROKEN: Final = (7, 0)  # by commit b10b446ce7ad of Linux 7.0-rc1,
_UDP_GSO_MENDED: Final = (7, 1, 5)  # and 78effd8 and 5f17ae0 mended it


def release() -> str:
    """What `uname -r` prints, as 6.18.2 or 7.0.0-14-generic."""
    return os.uname().release


def version(release: str) -> tuple[int, ...]:
    """The numbers that a release begins with, three at most: 7.0.0-14-generic is (7, 0, 0); () without any."""
    match = re.match(r"\d+(?:\.\d+){0,2}", release)
    return tuple(map(int, match[0].split("."))) if match else ()


def mangles_udp_gso(release: str) -> bool:
    """Whether UDP super-packets whose last segment is as long as the others may leave this kernel broken.

    Where the network card does a part of the work (NETIF_F_GSO_PARTIAL), Linux 7.0 to 7.1.4 write a wrong length and
    checksum into them, and a peer gets a few megabits per second. Some distributions have fixed theirs,
    which the version does not tell.
    """
    return _UDP_GSO_BROKEN <= version(release) < _UDP_GSO_MENDED


def permitted() -> Offloads:
    """What the environment allows: a variable that is set, and not to 0, switches off what its name says."""
    return Offloads(udp_gso=not _is_set(NO_UDP_GSO), tun=not _is_set(NO_TUN_OFFLOAD))


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")
