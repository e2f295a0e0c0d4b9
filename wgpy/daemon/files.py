"""Reading and writing files for root in directories that may be another user's.

The owner of a directory can put another file, or a link, under any name in it at any moment. So a file is opened once
and judged by its descriptor, a new file gets its owner and mode by its descriptor, and names are looked up in a
directory that is held open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from wgpy.errors import ConfigError

_LONGEST: Final = 256 << 20  # bytes; 2^20 peers, the most there may be, take less
_PATIENCE: Final = 30.0  # seconds to wait for a lock, which whoever may read a file can keep for ever
_ACL: Final = "system.posix_acl_access"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO is refused, not waited for
# A directory we may not write to, an owner or list we cannot give a file, a name on which a file is mounted.
_REFUSALS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EOPNOTSUPP})


def read(path: Path) -> tuple[str, os.stat_result]:
    """The file's text and the status of that very file. Raises ConfigError.

    Bytes that are not UTF-8 stay, as surrogates; a byte order mark does not.
    """
    if "\n" in str(path):  # whose private key an error would repeat
        raise ConfigError("expected a configuration file's path, not what is in it")
    try:
        with path.open("rb") as file:
            return _decoded(path, file.read(_LONGEST + 1)), os.fstat(file.fileno())
    except OSError as error:
        raise _cannot(path, error) from error


def read_text(path: Path) -> str:
    """The file's text alone, as `read`."""
    return read(path)[0]


@contextmanager
def changing(path: Path) -> Iterator[HeldFile]:
    """Hold a file open and locked, so that others who want to change it wait for their turn.

    Raises ConfigError, also when another process has kept the lock for half a minute.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        with HeldFile(path) as held:
            if held.lock():
                yield held
                return
        if time.monotonic() > until:
            raise ConfigError(f"{path}: another process keeps it locked: `lslocks` or `fuser -v {path}` names it")
        time.sleep(0.05)


def replace_text(path: Path, text: str) -> None:
    """Have the file say `text`, as `HeldFile.replace` does; a new one is its owner's alone. Raises ConfigError."""
    with HeldFile(path, may_be_new=True) as held:
        held.replace(text)


class _WrittenInPart(Exception):
    """A file that was overwritten holds neither the old text nor the new."""


class HeldFile:
    """A regular file and its directory, both open: what was read is what is replaced, whoever moves names meanwhile.

    Symbolic links are followed once. Raises ConfigError if there is no such file, unless it `may_be_new`.
    """

    def __init__(self, path: Path, *, may_be_new: bool = False) -> None:
        self._path = path
        self._file: int | None = None  # where there is none yet
        try:
            real = path.resolve()
            self._name = real.name
            self._directory = os.open(real.parent, _DIRECTORY)
        except OSError as error:
            raise _cannot(path, error) from error
        except RuntimeError as error:  # before Python 3.13, for links that lead to one another
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
        """Lock the file; whether that worked, and the file has not been replaced by another meanwhile."""
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return _is_named(self._name, self._directory, self.file)

    def read(self) -> tuple[str, os.stat_result]:
        """The text and the status, as the function `read` gives them. Raises ConfigError."""
        try:
            with open(self.file, "rb", closefd=False) as file:
                file.seek(0)
                return _decoded(self._path, file.read(_LONGEST + 1)), os.fstat(self.file)
        except OSError as error:
            raise _cannot(self._path, error) from error

    def replace(self, text: str) -> None:
        """Write all of the text or nothing: a new, synced file takes the place of the old, with its owner and mode.

        Where that is refused (by a capability that is missing, a directory that may not be written to, a mount), the
        old file is written to in place. Raises ConfigError, and the file is as it was; if it is not, because the disk
        failed at that, the error says so. A directory that cannot be synced is logged.
        """
        content = text.encode("utf-8", errors="surrogateescape")
        try:
            try:
                self._exchange(content)
            except OSError as error:
                if self._file is None or error.errno not in _REFUSALS:
                    raise
                self._overwrite(content)
        except _WrittenInPart as error:
            raise ConfigError(f"{self._path}: {error}") from error
        except OSError as error:
            raise ConfigError(f"{self._path}: not written, it is as it was: {error.strerror}") from error

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
                    self._overwrite(content)  # while a whole copy lies beside it
                except _WrittenInPart as torn:
                    whole = f"{self._name}.whole-{os.urandom(4).hex()}"
                    os.rename(fresh, whole, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                    raise ConfigError(f"{self._path}: {torn}; the whole text is beside it, in {whole}") from torn
                os.unlink(fresh, dir_fd=self._directory)
                return
            if not _is_named(self._name, self._directory, file):
                raise ConfigError(f"{self._path}: somebody else put another file there meanwhile; look at it")
        try:
            os.fsync(self._directory)  # a name that outlives a power failure
        except OSError as error:  # no failure: whoever was told so would undo what goes with it
            import logging  # `wgpy show` loads this module, and does without

            told = "%s: written, but a power failure may bring the old text back: %s"
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
                raise _WrittenInPart(f"written in part only: {error.strerror}") from error
        finally:
            os.close(file)


@contextmanager
def new_file(path: Path, content: bytes) -> Iterator[None]:
    """A synced file that its owner alone may read, under a name that was free; it goes again if the block raises.

    Raises OSError: FileExistsError where there is one already.
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
    """A directory for what daemons leave for one another, made if it is missing; its descriptor.

    Its group may write in it if it is `shared`: root chose that group.
    Raises OSError: PermissionError for a directory in which another user may put things.
    """
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory = os.open(path, _DIRECTORY)
    try:
        status = os.fstat(directory)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (0o002 if shared else 0o022):
            raise PermissionError(errno.EPERM, f"others may write in {path}: chown root {path}; chmod 755 {path}")
        yield directory
    finally:
        os.close(directory)


def read_own(path: Path) -> bytes:
    """What `replace_own` wrote. Raises OSError: PermissionError for a file of another user, or that others may read."""
    with own_directory(path.parent) as directory:
        file = _open_regular(path.name, os.O_RDONLY, directory)
    with open(file, "rb") as opened:
        status = os.fstat(file)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "another user's, or others may read it; expected our own", str(path))
        return opened.read(_LONGEST)


def replace_own(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a whole file into a directory of our own, in the place of what was there. Raises OSError."""
    fresh = f".{path.name}.{os.urandom(4).hex()}"
    with own_directory(path.parent) as directory, _created(fresh, directory, content) as file:
        os.fchmod(file, mode)  # whatever our umask is: the units have 0077
        os.replace(fresh, path.name, src_dir_fd=directory, dst_dir_fd=directory)


@contextmanager
def _created(name: str, directory: int, content: bytes) -> Iterator[int]:
    """A new file with this content, its owner's alone; if the block raises, it goes away again."""
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=directory)
    try:
        _write(file, content)
        yield file
    except BaseException:  # an interrupt as well
        if _is_named(name, directory, file):
            os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(file)


def _open_regular(name: str, flags: int, directory: int) -> int:
    """Raises OSError: also for what is a link by now, or no regular file."""
    file = os.open(name, flags | _FILE, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def _is_named(name: str, directory: int, file: int) -> bool:
    """Whether the open file is still what is under a name."""
    with suppress(OSError):
        return os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), os.fstat(file))
    return False


def _copy_access(old: int, new: int) -> None:
    """Let the same users read and write a file; without its list, a mode means something else (acl(5))."""
    status = os.fstat(old)
    if (status.st_uid, status.st_gid) != (os.fstat(new).st_uid, os.fstat(new).st_gid):
        os.fchown(new, status.st_uid, status.st_gid)
    os.fchmod(new, stat.S_IMODE(status.st_mode))
    try:
        access = os.getxattr(old, _ACL)
    except OSError:
        return  # it has none, or the file system has not
    os.setxattr(new, _ACL, access)


def _make_room(file: int, size: int) -> None:
    """Find out whether the disk is full before the old text is overwritten."""
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


def _decoded(path: Path, data: bytes) -> str:
    if len(data) > _LONGEST:
        raise ConfigError(f"{path}: expected a configuration, not more than {_LONGEST >> 20} MiB")
    return data.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")


def _cannot(path: Path, error: OSError) -> ConfigError:
    remedy = ""
    if isinstance(error, PermissionError):
        remedy = "run as root, or as its owner"
        if os.geteuid() == 0:
            remedy = f"here, as in wgpy@.service, root lacks CAP_DAC_OVERRIDE: chown root {path}; chmod 600 {path}"
    return ConfigError(f"{path}: {error.strerror}{remedy and ': '}{remedy}")
