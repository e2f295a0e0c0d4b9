"""Read and change running WireGuard interfaces, whether wgpy, wireguard-go or the kernel serves them.

::

    from wgpy import control

    for name in control.interfaces():
        print(name, control.status(name).peers)
    control.configure("wg0", DeviceChange(peers=(PeerChange(public_key=key, remove=True),)))

A daemon is reached by its userspace API socket in /var/run/wireguard, the kernel by generic netlink; if an interface
has a socket, the socket is used. Calls block briefly: in a coroutine, `await asyncio.to_thread(control.status, "wg0")`.
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
    """The names of all WireGuard interfaces: those with a socket, and the kernel's in this network namespace.

    Raises ControlError if they cannot be listed.
    """
    names = set(uapi_client.interfaces())
    if _kernel_has_wireguard():
        from wgpy.net import wireguard

        names.update(wireguard.interfaces())
    return sorted(names)


def is_up(name: str) -> bool:
    """Whether the interface exists: a daemon serves it, or it is one of this network namespace without a daemon."""
    return uapi_client.is_served(name) or _is_kernels(name)


def status(name: str) -> DeviceStatus:
    """Read an interface's settings, keys and peers. Raises ControlError if it does not exist or you may not read it."""
    if _is_kernels(name):
        from wgpy.net import wireguard

        return wireguard.read(name)
    return uapi_client.read(name)


def configure(name: str, change: DeviceChange) -> None:
    """Change an interface. A daemon applies all of it or nothing; so does the kernel, up to some hundreds of peers.

    Removing an allowed IP reads the peer's list and sets the rest of it, which every implementation understands.
    Raises ControlError, and ConfigError for a value out of range.
    """
    change.check(())
    if any(allowed.remove for peer in change.peers for allowed in peer.allowed_ips):
        change = wg.without_removals(change, status(name))
    if _is_kernels(name):
        from wgpy.net import wireguard

        wireguard.write(name, change)
    else:
        uapi_client.write(name, change)


def apply(name: str, text: str) -> tuple[list[str], str]:
    """Make an interface that wgpy serves match the text of its wg-quick file: peers, addresses, MTU, routes and DNS.

    Returns the steps taken, and the error if one failed, else "": then all steps were undone. Raises ControlError if
    the interface cannot be reached, or is not served by wgpy.
    """
    if _is_kernels(name):
        raise uapi_client.not_ours(name)
    return uapi_client.apply(name, text)


def _is_kernels(name: str) -> bool:
    """Whether the interface exists and no daemon serves it, so that it can only be the kernel's."""
    try:
        socket.if_nametoindex(name)
    except (OSError, ValueError):
        return False
    return not uapi_client.is_served(name) and _kernel_has_wireguard()


def _kernel_has_wireguard() -> bool:
    """Whether the module is built in or loaded. If not, we save importing pyroute2, a tenth of a second."""
    return (_MODULES / "wireguard").is_dir() or not _MODULES.is_dir()
