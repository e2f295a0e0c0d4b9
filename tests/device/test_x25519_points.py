"""Points of low order, and points in a form that is not canonical, in the place of each key.

The numbers are Wycheproof's: github.com/C2SP/wycheproof, testvectors_v1/x25519_test.json, by their tcId.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.support.world import Host, Link, World
from wgpy.config import wg
from wgpy.config.uapi import parse_set
from wgpy.errors import ProtocolError
from wgpy.keys import PrivateKey, PublicKey
from wgpy.noise import handshake
from wgpy.noise.cookie import CookieStamp
from wgpy.noise.handshake import InitiationReceived, LocalStatic, RemoteStatic, create_initiation
from wgpy.noise.primitives import dh
from wgpy.noise.tai64n import tai64n

# tcId 63 to 86: all that is flagged LowOrderPublic, non-canonical forms among it.
LOW_ORDER = [
    bytes.fromhex(point)
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
]
# private, public, shared: flagged NonCanonicalPublic and of full order.
NON_CANONICAL = {
    87: (
        "0016b62af5cabde8c40938ebf2108e05d27fa0533ed85d70015ad4ad39762d54",
        "efffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "b4d10e832714972f96bd3382e4d082a21a8333a16315b3ffb536061d2482360d",
    ),
    89: (
        "88dd14e2711ebd0b0026c651264ca965e7e3da5082789fbab7e24425e7b4377e",
        "f1ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "6919992d6a591e77b3f2bacbd74caf3aea4be4802b18b2bc07eb09ade3ad6662",
    ),
    93: (
        "20620d82487707bedf9ee3549e95cb9390d2618f50cf6acba47ffaa103224a6f",
        "0400000000000000000000000000000000000000000000000000000000000080",
        "03a633df01480d0d5048d92f51b20dc1d11f73e9515c699429b90a4f6903122a",
    ),
    99: (
        "c85f08e60c845f82099141a66dc4583d2b1040462c544d33d0453b20b1a6377e",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "e9db74bc88d0d9bf046ddd13f943bccbe6dbb47d49323f8dfeedc4a694991a3c",
    ),
}
low_order = pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)


class Pretended(PrivateKey):
    """An ephemeral key that claims `point` as its public half."""

    point = b""

    @property
    def public_key(self) -> PublicKey:
        return PublicKey(self.point)


def pretended(point: bytes) -> PrivateKey:
    key = Pretended(b"e" * 32)
    key.point = point
    return key


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Accept a shared secret of zeros until undone, as an attacker would to make messages that are otherwise valid."""

    def zeros(private: PrivateKey, public: bytes) -> bytes:
        with suppress(ProtocolError):
            if not isinstance(private, Pretended):
                return dh(private, public)
        return bytes(32)

    monkeypatch.setattr(handshake, "dh", zeros)
    return monkeypatch


def dropped(a: Host) -> dict[str, int]:
    status = a.device.status()
    return {**status.drops, **{reason: n for peer in status.peers for reason, n in peer.drops.items()}}


@low_order
def test_nothing_is_agreed_with_a_point_of_low_order(point: bytes) -> None:
    with pytest.raises(ProtocolError):
        dh(PrivateKey(b"k" * 32), point)


@pytest.mark.parametrize("case", NON_CANONICAL)
def test_noncanonical_points_give_the_published_results(case: int) -> None:
    private, public, shared = map(bytes.fromhex, NON_CANONICAL[case])
    assert dh(PrivateKey(private), public) == shared


@low_order
def test_a_low_order_peer_is_sent_nothing(point: bytes) -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    lines = [f"public_key={point.hex()}", f"endpoint={b.endpoint}", "allowed_ip=0.0.0.0/0"]
    by_uapi = parse_set([*lines, "persistent_keepalive_interval=1"])
    text = f"[Peer]\nPublicKey = {PublicKey(point).base64()}\nEndpoint = {b.endpoint}\nPersistentKeepalive = 1"
    by_file = wg.parse(text)
    for change in (by_uapi, by_file.located({PublicKey(point): b.endpoint})):
        world.do(a, a.device.configure(change, world.now))
        world.send(a, b)
        world.run(30)
    assert world.eve == []


@low_order
def test_an_initiation_from_a_low_order_ephemeral_is_refused(point: bytes, careless: pytest.MonkeyPatch) -> None:
    world = World()
    a, b = world.pair()
    local = LocalStatic(b.private_key)
    stamp = tai64n(world.wall_ns(b))
    forged, _ = create_initiation(local, RemoteStatic.of(local, a.public_key), pretended(point), 1, stamp)
    careless.undo()
    world.arrive(a, CookieStamp(a.public_key).stamp(forged, world.now), b.endpoint)
    assert world.eve == []
    assert dropped(a) == {"invalid_handshake": 1}
    world.send(b, a)
    world.run(1)
    assert len(a.received) == 1


@low_order
def test_an_initiation_in_the_name_of_a_low_order_peer_is_refused(point: bytes, careless: pytest.MonkeyPatch) -> None:
    world = World()
    a = world.host("a")
    world.configure(a, public_key=PublicKey(point))
    nobody = Pretended(b"s" * 32)
    nobody.point = point
    stamp, remote = tai64n(world.wall_ns(a)), RemoteStatic(a.public_key, bytes(32))
    forged, _ = create_initiation(LocalStatic(nobody), remote, PrivateKey(b"e" * 32), 1, stamp)
    careless.undo()
    world.arrive(a, CookieStamp(a.public_key).stamp(forged, world.now), a.endpoint)
    assert world.eve == []
    assert dropped(a) == {"invalid_handshake": 1}


@low_order
def test_a_response_from_a_low_order_ephemeral_is_refused_and_the_true_one_is_still_accepted(
    point: bytes, careless: pytest.MonkeyPatch
) -> None:
    world = World(link=Link(latency=1))
    a, b = world.pair()
    packet = world.send(a, b)
    initiation = world.eve[-1].datagram
    opened = handshake.open_initiation(LocalStatic(b.private_key), initiation[:-32])
    received: InitiationReceived = opened.authenticate(RemoteStatic.of(LocalStatic(b.private_key), a.public_key))
    forged, _ = received.create_response(pretended(point), 1, bytes(32))
    careless.undo()
    world.arrive(a, CookieStamp(a.public_key).stamp(forged, world.now), b.endpoint)
    assert len(world.eve) == 1
    assert dropped(a) == {"invalid_handshake": 1}
    world.run(5)
    assert b.received == [packet]


def test_another_encoding_of_a_peers_key_is_another_peer() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    other_form = b.public_key[:31] + bytes([b.public_key[31] | 0x80])
    world.configure(a, public_key=PublicKey(other_form), endpoint=b.endpoint, persistent_keepalive=1)
    world.configure(b, public_key=a.public_key, endpoint=a.endpoint, persistent_keepalive=1)
    world.run(4)
    assert dropped(b) == {"invalid_mac1": 1}
    assert dropped(a) == {"unknown_peer": 1}
