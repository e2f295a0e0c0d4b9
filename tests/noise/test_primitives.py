"""The primitives against published vectors."""

from __future__ import annotations

import hmac
from hashlib import blake2s

import pytest

from wgpy.errors import ProtocolError
from wgpy.keys import PrivateKey
from wgpy.noise.primitives import dh, digest, kdf1, kdf2, kdf3, mac, seal, unseal, xseal, xunseal


def test_dh_is_x25519_of_rfc_7748() -> None:
    alice = PrivateKey(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = PrivateKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice.public_key.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert dh(alice, bob.public_key).hex() == dh(bob, alice.public_key).hex() == shared


def test_dh_refuses_a_zero_secret() -> None:
    with pytest.raises(ProtocolError):
        dh(PrivateKey(b"k" * 32), bytes(32))


def test_digest_is_blake2s_of_rfc_7693() -> None:
    assert digest(b"a", b"bc").hex() == "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"


def test_mac_is_keyed_blake2s_of_16_bytes() -> None:
    assert mac(b"k" * 16, b"message") == blake2s(b"message", digest_size=16, key=b"k" * 16).digest()
    assert len(mac(b"k" * 32, b"")) == 16


# wireguard-go's TestKDF: input, key, and the three outputs of KDF3.
KDF_VECTORS = [
    (
        "746573742d6b6579",
        "746573742d696e707574",
        "6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633",
        "df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a",
        "fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24",
    ),
    (
        "776972656775617264",
        "776972656775617264",
        "491d43bbfdaa8750aaf535e334ecbfe5129967cd64635101c566d4caefda96e8",
        "1e71a379baefd8a79aa4662212fcafe19a23e2b609a3db7d6bcba8f560e3d25f",
        "31e1ae48bddfbe5de38f295e5452b1909a1b4e38e183926af3780b0c1e1f0160",
    ),
    (
        "",
        "",
        "8387b46bf43eccfcf349552a095d8315c4055beb90208fb1be23b894bc2ed5d0",
        "58a0e5f6faefccf4807bff1f05fa8a9217945762040bcec2f4b4a62bdfe0e86e",
        "0ce6ea98ec548f8e281e93e32db65621c45eb18dc6f0a7ad94178610a2f7338e",
    ),
]


@pytest.mark.parametrize(("key", "material", "first", "second", "third"), KDF_VECTORS)
def test_kdf_is_hkdf_with_hmac_blake2s(key: str, material: str, first: str, second: str, third: str) -> None:
    arguments = bytes.fromhex(key), bytes.fromhex(material)
    assert kdf1(*arguments).hex() == first
    assert [output.hex() for output in kdf2(*arguments)] == [first, second]
    assert [output.hex() for output in kdf3(*arguments)] == [first, second, third]


def test_hmac_has_the_64_byte_block_of_blake2s() -> None:
    key, message = b"k" * 70, b"m"  # longer than a block: hashed first
    block = blake2s(key).digest().ljust(64, b"\0")
    inner = blake2s(bytes(b ^ 0x36 for b in block) + message).digest()
    outer = blake2s(bytes(b ^ 0x5C for b in block) + inner).digest()
    assert hmac.digest(key, message, "blake2s") == outer


def test_xaead_is_xchacha20_poly1305_of_the_irtf_draft() -> None:
    """draft-irtf-cfrg-xchacha-03, A.3.1."""
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    key = bytes(range(0x80, 0xA0))
    nonce = bytes(range(0x40, 0x58))
    associated = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    sealed = xseal(key, nonce, plaintext, associated)
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"
    assert xunseal(key, nonce, sealed, associated) == plaintext


@pytest.mark.parametrize("extended", [False, True])
def test_a_changed_ciphertext_does_not_open(extended: bool) -> None:
    key, nonce = b"k" * 32, b"n" * 24
    sealed = xseal(key, nonce, b"text", b"with") if extended else seal(key, b"text", b"with")
    for spoilt, associated in ((sealed[:-1] + b"?", b"with"), (sealed, b"without")):
        with pytest.raises(ProtocolError):
            xunseal(key, nonce, spoilt, associated) if extended else unseal(key, spoilt, associated)
