"""Which door is shut: each refusal that can be had here is had, the others are told from their errno and sysctls."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

import wgpy
from tests.namespace.conftest import PORT, Server
from tests.support.nobody import as_nobody, leave_chroot
from wgpy.errors import NamespaceError
from wgpy.namespace import doors

WGPY = (sys.executable, "-m", "wgpy")
CLOSED = "user.max_user_namespaces is 0: sudo sysctl user.max_user_namespaces=10000"


@pytest.mark.root
def test_no_more_user_namespaces(tmp_path: Path) -> None:
    """A user namespace in which no other may be made, as a container may be; doctor, connect and exec say the same."""
    path = tmp_path / "wg0.conf"
    path.touch(mode=0o600)
    path.write_text(f"[Interface]\nPrivateKey = {wgpy.PrivateKey.generate().base64()}\n")
    connect = (
        "import asyncio, sys, wgpy\n"
        "async def main():\n"
        "    try:\n"
        "        async with wgpy.connect(sys.argv[1]): pass\n"
        "    except wgpy.NamespaceError as error: print(error)\n"
        "asyncio.run(main())"
    )
    close = 'for kind in user net; do echo 0 >/proc/sys/user/max_${kind}_namespaces; done; exec "$@"'

    def closed(*command: str) -> subprocess.CompletedProcess[str]:
        inside = ("unshare", "-Ur", "sh", "-c", close, "sh", *command)
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=30, preexec_fn=leave_chroot)

    assert closed(sys.executable, "-c", connect, str(path)).stdout == f"{CLOSED}\n"
    done = closed(*WGPY, "exec", str(path), "true")
    assert (done.stdout, done.stderr, done.returncode) == ("", f"wgpy: {CLOSED}\n", 1)
    done = closed(*WGPY, "doctor", "--json")
    (finding,) = (finding for finding in json.loads(done.stdout) if finding["name"] == "without root")
    assert CLOSED in finding["message"]
    assert done.returncode == 1


@pytest.mark.root
def test_a_tun_device_that_is_closed(server: Server) -> None:
    async def main() -> None:
        with pytest.raises(NamespaceError, match="/dev/net/tun is closed to you: sudo chmod 0666 /dev/net/tun"):
            async with wgpy.connect(server.config):
                pass

    as_nobody(server.client, main, tun_mode=0o600)


@pytest.mark.root
def test_with_root_it_is_the_same_and_no_user_namespace(server: Server) -> None:
    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel, asyncio.timeout(20):
            assert len(tunnel.namespaces) == 1
            reader, writer = await tunnel.open_connection(server.address, PORT)
            writer.write(b"take 5\nhello")
            assert len(await reader.readexactly(32)) == 32
            writer.close()

    server.client.call(lambda: asyncio.run(main()))


@pytest.mark.parametrize(
    ("step", "number", "sysctls", "said"),
    [
        ("TUN", errno.ENOENT, {}, "/dev/net/tun is missing: modprobe tun; in a container: --device /dev/net/tun"),
        ("TUN", errno.EPERM, {}, "may not be used here: in a container: --device /dev/net/tun"),
        ("user namespace", errno.EPERM, {}, "--security-opt seccomp=unconfined, or run as root"),
        ("user namespace", errno.EINVAL, {}, "this kernel has no user namespaces: run as root"),
        ("user namespace", errno.ENOSPC, {"user/max_user_namespaces": 9}, "too many namespaces"),
        (
            "network namespace",
            errno.ENOSPC,
            {"user/max_net_namespaces": 0},
            "sudo sysctl user.max_net_namespaces=10000",
        ),
        (
            "user namespace",
            errno.EPERM,
            {"kernel/unprivileged_userns_clone": 0},
            "only root may make user namespaces: sudo sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            "TUN",
            errno.EPERM,
            {"kernel/apparmor_restrict_unprivileged_userns": 1},
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("network", errno.EPERM, {}, "cannot be set up (network): Operation not permitted"),
    ],
)
def test_what_is_said(
    step: str, number: int, sysctls: dict[str, int], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sysctls.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setattr(doors, "_SYSCTL", tmp_path)
    assert said in doors.why_not(step, number)
    assert "\n" not in doors.why_not(step, number)
