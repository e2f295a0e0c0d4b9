"""Allowed IPs against the kernel's self-tests (selftest/allowedips.c)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from random import Random
from types import FrameType
from typing import Any

import pytest

from wgpy.device.allowedips import AllowedIPs

Network = IPv4Network | IPv6Network

KERNEL_INSERTS = [
    ("192.168.4.0/24", "a"),
    ("192.168.4.4/32", "b"),
    ("192.168.0.0/16", "c"),
    ("192.95.5.64/27", "d"),
    ("192.95.5.65/27", "c"),  # masked it is the same prefix: d loses it
    ("2607:5300:6000:6b00::c05f:543/128", "d"),
    ("2607:5300:6000:6b00::/64", "c"),
    ("0.0.0.0/0", "e"),
    ("::/0", "e"),
    ("::/0", "f"),  # e loses it
    ("2404:6800::/32", "g"),
    ("2404:6800:4004:800:dead:beef:dead:beef/64", "h"),
    ("2404:6800:4004:800:dead:beef:dead:beef/128", "a"),
    ("2444:6800:40e4:800:deae:beef:def:beef/128", "c"),
    ("2444:6800:f0e4:800:eeae:beef::/98", "b"),
    ("64.15.112.0/20", "g"),
    ("64.15.123.211/25", "h"),
    ("10.0.0.0/25", "a"),
    ("10.0.0.128/25", "b"),
    ("10.1.0.0/30", "a"),
    ("10.1.0.4/30", "b"),
    ("10.1.0.8/29", "c"),
    ("10.1.0.16/29", "d"),
]

KERNEL_LOOKUPS = [
    ("192.168.4.20", "a"),
    ("192.168.4.0", "a"),
    ("192.168.4.4", "b"),
    ("192.168.200.182", "c"),
    ("192.95.5.68", "c"),
    ("192.95.5.96", "e"),
    ("2607:5300:6000:6b00::c05f:543", "d"),
    ("2607:5300:6000:6b00::c02e:1ee", "c"),
    ("2607:5300:6000:6b01::", "f"),
    ("2404:6800:4004:806::1006", "g"),
    ("2404:6800:4004:806:0:1234:0:5678", "g"),
    ("2404:67ff:4004:806:0:1234:0:5678", "f"),
    ("2404:6801:4004:806:0:1234:0:5678", "f"),
    ("2404:6800:4004:800:0:1234:0:5678", "h"),
    ("2404:6800:4004:800::", "h"),
    ("2404:6800:4004:800:1010:1010:1010:1010", "h"),
    ("2404:6800:4004:800:dead:beef:dead:beef", "a"),
    ("64.15.116.26", "g"),
    ("64.15.127.3", "g"),
    ("64.15.123.1", "g"),
    ("64.15.123.128", "h"),
    ("64.15.123.129", "h"),
    ("10.0.0.52", "a"),
    ("10.0.0.220", "b"),
    ("10.1.0.2", "a"),
    ("10.1.0.6", "b"),
    ("10.1.0.10", "c"),
    ("10.1.0.20", "d"),
]


def network(text: str) -> Network:
    return ip_network(text, strict=False)


def packed(text: str) -> bytes:
    return ip_address(text).packed


def table(*inserts: tuple[str, str]) -> AllowedIPs[str]:
    allowed_ips: AllowedIPs[str] = AllowedIPs()
    for text, owner in inserts:
        allowed_ips.insert(network(text), owner)
    return allowed_ips


@pytest.fixture(scope="module")
def kernel_table() -> AllowedIPs[str]:
    return table(*KERNEL_INSERTS)


@pytest.mark.parametrize(("address", "owner"), KERNEL_LOOKUPS)
def test_kernel_lookups(kernel_table: AllowedIPs[str], address: str, owner: str) -> None:
    assert kernel_table.lookup(packed(address)) == owner
    assert kernel_table.lookup(memoryview(bytearray(packed(address)))) == owner  # also from a writable buffer


def test_two_of_the_kernels_inserts_replace_earlier_ones() -> None:
    allowed_ips = table(*KERNEL_INSERTS)
    assert len(allowed_ips) == len(KERNEL_INSERTS) - 2
    assert allowed_ips.networks("e") == (network("0.0.0.0/0"),)
    assert network("192.95.5.64/27") not in allowed_ips.networks("d")


def test_after_removing_the_owner_every_address_misses() -> None:
    addresses = ["1.0.0.0", "64.0.0.0", "128.0.0.0", "192.0.0.0", "255.0.0.0"]
    allowed_ips = table(*[(f"{address}/32", "a") for address in addresses])
    assert [allowed_ips.lookup(packed(address)) for address in addresses] == ["a"] * 5
    allowed_ips.remove_owner("a")
    assert [allowed_ips.lookup(packed(address)) for address in addresses] == [None] * 5
    assert len(allowed_ips) == 0


def test_nested_prefixes_of_one_owner_are_removed_together() -> None:
    allowed_ips = table(("192.168.0.0/16", "a"), ("192.168.0.0/24", "a"))
    allowed_ips.remove_owner("a")
    assert allowed_ips.lookup(packed("192.168.0.1")) is None
    assert len(allowed_ips) == 0


def test_removing_the_inner_prefix_uncovers_the_outer() -> None:
    allowed_ips = table(("192.168.0.0/16", "a"), ("192.168.0.0/24", "b"))
    assert allowed_ips.lookup(packed("192.168.0.1")) == "b"
    allowed_ips.remove(network("192.168.0.0/24"), "b")
    assert allowed_ips.lookup(packed("192.168.0.1")) == "a"


def test_128_prefixes_that_branch_at_every_bit() -> None:
    addresses = [((1 << 128) - 1) ^ (1 << bit) for bit in range(128)]
    allowed_ips: AllowedIPs[int] = AllowedIPs()
    for owner, address in enumerate(addresses):
        allowed_ips.insert(IPv6Network((address, 128)), owner)
    assert [allowed_ips.lookup(address.to_bytes(16, "big")) for address in addresses] == list(range(128))
    for owner in range(128):
        allowed_ips.remove_owner(owner)
    assert len(allowed_ips) == 0
    assert not any(allowed_ips.lookup(address.to_bytes(16, "big")) for address in addresses)


def test_read_back_is_masked_and_in_order() -> None:
    allowed_ips = table(
        ("192.95.5.93/27", "a"),
        ("2607:5300:6000:6b00::c05f:543/128", "a"),
        ("10.1.0.20/29", "a"),
        ("2607:5300:6d8a:6bf8:dab1:f1df:c05f:1523/83", "a"),
        ("2607:5300:6d8a:6bf8:dab1:f1df:c05f:1523/21", "a"),
        ("10.9.0.0/16", "b"),
    )
    assert [str(prefix) for prefix in allowed_ips.networks("a")] == [
        "192.95.5.64/27",
        "2607:5300:6000:6b00::c05f:543/128",
        "10.1.0.16/29",
        "2607:5300:6d8a:6bf8:dab1:e000::/83",
        "2607:5000::/21",
    ]


def test_a_prefix_inserted_again_becomes_the_owners_newest() -> None:
    allowed_ips = table(("10.0.0.0/8", "a"), ("10.0.0.0/16", "a"), ("10.0.0.0/8", "a"))
    assert [str(prefix) for prefix in allowed_ips.networks("a")] == ["10.0.0.0/16", "10.0.0.0/8"]
    assert len(allowed_ips) == 2


def test_a_prefix_inserted_for_another_owner_moves() -> None:
    allowed_ips = table(("10.0.0.0/8", "a"))
    assert allowed_ips.lookup(packed("10.1.2.3")) == "a"
    allowed_ips.insert(network("10.0.0.0/8"), "b")
    assert allowed_ips.lookup(packed("10.1.2.3")) == "b"
    assert (allowed_ips.networks("a"), allowed_ips.networks("b")) == ((), (network("10.0.0.0/8"),))
    allowed_ips.remove_owner("a")
    assert allowed_ips.lookup(packed("10.1.2.3")) == "b"


def test_removing_a_prefix_of_another_owner_or_of_none_does_nothing() -> None:
    allowed_ips = table(("10.0.0.0/8", "a"))
    allowed_ips.remove(network("10.0.0.0/8"), "b")
    allowed_ips.remove(network("10.0.0.0/9"), "a")
    allowed_ips.remove_owner("b")
    assert allowed_ips.networks("a") == (network("10.0.0.0/8"),)
    assert allowed_ips.lookup(packed("10.1.2.3")) == "a"


def test_a_prefix_inserted_into_an_empty_table_is_found() -> None:
    allowed_ips = table()
    assert allowed_ips.lookup(packed("10.1.2.3")) is None
    allowed_ips.insert(network("10.1.2.3/32"), "a")
    assert allowed_ips.lookup(packed("10.1.2.3")) == "a"


def test_the_address_families_are_separate() -> None:
    allowed_ips = table(("0.0.0.0/0", "a"), ("::/96", "b"))
    assert allowed_ips.lookup(packed("1.2.3.4")) == "a"
    assert allowed_ips.lookup(packed("::1.2.3.4")) == "b"
    assert allowed_ips.lookup(packed("::1:0:0:0")) is None


def test_ipv6_blocks_that_share_a_slot_are_kept_apart() -> None:
    allowed_ips = table(("2001:db8::/48", "a"), ("fd00:db8::/64", "b"), ("fd00:db8::/33", "c"), ("fc00::/7", "d"))
    assert allowed_ips.lookup(packed("2001:db8::1")) == "a"
    assert allowed_ips.lookup(packed("fd00:db8::1")) == "b"
    assert allowed_ips.lookup(packed("fd00:db8:1::1")) == "c"
    assert allowed_ips.lookup(packed("fd01:db8::1")) == "d"
    assert allowed_ips.lookup(packed("2001:db8:1::1")) is None


def come_and_go(prefixes: list[IPv4Network]) -> None:
    allowed_ips: AllowedIPs[str] = AllowedIPs()
    allowed_ips.insert(network("255.0.0.0/8"), "b")
    for prefix in prefixes:
        allowed_ips.insert(prefix, "a")
    assert len(allowed_ips) == len(prefixes) + 1
    assert len(allowed_ips.networks("a")) == len(prefixes)
    allowed_ips.remove_owner("a")
    assert len(allowed_ips) == 1


def test_130561_prefixes_of_one_owner_are_added_and_removed() -> None:
    come_and_go([IPv4Network((i << 8, 24)) for i in range(130561)])


def test_four_times_as_many_prefixes_of_one_owner_take_four_times_as_many_steps() -> None:
    def lines_run(count: int) -> int:
        prefixes = [IPv4Network((i << 8, 24)) for i in range(count)]
        lines = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal lines
            lines += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            come_and_go(prefixes)
        finally:
            sys.settrace(before)
        return lines

    assert 10_000 < lines_run(2_000) <= 4 * lines_run(500)


@pytest.mark.parametrize("bits", [32, 128])
def test_random_routes_and_their_near_duplicates_against_a_naive_list(bits: int) -> None:
    random = Random(bits)
    owners = range(100)
    allowed_ips: AllowedIPs[int] = AllowedIPs()
    naive: dict[tuple[int, int], int] = {}  # (prefix length, network) -> owner

    def insert(address: int, prefix_length: int) -> None:
        host_bits = bits - prefix_length
        masked = address >> host_bits << host_bits
        prefix: Network = IPv4Network((masked, prefix_length)) if bits == 32 else IPv6Network((masked, prefix_length))
        owner = random.choice(owners)
        allowed_ips.insert(prefix, owner)
        naive[prefix_length, masked] = owner

    def naive_lookup(address: int) -> int | None:
        for (prefix_length, masked), owner in by_length:
            if (address ^ masked) >> (bits - prefix_length) == 0:
                return owner
        return None

    def compare(count: int) -> None:
        hits = set()
        for _ in range(count):
            known = random.choice(inserted)
            address = random.choice([random.getrandbits(bits), known ^ random.getrandbits(random.randint(1, bits))])
            expected = naive_lookup(address)
            assert allowed_ips.lookup(address.to_bytes(bits // 8, "big")) == expected
            hits.add(expected)
        assert len(hits) > 10  # routes were met, not only missed

    inserted = []
    for _ in range(40):
        route = random.getrandbits(bits)
        inserted.append(route)
        insert(route, random.randint(1, bits))
        for _ in range(20):
            near = route ^ random.getrandbits(bits) & random.getrandbits(bits) & random.getrandbits(bits)
            inserted.append(near)
            insert(near, random.randint(1, bits))
    by_length = sorted(naive.items(), reverse=True)
    assert len(allowed_ips) == len(naive)
    compare(8000)

    for owner in random.sample(owners, 50):
        allowed_ips.remove_owner(owner)
        by_length = [entry for entry in by_length if entry[1] != owner]
    compare(4000)

    for owner in owners:
        allowed_ips.remove_owner(owner)
    assert len(allowed_ips) == 0
    assert all(allowed_ips.lookup(address.to_bytes(bits // 8, "big")) is None for address in inserted)


def test_each_change_counts_for_the_address_that_was_looked_up_last() -> None:
    table: AllowedIPs[str] = AllowedIPs()
    wide, narrow, address = ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16"), ip_address("10.1.2.3").packed
    changes: list[tuple[Callable[[], None], str | None]] = [
        (lambda: table.insert(wide, "a"), "a"),
        (lambda: table.insert(narrow, "b"), "b"),
        (lambda: table.insert(narrow, "c"), "c"),
        (lambda: table.change_owner("c", "d"), "d"),
        (lambda: table.remove(narrow, "d"), "a"),
        (lambda: table.remove_owner("a"), None),
        (lambda: table.insert(wide, "e"), "e"),
    ]
    for change, owner in changes:
        change()
        assert [table.lookup(address), table.lookup(memoryview(address))] == [owner, owner]
