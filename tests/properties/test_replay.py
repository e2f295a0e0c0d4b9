"""The replay window does what a set of every counter ever accepted would do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wgpy.constants import REJECT_AFTER_MESSAGES, REPLAY_WINDOW
from wgpy.device.replay import ReplayWindow

# Counters are drawn as steps from the newest, with the edges of the window and of the ring of 8192 likely.
near = st.integers(-20, 20)
edge = st.builds(int.__add__, st.sampled_from([-8192, -REPLAY_WINDOW, 0, REPLAY_WINDOW, 8192]), st.integers(-3, 3))
steps = st.one_of(near, near, edge, st.integers(-9000, 9000), st.integers(-(1 << 63), 1 << 63))
starts = st.one_of(st.just(0), st.integers(0, 20000), st.integers(REJECT_AFTER_MESSAGES - 20000, (1 << 64) - 1))


class SetOracle:
    def __init__(self) -> None:
        self.accepted: set[int] = set()

    def accept(self, counter: int) -> bool:
        greatest = max(self.accepted, default=0)
        new = counter not in self.accepted
        if not new or counter >= REJECT_AFTER_MESSAGES or counter < greatest - REPLAY_WINDOW:
            return False
        self.accepted.add(counter)
        return True


@given(starts, st.lists(steps, max_size=60))
def test_the_window_agrees_with_a_set_of_all_accepted_counters(start: int, jumps: list[int]) -> None:
    window, oracle = ReplayWindow(), SetOracle()
    counters = [start]
    assert window.accept(start) is oracle.accept(start)
    for jump in jumps:
        counter = min(max(0, window.newest + jump), (1 << 64) - 1)
        counters.append(counter)
        assert window.accept(counter) is oracle.accept(counter), counters
        assert window.newest == max(oracle.accepted, default=-1) + 1


@given(st.integers(0, 1 << 62), st.lists(st.integers(0, REPLAY_WINDOW), max_size=60))
def test_each_counter_within_the_window_is_accepted_exactly_once(base: int, offsets: list[int]) -> None:
    window = ReplayWindow()
    accepted = [offset for offset in offsets if window.accept(base + offset)]
    assert sorted(accepted) == sorted(set(offsets))


@given(starts, st.lists(st.tuples(steps, st.integers(1, 100)), max_size=30))
def test_a_run_is_accepted_whole_if_and_only_if_all_of_it_is_newer(start: int, runs: list[tuple[int, int]]) -> None:
    together, alone = ReplayWindow(), ReplayWindow()
    assert together.accept(start) is alone.accept(start)
    for jump, count in runs:
        first = min(max(0, together.newest + jump), (1 << 64) - count)
        counters = tuple(range(first, first + count))
        newer = first >= alone.newest and counters[-1] < REJECT_AFTER_MESSAGES
        assert not together.accept_run((counters[0], counters[-1] + 2))
        assert together.accept_run(counters) is newer
        one_by_one = [alone.accept(counter) for counter in counters]
        assert all(one_by_one) or not newer
        assert newer or [together.accept(counter) for counter in counters] == one_by_one
        assert together.newest == alone.newest
        assert together._seen == alone._seen
