"""Which files commands trust."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.nobody import NOBODY
from wgpy.cli import main
from wgpy.cli.files import load
from wgpy.daemon import files
from wgpy.errors import ConfigError
from wgpy.keys import PrivateKey


@pytest.mark.root
def test_hooks_are_trusted_by_the_permissions_of_the_file_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link in another user's directory points to their file while it is read, and to root's right after that."""
    theirs, ours, link = tmp_path / "theirs.conf", tmp_path / "ours.conf", tmp_path / "wg0.conf"
    theirs.write_text("[Interface]\nPreUp = id\n")
    theirs.chmod(0o600)
    os.chown(theirs, NOBODY, NOBODY)
    ours.touch(mode=0o600)
    link.symlink_to(theirs)
    opened = os.open

    def open_then_swap(path: Any, *arguments: Any, **options: Any) -> int:
        file = opened(path, *arguments, **options)
        if path == link:
            link.unlink()
            link.symlink_to(ours)
        return file

    monkeypatch.setattr(os, "open", open_then_swap)
    with pytest.raises(ConfigError, match="has hooks, and users other than root may write it"):
        load(str(link))


COMMANDS = (
    ("check", "{}"),
    ("up", "{}"),
    ("strip", "{}"),
    ("client", "--config", "{}", "list"),
    ("exec", "{}", "true"),
    ("proxy", "wg0.conf", "--socks", "1080", "--auth", "{}"),
    ("setconf", "wg0", "{}"),
    ("set", "wg0", "private-key", "{}"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_fifo_is_refused_with_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wg0.conf").write_text(f"[Interface]\nPrivateKey = {PrivateKey(bytes(32)).base64()}\n")
    os.mkfifo(fifo := tmp_path / "fifo.conf")
    assert main([word.format(fifo) for word in command]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert str(fifo) in said.err.splitlines()[-1]
    assert "FIFO" in said.err or "not a regular file" in said.err


@pytest.mark.parametrize(
    "shell", ["cat wg0.conf | {}/dev/stdin", "{}<(sleep 0.1; cat wg0.conf)", "{}/dev/stdin <wg0.conf"]
)
def test_process_substitution_works_as_a_file(tmp_path: Path, shell: str) -> None:
    lines = "".join(f"# {number}\n" for number in range(30_000))  # more than a pipe takes
    (tmp_path / "wg0.conf").write_text(f"[Interface]\n{lines}ListenPort = 7\nPrivateKey = nonsense\n")
    check = f"{sys.executable} -m wgpy check "
    done = subprocess.run(
        ["bash", "-c", shell.format(check)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ":30003: PrivateKey: expected" in done.stdout, done
    assert done.returncode == 1


def test_dev_null_is_an_empty_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "/dev/null"]) == 0
    assert "/dev/null: ok" in capsys.readouterr().out


def test_a_silent_pipe_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_SILENCE", 0.01)
    readable, writable = os.pipe()
    os.write(writable, b"[Interface]\n")
    with pytest.raises(ConfigError, match=f"/dev/fd/{readable}: no data from this pipe for 0 s"):
        files.read(Path(f"/dev/fd/{readable}"))
    os.close(readable)
    os.close(writable)


@pytest.mark.parametrize("section", ["[Socks5]\nBindAddress = 127.0.0.1:1080", "[http]\nBindAddress = 1\nPort = 2"])
@pytest.mark.parametrize("verb", ["up", "run", "strip"])
def test_for_a_wireproxy_file_the_error_names_the_command_that_serves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, section: str
) -> None:
    path = tmp_path / "wg0.conf"
    path.touch(mode=0o600)
    path.write_text(f"[Interface]\nPrivateKey = {PrivateKey(bytes(32)).base64()}\n\n{section}\n")
    assert main([verb, str(path)]) == 1
    assert capsys.readouterr().err == (
        f"wgpy: {path}: this is a file for wireproxy: `wgpy proxy {path}` serves it, without root\n"
    )
