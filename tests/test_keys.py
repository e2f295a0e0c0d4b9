"""Keys: what is a key, what is shown of it, and what is not."""

from __future__ import annotations

import base64
import copy
import pickle
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.errors import KeyFormatError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

RAW = bytes(range(32))


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_the_same_from_text_and_from_bytes(raw: bytes) -> None:
    for kind in (PublicKey, PresharedKey):
        key = kind(raw)
        assert kind.from_base64(key.base64()) == kind.from_hex(key.hex()) == raw


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_only_32_bytes_are_a_key(length: int) -> None:
    with pytest.raises(KeyFormatError):
        PublicKey(bytes(length))


GOOD = base64.b64encode(RAW).decode()
NOT_BASE64 = [
    "",
    GOOD[:-1],
    GOOD + "=",
    " " + GOOD,
    GOOD[:-2] + "9=",  # bits that belong to no byte are set
    GOOD.replace("=", ""),
    "é" * 44,
    "-" + GOOD[1:],
]


@pytest.mark.parametrize("text", [*NOT_BASE64, GOOD + "\n"])
def test_base64_is_strict_and_a_bad_key_is_never_repeated(text: str) -> None:
    with pytest.raises(KeyFormatError) as raised:
        PresharedKey.from_base64(text)
    assert not text or text not in str(raised.value)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, " " + "0" * 63, "é" * 64])
def test_hex_is_strict(text: str) -> None:
    with pytest.raises(KeyFormatError):
        PublicKey.from_hex(text)


def test_a_private_key_is_stored_clamped_as_by_the_kernel() -> None:
    key = PrivateKey.from_base64(base64.b64encode(b"\xff" * 32).decode())
    assert key[0] & 7 == 0
    assert key[31] & 0xC0 == 0x40
    assert key.base64().startswith("+"), "netns.sh: the first / comes back as +"
    assert PrivateKey(key) == key


def test_the_zero_private_key_stays_zero_because_it_means_none() -> None:
    assert PrivateKey(bytes(32)).is_zero()
    assert not PrivateKey(RAW).is_zero()


def test_the_public_key_agrees_with_rfc_7748() -> None:
    key = PrivateKey.from_hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    assert key.public_key.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"


@pytest.mark.root
@pytest.mark.parametrize("text", NOT_BASE64)
def test_wg_refuses_the_same_texts(text: str) -> None:
    said = subprocess.run(["wg", "pubkey"], input=text, capture_output=True, text=True, check=False)
    assert said.returncode != 0
    assert said.stdout == ""


@pytest.mark.root
def test_the_public_key_agrees_with_wg() -> None:
    key = PrivateKey.generate()
    said = subprocess.run(["wg", "pubkey"], input=key.base64(), capture_output=True, text=True, check=True).stdout
    assert said.strip() == key.public_key.base64()


@pytest.mark.parametrize("kind", [PrivateKey, PresharedKey])
def test_only_base64_and_hex_show_a_secret(kind: type[PrivateKey] | type[PresharedKey]) -> None:
    key = kind(RAW)
    for shown in (repr(key), str(key), f"{key}", f"{key!r}", f"{[key]}", "{}".format(key)):  # noqa: UP032
        assert shown.strip("[]") == f"{kind.__name__}(hidden)"


@pytest.mark.parametrize("kind", [PrivateKey, PresharedKey])
def test_a_copy_of_a_secret_hides_it_too(kind: type[PrivateKey] | type[PresharedKey]) -> None:
    key = kind(RAW)
    for again in (copy.copy(key), copy.deepcopy(key), pickle.loads(pickle.dumps(key))):
        assert again == key
        assert type(again) is kind
        assert repr(again) == f"{kind.__name__}(hidden)"


def test_a_public_key_is_shown() -> None:
    key = PublicKey(RAW)
    assert str(key) == GOOD
    assert repr(key) == f"PublicKey({GOOD})"
    assert key.short() == f"peer({GOOD[:4]}…{GOOD[39:43]})"


def test_generated_keys_differ() -> None:
    assert PrivateKey.generate() != PrivateKey.generate()
    assert PresharedKey.generate() != PresharedKey.generate()
