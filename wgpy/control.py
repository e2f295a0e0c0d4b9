"""Running WireGuard interfaces from another program, whoever serves them: wgpy, wireguard-go or the kernel.

::

    from wgpy import control

    for name in control.interfaces():
        print(name, control.status(name).peers)
    control.configure("wg0", DeviceChange(peers=(PeerChange(public_key=key, remove=True),)))

A daemon is asked over its userspace API socket in /var/run/wireguard, the kernel over generic netlink; where there is a
socket, it counts. Calls block for a moment: from a coroutine, `await asyncio.to_thread(control.status, "wg0")`.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from wgpy.config import wg
from wgpy.daemon import uapi_client
from wgpy.device.changes import DeviceChange
from wgpy.device.status import DeviceStatus

_MODULES: Final = Path("/sys/module")


def interfaces() -> list[str]:
    """The names of the WireGuard interfaces: those with a socket, and the kernel's of this network namespace.

    Raises ControlError when the kernel does not tell.
    """
    names = set(uapi_client.interfaces())
    if _kernel_has_wireguard():
        from wgpy.net import wireguard

        names.update(wireguard.interfaces())
    return sorted(names)


def status(name: str) -> DeviceStatus:
    """What an interface is, its secrets included. Raises ControlError: it is not there, or not yours to ask."""
    if _is_kernels(name):
        from wgpy.net import wireguard

        return wireguard.read(name)
    return uapi_client.read(name)


def configure(name: str, change: DeviceChange) -> None:
    """Change an interface. A daemon does all of it or nothing, and so does the kernel up to some hundreds of peers.

    Where an allowed IP is removed, its peer's list is read and set whole, which every server understands. Raises
    ControlError, and ConfigError for a value out of range.
    """
    change.check(())
    if any(allowed.remove for peer in change.peers for allowed in peer.allowed_ips):
        change = wg.without_removals(change, status(name))
    if _is_kernels(name):
        from wgpy.net import wireguard

        wireguard.write(name, change)
    else:
        uapi_client.write(name, change)


def _is_kernels(name: str) -> bool:
    """Whether there is such an interface, and nobody to ask about it but the kernel."""
    try:
        socket.if_nametoindex(name)
    except (OSError, ValueError):
        return False
    return not uapi_client.is_served(name) and _kernel_has_wireguard()


def _kernel_has_wireguard() -> bool:
    """Built in or loaded. If not, pyroute2 need not be imported, which takes a third of a second."""
    return (_MODULES / "wireguard").is_dir() or not _MODULES.is_dir()
