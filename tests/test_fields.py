"""What a program may pass in place of a typed value, and the errors for anything else."""

from __future__ import annotations

import asyncio
import os
import re
import traceback
from collections.abc import Callable
from ipaddress import IPv4Address, ip_interface, ip_network
from typing import Any

import pytest

import wgpy
import wgpy.blocking
from wgpy.config import wgquick

PRIVATE, PUBLIC, PSK = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate().public_key, wgpy.PresharedKey(bytes(32))
SECRET = PRIVATE.base64()

# As a program without types writes it, and mypy would not let it.
peer: Callable[..., wgpy.PeerConfig] = wgpy.PeerConfig
interface: Callable[..., wgpy.InterfaceConfig] = wgpy.InterfaceConfig
peer_change: Callable[..., wgpy.PeerChange] = wgpy.PeerChange
device_change: Callable[..., wgpy.DeviceChange] = wgpy.DeviceChange


def test_text_is_accepted_where_it_is_unambiguous() -> None:
    written = interface(
        private_key=PRIVATE.base64(),
        addresses=["10.0.0.1/24", IPv4Address("10.0.0.2")],
        dns=[IPv4Address("10.0.0.53"), "fd00::53"],
        peers=[
            peer(
                public_key=PUBLIC.base64(),
                preshared_key=PSK.base64(),
                endpoint="vpn.example.org:51820",
                allowed_ips=("10.0.0.0/8", "fd00::/8", IPv4Address("192.0.2.1")),
            )
        ],
    )
    assert written == wgpy.InterfaceConfig(
        private_key=PRIVATE,
        addresses=(ip_interface("10.0.0.1/24"), ip_interface("10.0.0.2/32")),
        dns=("10.0.0.53", "fd00::53"),
        peers=(
            wgpy.PeerConfig(
                public_key=PUBLIC,
                preshared_key=PSK,
                endpoint=wgpy.EndpointName(host="vpn.example.org", port=51820),
                allowed_ips=(ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.1")),
            ),
        ),
    )
    assert hash(written)


def test_the_ends_of_a_range_are_allowed() -> None:
    wgpy.EndpointName(host="a", port=1)
    wgpy.EndpointName(host="a", port=65535)
    for mtu in (68, 1200, 65535, None):
        assert interface(mtu=mtu, addresses=("10.0.0.2/24",)).mtu == mtu
    assert interface(mtu=1280, addresses=("fd00::2/64",), fwmark=(1 << 32) - 1, listen_port=65535).mtu == 1280
    assert interface(dns=("fe80::1%eth0",)).dns == ("fe80::1%eth0",)


def test_changes_are_checked_too() -> None:
    network = ip_network("10.0.0.0/8")
    read = peer_change(
        public_key=PUBLIC.base64(), endpoint="192.0.2.1:5", allowed_ips=["10.0.0.0/8", network, ("10.0.0.0/8",)[0]]
    )
    wanted = (wgpy.AllowedIPChange(network),) * 3
    assert read == wgpy.PeerChange(public_key=PUBLIC, endpoint=wgpy.Endpoint("192.0.2.1", 5), allowed_ips=wanted)
    allowed: Any = wgpy.AllowedIPChange
    assert peer_change(public_key=PUBLIC, allowed_ips=(allowed("10.0.0.0/8"),)).allowed_ips == wanted[:1]
    assert device_change(private_key=PRIVATE.base64(), peers=[read]).private_key == PRIVATE


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: peer(public_key=PRIVATE), "PeerConfig.public_key: expected a PublicKey or its base64, not a Priv"),
        (lambda: peer(public_key=None), "PeerConfig.public_key: expected a PublicKey or its base64, not None"),
        (lambda: peer(public_key=PUBLIC, allowed_ips="10.0.0.0/8"), "allowed_ips: expected a tuple, each item an"),
        (lambda: peer(public_key=PUBLIC, allowed_ips=(1,)), "allowed_ips: expected an ipaddress.ip_network or"),
        (
            lambda: peer(public_key=PUBLIC, allowed_ips=(ip_interface("10.0.0.1/8"),)),
            "10.0.0.0/8, not an IPv4Interface",
        ),
        (lambda: peer(public_key=PUBLIC, endpoint=("192.0.2.1", 5)), "endpoint: expected an EndpointName or its text"),
        (lambda: peer(public_key=PUBLIC, persistent_keepalive="25"), "keepalive: expected a number of seconds, 0 to"),
        (lambda: wgpy.EndpointName(host="a", port="51820"), "EndpointName.port: expected a port number"),  # type: ignore[arg-type]
        (lambda: interface(listen_port="51820"), "InterfaceConfig.listen_port: expected a port number"),
        (lambda: interface(dns="1.1.1.1"), "dns: expected a tuple, each item a name server's address"),
        (lambda: interface(post_up="echo"), "post_up: expected a tuple"),
        (lambda: interface(peers=peer(public_key=PUBLIC)), "peers: expected a tuple, each item a PeerConfig"),
        (lambda: interface(peers=({},)), "peers: expected a PeerConfig, not a dict"),
        (lambda: interface(mtu="1420"), "mtu: expected a number of bytes, 68 to 65535, or None, not a str"),
        (lambda: peer_change(public_key=PUBLIC, endpoint=wgpy.EndpointName(host="a", port=1)), "not an EndpointName"),
        (lambda: peer_change(public_key=PUBLIC, endpoint=wgpy.Endpoint("1.2.3.4", "5")), "port: expected an int"),  # type: ignore[arg-type]
        (lambda: device_change(peers=[peer(public_key=PUBLIC)]), "peers: expected a PeerChange, not a PeerConfig"),
        (lambda: device_change(listen_port="1"), "listen_port: expected a whole number or None"),
        (lambda: wgpy.PrivateKey(SECRET), "PrivateKey takes 32 bytes; PrivateKey.from_base64 reads text"),  # type: ignore[arg-type]
        (lambda: wgpy.Tunnel("wg0.conf", tun=wgpy.MemoryTun()), "config: expected an InterfaceConfig, as wgpy.config"),  # type: ignore[arg-type]
        (lambda: wgpy.Tunnel(wgquick.parse(""), tun=wgpy.MemoryTun()), "not a WgQuickFile"),  # type: ignore[arg-type]
        (lambda: wgpy.Tunnel(interface(), tun=wgpy.MemoryTun()).configure(interface()), "expected a DeviceChange"),  # type: ignore[arg-type]
        (lambda: connected(wgquick.parse(f"[Interface]\nPrivateKey = {SECRET}")), "not a WgQuickFile"),
        (lambda: connected(None), "config: expected an InterfaceConfig"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_a_type_error_that_says_what_was_expected(make: Callable[[], object], said: str) -> None:
    with pytest.raises(TypeError) as raised:
        make()
    assert said in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: peer(public_key=PUBLIC, allowed_ips=("10.0.0.1/8",)), "PeerConfig.allowed_ips: 10.0.0.1/8 has host"),
        (lambda: peer(public_key=PUBLIC, endpoint="vpn"), "PeerConfig.endpoint: expected vpn.example.org:51820"),
        (lambda: peer(public_key=PUBLIC, endpoint="a b:1"), "is not a valid host name"),
        (lambda: peer_change(public_key=PUBLIC, endpoint="vpn.example.org:5"), "PeerChange.endpoint: not an endpoint"),
        (lambda: peer_change(public_key=PUBLIC, endpoint=wgpy.Endpoint("a.b", 5)), "'a.b' is not a numeric address"),
        (lambda: interface(private_key=SECRET[:-2]), "InterfaceConfig.private_key: a key is 44 base64 characters"),
        (lambda: interface(mtu=3), "InterfaceConfig.mtu: expected a number of bytes, 68 to 65535, or None, not '3'"),
        (lambda: interface(mtu=70000), "InterfaceConfig.mtu: expected a number of bytes, 68 to 65535"),
        (lambda: interface(mtu=1200, addresses=("10.0.0.2/24", "fd00::2/64")), "mtu: expected at least 1280"),
        (lambda: interface(dns=("foo",)), "dns: expected a name server's address (a search domain goes"),
        (lambda: interface(dns=["10.0.0.53", "10.0.0.53, example.org"]), "not '10.0.0.53, example.org'"),
        (lambda: interface(listen_port=-1), "InterfaceConfig.listen_port: expected a port number, 0 to 65535"),
        (lambda: interface(fwmark=1 << 32), "InterfaceConfig.fwmark: expected a number of 32 bits"),
        (lambda: peer(public_key=PUBLIC, persistent_keepalive=65536), "persistent_keepalive: expected a num"),
        (lambda: wgpy.EndpointName(host="a", port=0), "EndpointName.port: expected a port number, 1 to 65535, not '0'"),
        (lambda: connected(f"[Interface]\nPrivateKey = {SECRET}\n"), "expected a configuration file's path"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_a_value_error_that_names_the_field(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        make()
    assert SECRET[:40] not in str(raised.value)


def connected(config: Any) -> None:
    async def main() -> None:
        async with wgpy.connect(config):
            pass

    asyncio.run(main())


@pytest.mark.parametrize(
    "make",
    [
        lambda: peer(public_key=PUBLIC, endpoint=SECRET),
        lambda: peer(public_key=PUBLIC, allowed_ips=(SECRET,)),
        lambda: peer_change(public_key=PUBLIC, endpoint=SECRET),
        lambda: interface(addresses=(SECRET,)),
        lambda: interface(dns=(SECRET,)),
    ],
)
def test_a_key_in_the_wrong_field_is_not_repeated(make: Callable[[], object]) -> None:
    with pytest.raises(wgpy.ConfigError) as raised:
        make()
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_a_path_may_have_any_type(tmp_path: os.PathLike[str]) -> None:
    for path in (os.fspath(tmp_path), tmp_path):
        with pytest.raises(wgpy.ConfigError, match="directory"):
            connected(path)
