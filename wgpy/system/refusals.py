"""Why the kernel refused a step, and what would allow it.

An errno says little: EPERM may come from a missing capability, a sysctl, AppArmor or a container's seccomp filter. So
this module looks for each likely cause and names all that it finds in one line, with the remedy for a host, for `docker
run` or for a Kubernetes pod.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final, NamedTuple

from wgpy.constants import TUN_PATH

_SYSCTL: Final = Path("/proc/sys")
_STATUS: Final = Path("/proc/self/status")
_MOUNTS: Final = Path("/proc/self/mounts")
_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
_NO_APPARMOR: Final = "--security-opt apparmor=unconfined", "securityContext.appArmorProfile.type: Unconfined"
_CAP_NET_ADMIN: Final = 12  # linux/capability.h


class Cause(NamedTuple):
    """One cause of a refusal, and its remedies."""

    text: str
    remedy: str = ""
    """What to do on a host."""
    docker: str = ""
    """Flags of `docker run`."""
    pod: str = ""
    """Fields of a Kubernetes pod."""


def explain(*causes: Cause) -> str:
    """All causes, then all remedies, in one line for a person to read."""
    inside = in_container()
    by_flag = [cause for cause in causes if cause.docker and (inside or not cause.remedy)]
    remedies = [cause.remedy for cause in causes if cause.remedy and cause not in by_flag]
    if by_flag:
        remedies.append(f"docker run {' '.join(cause.docker for cause in by_flag)}")
        remedies.append(f"in a Kubernetes pod {', '.join(cause.pod for cause in by_flag)}")
    text = ", and ".join(cause.text for cause in causes)
    return f"{text}: {'; '.join(remedies)}" if remedies else text


def explain_step(step: str, number: int) -> str:
    """Why a step of the namespace helper failed with the errno `number`, in one line for a person to read."""
    if step == "TUN":
        return explain(tun(number))
    if step in ("user namespace", "network namespace"):
        return explain(_namespace(step, number), *tun_device())
    if step == "network" and number in (errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        sysctl = "net.ipv6.conf.default.disable_ipv6=0"
        return explain(
            Cause(
                "IPv6 is off in new network namespaces",
                f"sudo sysctl {sysctl}, or take the IPv6 addresses out of Address",
                f"--sysctl {sysctl}",
                f"securityContext.sysctls: {sysctl}",
            )
        )
    if step == "mount" and number in (errno.EPERM, errno.EACCES):
        refused = f"a resolv.conf of the tunnel's own is refused ({os.strerror(number)} to mount it)"
        return explain(_apparmor() or Cause(refused, "", *_NO_APPARMOR))
    return explain(Cause(f"the tunnel's namespace cannot be set up ({step}): {os.strerror(number)}"))


def net_admin() -> Cause:
    """Why this process may not change the host's network."""
    flag, field = "--cap-add NET_ADMIN", "securityContext.capabilities.add: [NET_ADMIN]"
    if os.geteuid() != 0:
        as_root = f"--user 0 {flag}", f"securityContext.runAsUser: 0, {field}"
        return Cause("CAP_NET_ADMIN is missing", "run as root", *as_root)
    held = has_net_admin()
    if held is None:
        return Cause("whether root has CAP_NET_ADMIN here cannot be known without /proc", "mount it", flag, field)
    if not held:
        return Cause("root has no CAP_NET_ADMIN here", "give it back", flag, field)
    return Cause(
        "CAP_NET_ADMIN is there: seccomp or a security module refuses it, or the network is of another namespace"
    )


def has_net_admin() -> bool | None:
    """Whether this process has CAP_NET_ADMIN; None if there is no /proc to tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return any(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1 for line in lines if line.startswith("CapEff:"))


def tun_device() -> tuple[Cause, ...]:
    """Why the TUN device cannot be opened; nothing if it can."""
    try:
        os.close(os.open(TUN_PATH, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return (tun(error.errno or errno.EIO),)
    return ()


def ipv6_is_off(name: str) -> tuple[Cause, ...]:
    """Why an interface cannot have IPv6 addresses; nothing if it can."""
    conf = _SYSCTL / "net/ipv6/conf"
    if not conf.exists():
        return (Cause("the kernel has no IPv6", "boot without ipv6.disable=1, or take the IPv6 addresses out"),)
    scopes = [scope for scope in ("all", "default", name) if _sysctl(f"net.ipv6.conf.{scope}.disable_ipv6") == "1"]
    if not scopes:
        return ()
    remedy = " ".join(f"net.ipv6.conf.{scope}.disable_ipv6=0" for scope in scopes if scope != name or scopes == [name])
    return (
        Cause(
            f"IPv6 is off (net.ipv6.conf.{scopes[0]}.disable_ipv6 is 1)",
            f"sysctl {remedy}, or take the IPv6 addresses out",
            " ".join(f"--sysctl {each}" for each in remedy.split()),
            f"securityContext.sysctls: {remedy}",
        ),
    )


def in_container() -> bool:
    """Whether this process runs in a container of Docker, Podman or Kubernetes, as far as it can see from inside."""
    if "KUBERNETES_SERVICE_HOST" in os.environ or any(mark.exists() for mark in _MARKS):
        return True
    try:
        roots = [line.split()[2] for line in _MOUNTS.read_text().splitlines() if line.split()[1] == "/"]
    except (OSError, IndexError):
        return False
    return roots[-1:] == ["overlay"]


def tun(number: int) -> Cause:
    """Why opening the TUN device failed with the errno `number`."""
    device = "--device /dev/net/tun", "a hostPath volume of /dev/net/tun of type CharDevice"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return Cause(f"{TUN_PATH} is missing", "modprobe tun", *device)
    if number == errno.EACCES:
        return Cause(f"{TUN_PATH} is closed to you", f"sudo chmod 0666 {TUN_PATH}, as udev does on most systems")
    if number == errno.EPERM:
        return _apparmor() or Cause(f"{TUN_PATH} may not be used here", "", *device)
    return Cause(f"{TUN_PATH} cannot be used: {os.strerror(number)}")


def _namespace(step: str, number: int) -> Cause:
    if number in (errno.ENOSPC, errno.EUSERS):
        for limit in ("user.max_user_namespaces", "user.max_net_namespaces"):
            if _sysctl(limit) == "0":
                return Cause(f"{limit} is 0", f"sudo sysctl {limit}=10000")
        limits = "user.max_user_namespaces and user.max_net_namespaces"
        return Cause(f"too many namespaces (a {step} was refused)", f"raise {limits}")
    if _sysctl("kernel.unprivileged_userns_clone") == "0":
        name = "kernel.unprivileged_userns_clone"
        return Cause(f"{name} is 0: only root may make user namespaces", f"sudo sysctl {name}=1")
    if number in (errno.EINVAL, errno.ENOSYS):
        return Cause("this kernel has no user namespaces", "run as root" if os.geteuid() else "")
    flags = "--security-opt seccomp=unconfined", "securityContext.seccompProfile.type: Unconfined"
    outside = "leave the chroot, if this is one"
    remedy = f"{outside}, or run as root" if os.geteuid() else outside
    return _apparmor() or Cause(f"a {step} is refused ({os.strerror(number)})", remedy, *flags)


def _apparmor() -> Cause | None:
    name = "kernel.apparmor_restrict_unprivileged_userns"
    if _sysctl(name) != "1":
        return None
    return Cause(f"AppArmor grants nothing in user namespaces ({name} is 1)", f"sudo sysctl {name}=0", *_NO_APPARMOR)


def _sysctl(name: str) -> str:
    """The value of a sysctl; empty if the system has none of this name."""
    try:
        return (_SYSCTL / name.replace(".", "/")).read_text().strip()
    except OSError:
        return ""
