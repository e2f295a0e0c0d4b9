"""Whatever is inserted, moved and removed, in whatever order: allowed IPs answer as a plain list of prefixes would."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from hypothesis import given
from hypothesis import strategies as st

from wgpy.device.allowedips import AllowedIPs

Network = IPv4Network | IPv6Network


class PlainList:
    """Prefixes with their owners in order of insertion, searched from end to end."""

    def __init__(self) -> None:
        self.entries: list[tuple[Network, str]] = []

    def insert(self, network: Network, owner: str) -> None:
        self.entries = [entry for entry in self.entries if entry[0] != network]
        self.entries.append((network, owner))

    def remove(self, network: Network, owner: str) -> None:
        self.entries = [entry for entry in self.entries if entry != (network, owner)]

    def remove_owner(self, owner: str) -> None:
        self.entries = [entry for entry in self.entries if entry[1] != owner]

    def lookup(self, address: bytes) -> str | None:
        known = ip_address(address)
        holding = [entry for entry in self.entries if known.version == entry[0].version and known in entry[0]]
        return max(holding, key=lambda entry: entry[0].prefixlen)[1] if holding else None

    def networks(self, owner: str) -> tuple[Network, ...]:
        return tuple(network for network, its_owner in self.entries if its_owner == owner)


# Few distinct bits, so that prefixes nest, collide and move, and addresses meet them; some on both sides of the edge of
# the blocks for which prefix lengths are noted, /16 of IPv4 and /32 of IPv6.
few, fewer = st.integers(0, 7), st.sampled_from([0, 1, 2])
v4 = st.builds(lambda high, edge, low: high << 29 | edge << 15 | low, few, fewer, fewer)
v6 = st.builds(lambda high, edge, low: high << 125 | edge << 95 | low, few, fewer, fewer)
v4_lengths = st.sampled_from([0, 1, 2, 3, 14, 15, 16, 17, 18, 30, 31, 32])
v6_lengths = st.sampled_from([0, 1, 2, 3, 30, 31, 32, 33, 34, 126, 127, 128])
addresses = st.one_of(v4.map(IPv4Address), v6.map(IPv6Address)).map(lambda address: address.packed)
networks = st.one_of(
    st.builds(lambda a, p: IPv4Network((a, p), strict=False), v4, v4_lengths),
    st.builds(lambda a, p: IPv6Network((a, p), strict=False), v6, v6_lengths),
)
owners = st.sampled_from("abc")
operations = st.one_of(
    st.tuples(st.just("insert"), networks, owners),
    st.tuples(st.just("insert"), networks, owners),
    st.tuples(st.just("remove"), networks, owners),
    st.tuples(st.just("remove_owner"), networks, owners),
)


@given(st.lists(operations, max_size=40), st.lists(addresses, min_size=1, max_size=8))
def test_lookups_agree_with_a_plain_list(steps: list[tuple[str, Network, str]], probes: list[bytes]) -> None:
    allowed_ips: AllowedIPs[str] = AllowedIPs()
    plain = PlainList()
    for operation, network, owner in steps:
        for each in (allowed_ips, plain):
            if operation == "insert":
                each.insert(network, owner)
            elif operation == "remove":
                each.remove(network, owner)
            else:
                each.remove_owner(owner)
        for probe in (*probes, network.network_address.packed):
            assert allowed_ips.lookup(probe) == plain.lookup(probe)
    for _, network, _ in steps:
        assert allowed_ips.lookup(network.broadcast_address.packed) == plain.lookup(network.broadcast_address.packed)
    assert len(allowed_ips) == len(plain.entries)
    for owner in "abc":
        assert allowed_ips.networks(owner) == plain.networks(owner)
