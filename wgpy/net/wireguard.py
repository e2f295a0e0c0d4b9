"""Lists, reads and changes the kernel's own WireGuard interfaces over generic netlink (linux/wireguard.h).

It uses pyroute2, which cannot run inside a running event loop, so each call runs in a thread of its own.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, TypeVar

from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.device.status import DeviceStatus, PeerStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ControlError, NetworkError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.net.netlink import Netlink
from wgpy.net.pyroute import make_light
from wgpy.system.refusals import explain, net_admin

_KIND: Final = "wireguard"
_GET_DEVICE, _SET_DEVICE = 0, 1
_REPLACE_PEERS: Final = 1
_REMOVE_ME, _REPLACE_ALLOWED_IPS, _UPDATE_ONLY = 1, 2, 4
_REQUEST, _ACK, _DUMP, _DUMP_INTR = 1, 4, 0x300, 0x10  # linux/netlink.h
_MAX_SIZE: Final = 32768  # bytes of peers in a message; an attribute's length has 16 bits
_PEER_SIZE, _ALLOWED_IP_SIZE = 160, 40  # bytes at most

T = TypeVar("T")


def interfaces() -> list[str]:
    """The names of the kernel's WireGuard interfaces in this network namespace. Raises ControlError."""

    def names() -> list[str]:
        with Netlink() as netlink:
            return sorted(netlink.links(_KIND))

    return _in_thread(names)


def read(name: str) -> DeviceStatus:
    """Read an interface's status. Raises ControlError: no such interface, not WireGuard, no privilege."""
    return _in_thread(lambda: _status(_dump(name)))


def write(name: str, change: DeviceChange) -> None:
    """Have the kernel apply a change. It must not remove single allowed IPs, which only Linux 6.16 can.

    One message takes a few hundred peers. A larger change takes several; if one is refused, those before it stay.
    Raises ControlError.
    """

    def configure() -> None:
        with _opened(name) as opened:
            for attributes in _messages(name, change):
                _ask(opened, _SET_DEVICE, _REQUEST | _ACK, attributes)

    _in_thread(configure)


def _in_thread(function: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(function).result()
        except NetworkError as error:
            raise ControlError(str(error)) from error


@contextmanager
def _opened(name: str) -> Iterator[Any]:
    make_light()
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.generic.wireguard import WireGuard

    with Netlink() as netlink:
        if not netlink.link_exists(name):
            raise ControlError(os.strerror(errno.ENODEV))
        if name not in netlink.links(_KIND):
            raise ControlError(f"{os.strerror(errno.EOPNOTSUPP)}: not a WireGuard interface")
    try:
        with WireGuard() as opened:
            yield opened
    except (NetlinkError, OSError) as error:
        number = getattr(error, "code", None) or getattr(error, "errno", None) or errno.EIO
        remedy = f" ({explain(net_admin())})" if number == errno.EPERM else ""
        raise ControlError(f"{os.strerror(number)}{remedy}") from error


def _ask(opened: Any, command: int, flags: int, attributes: list[Any]) -> list[Any]:
    from pyroute2.netlink.generic.wireguard import WG_GENL_VERSION, wgmsg

    message = wgmsg()
    message["cmd"], message["version"], message["attrs"] = command, WG_GENL_VERSION, attributes
    return list(opened.nlm_request(message, msg_type=opened.prid, msg_flags=flags))


# Reading.


def _dump(name: str) -> list[Any]:
    """The messages that describe an interface, all from the same moment."""
    with _opened(name) as opened:
        while True:
            answers = _ask(opened, _GET_DEVICE, _REQUEST | _DUMP, [["WGDEVICE_A_IFNAME", name]])
            if not any(answer["header"]["flags"] & _DUMP_INTR for answer in answers):
                return answers


def _status(answers: list[Any]) -> DeviceStatus:
    first = answers[0]
    private_key, public_key = first.get_attr("WGDEVICE_A_PRIVATE_KEY"), first.get_attr("WGDEVICE_A_PUBLIC_KEY")
    peers: dict[PublicKey, PeerStatus] = {}
    for answer in answers:
        for part in answer.get_attr("WGDEVICE_A_PEERS") or ():
            peer = _peer_status(part)
            before = peers.get(peer.public_key)  # a peer with many allowed IPs continues in the next message
            allowed_ips = (before.allowed_ips if before else ()) + peer.allowed_ips
            peers[peer.public_key] = replace(before or peer, allowed_ips=allowed_ips)
    return DeviceStatus(
        private_key=PrivateKey.from_base64(private_key.decode()) if private_key else None,
        public_key=PublicKey.from_base64(public_key.decode()) if public_key else None,
        listen_port=first.get_attr("WGDEVICE_A_LISTEN_PORT") or 0,
        fwmark=first.get_attr("WGDEVICE_A_FWMARK") or 0,
        peers=tuple(peers.values()),
    )


def _peer_status(part: Any) -> PeerStatus:
    preshared_key = part.get_attr("WGPEER_A_PRESHARED_KEY")
    endpoint, handshake = part.get_attr("WGPEER_A_ENDPOINT"), part.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")
    psk = PresharedKey.from_base64(preshared_key.decode()) if preshared_key else None
    return PeerStatus(
        public_key=PublicKey.from_base64(part.get_attr("WGPEER_A_PUBLIC_KEY").decode()),
        preshared_key=None if psk is None or psk.is_zero() else psk,
        endpoint=_endpoint(endpoint) if endpoint else None,
        allowed_ips=tuple(ip_network(each["addr"]) for each in part.get_attr("WGPEER_A_ALLOWEDIPS") or ()),
        last_handshake_ns=handshake["tv_sec"] * 10**9 + handshake["tv_nsec"] if handshake else 0,
        tx_bytes=part.get_attr("WGPEER_A_TX_BYTES") or 0,
        rx_bytes=part.get_attr("WGPEER_A_RX_BYTES") or 0,
        persistent_keepalive=part.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") or 0,
    )


def _endpoint(found: Any) -> Endpoint:
    # pyroute2 reads the scope as big-endian, but in a sockaddr only the port and the address are.
    return Endpoint(found["addr"], found["port"], socket.ntohl(found.get("scope_id", 0)))


# Changing.


def _messages(name: str, change: DeviceChange) -> Iterator[list[Any]]:
    """The attributes of each message that a change takes."""
    given = [
        ("WGDEVICE_A_PRIVATE_KEY", change.private_key and change.private_key.base64()),
        ("WGDEVICE_A_LISTEN_PORT", change.listen_port),
        ("WGDEVICE_A_FWMARK", change.fwmark),
        ("WGDEVICE_A_FLAGS", _REPLACE_PEERS if change.replace_peers else None),
    ]
    device = [[key, value] for key, value in given if value is not None]
    peers: list[Any] = []
    room = _MAX_SIZE
    for peer in change.peers:
        for attributes, size in _parts(peer):
            if size > room:
                yield [["WGDEVICE_A_IFNAME", name], *device, ["WGDEVICE_A_PEERS", peers]]
                device, peers, room = [], [], _MAX_SIZE
            peers.append({"attrs": attributes})
            room -= size
    yield [["WGDEVICE_A_IFNAME", name], *device, *([["WGDEVICE_A_PEERS", peers]] if peers else [])]


def _parts(peer: PeerChange) -> Iterator[tuple[list[Any], int]]:
    """A peer's attributes and their size in bytes; with many allowed IPs, in parts that each fit into a message."""
    flags = _REMOVE_ME * peer.remove | _UPDATE_ONLY * peer.update_only
    given = [
        ("WGPEER_A_PRESHARED_KEY", peer.preshared_key and peer.preshared_key.base64()),
        ("WGPEER_A_ENDPOINT", peer.endpoint and _sockaddr(peer.endpoint)),
        ("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", peer.persistent_keepalive),
        ("WGPEER_A_FLAGS", flags | _REPLACE_ALLOWED_IPS * peer.replace_allowed_ips or None),
    ]
    rest = [[key, value] for key, value in given if value is not None]
    allowed_ips = [_allowed_ip(allowed.network) for allowed in peer.allowed_ips]
    step = (_MAX_SIZE - _PEER_SIZE) // _ALLOWED_IP_SIZE
    for start in range(0, len(allowed_ips) or 1, step):
        part = allowed_ips[start : start + step]
        listed = [["WGPEER_A_ALLOWEDIPS", part]] if part else []
        yield (
            [["WGPEER_A_PUBLIC_KEY", peer.public_key.base64()], *rest, *listed],
            _PEER_SIZE + len(part) * _ALLOWED_IP_SIZE,
        )
        rest = [["WGPEER_A_FLAGS", flags]] if flags else []


def _allowed_ip(network: IPv4Network | IPv6Network) -> dict[str, Any]:
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return {
        "attrs": [
            ["WGALLOWEDIP_A_FAMILY", int(family)],
            ["WGALLOWEDIP_A_IPADDR", network.network_address.packed],
            ["WGALLOWEDIP_A_CIDR_MASK", network.prefixlen],
        ]
    }


def _sockaddr(endpoint: Endpoint) -> dict[str, Any]:
    return {"addr": endpoint.host, "port": endpoint.port, "flowinfo": 0, "scope_id": socket.htonl(endpoint.scope_id)}
