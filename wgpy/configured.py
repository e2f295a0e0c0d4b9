"""The configuration that a running interface was given last: the names of its peers and of their endpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from wgpy.config.values import EndpointName, InterfaceConfig, PeerConfig, expect_config
from wgpy.device.changes import DeviceChange
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.net.names import Names
from wgpy.net.resolve import resolved_change


class Configured:
    """What a configuration says that no Device knows, and the change that makes a device follow another one.

    `moved` is called when the name of a peer's endpoint leads elsewhere.
    """

    config: InterfaceConfig
    """The configuration."""
    names: Names
    """The names of endpoints, which are looked up from `Names.start` on."""

    def __init__(self, config: InterfaceConfig, moved: Callable[[PublicKey, Endpoint], None]) -> None:
        expect_config(config)
        self.config = config
        self._labels = _labels(config)
        self.names = Names(_endpoint_names(config), moved)

    def name_of(self, public_key: PublicKey) -> str:
        """The name of a peer; empty if it has none."""
        return self._labels.get(public_key, "")

    def named(self, status: DeviceStatus) -> DeviceStatus:
        """The status with the peers' names."""
        if not self._labels:
            return status
        named = tuple(replace(peer, name=self.name_of(peer.public_key)) for peer in status.peers)
        return replace(status, peers=named)

    async def change(self, config: InterfaceConfig) -> DeviceChange:
        """The change that makes a device be as in another configuration, with names resolved.

        An address that was found by a name which still stands there is left as it is. Raises NetworkError.
        """
        expect_config(config)
        return await resolved_change(replace(config, peers=tuple(map(self._unless_followed, config.peers))))

    def _unless_followed(self, peer: PeerConfig) -> PeerConfig:
        followed = peer.endpoint and self.names.follows(peer.public_key, peer.endpoint)
        return replace(peer, endpoint=None) if followed else peer

    def take(self, config: InterfaceConfig) -> None:
        """The interface is configured like this from now on."""
        self.config = config
        self._labels = _labels(config)
        self.names.follow(_endpoint_names(config))
        self.names.start()

    def changed(self, change: DeviceChange) -> None:
        """Somebody has changed peers: an endpoint that was given as an address does not follow a name any more."""
        for peer in change.peers:
            if peer.endpoint or peer.remove:
                self.names.forget(peer.public_key)


def _labels(config: InterfaceConfig) -> dict[PublicKey, str]:
    return {peer.public_key: peer.name for peer in config.peers if peer.name}


def _endpoint_names(config: InterfaceConfig) -> dict[PublicKey, EndpointName]:
    return {peer.public_key: peer.endpoint for peer in config.peers if peer.endpoint}
