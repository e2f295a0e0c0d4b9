"""The latest timestamp is kept across restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wgpy.config.values import InterfaceConfig
from wgpy.daemon import timestamp
from wgpy.daemon.interface import LocalInterface
from wgpy.daemon.timestamp import TimestampFloor
from wgpy.tun.memory import MemoryTun
from wgpy.tunnel import Tunnel

FUTURE = 4 * 10**18  # a time that no clock shows before 2096


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "state" / "floor"
    monkeypatch.setattr(timestamp, "FLOOR_FILE", path)
    return path


def interface(floor: int = 0) -> LocalInterface:
    made = LocalInterface(Tunnel(InterfaceConfig(), tun=MemoryTun("wg0")))
    made.timestamp_floor = floor
    return made


def test_a_saved_timestamp_is_restored_with_a_margin_for_later_ones(file: Path) -> None:
    TimestampFloor(interface(FUTURE)).save()
    again = interface()
    TimestampFloor(again).restore()
    assert again.timestamp_floor == FUTURE + 11 * 10**9


def test_a_clock_ahead_of_the_saved_timestamp_is_used_as_it_is(file: Path) -> None:
    TimestampFloor(interface(10**18)).save()
    again = interface()
    TimestampFloor(again).restore()
    assert again.timestamp_floor == 10**18


def test_processes_killed_before_they_save_begin_with_timestamps_of_their_own(file: Path) -> None:
    TimestampFloor(interface(FUTURE)).save()
    begun = []
    for _ in range(3):
        made = interface()
        TimestampFloor(made).restore()
        begun.append(made.timestamp_floor)
    assert begun == [FUTURE + n * 11 * 10**9 for n in (1, 2, 3)]


def test_restarts_do_not_raise_a_saved_timestamp_that_the_clock_has_passed(file: Path) -> None:
    TimestampFloor(interface(10**18)).save()
    for _ in range(3):
        floor = TimestampFloor(interface())
        floor.restore()
        floor.save()
    assert int(file.read_text()) == 10**18


def test_the_saved_timestamp_never_goes_back(file: Path) -> None:
    for stamp in (FUTURE, FUTURE // 2, FUTURE + 1, FUTURE):
        TimestampFloor(interface(stamp)).save()
    assert int(file.read_text()) == FUTURE + 1
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("content", [None, b"", b"soon", b"\xff\x00"])
def test_without_a_readable_file_nothing_is_changed(file: Path, content: bytes | None) -> None:
    if content is not None:
        file.parent.mkdir()
        file.write_bytes(content)
    made = interface()
    TimestampFloor(made).restore()
    assert made.timestamp_floor == 0


def test_handshakes_are_saved_soon_and_many_of_them_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timestamp, "SAVE_AFTER", 0.01)

    def saved() -> int:
        return int(file.read_text()) if file.exists() else 0

    async def main() -> None:
        made = interface()
        floor = TimestampFloor(made)
        for stamp in (FUTURE, FUTURE + 1):
            made.timestamp_floor = stamp
            floor.handshake()
            floor.handshake()
            assert saved() < stamp
            await asyncio.sleep(0.1)
            assert saved() == stamp

    asyncio.run(main())
