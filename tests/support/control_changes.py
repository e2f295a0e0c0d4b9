"""Changes to an interface by `wgpy.control`, each compared with what the stock `wg` then shows.

    python -m tests.support.control_changes NAME

Run where the interface is, which may be the virtual machine of `kernel_peer`: it asks for little of Python.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from ipaddress import ip_network

from wgpy import control
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.status import DeviceStatus, PeerStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ControlError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.net import wireguard


def main(name: str) -> None:
    assert name in control.interfaces()
    ours, theirs = PrivateKey(os.urandom(32)), PresharedKey(os.urandom(32))
    a, b, c = (PublicKey(os.urandom(32)) for _ in range(3))

    def change(*peers: PeerChange, **rest: object) -> dict[PublicKey, PeerStatus]:
        control.configure(name, DeviceChange(peers=peers, **rest))  # type: ignore[arg-type]
        status = control.status(name)
        said = subprocess.run(["wg", "show", name, "dump"], stdout=subprocess.PIPE, text=True, check=True).stdout
        assert sorted(said.splitlines()) == sorted(dump(status))  # wireguard-go's order changes from time to time
        return {peer.public_key: peer for peer in status.peers}

    assert change(private_key=ours, listen_port=51999, fwmark=0x1337) == {}
    found = change(
        PeerChange(
            public_key=a, preshared_key=theirs, endpoint=Endpoint("192.0.2.9", 5), allowed_ips=given("10.0.0.0/24")
        ),
        PeerChange(public_key=b, endpoint=Endpoint("fe80::9", 6, scope_id=1), allowed_ips=given("10.0.1.0/24", "::/0")),
        PeerChange(public_key=c, persistent_keepalive=25, allowed_ips=given("0.0.0.0/0", "fd00::/8")),
    )
    assert [found[key].preshared_key for key in (a, b, c)] == [theirs, None, None]
    assert found[a].endpoint == Endpoint("192.0.2.9", 5)
    assert found[b].endpoint in (Endpoint("fe80::9", 6, 1), Endpoint("fe80::9", 6))  # wireguard-go forgets the scope

    taken = (AllowedIPChange(ip_network("fd00::/8"), remove=True), AllowedIPChange(ip_network("10.0.0.0/24")))
    nothing = PresharedKey(bytes(32))
    found = change(
        PeerChange(public_key=c, persistent_keepalive=0, allowed_ips=taken),
        PeerChange(public_key=a, preshared_key=nothing, allowed_ips=given("10.0.9.0/24"), replace_allowed_ips=True),
        PeerChange(public_key=PublicKey(os.urandom(32)), update_only=True),
        fwmark=0,
    )
    assert [len(found[key].allowed_ips) for key in (a, b, c)] == [1, 2, 2]
    assert [found[key].preshared_key for key in (a, b, c)] == [None] * 3
    assert set(change(PeerChange(public_key=b, remove=True))) == {a, c}

    many = tuple(f"10.{number >> 8}.{number & 255}.0/24" for number in range(1200))
    crowd = [PeerChange(public_key=PublicKey(os.urandom(32))) for _ in range(250)]
    found = change(*crowd, PeerChange(public_key=a, allowed_ips=given(*many)), replace_peers=True)
    assert set(found) == {a, *(peer.public_key for peer in crowd)}
    assert len(found[a].allowed_ips) == 1200
    assert change(private_key=PrivateKey(bytes(32)), listen_port=51998, replace_peers=True) == {}
    print("all is as wg shows it")


def given(*networks: str) -> tuple[AllowedIPChange, ...]:
    return tuple(AllowedIPChange(ip_network(network)) for network in networks)


def dump(status: DeviceStatus) -> list[str]:
    """What `wg show NAME dump` prints of it."""
    private = status.private_key.base64() if status.private_key else "(none)"
    public = status.public_key.base64() if status.public_key else "(none)"
    lines = ["\t".join([private, public, str(status.listen_port), f"{status.fwmark:#x}" if status.fwmark else "off"])]
    for peer in status.peers:
        fields = [
            peer.public_key.base64(),
            peer.preshared_key.base64() if peer.preshared_key else "(none)",
            endpoint(peer.endpoint),
            ",".join(map(str, peer.allowed_ips)) or "(none)",
            str(peer.last_handshake_ns // 10**9),
            str(peer.rx_bytes),
            str(peer.tx_bytes),
            str(peer.persistent_keepalive or "off"),
        ]
        lines.append("\t".join(fields))
    return lines


def endpoint(found: Endpoint | None) -> str:
    if found is None or not found.scope_id:
        return str(found or "(none)")
    return f"[{found.host}%{socket.if_indextoname(found.scope_id)}]:{found.port}"


def rehearse() -> None:
    """Load all that `main` will need."""
    wireguard.interfaces()
    for call in (lambda: wireguard.read("lo"), lambda: wireguard.write("lo", DeviceChange())):
        with suppress(ControlError):
            call()
    import pyroute2.netlink.generic.wireguard  # noqa: F401


if __name__ == "__main__":
    main(sys.argv[1])
