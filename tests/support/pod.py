"""A container of a pod, without a container runtime: its files, its user and its capabilities, as the manifest says.

Of the runtime's seccomp profile there is what it refuses of namespaces and mounts. What a runtime does beyond that
(cgroups, AppArmor, pulling images) is not here.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.nobody import MS_MOVE, TUN_DEVICE, leave_chroot
from wgpy.system.syscalls import MS_BIND, MS_PRIVATE, MS_REC, mount

MS_RDONLY, MS_REMOUNT = 0x1, 0x20
ROOT: Final = Path("/mnt")
_OF_THE_BASE: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc")
_DEVICES: Final = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}  # the minors of major 1


def enter(pod: Mapping[str, Any], container: Mapping[str, Any], opt: Path, secret: Mapping[str, str]) -> None:
    """Move this process, which is in a child of its own, into a root of the image and the volumes.

    `opt` is the image's /opt, this machine's programs are the rest of it, and `secret` has the secret's files.
    """
    leave_chroot()
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", str(ROOT), "tmpfs")
    ROOT.chmod(0o755)
    for path in (*_OF_THE_BASE, sys.base_prefix, *(entry for entry in sys.path if entry.endswith("site-packages"))):
        _take_over(Path(path))
    _bind(opt, ROOT / "opt")
    for name in ("dev", "proc", "run", "tmp", "var/lib"):
        (ROOT / name).mkdir(parents=True)
    (ROOT / "var/run").symlink_to("/run")
    mount("proc", f"{ROOT}/proc", "proc")
    mount("tmpfs", f"{ROOT}/dev", "tmpfs")
    for name, minor in _DEVICES.items():
        _device(ROOT / "dev" / name, os.makedev(1, minor))
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    group = pod["spec"].get("securityContext", {}).get("fsGroup", 0)
    for place in container["volumeMounts"]:
        _volume(volumes[place["name"]], ROOT / place["mountPath"].lstrip("/"), secret, group)
    assert container["securityContext"]["readOnlyRootFilesystem"]
    _make_read_only(ROOT)
    os.chdir(ROOT)
    mount(".", "/", flags=MS_MOVE)
    os.chroot(".")


def confined(pod: Mapping[str, Any], container: Mapping[str, Any], *command: str) -> list[str]:
    """The command as the user, and with the capabilities, that the manifest says."""
    context = {**pod["spec"].get("securityContext", {}), **container["securityContext"]}
    assert not context["allowPrivilegeEscalation"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}  # which the caller puts on
    assert context["capabilities"]["drop"] == ["ALL"]
    kept = [f"+{name.lower()}" for name in context["capabilities"].get("add", [])]
    user = [f"--reuid={context['runAsUser']}", "--regid=0", f"--groups={context.get('fsGroup', 0)}"]
    return ["setpriv", *user, f"--bounding-set={','.join(['-all', *kept])}", "--inh-caps=-all", "--no-new-privs",
            *command]  # fmt: skip


def _take_over(path: Path) -> None:
    """Have what this machine has at a path, read-only."""
    target = ROOT / str(path).lstrip("/")
    if path.is_symlink():
        target.symlink_to(os.readlink(path))
    elif path.exists() and not target.exists():  # else it lies in another that is there already
        _bind(path, target)


def _bind(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    mount(str(source), str(target), flags=MS_BIND | MS_REC)
    _make_read_only(target)


def _make_read_only(target: Path) -> None:
    mount("none", str(target), flags=MS_REMOUNT | MS_BIND | MS_RDONLY)


def _device(path: Path, number: int) -> None:
    os.mknod(path, stat.S_IFCHR, number)
    path.chmod(0o666)


def _volume(volume: Mapping[str, Any], target: Path, secret: Mapping[str, str], group: int) -> None:
    """A volume as the kubelet makes it: an emptyDir is open to all, a secret's files are links into a directory."""
    if "hostPath" in volume:
        assert volume["hostPath"] == {"path": "/dev/net/tun", "type": "CharDevice"}
        target.parent.mkdir()
        _device(target, TUN_DEVICE)
        return
    target.mkdir(parents=True, exist_ok=True)
    mount("tmpfs", str(target), "tmpfs")
    target.chmod(0o777)
    if "secret" in volume:
        version = target / "..2026_11_26"
        version.mkdir()
        (target / "..data").symlink_to(version.name)
        for name, text in secret.items():
            (version / name).write_text(text)
            (version / name).chmod(volume["secret"]["defaultMode"])
            os.chown(version / name, 0, group)
            (target / name).symlink_to(f"..data/{name}")
        _make_read_only(target)
