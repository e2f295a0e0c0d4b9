"""Which files commands trust."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.nobody import NOBODY
from wgpy.cli.files import load
from wgpy.errors import ConfigError


@pytest.mark.root
def test_hooks_are_judged_by_the_file_they_were_read_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link in another user's directory leads to their file when it is read, and to root's right after that."""
    theirs, ours, link = tmp_path / "theirs.conf", tmp_path / "ours.conf", tmp_path / "wg0.conf"
    theirs.write_text("[Interface]\nPreUp = id\n")
    theirs.chmod(0o600)
    os.chown(theirs, NOBODY, NOBODY)
    ours.touch(mode=0o600)
    link.symlink_to(theirs)
    opened = Path.open

    def open_then_swap(path: Path, *arguments: Any) -> Any:
        file = opened(path, *arguments)
        link.unlink()
        link.symlink_to(ours)
        return file

    monkeypatch.setattr(Path, "open", open_then_swap)
    with pytest.raises(ConfigError, match="has hooks, and others than root may write it"):
        load(str(link))
