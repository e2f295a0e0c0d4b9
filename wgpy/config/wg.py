"""wg(8)'s files, and the changes that `wg setconf`, `addconf` and `syncconf` make with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wgpy.config import wgquick
from wgpy.config.values import EndpointName
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.keys import KEY_SIZE, PresharedKey, PrivateKey, PublicKey


@dataclass(frozen=True, slots=True)
class WgChange:
    """A change as a file describes it, with endpoints still as names; settings that are not in the file are unset."""

    change: DeviceChange
    endpoints: Mapping[PublicKey, EndpointName]
    warnings: tuple[wgquick.Problem, ...] = ()

    def located(self, endpoints: Mapping[PublicKey, Endpoint]) -> DeviceChange:
        """The change with the addresses that the endpoint names resolved to."""
        peers = (replace(peer, endpoint=endpoints.get(peer.public_key)) for peer in self.change.peers)
        return replace(self.change, peers=tuple(peers))


def parse(text: str, filename: str = "") -> WgChange:
    """Read a file as the change for `addconf`. Raises ConfigFileError, also for wg-quick's own keys."""
    values, peers, warnings = wgquick.read_wg(text, filename)
    endpoints = {peer["public_key"]: peer.pop("endpoint") for peer in peers if "endpoint" in peer}
    return WgChange(DeviceChange(**values, peers=tuple(map(_peer_change, peers))), endpoints, warnings)


def _peer_change(values: dict[str, Any]) -> PeerChange:
    allowed_ips = tuple(map(AllowedIPChange, values["allowed_ips"]))
    return PeerChange(**values | {"allowed_ips": allowed_ips}, replace_allowed_ips=True)


def replacing(change: DeviceChange) -> DeviceChange:
    """The change for `setconf`: settings that are left out are cleared, and other peers are removed."""
    return replace(
        change,
        private_key=change.private_key or PrivateKey(bytes(KEY_SIZE)),
        listen_port=change.listen_port or 0,
        fwmark=change.fwmark or 0,
        replace_peers=True,
    )


def synchronizing(change: DeviceChange, now: DeviceStatus) -> DeviceChange:
    """The change for `syncconf`: the same result as `setconf`, but peers that stay keep their sessions and counters.

    A peer keeps its endpoint if the change gives none, because it may have roamed.
    """
    change = replacing(change)
    if not change.peers or not now.peers:
        return change
    before = {peer.public_key: peer for peer in now.peers}
    peers = []
    for peer in change.peers:
        if (old := before.pop(peer.public_key, None)) is not None:
            if old.preshared_key and peer.preshared_key is None:
                peer = replace(peer, preshared_key=PresharedKey(bytes(KEY_SIZE)))
            if old.persistent_keepalive and peer.persistent_keepalive is None:
                peer = replace(peer, persistent_keepalive=0)
        peers.append(peer)
    peers += [PeerChange(public_key=public_key, remove=True) for public_key in before]
    return replace(change, replace_peers=False, peers=tuple(peers))


def restoring(before: DeviceStatus, now: DeviceStatus) -> DeviceChange:
    """The change that takes a device from `now` back to `before`, except its mark and the sessions of removed peers."""
    endpoints = {peer.public_key: peer.endpoint for peer in now.peers}
    peers = tuple(
        PeerChange(
            public_key=peer.public_key,
            preshared_key=peer.preshared_key,
            endpoint=None if endpoints.get(peer.public_key) == peer.endpoint else peer.endpoint,
            persistent_keepalive=peer.persistent_keepalive,
            replace_allowed_ips=True,
            allowed_ips=tuple(map(AllowedIPChange, peer.allowed_ips)),
        )
        for peer in before.peers
    )
    change = DeviceChange(private_key=before.private_key, listen_port=before.listen_port, peers=peers)
    return replace(synchronizing(change, now), fwmark=None)


def without_removals(change: DeviceChange, now: DeviceStatus) -> DeviceChange:
    """The same change without removals of single allowed IPs, which wireguard-go and Linux before 6.16 do not have."""
    lists = {} if change.replace_peers else {peer.public_key: dict.fromkeys(peer.allowed_ips) for peer in now.peers}
    peers = []
    for peer in change.peers:
        own = lists.setdefault(peer.public_key, {})
        if peer.replace_allowed_ips or peer.remove:
            own.clear()
        for allowed in peer.allowed_ips:
            for each in (own,) if allowed.remove else lists.values():  # adding one takes it from the peer that had it
                each.pop(allowed.network, None)
            if not allowed.remove:
                own[allowed.network] = None
        if any(allowed.remove for allowed in peer.allowed_ips):
            peer = replace(peer, replace_allowed_ips=True, allowed_ips=tuple(map(AllowedIPChange, own)))
        peers.append(peer)
    return replace(change, peers=tuple(peers))
