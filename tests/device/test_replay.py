"""The replay window against the kernel's self-test (selftest/counter.c)."""

from __future__ import annotations

from collections.abc import Iterable

from wgpy.constants import REJECT_AFTER_MESSAGES, REPLAY_WINDOW
from wgpy.device.replay import ReplayWindow

W = REPLAY_WINDOW
L = W + 1
R = REJECT_AFTER_MESSAGES

KERNEL_TABLE = [
    (0, True), (1, True), (1, False), (9, True), (8, True), (7, True), (7, False),
    (L, True), (L - 1, True), (L - 1, False), (L - 2, True), (2, True), (2, False),
    (L + 16, True), (3, False), (L + 16, False),
    (4 * L, True), (4 * L - (L - 1), True), (10, False), (4 * L - L, False), (4 * L - (L + 1), False),
    (4 * L - (L - 2), True), (4 * L + 1 - L, False), (0, False),
    (R, False), (R - 1, True), (R, False), (R - 1, False), (R - 2, True), (R + 1, False), (R + 2, False),
    (R - 2, False), (R - 3, True), (0, False),
]  # fmt: skip


def answers(counters: Iterable[int]) -> list[bool]:
    window = ReplayWindow()
    return [window.accept(counter) for counter in counters]


def test_the_limits_are_the_kernels() -> None:
    assert W == 8192 - 64
    assert R == 2**64 - 1 - W - 1


def test_kernel_counter_table() -> None:
    window = ReplayWindow()
    for step, (counter, expected) in enumerate(KERNEL_TABLE):
        assert window.accept(counter) is expected, f"step {step}: counter {counter}"


def test_ascending_then_the_oldest_in_the_window() -> None:
    assert answers([*range(1, W + 1), 0, 0]) == [True] * (W + 1) + [False]


def test_ascending_then_one_that_fits_and_one_that_is_too_old() -> None:
    assert answers([*range(2, W + 2), 1, 0]) == [True] * (W + 1) + [False]


def test_descending_over_the_whole_window() -> None:
    assert all(answers(range(W, -1, -1)))


def test_descending_then_one_behind_the_window() -> None:
    assert answers([*range(W + 1, 0, -1), 0]) == [True] * (W + 1) + [False]


def test_descending_then_one_ahead_pushes_the_oldest_out() -> None:
    assert answers([*range(W, 0, -1), W + 1, 0]) == [True] * (W + 1) + [False]


def test_descending_then_the_oldest_and_one_ahead() -> None:
    assert all(answers([*range(W, 0, -1), 0, W + 1]))


def test_newest_is_one_past_the_greatest_accepted() -> None:
    window = ReplayWindow()
    seen = [window.newest]
    for counter in (0, 5, 3, 5, R, R - 1):
        window.accept(counter)
        seen.append(window.newest)
    assert seen == [0, 1, 6, 6, 6, 6, R]


def test_a_jump_over_the_whole_window_forgets_everything_before_it() -> None:
    window = ReplayWindow()
    assert all(window.accept(counter) for counter in range(8192))
    far = 1 << 40
    assert window.accept(far)
    assert all(window.accept(counter) for counter in range(far - W, far))
    assert not window.accept(far - W - 1)
    assert not any(window.accept(counter) for counter in range(far - W, far + 1))


def test_a_jump_across_the_rings_end_forgets_only_what_it_skipped() -> None:
    window = ReplayWindow()
    assert all(window.accept(counter) for counter in range(8190))
    assert window.accept(8196)  # 8190 to 8195 are skipped; their places held nothing and 0 to 3
    assert all(window.accept(counter) for counter in range(8190, 8196))
    assert not any(window.accept(counter) for counter in range(8197))
