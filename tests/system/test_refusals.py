"""Why the kernel refuses: each refusal that can be provoked here is, the others are made from errno and sysctls."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path

import pytest

import wgpy
from tests.namespace.conftest import PORT, Server
from tests.namespace.conftest import cable as cable
from tests.namespace.conftest import server as server
from tests.support.netns import Namespace
from tests.support.nobody import as_nobody, leave_chroot
from wgpy.errors import NamespaceError
from wgpy.net.netlink import Netlink
from wgpy.system import refusals
from wgpy.tun.linux import LinuxTun, _why_not

WGPY = (sys.executable, "-m", "wgpy")
CLOSED = "user.max_user_namespaces is 0: sudo sysctl user.max_user_namespaces=10000"
WITHOUT = "`wgpy proxy`, `forward` and `stdio` need none"


@pytest.mark.root
def test_a_limit_of_user_namespaces_is_explained(tmp_path: Path) -> None:
    """A user namespace in which no other may be made, as a container may be; doctor, connect and exec say the same."""
    path = tmp_path / "wg0.conf"
    path.touch(mode=0o600)
    path.write_text(f"[Interface]\nPrivateKey = {wgpy.PrivateKey.generate().base64()}\n")
    connect = (
        "import asyncio, sys, wgpy\n"
        "async def main():\n"
        "    try:\n"
        "        async with wgpy.connect(sys.argv[1], network='namespace'): pass\n"
        "    except wgpy.NamespaceError as error: print(error)\n"
        "asyncio.run(main())"
    )
    close = 'for kind in user net; do echo 0 >/proc/sys/user/max_${kind}_namespaces; done; exec "$@"'

    def closed(*command: str) -> subprocess.CompletedProcess[str]:
        inside = ("unshare", "-Ur", "sh", "-c", close, "sh", *command)
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=30, preexec_fn=leave_chroot)

    assert closed(sys.executable, "-c", connect, str(path)).stdout == f"{CLOSED}\n"
    done = closed(*WGPY, "exec", str(path), "true")
    assert (done.stdout, done.stderr, done.returncode) == ("", f"wgpy: {CLOSED}; {WITHOUT}\n", 1)
    done = closed(*WGPY, "doctor", "--json")
    (finding,) = (finding for finding in json.loads(done.stdout) if finding["name"] == "without root")
    assert CLOSED in finding["message"]
    assert done.returncode == 0, "tunnels work, on wgpy's own stack"


@pytest.mark.root
def test_an_inaccessible_tun_device_is_explained(server: Server) -> None:
    async def main() -> None:
        with pytest.raises(NamespaceError, match="/dev/net/tun is closed to you: sudo chmod 0666 /dev/net/tun"):
            async with wgpy.connect(server.config, network="namespace"):
                pass

    as_nobody(server.client, main, tun_mode=0o600)


@pytest.mark.root
def test_root_gets_a_network_namespace_without_a_user_namespace(server: Server) -> None:
    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel, asyncio.timeout(20):
            assert isinstance(tunnel, wgpy.NamespaceTunnel)
            assert len(tunnel.namespaces) == 1
            reader, writer = await tunnel.open_connection(server.address, PORT)
            writer.write(b"take 5\nhello")
            assert len(await reader.readexactly(32)) == 32
            writer.close()

    server.client.call(lambda: asyncio.run(main()))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine on which nothing is switched off, for a user without privileges."""
    made = Machine(tmp_path, monkeypatch)
    made.set(sysctls={}, uid=1000, capabilities=0)
    return made


@dataclass
class Machine:
    directory: Path
    monkeypatch: pytest.MonkeyPatch

    def set(self, sysctls: dict[str, int], *, uid: int, capabilities: int, container: bool = False) -> None:
        for name, value in sysctls.items():
            path = self.directory / "sys" / name.replace(".", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
        (self.directory / "status").write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
        (self.directory / "mounts").write_text(f"x / {'overlay' if container else 'ext4'} rw 0 0\n")
        for name in ("SYSCTL", "STATUS", "MOUNTS"):
            self.monkeypatch.setattr(refusals, f"_{name}", self.directory / {"SYSCTL": "sys"}.get(name, name.lower()))
        self.monkeypatch.setattr(refusals, "_MARKS", ())
        self.monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        self.monkeypatch.setattr(os, "geteuid", lambda: uid)


@pytest.mark.parametrize(
    ("step", "number", "sysctls", "said"),
    [
        ("TUN", errno.ENOENT, {}, "/dev/net/tun is missing: modprobe tun"),
        ("TUN", errno.EPERM, {}, "may not be used here: docker run --device /dev/net/tun; in a Kube"),
        ("TUN", errno.EACCES, {}, "/dev/net/tun is closed to you: sudo chmod 0666 /dev/net/tun"),
        ("user namespace", errno.EPERM, {}, "leave the chroot, if this is one, or run as root"),
        ("user namespace", errno.EINVAL, {}, "this kernel has no user namespaces: run as root"),
        ("user namespace", errno.ENOSPC, {"user.max_user_namespaces": 9}, "too many namespaces"),
        (
            "network namespace",
            errno.ENOSPC,
            {"user.max_net_namespaces": 0},
            "sudo sysctl user.max_net_namespaces=10000",
        ),
        (
            "user namespace",
            errno.EPERM,
            {"kernel.unprivileged_userns_clone": 0},
            "only root may make user namespaces: sudo sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            "TUN",
            errno.EPERM,
            {"kernel.apparmor_restrict_unprivileged_userns": 1},
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("mount", errno.EACCES, {}, "(Permission denied to mount it): docker run --security-opt apparmor=unconfined"),
        ("network", errno.EPERM, {}, "cannot be set up (network): Operation not permitted"),
        ("network", errno.EACCES, {}, "IPv6 is off in new network namespaces: sudo sysctl net.ipv6."),
    ],
)  # fmt: skip
def test_each_refusal_is_explained(
    machine: Machine, step: str, number: int, sysctls: dict[str, int], said: str
) -> None:
    machine.set(sysctls, uid=1000, capabilities=0)
    assert said in refusals.explain_step(step, number)
    assert "\n" not in refusals.explain_step(step, number)


def test_in_a_container_everything_missing_is_named_for_docker_and_kubernetes(machine: Machine) -> None:
    machine.set({}, uid=0, capabilities=0, container=True)
    missing = str(machine.directory / "tun")
    machine.monkeypatch.setattr(refusals, "TUN_PATH", missing)
    assert refusals.explain_step("user namespace", errno.EPERM) == (
        f"a user namespace is refused (Operation not permitted), and {missing} is missing: "
        "docker run --security-opt seccomp=unconfined --device /dev/net/tun; "
        "in a Kubernetes pod securityContext.seccompProfile.type: Unconfined, "
        "a hostPath volume of /dev/net/tun of type CharDevice"
    )
    machine.set({"user.max_user_namespaces": 0}, uid=0, capabilities=0, container=True)
    said = refusals.explain_step("user namespace", errno.ENOSPC)
    assert "sudo sysctl user.max_user_namespaces=10000; docker run --device /dev/net/tun; in a Kube" in said


def test_root_is_not_told_to_become_root(machine: Machine) -> None:
    for container in (False, True):
        machine.set({}, uid=0, capabilities=0, container=container)
        said = [refusals.explain_step(step, number) for step in ("TUN", "user namespace") for number in range(1, 134)]
        said.append(refusals.explain(refusals.net_admin()))
        assert not [each for each in said if "as root" in each]
    assert "--cap-add NET_ADMIN; in a Kubernetes pod securityContext.capabilities.add: [NET_ADMIN]" in said[-1]
    machine.set({}, uid=0, capabilities=1 << 12)
    assert "CAP_NET_ADMIN is there" in refusals.explain(refusals.net_admin())
    machine.set({}, uid=1000, capabilities=0)
    assert refusals.explain(refusals.net_admin()) == "CAP_NET_ADMIN is missing: run as root"


def test_a_refusal_is_still_reported_without_proc(machine: Machine) -> None:
    """Looking for its cause must not raise, in its place, that /proc/self/status is missing."""
    machine.set({}, uid=0, capabilities=0)
    machine.monkeypatch.setattr(refusals, "_STATUS", machine.directory / "missing")
    machine.monkeypatch.setattr(refusals, "_MOUNTS", machine.directory / "missing")
    assert refusals.has_net_admin() is None
    assert "CAP_NET_ADMIN here cannot be known without /proc: mount it" in refusals.explain(refusals.net_admin())
    assert "is missing: modprobe tun" in _why_not("wg0", OSError(errno.ENOENT, "missing"))
    assert "cannot be known without /proc" in _why_not("wg0", OSError(errno.EPERM, "refused"))


@pytest.mark.root
def test_an_ipv6_address_is_explained_where_ipv6_is_off() -> None:
    """The kernel says "Permission denied" to root; connect() turns IPv6 on in its own namespace."""
    with Namespace() as namespace:
        namespace.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")

        def body() -> None:
            tun = LinuxTun.open("wgt0")
            with Netlink() as netlink:
                netlink.set_up("wgt0")
                with pytest.raises(wgpy.NetworkError) as raised:
                    netlink.add_address("wgt0", ip_interface("fd00::1/64"))
            tun.close()
            assert "IPv6 is off (net.ipv6.conf.all.disable_ipv6 is 1): " in str(raised.value)
            assert "net.ipv6.conf.default.disable_ipv6=0" in str(raised.value)

            async def main() -> None:
                config = wgpy.InterfaceConfig(
                    private_key=wgpy.PrivateKey.generate(), addresses=(ip_interface("fd00::1/64"),)
                )
                async with wgpy.connect(config) as tunnel:
                    (await tunnel.listening_socket(("fd00::1", 0))).close()

            asyncio.run(main())

        namespace.call(body)
