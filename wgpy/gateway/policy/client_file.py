"""A device's own wg-quick file."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_interface

from wgpy.config.clients import EVERYTHING, KEEPALIVE
from wgpy.config.edit import rewritten
from wgpy.config.values import EndpointName, InterfaceConfig, PeerConfig
from wgpy.config.wgquick import parse
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import Device
from wgpy.gateway.policy.routes import Route
from wgpy.keys import PresharedKey, PrivateKey, PublicKey


def client_file(
    endpoint: Endpoint,
    public_key: PublicKey,
    device: Device,
    preshared_key: PresharedKey,
    routes: Iterable[Route],
    private_key: PrivateKey | None = None,
) -> str:
    """The text of the file. `public_key` is the gateway's; without a private key the device's owner adds that."""
    networks = (*endpoint.pools, *(route.network for route in routes if route.network.prefixlen))
    peer = PeerConfig(
        public_key=public_key,
        preshared_key=preshared_key,
        endpoint=EndpointName(host=endpoint.host, port=endpoint.port),
        allowed_ips=EVERYTHING if endpoint.full_tunnel else tuple(dict.fromkeys(networks)),
        persistent_keepalive=KEEPALIVE,
    )
    config = InterfaceConfig(
        private_key=private_key,
        addresses=tuple(map(ip_interface, device.addresses)),
        dns=tuple(map(str, endpoint.dns)),
        dns_search=endpoint.search,
        mtu=endpoint.mtu,
        peers=(peer,),
    )
    comments = [f"# {line}".rstrip() for line in endpoint.banner.splitlines()]
    if private_key is None:
        comments.append("# Add a line to [Interface]: PrivateKey = the private key of this device, which only you have")
    text = str(rewritten(parse(""), config))
    return "\n".join([*comments, text])
