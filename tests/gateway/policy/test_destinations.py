"""The grammar of destinations."""

from __future__ import annotations

import pytest

from wgpy.errors import ConfigError
from wgpy.gateway.policy.destinations import Destination


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("10.0.0.0/8", ""),
        ("192.168.1.5", ""),
        ("192.168.1.5/32", "192.168.1.5"),
        ("192.168.1.5:443/tcp", ""),
        ("10.0.0.0/8:80,22,8000-8100,8101/TCP", "10.0.0.0/8:22,80,8000-8101/tcp"),
        ("10.0.0.0/8:53", ""),
        ("192.168.1.5:53", ""),
        ("10.0.0.0/8/udp", ""),
        ("10.0.0.0/8:1-65535/udp", "10.0.0.0/8/udp"),
        ("0.0.0.0/0/icmp", ""),
        ("2001:db8::/32", ""),
        ("[2001:db8::/32]", "2001:db8::/32"),
        ("[2001:db8::/32]:443/udp", ""),
        ("[2001:db8::1]/icmp", ""),
        ("::/0", ""),
    ],
)
def test_a_parsed_destination_is_written_the_same_way(text: str, same: str) -> None:
    destination = Destination.parse(text)
    assert str(destination) == (same or text)
    assert Destination.parse(str(destination)) == destination


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is not an address"),
        ("everything", "'everything' is not an address"),
        ("10.0.0.5/8", "write 10.0.0.0/8"),
        ("10.0.0.0/33", "'10.0.0.0/33' is not an address"),
        ("10.0.0.0/8:443/sctp", "tcp, udp or icmp"),
        ("10.0.0.0/8:/tcp", "'' is not a port"),
        ("10.0.0.0/8:0/tcp", "ports go from 1"),
        ("10.0.0.0/8:65536/tcp", "ports go from 1"),
        ("10.0.0.0/8:900000/tcp", "is not a port"),
        ("10.0.0.0/8:9-3/tcp", "the lower one first"),
        ("10.0.0.0/8:80,,81/tcp", "'' is not a port"),
        ("10.0.0.0/8:٣/tcp", "is not a port"),
        ("10.0.0.0/8:5/icmp", "ICMP has no ports"),
        ("2001:db8::1:443/tcp", "expected a prefix"),  # which could be a port or a part of the address
        ("[fe80::1%eth0]", "expected a prefix"),
        ("[10.0.0.0/8", "expected a prefix"),
        ("10.0.0.0/8:80/tcp; flush ruleset", "expected a prefix"),
    ],
)
def test_an_error_says_what_to_write_instead(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        Destination.parse(text)
    assert str(error.value).startswith(f"destination {text!a}: ")
    assert why in str(error.value)


def test_ports_include_their_ends_and_no_other_protocol() -> None:
    destination = Destination.parse("10.0.0.0/8:80-90/tcp")
    assert destination.includes("tcp", 80)
    assert destination.includes("tcp", 90)
    assert not destination.includes("tcp", 91)
    assert not destination.includes("udp", 80)
    assert not destination.includes("icmp", 0)
    assert Destination.parse("10.0.0.0/8").includes("gre", 0)
    assert Destination.parse("10.0.0.0/8/icmp").includes("icmp", 0)
