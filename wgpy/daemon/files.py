"""Reading and writing files as root, safely, in directories that may belong to other users.

The owner of a directory can replace any file in it, at any moment, by another file or a link. So each file is opened
once and checked by its descriptor, a new file gets its owner and mode by its descriptor, and names are resolved
relative to an open directory.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from wgpy.errors import ConfigError

RUN_DIRECTORY: Final = Path("/run/wgpy")
"""Logs of daemons, and what they keep for the time after them."""

_LONGEST: Final = 256 << 20  # bytes; 2^20 peers, the maximum, take less
_PATIENCE: Final = 30.0  # seconds to wait for a lock: whoever may read the file could hold it for ever
_SILENCE: Final = 60.0  # seconds to wait for more data from a pipe
_PIECE: Final = 1 << 20  # bytes per read
_ACL: Final = "system.posix_acl_access"
_CLOEXEC, _NOCTTY, _NOFOLLOW, _NONBLOCK, _IS_DIRECTORY = (  # Windows, where files can be read as well, has none of them
    getattr(os, f"O_{name}", 0) for name in ("CLOEXEC", "NOCTTY", "NOFOLLOW", "NONBLOCK", "DIRECTORY")
)
_DIRECTORY: Final = os.O_RDONLY | _IS_DIRECTORY | _CLOEXEC
_FILE: Final = _NOFOLLOW | _NONBLOCK | _CLOEXEC  # non-blocking, so that opening a FIFO cannot hang
# The directory is not writable; we may not set the owner or ACL; another file is mounted on the name.
_REFUSALS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EOPNOTSUPP})


def read(path: Path) -> tuple[str, os.stat_result]:
    """Read a file: its text, and the status of that same open file. Raises ConfigError.

    A pipe from the shell (`<(...)`, /dev/stdin) is read to its end unless it is silent for a minute; a FIFO is refused,
    because its writer may never come. Bytes that are not UTF-8 become surrogates; a byte order mark is removed.
    """
    if "\n" in str(path):  # the error must not repeat a private key
        raise ConfigError("expected a configuration file's path, not its contents")
    if path == Path():  # an empty name
        raise ConfigError("expected a file, not an empty name or this directory")
    try:
        file = os.open(path, os.O_RDONLY | _NONBLOCK | _NOCTTY | _CLOEXEC)
        try:
            status = os.fstat(file)
            if stat.S_ISFIFO(status.st_mode) and not os.readlink(f"/proc/self/fd/{file}").startswith("pipe:"):
                raise OSError(errno.EINVAL, "expected a file, or a pipe such as `<(...)` or /dev/stdin, not a FIFO")
            if stat.S_ISBLK(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            return _decoded(path, _content(file)), status
        finally:
            os.close(file)
    except OSError as error:
        raise _cannot(path, error) from error


def read_text(path: Path) -> str:
    """Read a file's text only, as `read` does."""
    return read(path)[0]


@contextmanager
def changing(path: Path) -> Iterator[HeldFile]:
    """Open and lock a file while the block changes it; others who call this wait for their turn.

    Raises ConfigError, also if another process holds the lock for 30 seconds.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        with HeldFile(path) as held:
            if held.lock():
                yield held
                return
        if time.monotonic() > until:
            raise ConfigError(f"{path}: another process holds a lock on it: `lslocks` or `fuser -v {path}` shows which")
        time.sleep(0.05)


def replace_text(path: Path, text: str) -> None:
    """Write `text` to the file as `HeldFile.replace` does; a new file has mode 0600. Raises ConfigError."""
    with HeldFile(path, may_be_new=True) as held:
        held.replace(text)


class _PartialWrite(Exception):
    """Overwriting the file failed midway: it holds neither the old text nor the new one."""


class HeldFile:
    """A regular file and its directory, both held open, so that the file replaced is the file that was read.

    Symbolic links are followed once. Raises ConfigError if the file does not exist, unless it `may_be_new`.
    """

    def __init__(self, path: Path, *, may_be_new: bool = False) -> None:
        self._path = path
        self._file: int | None = None  # None if it does not exist yet
        try:
            real = path.resolve()
            self._name = real.name
            self._directory = os.open(real.parent, _DIRECTORY)
        except OSError as error:
            raise _cannot(path, error) from error
        except RuntimeError as error:  # before Python 3.13, for a loop of links
            raise _cannot(path, OSError(errno.ELOOP, os.strerror(errno.ELOOP))) from error
        try:
            self._file = _open_regular(self._name, os.O_RDONLY, self._directory)
        except OSError as error:
            if not (may_be_new and error.errno == errno.ENOENT):
                os.close(self._directory)
                raise _cannot(path, error) from error

    def __enter__(self) -> HeldFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for descriptor in (self._file, self._directory):
            if descriptor is not None:
                os.close(descriptor)

    @property
    def file(self) -> int:
        """The open file's descriptor."""
        assert self._file is not None
        return self._file

    def lock(self) -> bool:
        """Try to lock the file. Returns whether that worked and the name still refers to this file."""
        try:
            import fcntl  # imported here, because only Unix has it, and files can be read on other systems, too

            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return _is_named(self._name, self._directory, self.file)

    def read(self) -> tuple[str, os.stat_result]:
        """Read the text and the status, as the function `read` does. Raises ConfigError."""
        try:
            with open(self.file, "rb", closefd=False) as file:
                file.seek(0)
                return _decoded(self._path, file.read(_LONGEST + 1)), os.fstat(self.file)
        except OSError as error:
            raise _cannot(self._path, error) from error

    def replace(self, text: str) -> None:
        """Write all of the text or none: a new, synced file with the same owner and mode takes the old one's place.

        If that is not permitted (a missing capability, a read-only directory, a mount), the old file is overwritten in
        place. Raises ConfigError, and the file is unchanged; if the disk failed midway through overwriting it, the
        error says so. If only the directory cannot be synced, that is logged.
        """
        content = text.encode("utf-8", errors="surrogateescape")
        try:
            try:
                self._exchange(content)
            except OSError as error:
                if self._file is None or error.errno not in _REFUSALS:
                    raise
                self._overwrite(content)
        except _PartialWrite as error:
            raise ConfigError(f"{self._path}: {error}") from error
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot be written, and is unchanged: {error.strerror}") from error

    def _exchange(self, content: bytes) -> None:
        fresh = f".{self._name}.{os.urandom(4).hex()}"
        with _created(fresh, self._directory, content) as file:
            os.fsync(file)
            try:
                if self._file is not None:
                    _copy_access(self._file, file)
                os.replace(fresh, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            except OSError as error:
                if self._file is None or error.errno not in _REFUSALS:
                    raise
                try:
                    self._overwrite(content)  # while `fresh` is a complete copy
                except _PartialWrite as torn:
                    whole = f"{self._name}.complete-{os.urandom(4).hex()}"
                    os.rename(fresh, whole, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                    raise ConfigError(f"{self._path}: {torn}; the complete text is in {whole} beside it") from torn
                os.unlink(fresh, dir_fd=self._directory)
                return
            if not _is_named(self._name, self._directory, file):
                raise ConfigError(f"{self._path}: another program replaced it at the same time; check what it says now")
        try:
            os.fsync(self._directory)  # so that the new name survives a power failure
        except OSError as error:  # not raised: the file is written, and the caller must not undo what goes with it
            import logging  # imported here because `wgpy show` loads this module and does not log

            told = "%s: written, but the old text may come back after a power failure: %s"
            logging.getLogger("wgpy").warning(told, self._path, error.strerror)

    def _overwrite(self, content: bytes) -> None:
        file = _open_regular(self._name, os.O_WRONLY, self._directory)
        try:
            if not os.path.samestat(os.fstat(file), os.fstat(self.file)):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            _make_room(file, len(content))
            try:
                _write(file, content)
                os.ftruncate(file, len(content))
                os.fsync(file)
            except OSError as error:
                raise _PartialWrite(f"only partly written: {error.strerror}") from error
        finally:
            os.close(file)


@contextmanager
def new_file(path: Path, content: bytes) -> Iterator[None]:
    """Create a file with mode 0600 and sync it; it is removed again if the block raises.

    Raises OSError: FileExistsError if the file exists.
    """
    directory = os.open(path.parent, _DIRECTORY)
    try:
        with _created(path.name, directory, content) as file:
            os.fsync(file)
            os.fsync(directory)
            yield
    finally:
        os.close(directory)


@contextmanager
def own_directory(path: Path, *, shared: bool = False) -> Iterator[int]:
    """Open a directory for the daemons' own files, and create it if it is missing. Yields its descriptor.

    A new directory is readable by all users, whatever the umask, so that they can list the interfaces. In a
    `shared` directory the group may write, because root chose that group. Raises OSError: PermissionError if other
    users may write in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o755)
        is_new = True
    except FileExistsError:
        is_new = False
    directory = os.open(path, _DIRECTORY)
    try:
        status = os.fstat(directory)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (0o002 if shared else 0o022):
            raise PermissionError(errno.EPERM, f"other users may write in {path}: chown root {path}; chmod 755 {path}")
        if is_new:
            os.fchmod(directory, 0o755)
        yield directory
    finally:
        os.close(directory)


def open_own(path: Path) -> int:
    """Open a file for reading that one of our daemons wrote. Returns the descriptor.

    Raises OSError: PermissionError if another user owns or may read the file.
    """
    with own_directory(path.parent) as directory:
        file = _open_regular(path.name, os.O_RDONLY, directory)
    status = os.fstat(file)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        os.close(file)
        raise PermissionError(errno.EPERM, "another user owns it, or may read it", str(path))
    return file


def read_own(path: Path) -> bytes:
    """Read what `replace_own` wrote. Raises OSError as `open_own` does."""
    with open(open_own(path), "rb") as file:
        return file.read(_LONGEST)


def replace_own(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file in a directory of our own, atomically replacing what was there. Raises OSError."""
    fresh = f".{path.name}.{os.urandom(4).hex()}"
    with own_directory(path.parent) as directory, _created(fresh, directory, content) as file:
        os.fchmod(file, mode)  # despite our umask, which is 0077 in the systemd units
        os.replace(fresh, path.name, src_dir_fd=directory, dst_dir_fd=directory)


@contextmanager
def _created(name: str, directory: int, content: bytes) -> Iterator[int]:
    """Create a file with this content and mode 0600; it is removed again if the block raises."""
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=directory)
    try:
        _write(file, content)
        yield file
    except BaseException:  # including KeyboardInterrupt
        if _is_named(name, directory, file):
            os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(file)


def _open_regular(name: str, flags: int, directory: int) -> int:
    """Open a file. Raises OSError, also if it is a symbolic link or not a regular file."""
    file = os.open(name, flags | _FILE, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def _is_named(name: str, directory: int, file: int) -> bool:
    """Whether the name still refers to the open file."""
    with suppress(OSError):
        return os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), os.fstat(file))
    return False


def _copy_access(old: int, new: int) -> None:
    """Give a file the owner, mode and ACL of another; without the ACL, the mode has another meaning (acl(5))."""
    status = os.fstat(old)
    if (status.st_uid, status.st_gid) != (os.fstat(new).st_uid, os.fstat(new).st_gid):
        os.fchown(new, status.st_uid, status.st_gid)
    os.fchmod(new, stat.S_IMODE(status.st_mode))
    try:
        access = os.getxattr(old, _ACL)
    except OSError:
        return  # the file has none, or the file system does not support them
    os.setxattr(new, _ACL, access)


def _make_room(file: int, size: int) -> None:
    """Reserve disk space before the old text is overwritten. Raises OSError if the disk is full."""
    before = os.fstat(file).st_size
    try:
        if size > before:
            os.posix_fallocate(file, 0, size)
    except OSError as error:
        os.ftruncate(file, before)
        if error.errno != errno.EOPNOTSUPP:
            raise


def _write(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def _content(file: int) -> bytes:
    """Read to the end, or until the limit is exceeded. Raises OSError, also if a pipe stays silent."""
    content = bytearray()
    readable = select.poll()
    readable.register(file, select.POLLIN)
    patience = None if os.isatty(file) else _SILENCE * 1000  # wait for ever on a terminal
    while len(content) <= _LONGEST:
        if not readable.poll(patience):
            raise OSError(errno.ETIMEDOUT, f"no data from this pipe for {_SILENCE:.0f} s")
        if not (piece := os.read(file, _PIECE)):
            break
        content += piece
    return bytes(content)


def _decoded(path: Path, data: bytes) -> str:
    if len(data) > _LONGEST:
        raise ConfigError(f"{path}: too large for a configuration: more than {_LONGEST >> 20} MiB")
    return data.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")


def _cannot(path: Path, error: OSError) -> ConfigError:
    remedy = ""
    if isinstance(error, PermissionError):
        remedy = "run as root or as its owner"
        if os.geteuid() == 0:
            remedy = f"root lacks CAP_DAC_OVERRIDE here, as in wgpy@.service: chown root {path}; chmod 600 {path}"
    return ConfigError(f"{path}: {error.strerror}{remedy and ': '}{remedy}")
