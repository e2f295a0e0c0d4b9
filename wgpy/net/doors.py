"""What the kernel's refusal of a step means here: which door is shut, and what opens it.

An errno says little: EPERM may come from a missing capability, a sysctl, AppArmor or a container's seccomp filter. So
the likely causes are looked at, and all that are found are named together, for each kind of container in its own words.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final, NamedTuple

from wgpy.tun.attach import TUN_PATH

_SYSCTL: Final = Path("/proc/sys")
_STATUS: Final = Path("/proc/self/status")
_MOUNTS: Final = Path("/proc/self/mounts")
_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
_NO_APPARMOR: Final = "--security-opt apparmor=unconfined", "securityContext.appArmorProfile.type: Unconfined"
_CAP_NET_ADMIN: Final = 12  # linux/capability.h


class Door(NamedTuple):
    """One that is shut, and what opens it: on a host, as flags of `docker run`, as fields of a Kubernetes pod."""

    said: str
    remedy: str = ""
    docker: str = ""
    pod: str = ""


def told(*doors: Door) -> str:
    """One line for a person: all that is shut, then all that opens it."""
    inside = in_container()
    by_flag = [door for door in doors if door.docker and (inside or not door.remedy)]
    remedies = [door.remedy for door in doors if door.remedy and door not in by_flag]
    if by_flag:
        remedies.append(f"docker run {' '.join(door.docker for door in by_flag)}")
        remedies.append(f"in a Kubernetes pod {', '.join(door.pod for door in by_flag)}")
    said = ", and ".join(door.said for door in doors)
    return f"{said}: {'; '.join(remedies)}" if remedies else said


def why_not(step: str, number: int) -> str:
    """One line for a person about a step of the helper that ended with this errno."""
    if step == "TUN":
        return told(tun(number))
    if step in ("user namespace", "network namespace"):
        return told(_namespace(step, number), *tun_device())
    if step == "network" and number in (errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        sysctl = "net.ipv6.conf.default.disable_ipv6=0"
        return told(
            Door(
                "IPv6 is off in new network namespaces",
                f"sudo sysctl {sysctl}, or take the IPv6 addresses out of Address",
                f"--sysctl {sysctl}",
                f"securityContext.sysctls: {sysctl}",
            )
        )
    if step == "mount" and number in (errno.EPERM, errno.EACCES):
        refused = f"a resolv.conf of the tunnel's own is refused ({os.strerror(number)} to mount it)"
        return told(_apparmor() or Door(refused, "", *_NO_APPARMOR))
    return told(Door(f"the tunnel's namespace cannot be set up ({step}): {os.strerror(number)}"))


def net_admin() -> Door:
    """Why the host's network may not be changed."""
    flag, field = "--cap-add NET_ADMIN", "securityContext.capabilities.add: [NET_ADMIN]"
    if os.geteuid() != 0:
        as_root = f"--user 0 {flag}", f"securityContext.runAsUser: 0, {field}"
        return Door("CAP_NET_ADMIN is missing", "run as root", *as_root)
    held = has_net_admin()
    if held is None:
        return Door("whether root has CAP_NET_ADMIN here cannot be known without /proc", "mount it", flag, field)
    if not held:
        return Door("root has no CAP_NET_ADMIN here", "give it back", flag, field)
    return Door(
        "CAP_NET_ADMIN is there: seccomp or a security module refuses it, or the network is of another namespace"
    )


def has_net_admin() -> bool | None:
    """Whether CAP_NET_ADMIN is in effect; None where there is no /proc to tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return any(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1 for line in lines if line.startswith("CapEff:"))


def tun_device() -> tuple[Door, ...]:
    """What keeps the TUN device from being opened: one or none."""
    try:
        os.close(os.open(TUN_PATH, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return (tun(error.errno or errno.EIO),)
    return ()


def ipv6_is_off(name: str) -> tuple[Door, ...]:
    """What keeps an interface from having IPv6 addresses: one or none."""
    conf = _SYSCTL / "net/ipv6/conf"
    if not conf.exists():
        return (Door("the kernel has no IPv6", "boot without ipv6.disable=1, or take the IPv6 addresses out"),)
    scopes = [scope for scope in ("all", "default", name) if _sysctl(f"net.ipv6.conf.{scope}.disable_ipv6") == "1"]
    if not scopes:
        return ()
    remedy = " ".join(f"net.ipv6.conf.{scope}.disable_ipv6=0" for scope in scopes if scope != name or scopes == [name])
    return (
        Door(
            f"IPv6 is off (net.ipv6.conf.{scopes[0]}.disable_ipv6 is 1)",
            f"sysctl {remedy}, or take the IPv6 addresses out",
            " ".join(f"--sysctl {each}" for each in remedy.split()),
            f"securityContext.sysctls: {remedy}",
        ),
    )


def in_container() -> bool:
    """Whether this is Docker's, Podman's or Kubernetes', as far as can be seen from inside."""
    if "KUBERNETES_SERVICE_HOST" in os.environ or any(mark.exists() for mark in _MARKS):
        return True
    try:
        roots = [line.split()[2] for line in _MOUNTS.read_text().splitlines() if line.split()[1] == "/"]
    except (OSError, IndexError):
        return False
    return roots[-1:] == ["overlay"]


def tun(number: int) -> Door:
    device = "--device /dev/net/tun", "a hostPath volume of /dev/net/tun of type CharDevice"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return Door(f"{TUN_PATH} is missing", "modprobe tun", *device)
    if number == errno.EACCES:
        return Door(f"{TUN_PATH} is closed to you", f"sudo chmod 0666 {TUN_PATH}, as udev does on most systems")
    if number == errno.EPERM:
        return _apparmor() or Door(f"{TUN_PATH} may not be used here", "", *device)
    return Door(f"{TUN_PATH} cannot be used: {os.strerror(number)}")


def _namespace(step: str, number: int) -> Door:
    if number in (errno.ENOSPC, errno.EUSERS):
        for limit in ("user.max_user_namespaces", "user.max_net_namespaces"):
            if _sysctl(limit) == "0":
                return Door(f"{limit} is 0", f"sudo sysctl {limit}=10000")
        limits = "user.max_user_namespaces and user.max_net_namespaces"
        return Door(f"too many namespaces (a {step} was refused)", f"raise {limits}")
    if _sysctl("kernel.unprivileged_userns_clone") == "0":
        name = "kernel.unprivileged_userns_clone"
        return Door(f"{name} is 0: only root may make user namespaces", f"sudo sysctl {name}=1")
    if number in (errno.EINVAL, errno.ENOSYS):
        return Door("this kernel has no user namespaces", "run as root" if os.geteuid() else "")
    flags = "--security-opt seccomp=unconfined", "securityContext.seccompProfile.type: Unconfined"
    outside = "leave the chroot, if this is one"
    remedy = f"{outside}, or run as root" if os.geteuid() else outside
    return _apparmor() or Door(f"a {step} is refused ({os.strerror(number)})", remedy, *flags)


def _apparmor() -> Door | None:
    name = "kernel.apparmor_restrict_unprivileged_userns"
    if _sysctl(name) != "1":
        return None
    return Door(f"AppArmor grants nothing in user namespaces ({name} is 1)", f"sudo sysctl {name}=0", *_NO_APPARMOR)


def _sysctl(name: str) -> str:
    """A setting's text; empty where the system lacks it."""
    try:
        return (_SYSCTL / name.replace(".", "/")).read_text().strip()
    except OSError:
        return ""
