"""A gateway's clients: addresses from a pool, disabling and enabling, and the rest of the file unchanged."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.config import clients
from wgpy.config.clients import add, client_file, disable, enable, endpoint_comment, remove
from wgpy.config.values import EndpointName
from wgpy.config.wgquick import WgQuickFile, parse
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey

PSK = PresharedKey(b"s" * 32)
GATEWAY = parse(f"""\
# The gateway
[Interface]
# Endpoint = vpn.example.org:51820
PrivateKey = {PrivateKey(b"g" * 32).base64()}
Address = 10.8.0.1/24, fd08::1/64
ListenPort = 51820
PostUp = iptables -A FORWARD -i %i -j ACCEPT # stays
""")


def key(number: int) -> PrivateKey:
    return PrivateKey(number.to_bytes(32))


def with_clients(*names: str, file: WgQuickFile = GATEWAY) -> WgQuickFile:
    for number, name in enumerate(names, 1):
        file, _ = add(file, name, key(number), PSK)
    return file


def test_a_client_gets_the_first_free_address_and_the_rest_of_the_file_stays() -> None:
    file, addresses = add(with_clients("alice"), "bob", key(9), PSK)
    assert list(map(str, addresses)) == ["10.8.0.3/32", "fd08::3/128"]
    assert str(file).startswith(str(GATEWAY))
    assert [peer.name for peer in file.config.peers] == ["alice", "bob"]


def test_a_freed_address_is_reused_but_not_that_of_a_disabled_client() -> None:
    file = remove(with_clients("a", "b", "c"), "b")
    assert str(add(file, "d", key(9), PSK)[1][0]) == "10.8.0.3/32"
    file = disable(with_clients("a", "b", "c"), "b")
    assert str(add(file, "d", key(9), PSK)[1][0]) == "10.8.0.5/32"


@given(st.sets(st.integers(0, 15)), st.integers(28, 32))
def test_an_address_must_be_free_and_in_the_pool(taken: set[int], length: int) -> None:
    pool = ip_network(f"10.8.0.0/{length}")
    gateway = replace(parse("[Interface]\nAddress = 10.8.0.1/24").config)
    peers = "".join(f"[Peer]\nPublicKey = {key(n + 1).public_key}\nAllowedIPs = 10.8.0.{n}/32\n" for n in sorted(taken))
    file = parse(f"[Interface]\nAddress = 10.8.0.1/24\n{peers}")
    free = [host for host in pool.hosts() if int(host) & 255 not in {1, *taken} and host != gateway.addresses[0].ip]
    if free:
        assert [address.ip for address in add(file, "new", key(99), PSK, [pool])[1]] == [free[0]]
    else:
        with pytest.raises(ConfigError, match="every address of the pool is taken"):
            add(file, "new", key(99), PSK, [pool])


@pytest.mark.parametrize("names", [["only"], ["first", "second", "third"]])
def test_enable_undoes_disable(names: list[str]) -> None:
    file = with_clients(*names)
    for name in names:
        off = disable(file, name)
        assert name not in [peer.name for peer in off.config.peers]
        assert [client.peer.name for client in clients.clients(off) if not client.enabled] == [name]
        assert str(enable(off, name)) == str(file)
        with pytest.raises(ConfigError, match="already disabled"):
            disable(off, name)
    with pytest.raises(ConfigError, match="already enabled"):
        enable(file, names[0])


def test_disabled_clients_next_to_each_other_are_told_apart() -> None:
    file = disable(disable(with_clients("a", "b", "c"), "a"), "b")
    assert str(enable(enable(file, "b"), "a")) == str(with_clients("a", "b", "c"))
    assert str(remove(file, "b")) == str(disable(with_clients("a", "c", file=GATEWAY), "a")).replace(
        key(2).public_key.base64(), key(3).public_key.base64()
    ).replace("10.8.0.3/32, fd08::3", "10.8.0.4/32, fd08::4")


def test_what_cannot_be_added_or_found_is_reported() -> None:
    file = with_clients("alice")
    for name, number, match in (
        ("alice", 7, "of that name"),
        ("bob", 1, "has that key already"),
        ("a name", 7, "expected a name"),
        ("sixteen-letters-", 7, "expected a name"),
    ):
        with pytest.raises(ConfigError, match=match):
            add(file, name, key(number), PSK)
    with pytest.raises(ConfigError, match="no client has that name; the clients are alice"):
        remove(file, "bob")
    with pytest.raises(ConfigError, match="no pool of addresses"):
        add(parse("[Interface]\nAddress = 10.8.0.1\n"), "a", key(1), PSK)
    twice = parse(
        str(file) + str(file)[len(str(GATEWAY)) :].replace(key(1).public_key.base64(), key(2).public_key.base64())
    )
    with pytest.raises(ConfigError, match="several clients"):
        disable(twice, "alice")


def test_the_clients_file_names_the_gateway() -> None:
    endpoint = EndpointName(host="vpn.example.org", port=51820)
    _, addresses = add(GATEWAY, "alice", key(1), PSK)
    config = client_file(GATEWAY.config, key(1), PSK, addresses, endpoint, clients.EVERYTHING, ["10.8.0.1"]).config
    (peer,) = config.peers
    assert (config.private_key, config.dns, config.addresses) == (key(1), ("10.8.0.1",), addresses)
    assert (peer.public_key, peer.preshared_key) == (PrivateKey(b"g" * 32).public_key, PSK)
    assert (peer.endpoint, peer.allowed_ips) == (endpoint, clients.EVERYTHING)


def test_the_gateways_endpoint_may_be_in_a_comment() -> None:
    assert endpoint_comment(GATEWAY) == "vpn.example.org:51820"
    assert endpoint_comment(with_clients("alice", file=parse("[Interface]\nAddress = 10.8.0.1/24\n"))) == ""
