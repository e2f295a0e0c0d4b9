"""TAI64N stamps: wireguard-go's TestMonotonic, and the base of the kernel."""

from __future__ import annotations

from wgpy.noise.tai64n import tai64n


def test_the_base_is_ten_seconds_after_1970() -> None:
    assert tai64n(0).hex() == "400000000000000a00000000"
    assert tai64n(1_700_000_000_000_000_000).hex() == "400000006553f10a00000000"


def test_small_steps_of_time_are_hidden_and_larger_ones_keep_their_order() -> None:
    start = 123_456_789
    for hidden in (10, 10_000, 1_000_000, 10_000_000):
        assert tai64n(start + hidden) <= tai64n(start)
    for seen in (20_000_000, 10**9, 10**12):
        assert tai64n(start + seen) > tai64n(start)


def test_the_largest_nanosecond_stays_below_a_second() -> None:
    assert int.from_bytes(tai64n(999_999_999)[8:], "big") < 10**9
    assert tai64n(999_999_999) < tai64n(10**9)
