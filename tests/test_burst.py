"""Bursts and datagrams: the layout of the buffers that packets move in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.burst import _MAX_MADE, _MAX_MADE_FOR, _MAX_VIEWS, Burst, Datagrams, ViewCache, padded_length
from wgpy.tun.checksum import Rows


def kernel_padding(length: int, mtu: int) -> int:
    """calculate_skb_padding of the kernel's send.c, as it stands there."""
    if mtu == 0:
        return (length + 15) // 16 * 16 - length
    last = length % mtu if length > mtu else length
    return min(mtu, (last + 15) // 16 * 16) - last


@given(st.integers(0, 70000), st.one_of(st.just(0), st.integers(1, 65535)))
def test_padding_is_as_the_kernels(length: int, mtu: int) -> None:
    assert padded_length(length, (mtu,) if mtu else ()) == length + kernel_padding(length, mtu)


@given(st.integers(0, 300), st.sets(st.integers(1, 200), min_size=1, max_size=4))
def test_padding_never_exceeds_the_kernels_for_any_route(length: int, mtus: set[int]) -> None:
    taking = {mtu for mtu in mtus if length <= mtu} or {max(mtus)}
    assert padded_length(length, tuple(sorted(mtus))) == length + min(kernel_padding(length, mtu) for mtu in taking)


@pytest.mark.parametrize(
    ("length", "mtu", "padded"), [(0, 1420, 0), (1, 1420, 16), (1420, 1420, 1420), (1410, 1420, 1420)]
)
def test_padding_stops_at_the_mtu(length: int, mtu: int, padded: int) -> None:
    assert padded_length(length, (mtu,)) == padded


@given(st.binary(max_size=200), st.integers(0, 300))
def test_one_packet_has_its_header_padding_and_tag_around_it(packet: bytes, mtu: int) -> None:
    burst = Burst.of(packet, mtu)
    assert len(burst) == 1
    assert len(burst.view) == burst.stride == 16 + padded_length(len(packet), (mtu,) if mtu else ()) + 16
    assert burst.view[:16] == bytes(16)
    assert bytes(burst.packet(0)) == packet
    assert not any(burst.view[16 + len(packet) :])


def test_empty_slots_of_a_burst_are_skipped() -> None:
    view = memoryview(bytearray(range(150)))
    burst = Burst(view, 50, [3, 0, 2])
    assert [bytes(packet) for packet in burst.packets()] == [bytes([16, 17, 18]), bytes([116, 117])]


def test_packets_taken_apart_keep_their_padding() -> None:
    view = memoryview(bytearray(range(140)))
    first, last = Burst(view, 50, [3, 0, 2]).singles()
    view[:] = bytes(140)
    assert (bytes(first.packet(0)), first.lengths, first.stride, len(first.view)) == (bytes([16, 17, 18]), [3], 50, 50)
    assert (bytes(last.packet(0)), last.lengths, last.stride, len(last.view)) == (bytes([116, 117]), [2], 40, 40)


def test_a_copy_keeps_its_own_bytes_and_lengths() -> None:
    burst = Burst.of(b"packet")
    copy = burst.copy()
    burst.packet(0)[:] = b"\0" * 6
    burst.lengths[0] = 0
    assert [bytes(packet) for packet in copy.packets()] == [b"packet"]


@given(st.binary(min_size=1, max_size=100), st.integers(1, 120))
def test_datagrams_are_cut_at_the_segment_size(payload: bytes, size: int) -> None:
    datagrams = Datagrams(memoryview(bytearray(payload)), size)
    parts = [bytes(datagram) for datagram in datagrams]
    assert len(parts) == len(datagrams)
    assert b"".join(parts) == payload
    assert all(len(part) == size for part in parts[:-1])


def test_an_empty_datagram_is_ignored() -> None:
    assert list(Datagrams.of(b"")) == []


def test_what_a_reader_remembers_is_bounded() -> None:
    buffer = memoryview(bytearray(1 << 17))
    cache = ViewCache(buffer)
    for stride in range(32, 2000):
        cache.views(16, stride, stride - 16, min(1024, len(buffer) // stride))
        assert sum(map(len, cache._views.values())) <= _MAX_VIEWS
        for count in range(len(buffer) // stride, 0, -97):  # the other way round, more views would empty it before
            assert list(map(len, cache.bodies(stride, count).plaintexts)) == [stride - 32] * count
        assert len(cache._bodies) <= _MAX_MADE
        assert sum(count for _, count in cache._bodies) <= _MAX_MADE_FOR
        assert cache.recall(lambda *shape: shape[1:], 16, stride, 100) == (16, stride, 100)
        assert len(cache._made) <= _MAX_MADE
        assert sum(count for _, _, _, count in cache._made) <= _MAX_MADE_FOR
    known = cache.views(16, 1999, 1999 - 16, 3)
    assert known is cache.views(16, 1999, 1999 - 16, 2)
    assert cache.recall(Rows, 16, 1999, 3, 40) is cache.recall(Rows, 16, 1999, 3, 40)
    assert [len(body) for body in known[:3]] == [1999 - 16] * 3
