"""What Docker's default profile refuses, for a test's child process: a seccomp filter, written by hand (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Final

# x86-64 and arm64 (asm/unistd.h), by machine: clone, clone3, unshare, setns, mount.
_CALLS: Final = {
    "x86_64": (0xC000003E, {"clone": 56, "clone3": 435, "unshare": 272, "setns": 308, "mount": 165}),
    "aarch64": (0xC00000B7, {"clone": 220, "clone3": 435, "unshare": 97, "setns": 268, "mount": 40}),
}
_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JSET|K, RET|K
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def program() -> bytes:
    """Refuse unshare, setns and mount with EPERM, clone with flags of namespaces too, and clone3 with ENOSYS."""
    audit, calls = _CALLS[platform.machine()]
    refuse = _ERRNO | errno.EPERM
    lines = [_instruction(_LD, 4), _instruction(_JEQ, audit, 1, 0), _instruction(_RET, refuse), _instruction(_LD, 0)]
    for name in ("unshare", "setns", "mount"):
        lines += [_instruction(_JEQ, calls[name], 0, 1), _instruction(_RET, refuse)]
    # Its flags are in memory, where a filter cannot look: libc then takes clone, as under Docker.
    lines += [_instruction(_JEQ, calls["clone3"], 0, 1), _instruction(_RET, _ERRNO | errno.ENOSYS)]
    lines += [_instruction(_JEQ, calls["clone"], 0, 3), _instruction(_LD, 16)]
    lines += [_instruction(_JSET, _NEW_NAMESPACES, 0, 1), _instruction(_RET, refuse), _instruction(_RET, _ALLOW)]
    return b"".join(lines)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def refuse_namespaces() -> None:
    """From now on this process and its children may do none of that. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = program()
    buffer = ctypes.create_string_buffer(code, len(code))
    filtered = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _FILTER, ctypes.byref(filtered), 0, 0),
    ):
        if libc.prctl(*arguments):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
