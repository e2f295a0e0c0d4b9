"""Which door is shut where a tunnel may not have a network namespace of its own, and the line that opens it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from wgpy.tun.attach import TUN_PATH

_SYSCTL: Final = Path("/proc/sys")


def why_not(step: str, number: int) -> str:
    """One line for a person about a step of the helper that ended with this errno."""
    if step == "TUN":
        said, remedy = _tun(number)
    elif step in ("user namespace", "network namespace"):
        said, remedy = _namespace(step, number)
    else:
        said, remedy = f"the tunnel's namespace cannot be set up ({step}): {os.strerror(number)}", ""
    return f"{said}: {remedy}" if remedy else said


def _tun(number: int) -> tuple[str, str]:
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"{TUN_PATH} is missing", "modprobe tun; in a container: --device /dev/net/tun"
    if number == errno.EACCES:
        return f"{TUN_PATH} is closed to you", f"sudo chmod 0666 {TUN_PATH}, as udev does on most systems"
    if number == errno.EPERM:
        return _apparmor() or (f"{TUN_PATH} may not be used here", "in a container: --device /dev/net/tun")
    return f"{TUN_PATH} cannot be used: {os.strerror(number)}", ""


def _namespace(step: str, number: int) -> tuple[str, str]:
    if number in (errno.ENOSPC, errno.EUSERS):
        for limit in ("user.max_user_namespaces", "user.max_net_namespaces"):
            if _sysctl(limit) == "0":
                return f"{limit} is 0", f"sudo sysctl {limit}=10000"
        return (
            f"too many namespaces (a {step} was refused)",
            "raise user.max_user_namespaces and user.max_net_namespaces",
        )
    if _sysctl("kernel.unprivileged_userns_clone") == "0":
        name = "kernel.unprivileged_userns_clone"
        return f"{name} is 0: only root may make user namespaces", f"sudo sysctl {name}=1"
    if number == errno.EINVAL:
        return "this kernel has no user namespaces", "run as root"
    refused = f"a {step} is refused ({os.strerror(number)})"
    return _apparmor() or (refused, "in a container: --security-opt seccomp=unconfined, or run as root")


def _apparmor() -> tuple[str, str] | None:
    name = "kernel.apparmor_restrict_unprivileged_userns"
    if _sysctl(name) != "1":
        return None
    return f"AppArmor grants nothing in user namespaces ({name} is 1)", f"sudo sysctl {name}=0"


def _sysctl(name: str) -> str:
    """A setting's text; empty where the system lacks it."""
    try:
        return (_SYSCTL / name.replace(".", "/")).read_text().strip()
    except OSError:
        return ""
