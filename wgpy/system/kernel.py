"""The running kernel's version and its known faults, and the offloads that the environment switches off."""

from __future__ import annotations

import os
import re
from typing import Final

from wgpy.config.values import Offloads

NO_UDP_GSO: Final = "WGPY_NO_UDP_GSO"
NO_TUN_OFFLOAD: Final = "WGPY_NO_TUN_OFFLOAD"

_UDP_GSO_BROKEN: Final = (7, 0)  # since commit b10b446ce7ad of Linux 7.0-rc1
_UDP_GSO_FIXED: Final = (7, 1, 5)  # by 78effd8 and 5f17ae0


def release() -> str:
    """What `uname -r` prints, such as 6.18.2 or 7.0.0-14-generic."""
    return os.uname().release


def version(release: str) -> tuple[int, ...]:
    """The numbers at the start of a release, at most three: (7, 0, 0) for 7.0.0-14-generic, () if there are none."""
    match = re.match(r"\d+(?:\.\d+){0,2}", release)
    return tuple(map(int, match[0].split("."))) if match else ()


def mangles_udp_gso(release: str) -> bool:
    """Whether this kernel may send broken UDP super-packets if their last segment is as long as the others.

    If the network card does part of the work (NETIF_F_GSO_PARTIAL), Linux 7.0 to 7.1.4 write a wrong length and
    checksum into them, and throughput falls to a few megabits per second. Some distributions have fixed their kernel,
    but the version does not show it.
    """
    return _UDP_GSO_BROKEN <= version(release) < _UDP_GSO_FIXED


def permitted() -> Offloads:
    """The offloads that the environment allows. A variable set to anything but 0 switches its offload off."""
    return Offloads(udp_gso=not _is_set(NO_UDP_GSO), tun=not _is_set(NO_TUN_OFFLOAD))


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")
