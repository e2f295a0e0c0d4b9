"""Word of changes in a directory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wgpy.daemon import watch
from wgpy.daemon.watch import DirectoryWatch


def test_each_change_is_told_and_nothing_else_is(tmp_path: Path) -> None:
    async def main() -> None:
        old, new = tmp_path / "old", tmp_path / "new"
        with DirectoryWatch(tmp_path) as directory:
            for change in (lambda: old.write_text(""), lambda: old.rename(new), new.unlink):
                waiting = asyncio.ensure_future(directory.changed())
                await asyncio.sleep(0.02)
                assert not waiting.done()
                change()
                await asyncio.wait_for(waiting, 60)

    asyncio.run(main())


def test_a_change_between_two_looks_is_not_missed(tmp_path: Path) -> None:
    async def main() -> None:
        with DirectoryWatch(tmp_path) as directory:
            (tmp_path / "early").touch()
            await asyncio.wait_for(directory.changed(), 10)

    asyncio.run(main())


def test_without_a_watch_one_looks_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_WITHOUT", 0.01)

    async def main() -> None:
        with DirectoryWatch(tmp_path / "missing") as directory:
            await asyncio.wait_for(directory.changed(), 10)

    asyncio.run(main())
