"""The token bucket against the kernel's self-test (selftest/ratelimiter.c), on a virtual clock."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest

from wgpy.device.ratelimiter import RateLimiter

# (milliseconds waited before the step, whether it is allowed)
KERNEL_STEPS = [
    (0, True), (0, True), (0, True), (0, True), (0, True), (0, False),
    (50, True), (0, False),
    (100, True), (0, True), (0, False),
]  # fmt: skip

IPV4 = IPv4Address("8.8.8.8")
IPV6 = IPv6Address("2001:db8:1:2:3:4:5:6")


@pytest.mark.parametrize("boot_time_ms", [0, 1, 851, 10_000_000_007])
def test_kernel_steps_for_ipv4(boot_time_ms: int) -> None:
    limiter = RateLimiter()
    at = boot_time_ms
    for step, (waited, expected) in enumerate(KERNEL_STEPS):
        at += waited
        assert limiter.allow(IPV4.packed, at / 1000) is expected, f"step {step}"
        assert limiter.allow((IPV4 + step + 1).packed, at / 1000), f"step {step}: another source"


@pytest.mark.parametrize("boot_time_ms", [0, 1, 851, 10_000_000_007])
def test_kernel_steps_for_ipv6(boot_time_ms: int) -> None:
    limiter = RateLimiter()
    at = boot_time_ms
    for step, (waited, expected) in enumerate(KERNEL_STEPS):
        at += waited
        within_the_64 = IPv6Address(int(IPV6) ^ step << 13)
        another_64 = IPv6Address(int(IPV6) + (step + 1 << 64))
        assert limiter.allow(within_the_64.packed, at / 1000) is expected, f"step {step}"
        assert limiter.allow(another_64.packed, at / 1000), f"step {step}: another source"


def test_kernel_capacity() -> None:
    limiter = RateLimiter(max_entries=1000)
    assert all(limiter.allow((IPV4 + i).packed, 1.0) for i in range(1000))
    assert not limiter.allow((IPV4 + 1000).packed, 1.0)
    assert limiter.allow(IPV4.packed, 1.0)  # a known source is


def test_a_full_table_takes_new_sources_once_old_ones_idled_over_a_second() -> None:
    limiter = RateLimiter(max_entries=1000)
    assert all(limiter.allow((IPV4 + i).packed, 1.0) for i in range(1000))
    assert not limiter.allow((IPV4 + 1000).packed, 2.0)
    assert all(limiter.allow((IPV4 + 1000 + i).packed, 2.001) for i in range(1000))
    assert not limiter.allow((IPV4 + 2000).packed, 2.001)


def test_a_busy_source_does_not_keep_idle_ones_in_the_table() -> None:
    limiter = RateLimiter(max_entries=2)
    busy, idle, new = IPV4.packed, (IPV4 + 1).packed, (IPV4 + 2).packed
    assert [limiter.allow(busy, 0.0), limiter.allow(idle, 0.1), limiter.allow(busy, 1.0)] == [True] * 3
    assert limiter.allow(new, 1.5)


def test_idle_sources_are_forgotten_when_others_arrive() -> None:
    limiter = RateLimiter()
    for i in range(1000):
        limiter.allow((IPV4 + i).packed, 1.0)
    for _ in range(500):
        limiter.allow(IPV6.packed, 3.0)
    assert len(limiter._buckets) == 1


def test_a_source_that_keeps_being_refused_is_not_forgotten() -> None:
    limiter = RateLimiter()
    allowed = sum(limiter.allow(IPV4.packed, i / 1000) for i in range(10_000))
    assert allowed == 5 + 199  # the burst, and 20 a second in 9.999 s


def test_a_long_wait_fills_the_bucket_no_further_than_the_burst() -> None:
    limiter = RateLimiter()
    limiter.allow(IPV4.packed, 0.0)
    assert [limiter.allow(IPV4.packed, 0.9) for _ in range(6)] == [True] * 5 + [False]


def test_ipv4_and_ipv6_sources_with_the_same_first_bytes_are_apart() -> None:
    limiter = RateLimiter()
    assert [limiter.allow(IPV6.packed[:4], 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert limiter.allow(IPV6.packed, 0.0)


def test_an_address_in_a_reused_buffer_is_copied() -> None:
    limiter = RateLimiter()
    buffer = bytearray(IPV4.packed)
    assert [limiter.allow(memoryview(buffer), 0.0) for _ in range(6)] == [True] * 5 + [False]
    buffer[:] = (IPV4 + 1).packed
    assert limiter.allow(memoryview(buffer), 0.0)
    assert not limiter.allow(IPV4.packed, 0.0)


def test_collecting_never_changes_an_answer() -> None:
    """A bucket is full again after 0.25 s, so forgetting it after a second makes no difference."""
    random = Random(1)
    limiter = RateLimiter()
    tokens: dict[int, tuple[int, int]] = {}  # a plain bucket for each, kept for ever; milliseconds
    at = 0
    answers = []
    for _ in range(5000):
        at += random.choice([0] * 12 + [1, 7, 30, 300, 2000])
        source = random.randrange(4)
        left, last = tokens.get(source, (250, at))
        left = min(250, left + at - last)
        tokens[source] = (left - 50 if left >= 50 else left, at)
        answers.append(left >= 50)
        assert limiter.allow((IPV4 + source).packed, at / 1000) is answers[-1]
    assert min(answers.count(True), answers.count(False)) > 20  # the walk met full and empty buckets
