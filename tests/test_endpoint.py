"""Endpoints as values: text, bytes, and the remembered local address."""

from __future__ import annotations

import pytest

from wgpy.endpoint import Endpoint


@pytest.mark.parametrize("text", ["1.2.3.4:5", "[::1]:51820", "[fe80::1%3]:65535", "0.0.0.0:0"])
def test_text_round_trip(text: str) -> None:
    assert str(Endpoint.parse(text)) == text


def test_parse_gives_scope_and_canonical_host() -> None:
    assert Endpoint.parse("[FE80:0:0::1%3]:5") == Endpoint("fe80::1", 5, 3)


@pytest.mark.parametrize(
    "text",
    [
        "", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:5 ", "1.2.3.256:5", "1.2.3:5",
        "::1:5", "[::1]", "[::1%eth0]:5", "[::1%]:5", "[1.2.3.4]:5", "[:::1]:5", "example.org:5", "1.2.3.4:\u0665",
        "[fe80::1%4294967296]:5",
    ],
)  # fmt: skip
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Endpoint.parse(text)


def test_packed_is_address_and_big_endian_port() -> None:
    assert Endpoint("1.2.3.4", 0x1234).packed == bytes([1, 2, 3, 4, 0x12, 0x34])
    assert Endpoint("::1", 1).packed == bytes(15) + b"\1" + b"\0\1"
    assert Endpoint("::1", 1).is_ipv6
    assert not Endpoint("1.2.3.4", 1).is_ipv6


def test_source_is_not_part_of_the_remote() -> None:
    known = Endpoint("fe80::1", 5, 3, source=bytes(16), source_ifindex=3)
    assert known.without_source() == Endpoint("fe80::1", 5, 3)
    assert known.same_remote(known.without_source())
    assert not known.same_remote(Endpoint("fe80::1", 5, 4))
