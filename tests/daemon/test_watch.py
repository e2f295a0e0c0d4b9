"""Noticing that a file was deleted or replaced."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wgpy.daemon import watch
from wgpy.daemon.watch import FileWatch


@pytest.mark.parametrize("end", ["unlink", "rename", "replace"])
def test_only_the_end_of_an_interface_is_reported(tmp_path: Path, end: str) -> None:
    async def main() -> None:
        path, other = tmp_path / "file", tmp_path / "other"
        path.touch()
        with FileWatch(path) as watched:
            waiting = asyncio.ensure_future(watched.changed())
            other.touch()  # what happens beside it
            path.read_text()
            await asyncio.sleep(0.05)
            assert not waiting.done()
            if end == "unlink":
                path.unlink()
            else:
                path.rename(other) if end == "rename" else other.rename(path)
            await asyncio.wait_for(waiting, 60)

    asyncio.run(main())


def test_a_change_between_two_checks_is_not_missed(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "early"
        path.touch()
        with FileWatch(path) as watched:
            path.unlink()
            await asyncio.wait_for(watched.changed(), 10)

    asyncio.run(main())


def test_a_file_that_cannot_be_watched_is_checked_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_POLL_INTERVAL", 0.01)

    async def main() -> None:
        with FileWatch(tmp_path / "missing") as watched:
            await asyncio.wait_for(watched.changed(), 10)

    asyncio.run(main())
