"""The handshake against the noiseprotocol package, which implements the Noise specification, not WireGuard."""

from __future__ import annotations

from random import Random

import pytest
from noise.connection import Keypair as NoiseKeypair
from noise.connection import NoiseConnection

from wgpy.errors import ProtocolError
from wgpy.keys import PrivateKey
from wgpy.noise.handshake import (
    CONSTRUCTION,
    IDENTIFIER,
    InitiationSent,
    LocalStatic,
    RemoteStatic,
    SessionKeys,
    create_initiation,
    open_initiation,
)
from wgpy.noise.tai64n import tai64n

NO_PSK = bytes(32)
TIMESTAMP = tai64n(1_700_000_000_123_456_789)


class Party:
    """A fixed static key and a fixed ephemeral key."""

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        self.local = LocalStatic(PrivateKey(random.randbytes(32)))
        self.ephemeral = PrivateKey(random.randbytes(32))

    def sees(self, other: Party) -> RemoteStatic:
        return RemoteStatic.of(self.local, other.local.public)


@pytest.fixture
def alice() -> Party:
    return Party(1)


@pytest.fixture
def bob() -> Party:
    return Party(2)


def initiate(a: Party, b: Party) -> tuple[bytes, InitiationSent]:
    return create_initiation(a.local, a.sees(b), a.ephemeral, 0xA11CE, TIMESTAMP)


def respond(b: Party, a: Party, message: bytes, psk: bytes = NO_PSK) -> tuple[bytes, SessionKeys]:
    opened = open_initiation(b.local, message)
    assert opened.remote_public == a.local.public
    received = opened.authenticate(b.sees(a))
    assert received.timestamp == TIMESTAMP
    assert received.remote_index == 0xA11CE
    return received.create_response(b.ephemeral, 0xB0B, psk)


def oracle(party: Party, other: Party, psk: bytes, *, initiator: bool) -> NoiseConnection:
    noise = NoiseConnection.from_name(CONSTRUCTION)
    noise.set_prologue(IDENTIFIER)
    noise.set_psks(psk)
    noise.set_keypair_from_private_bytes(NoiseKeypair.STATIC, party.local.private)
    noise.set_keypair_from_private_bytes(NoiseKeypair.EPHEMERAL, party.ephemeral)
    if initiator:
        noise.set_keypair_from_public_bytes(NoiseKeypair.REMOTE_STATIC, other.local.public)
        noise.set_as_initiator()
    else:
        noise.set_as_responder()
    with pytest.warns(UserWarning, match="ephemeral"):
        noise.start_handshake()
    return noise


@pytest.mark.parametrize("psk", [NO_PSK, bytes(range(32))])
def test_messages_and_keys_are_those_of_the_noise_specification(alice: Party, bob: Party, psk: bytes) -> None:
    initiation, sent = initiate(alice, bob)
    response, bobs = respond(bob, alice, initiation, psk)
    alices = sent.consume_response(response, alice.local, psk)

    noise_alice = oracle(alice, bob, psk, initiator=True)
    noise_bob = oracle(bob, alice, psk, initiator=False)
    assert initiation == b"\1\0\0\0" + (0xA11CE).to_bytes(4, "little") + noise_alice.write_message(TIMESTAMP)
    assert noise_bob.read_message(initiation[8:]) == TIMESTAMP
    header = b"\2\0\0\0" + (0xB0B).to_bytes(4, "little") + (0xA11CE).to_bytes(4, "little")
    assert response == header + noise_bob.write_message(b"")
    assert noise_alice.read_message(response[12:]) == b""

    cipher_alice = noise_alice.noise_protocol
    assert alices.sending == cipher_alice.cipher_state_encrypt.k
    assert alices.receiving == cipher_alice.cipher_state_decrypt.k
    assert (bobs.sending, bobs.receiving) == (alices.receiving, alices.sending)
    assert (alices.local_index, alices.remote_index, alices.is_initiator) == (0xA11CE, 0xB0B, True)
    assert (bobs.local_index, bobs.remote_index, bobs.is_initiator) == (0xB0B, 0xA11CE, False)


@pytest.mark.parametrize(
    ("bobs", "alices"), [(bytes(range(32)), NO_PSK), (NO_PSK, bytes(range(32))), (b"a" * 32, b"b" * 32)]
)
def test_different_preshared_keys_make_no_session(alice: Party, bob: Party, bobs: bytes, alices: bytes) -> None:
    initiation, sent = initiate(alice, bob)
    response, _ = respond(bob, alice, initiation, bobs)
    with pytest.raises(ProtocolError):
        sent.consume_response(response, alice.local, alices)
    assert sent.consume_response(response, alice.local, bobs)  # a failure changes nothing


def test_an_initiation_corrupted_anywhere_is_refused(alice: Party, bob: Party) -> None:
    initiation, _ = initiate(alice, bob)
    for position in range(8, len(initiation)):
        spoilt = bytearray(initiation)
        spoilt[position] ^= 0x40
        with pytest.raises(ProtocolError):
            open_initiation(bob.local, bytes(spoilt)).authenticate(bob.sees(alice))


def test_a_response_corrupted_anywhere_is_refused(alice: Party, bob: Party) -> None:
    initiation, sent = initiate(alice, bob)
    response, _ = respond(bob, alice, initiation)
    for position in range(8, len(response)):
        spoilt = bytearray(response)
        spoilt[position] ^= 0x40
        with pytest.raises(ProtocolError):
            sent.consume_response(bytes(spoilt), alice.local, NO_PSK)


def test_nobody_but_the_responder_opens_an_initiation(alice: Party, bob: Party) -> None:
    initiation, _ = initiate(alice, bob)
    with pytest.raises(ProtocolError):
        open_initiation(Party(3).local, initiation)


def test_nobody_can_pretend_to_be_another_peer(alice: Party, bob: Party) -> None:
    mallory = Party(3)
    # Mallory puts Alice's public key where her own should be, but cannot compute the secret Alice and Bob share.
    liar = LocalStatic(mallory.local.private)
    forged = RemoteStatic(bob.local.public, mallory.sees(bob).ss)
    object.__setattr__(liar.private, "public_key", alice.local.public)
    message, _ = create_initiation(liar, forged, mallory.ephemeral, 1, TIMESTAMP)
    opened = open_initiation(bob.local, message)
    assert opened.remote_public == alice.local.public
    with pytest.raises(ProtocolError):
        opened.authenticate(bob.sees(alice))


def test_a_response_answers_one_initiation(alice: Party, bob: Party) -> None:
    first, _ = initiate(alice, bob)
    _, second = create_initiation(alice.local, alice.sees(bob), PrivateKey(b"e" * 32), 0xA11CE, TIMESTAMP)
    response, _ = respond(bob, alice, first)
    with pytest.raises(ProtocolError):
        second.consume_response(response, alice.local, NO_PSK)


def test_without_a_private_key_there_is_no_shared_secret(bob: Party) -> None:
    assert RemoteStatic.of(None, bob.local.public).ss is None


def test_no_repr_shows_a_secret(alice: Party, bob: Party) -> None:
    initiation, sent = initiate(alice, bob)
    opened = open_initiation(bob.local, initiation)
    received = opened.authenticate(bob.sees(alice))
    _, keys = received.create_response(bob.ephemeral, 1, NO_PSK)
    shown = repr((alice.local, alice.sees(bob), sent, opened, received, keys))
    ss = alice.sees(bob).ss
    assert ss is not None
    secrets = (alice.local.private, alice.ephemeral, bob.ephemeral, ss, keys.sending, keys.receiving)
    for secret in secrets:
        assert repr(bytes(secret))[2:-1] not in shown
        assert bytes(secret).hex() not in shown
    assert "chaining_key" not in shown
