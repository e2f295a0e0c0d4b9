"""`wgpy INTERFACE`, wireguard-go's contract, and the stock wg-quick on top of it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import Cable
from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace, is_settled
from tests.support.peers import WGPY, WireguardGo, fresh_name, peer_section, wait_for, wgpy_program
from wgpy.daemon.stop import log_path
from wgpy.daemon.uapi_client import serving_pid
from wgpy.keys import PrivateKey

pytestmark = pytest.mark.root

KEY = PrivateKey(b"k" * 32)


class Bare:
    """A namespace, and the name of an interface in it."""

    def __init__(self, namespace: Namespace) -> None:
        self.run = namespace.run
        self.namespace = namespace
        self.name = fresh_name()
        self.socket = Path(f"/var/run/wireguard/{self.name}.sock")

    def exists(self) -> bool:
        return self.name in self.run("ip", "-o", "link")

    def listens(self) -> bool:
        return self.run("ss", "-Hlun") != ""


@pytest.fixture
def bare() -> Iterator[Bare]:
    with Namespace() as namespace:
        bare = Bare(namespace)
        yield bare
        namespace.run("ip", "link", "delete", bare.name, check=False)
        assert wait_for(lambda: not bare.socket.exists())


def test_serve_returns_when_the_interface_can_be_configured(bare: Bare) -> None:
    bare.run(forked_wgpy(), bare.name)
    assert bare.exists()
    assert bare.socket.stat().st_mode & 0o777 == 0o700
    assert bare.socket.parent.stat().st_mode & 0o777 == 0o755
    assert bare.name in bare.run("wg", "show", "interfaces")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_new_interface_has_the_mtu_of_wireguard_gos(bare: Bare, workers: str) -> None:
    bare.run(forked_wgpy(), "serve", "--workers", workers, bare.name)
    bare.run("wireguard-go", "other")
    ours, theirs = (bare.run("cat", f"/sys/class/net/{name}/mtu") for name in (bare.name, "other"))
    assert ours == theirs == "1420\n"
    bare.run("ip", "link", "delete", "other")


def test_sockets_are_open_while_the_link_is_up_and_keep_their_port(bare: Bare) -> None:
    bare.run(forked_wgpy(), bare.name)
    assert not bare.listens()
    for _ in range(2):
        bare.run("ip", "link", "set", bare.name, "up")
        assert wait_for(bare.listens)
        port = bare.run("wg", "show", bare.name, "listen-port").strip()
        assert f":{port}" in bare.run("ss", "-Hlun")
        bare.run("ip", "link", "set", bare.name, "down")
        assert wait_for(lambda: not bare.listens())
        assert bare.run("wg", "show", bare.name, "listen-port").strip() == port


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "link", "socket"])
def test_serve_ends_and_leaves_nothing(bare: Bare, how: str) -> None:
    bare.run(forked_wgpy(), bare.name)
    pid = serving_pid(bare.name)
    if how == "link":
        bare.run("ip", "link", "delete", bare.name)
    elif how == "socket":
        bare.socket.unlink()
    else:
        os.kill(pid, signal.Signals[how])
    assert wait_for(lambda: not bare.exists() and not bare.socket.exists() and not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("options", [["-f"], ["--foreground"], []])
def test_serve_can_run_in_the_foreground(bare: Bare, options: list[str]) -> None:
    environment = {**os.environ, **({} if options else {"WG_PROCESS_FOREGROUND": "1"})}
    process = bare.namespace.popen(*WGPY, *options, bare.name, env=environment, stderr=subprocess.PIPE)
    assert wait_for(bare.socket.exists)
    assert process.poll() is None
    process.terminate()
    assert process.wait(60) == 0
    assert not bare.exists()


@pytest.mark.parametrize("level", ["verbose", "silent", ""])
def test_with_log_level_the_daemon_logs_to_standard_error(bare: Bare, tmp_path: Path, level: str) -> None:
    said = tmp_path / "said"
    with said.open("w") as stderr:
        environment = {**os.environ, "LOG_LEVEL": level}
        assert bare.namespace.popen(*WGPY, bare.name, env=environment, stderr=stderr).wait(20) == 0
    assert log_path(bare.name).exists() is (level != "verbose")
    bare.run("ip", "link", "set", bare.name, "up")
    peer = PrivateKey(b"p" * 32).public_key.base64()
    command = ["wg", "set", bare.name, "private-key", "/dev/stdin", "peer", peer]
    bare.run(*command, "endpoint", "127.0.0.1:9", "persistent-keepalive", "1", input=KEY.base64())
    assert wait_for(lambda: "handshake" in said.read_text(), 10 if level == "verbose" else 0) is (level == "verbose")
    bare.run("ip", "link", "delete", bare.name)
    assert wait_for(lambda: not bare.socket.exists() and not log_path(bare.name).exists()), "a daemon's proper end"


def test_a_name_with_a_pattern_gets_a_number(bare: Bare) -> None:
    bare.run(forked_wgpy(), f"{bare.name}-%d")
    bare.name += "-0"
    bare.socket = bare.socket.with_name(f"{bare.name}.sock")
    assert bare.exists()
    assert bare.name in bare.run("wg", "show", "interfaces")
    assert log_path(bare.name).exists()


def test_a_second_daemon_for_an_interface_is_refused(bare: Bare) -> None:
    bare.run(forked_wgpy(), bare.name)
    said = bare.run(forked_wgpy(), bare.name, check=False)
    assert "already exists" in said
    assert said.count("\n") == 1
    assert bare.name in bare.run("wg", "show", "interfaces")


def test_inherited_file_descriptors_are_used(bare: Bare) -> None:
    program = f"""
import os, socket, sys
from wgpy.tun.linux import LinuxTun
tun = LinuxTun.open("{bare.name}")
listener = socket.socket(socket.AF_UNIX)
listener.bind("{bare.socket}")
listener.listen()
for fd in (tun.fileno(), listener.fileno()):
    os.set_inheritable(fd, True)
os.environ.update(WG_TUN_FD=str(tun.fileno()), WG_UAPI_FD=str(listener.fileno()))
os.execv(sys.executable, [sys.executable, "-m", "wgpy", "-f", "{bare.name}"])
"""
    bare.socket.parent.mkdir(exist_ok=True)
    process = bare.namespace.popen(WGPY[0], "-c", program)
    assert wait_for(bare.socket.exists)
    assert f"interface: {bare.name}" in bare.run("wg", "show", bare.name)
    process.terminate()
    assert process.wait(60) == 0
    assert not bare.exists()


def test_a_bad_file_descriptor_gives_one_clear_error(bare: Bare) -> None:
    for value in ("x", "999"):
        said = bare.run("env", f"WG_TUN_FD={value}", *WGPY, bare.name, check=False)
        assert said == f"wgpy: WG_TUN_FD={value}: expected the number of an open file descriptor\n"


def test_a_change_of_the_mtu_is_noticed(bare: Bare) -> None:
    bare.run(forked_wgpy(), bare.name)
    bare.run("ip", "address", "add", "10.9.0.1/24", "dev", bare.name)
    bare.run("ip", "link", "set", bare.name, "mtu", "1000", "up")
    peer = PrivateKey(b"p" * 32).public_key.base64()
    command = ["wg", "set", bare.name, "private-key", "/dev/stdin", "peer", peer, "allowed-ips", "10.9.0.0/24"]
    bare.run(*command, input=KEY.base64())
    # No endpoint: the answer to a packet of the new MTU is an ICMP error, not silence.
    said = bare.run("ping", "-c", "1", "-W", "10", "-s", "972", "10.9.0.2", check=False)
    assert "Destination Host Unreachable" in said


@pytest.mark.parametrize("full", [False, True], ids=["split", "full-tunnel"])
def test_stock_wg_quick_runs_on_it(cable: Cable, full: bool) -> None:
    left, right = cable.left, cable.right
    theirs = WireguardGo(right, peer_section(left))
    cable.cleanup.callback(theirs.close)
    path = cable.directory / f"{left.name}.conf"
    path.touch(mode=0o600)
    peer = peer_section(right)
    if full:
        peer = peer.split("AllowedIPs")[0] + "AllowedIPs = 0.0.0.0/0, ::/0"
    path.write_text(
        f"[Interface]\nAddress = {left.inner4}/24, {left.inner6}/64\nPrivateKey = {left.key.base64()}\n{peer}\n"
    )
    run = left.namespace.run
    assert wait_for(lambda: is_settled(left.namespace))
    surroundings = ("ip -o link", "ip rule", "ip -6 rule", "ip route show table all", "nft list ruleset")
    before = [run(*command.split()) for command in surroundings]
    cable.cleanup.callback(run, "wg-quick", "down", str(path), check=False)
    run("env", f"WG_QUICK_USERSPACE_IMPLEMENTATION={wgpy_program(cable.directory)}", "wg-quick", "up", str(path))
    for address in (right.inner4, right.inner6):
        run("ping", "-c", "2", "-i", "0.2", "-W", "5", address)
    run("wg-quick", "down", str(path))
    assert wait_for(lambda: not Path(f"/var/run/wireguard/{left.name}.sock").exists())
    assert [run(*command.split()) for command in surroundings] == before


def test_20_it_follows_its_interface_into_another_namespace(bare: Bare) -> None:
    """As for wireguard.com/netns: sockets stay, the interface goes where programs are that shall use nothing else.

    The kernel's scenario 20: when that namespace is deleted, nothing keeps it, nor the daemon.
    """
    bare.run(forked_wgpy(), bare.name)
    pid = serving_pid(bare.name)
    with Namespace() as inside:
        bare.run("ip", "link", "set", bare.name, "netns", inside.name)
        for _ in range(2):
            inside.run("ip", "link", "set", bare.name, "mtu", "1300", "up")
            assert wait_for(bare.listens)
            inside.run("ip", "link", "set", bare.name, "down")
            assert wait_for(lambda: not bare.listens())
        inside.run("ip", "link", "set", bare.name, "netns", bare.namespace.name)
        bare.run("ip", "link", "set", bare.name, "up")
        assert wait_for(bare.listens)
        bare.run("ip", "link", "set", bare.name, "netns", inside.name)
        assert wait_for(lambda: not bare.listens())
    assert wait_for(lambda: not bare.socket.exists() and not Path(f"/proc/{pid}").exists())
