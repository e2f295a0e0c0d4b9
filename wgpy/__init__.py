"""wgpy: a complete userspace WireGuard in pure Python, for Linux.

`Device` is the protocol without input, output or a clock; `Tunnel` runs one on asyncio between a TUN and UDP sockets;
`connect` gives one a network namespace of its own, without root, and sockets in there.
The names below are the public interface, four modules among them; each is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wgpy import blocking as blocking
    from wgpy import config as config
    from wgpy import control as control
    from wgpy import virtual as virtual
    from wgpy.burst import Burst as Burst
    from wgpy.burst import Datagrams as Datagrams
    from wgpy.config.values import EndpointName as EndpointName
    from wgpy.config.values import InterfaceConfig as InterfaceConfig
    from wgpy.config.values import Offloads as Offloads
    from wgpy.config.values import PeerConfig as PeerConfig
    from wgpy.config.wgquick import ConfigFileError as ConfigFileError
    from wgpy.device.changes import AllowedIPChange as AllowedIPChange
    from wgpy.device.changes import DeviceChange as DeviceChange
    from wgpy.device.changes import PeerChange as PeerChange
    from wgpy.device.device import Device as Device
    from wgpy.device.effects import DropReason as DropReason
    from wgpy.device.effects import Effects as Effects
    from wgpy.device.effects import Event as Event
    from wgpy.device.effects import EventKind as EventKind
    from wgpy.device.effects import Transmit as Transmit
    from wgpy.device.status import DeviceStatus as DeviceStatus
    from wgpy.device.status import PeerStatus as PeerStatus
    from wgpy.endpoint import Endpoint as Endpoint
    from wgpy.errors import ConfigError as ConfigError
    from wgpy.errors import ControlError as ControlError
    from wgpy.errors import HandshakeTimeout as HandshakeTimeout
    from wgpy.errors import KeyFormatError as KeyFormatError
    from wgpy.errors import NamespaceError as NamespaceError
    from wgpy.errors import NetworkError as NetworkError
    from wgpy.errors import ResolveError as ResolveError
    from wgpy.errors import SocketError as SocketError
    from wgpy.errors import TunError as TunError
    from wgpy.errors import TunnelClosedError as TunnelClosedError
    from wgpy.errors import WgpyError as WgpyError
    from wgpy.keys import PresharedKey as PresharedKey
    from wgpy.keys import PrivateKey as PrivateKey
    from wgpy.keys import PublicKey as PublicKey
    from wgpy.namespace.tunnel import NamespaceTunnel as NamespaceTunnel
    from wgpy.net.memory import MemoryNetwork as MemoryNetwork
    from wgpy.relay.forward import forwarded as forwarded
    from wgpy.rootless.connect import connect as connect
    from wgpy.rootless.tunnel import RootlessTunnel as RootlessTunnel
    from wgpy.tun.linux import LinuxTun as LinuxTun
    from wgpy.tun.memory import MemoryTun as MemoryTun
    from wgpy.tunnel import Tunnel as Tunnel
    from wgpy.userspace.tunnel import Stack as Stack

_HOMES = {
    "wgpy.burst": ("Burst", "Datagrams"),
    "wgpy.config.values": ("EndpointName", "InterfaceConfig", "Offloads", "PeerConfig"),
    "wgpy.config.wgquick": ("ConfigFileError",),
    "wgpy.device.changes": ("AllowedIPChange", "DeviceChange", "PeerChange"),
    "wgpy.device.device": ("Device",),
    "wgpy.device.effects": ("DropReason", "Effects", "Event", "EventKind", "Transmit"),
    "wgpy.device.status": ("DeviceStatus", "PeerStatus"),
    "wgpy.endpoint": ("Endpoint",),
    "wgpy.errors": (
        "ConfigError", "ControlError", "HandshakeTimeout", "KeyFormatError", "NamespaceError", "NetworkError",
        "ResolveError", "SocketError", "TunError", "TunnelClosedError", "WgpyError",
    ),
    "wgpy.keys": ("PresharedKey", "PrivateKey", "PublicKey"),
    "wgpy.rootless.connect": ("connect",),
    "wgpy.rootless.tunnel": ("RootlessTunnel",),
    "wgpy.namespace.tunnel": ("NamespaceTunnel",),
    "wgpy.net.memory": ("MemoryNetwork",),
    "wgpy.relay.forward": ("forwarded",),
    "wgpy.tun.linux": ("LinuxTun",),
    "wgpy.tun.memory": ("MemoryTun",),
    "wgpy.tunnel": ("Tunnel",),
    "wgpy.userspace.tunnel": ("Stack",),
}  # fmt: skip
_MODULES = ("blocking", "config", "control", "virtual")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted((*_HOME_OF, *_MODULES))


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"wgpy.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'wgpy' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
