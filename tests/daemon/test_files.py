"""Files that root reads and writes in a directory of another user, who replaces files at the worst moment."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.nobody import NOBODY
from wgpy.daemon import files, firewall, leftovers
from wgpy.daemon.files import changing, new_file, own_directory, replace_own, replace_text
from wgpy.daemon.leftovers import Leftovers
from wgpy.errors import ConfigError

root = pytest.mark.root


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory of another user, and beside it a secret of root's."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    (tmp_path / "secret").touch(mode=0o600)
    return directory


def at_the_sync(monkeypatch: pytest.MonkeyPatch, swap: Callable[[], None]) -> None:
    """Run `swap` once, just after a new file was synced, which is when the directory's owner would attack."""
    sync = os.fsync
    done: list[bool] = []

    def fsync(fd: int) -> None:
        sync(fd)
        if not done:
            done.append(True)
            swap()

    monkeypatch.setattr(os, "fsync", fsync)


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, status.st_mode & 0o777


@root
def test_a_new_file_that_is_swapped_for_a_link_leaks_nothing(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, secret = theirs / "wg0.conf", theirs.parent / "secret"
    path.write_text("before")
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o644)

    def swap() -> None:
        for fresh in set(theirs.iterdir()) - {path}:
            fresh.unlink()
            fresh.symlink_to(secret)

    at_the_sync(monkeypatch, swap)
    with pytest.raises(ConfigError, match="another program replaced it at the same time"):
        replace_text(path, "after")
    assert owner_and_mode(secret) == (0, 0, 0o600)
    assert secret.read_text() == ""


@root
def test_a_directory_that_is_swapped_for_a_link_is_not_followed(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = theirs.parent / "ours"
    ours.mkdir()
    (ours / "wg0.conf").write_text("root's")
    (theirs / "wg0.conf").write_text("before")

    def swap() -> None:
        theirs.rename(theirs.with_name("moved"))
        theirs.symlink_to(ours)

    at_the_sync(monkeypatch, swap)
    replace_text(theirs / "wg0.conf", "after")
    assert (ours / "wg0.conf").read_text() == "root's"
    assert (theirs.with_name("moved") / "wg0.conf").read_text() == "after"


@root
def test_the_file_that_was_read_is_the_one_replaced(theirs: Path) -> None:
    ours = theirs.parent / "ours"
    ours.mkdir()
    (ours / "wg0.conf").write_text("root's")
    path = theirs / "wg0.conf"
    path.write_text("before")
    with changing(path) as held:
        theirs.rename(theirs.with_name("moved"))
        theirs.symlink_to(ours)
        held.replace(held.read()[0] + " and after")
    assert (ours / "wg0.conf").read_text() == "root's"
    assert (theirs.with_name("moved") / "wg0.conf").read_text() == "before and after"


@root
def test_a_clients_file_that_is_swapped_gets_no_link(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = theirs.parent / "secret"

    def swap() -> None:
        for fresh in theirs.iterdir():
            fresh.unlink()
            fresh.symlink_to(secret)

    at_the_sync(monkeypatch, swap)
    with new_file(theirs / "alice.conf", b"keys"):
        pass
    assert secret.stat().st_nlink == 1
    assert secret.read_text() == ""


@pytest.mark.parametrize("is_link", [True, False])
def test_an_existing_file_in_the_way_of_a_new_one_stays(tmp_path: Path, is_link: bool) -> None:
    target, path = tmp_path / "target", tmp_path / "alice.conf"
    if is_link:
        path.symlink_to(target)
    else:
        path.write_text("mine")
    with pytest.raises(FileExistsError), new_file(path, b"keys"):
        pass
    assert not target.exists()
    assert is_link or path.read_text() == "mine"


@root
def test_our_own_files_are_not_put_where_another_user_could_swap_them(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        replace_own(theirs / "wg0.left", b"{}")
    assert list(theirs.iterdir()) == []
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for each in (False, True):
        with pytest.raises(PermissionError, match=f"chmod 755 {open_to_all}"), own_directory(open_to_all, shared=each):
            pass
    open_to_all.chmod(0o770)
    with pytest.raises(PermissionError), own_directory(open_to_all):
        pass
    with own_directory(open_to_all, shared=True):
        pass
    with pytest.raises(PermissionError), own_directory(theirs, shared=True):
        pass


def test_a_link_in_place_of_our_own_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "timestamp-floor"
    path.symlink_to(target)
    replace_own(path, b"7\n")
    assert path.read_bytes() == b"7\n"
    assert not path.is_symlink()
    assert not target.exists()


@root
def test_owner_mode_and_access_list_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text("before")
    os.chown(path, NOBODY, 7)
    path.chmod(0o640)
    # user::rw- user:65534:r-- group::--- mask::r-- other::---, as acl(5) stores it
    access = bytes.fromhex(
        "02000000 01000600ffffffff 02000400feff0000 04000000ffffffff 10000400ffffffff 20000000ffffffff"
    )
    os.setxattr(path, "system.posix_acl_access", access)
    before = owner_and_mode(path)
    replace_text(path, "after")
    assert path.read_text() == "after"
    assert owner_and_mode(path) == before
    assert os.getxattr(path, "system.posix_acl_access") == access


@pytest.mark.parametrize("refused", ["fchown", "setxattr", "replace", "open"])
def test_a_file_that_cannot_be_replaced_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Root without CAP_CHOWN; a file with an ACL, bind-mounted from elsewhere; a directory that is not writable."""
    path = tmp_path / "wg0.conf"
    path.write_text("a longer text before")
    inode, call = path.stat().st_ino, getattr(os, refused)

    def refuse(*arguments: Any, **options: Any) -> Any:
        if refused == "open" and not arguments[1] & os.O_CREAT:
            return call(*arguments, **options)
        raise OSError({"replace": errno.EBUSY, "setxattr": errno.ENOTSUP}.get(refused, errno.EPERM), "refused")

    monkeypatch.setattr(os, refused, refuse)
    if refused == "fchown":
        monkeypatch.setattr(files, "_copy_access", lambda old, new: os.fchown(new, 0, 7))
    if refused == "setxattr":
        monkeypatch.setattr(os, "getxattr", lambda *_: b"a list")
    replace_text(path, "after")
    assert path.read_text() == "after"
    assert path.stat().st_ino == inode
    assert list(tmp_path.iterdir()) == [path]


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "wg0.conf")
    with pytest.raises(ConfigError, match="not a regular file"), changing(tmp_path / "wg0.conf"):
        pass


def test_circular_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(ConfigError, match="Too many levels of symbolic links"):
        replace_text(tmp_path / "one", "after")


def test_a_lock_that_is_never_released_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wg0.conf"
    path.touch()
    monkeypatch.setattr(files, "_PATIENCE", 0.0)
    with path.open() as anybody:
        fcntl.flock(anybody, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process holds a lock on it"), changing(path):
            pass


def test_a_lock_on_the_directory_blocks_nothing(tmp_path: Path) -> None:
    """Any user who may list the directory can lock it."""
    path = tmp_path / "wg0.conf"
    path.write_text("before")
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    change = (
        "from pathlib import Path; from wgpy.daemon.files import changing\n"
        f"with changing(Path({str(path)!r})): print('changed')"
    )
    done = subprocess.run([sys.executable, "-c", change], capture_output=True, text=True, timeout=20)
    os.close(directory)
    assert done.stdout == "changed\n"


def test_after_waiting_for_the_lock_the_present_file_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text("one")

    def wait_and_add() -> None:
        with changing(path) as held:
            held.replace(held.read()[0] + " three")

    with changing(path) as held:
        waiting = threading.Thread(target=wait_and_add)
        waiting.start()
        held.replace("one two")
    waiting.join(60)
    assert path.read_text() == "one two three"


def test_a_public_file_is_world_readable_whatever_the_umask(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = os.umask(0o077)
    try:
        replace_own(tmp_path / "floor", b"1", 0o644)
        replace_own(tmp_path / "secret", b"1")
    finally:
        os.umask(before)
    assert owner_and_mode(tmp_path / "floor")[2] == 0o644
    assert owner_and_mode(tmp_path / "secret")[2] == 0o600


@pytest.mark.parametrize("mask", [0o077, 0])
def test_a_new_directory_is_world_readable_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with own_directory(tmp_path / "run" / "wireguard"):
            pass
    finally:
        os.umask(before)
    assert owner_and_mode(tmp_path / "run" / "wireguard")[2] == 0o755
    (tmp_path / "run" / "wireguard").chmod(0o700)  # by whoever looks after this machine
    with own_directory(tmp_path / "run" / "wireguard"):
        pass
    assert owner_and_mode(tmp_path / "run" / "wireguard")[2] == 0o700


def _become_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@root
@pytest.mark.parametrize(
    "spoil",
    [lambda path: os.chown(path, NOBODY, NOBODY), lambda path: path.chmod(0o644), _become_a_link, _become_a_fifo],
    ids=["theirs", "read by others", "a link", "a FIFO"],
)
def test_notes_of_a_killed_daemon_are_read_only_from_a_file_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(leftovers, "RUN_DIRECTORY", tmp_path)
    monkeypatch.setattr(firewall, "remove", lambda name, version: None)
    tmp_path.chmod(0o755)
    for is_spoilt in (False, True):
        Leftovers("wg0").add(4)
        if is_spoilt:
            spoil(tmp_path / "wg0.left")
        said: list[str] = []
        assert Leftovers("wg0").clear(said.append) is not is_spoilt
        assert bool(said) is not is_spoilt


def test_a_directory_that_cannot_be_synced_does_not_fail_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The error once said that the file was unchanged, although it had the new text."""
    path, sync = tmp_path / "wg0.conf", os.fsync
    path.write_text("before")

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    replace_text(path, "after")
    assert path.read_text() == "after"
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: written, but the old text may come back after a power failure: Input/output error"
    ]


def test_a_disk_that_fails_while_the_old_file_is_overwritten_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error once said that the file was unchanged, and the complete copy was removed."""
    path, sync = tmp_path / "wg0.conf", os.fsync
    path.write_text("before")

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def fsync(fd: int) -> None:
        if os.path.samestat(os.fstat(fd), path.stat()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ConfigError, match="only partly written: Input/output error; the complete text is in"):
        replace_text(path, "after")
    (whole,) = tmp_path.glob("wg0.conf.complete-*")
    assert whole.read_text() == "after"
    assert owner_and_mode(whole)[2] & 0o077 == path.stat().st_mode & 0o077
