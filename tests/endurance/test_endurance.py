"""A few seconds of what `make endurance` does for a quarter of an hour, and that it would notice a leak."""

from __future__ import annotations

import pytest

from tests.endurance.__main__ import GROWTH, Sample, endure, verdict


@pytest.mark.root
def test_memory_and_open_files_do_not_grow_while_keys_are_renewed() -> None:
    assert verdict(endure(20 / 60, print, every=2)) == []


@pytest.mark.parametrize(
    ("resident", "files", "sessions", "complaint"),
    [
        ((10_000, 10_001 + GROWTH), (9, 9), 2, "daemon 1 has grown"),
        ((10_000, 10_000), (10, 9), 2, "daemon 0 had 9 open files"),
        ((10_000, 10_000), (9, 9), 1, "not renewed"),
    ],
)
def test_growth_is_noticed(resident: tuple[int, ...], files: tuple[int, ...], sessions: int, complaint: str) -> None:
    before = Sample(0, (10_000, 10_000), (9, 9), 1)
    assert complaint in verdict([before, Sample(1, resident, files, sessions)])[0]
