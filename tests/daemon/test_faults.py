"""If something is killed, deleted or moved, the tunnel recovers, or one line says why not; nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.daemon.test_up_down import Host
from tests.daemon.test_up_down import host as host
from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import Side, StartedWgpy, peer_section, wait_for
from wgpy.daemon.leftovers import Leftovers
from wgpy.daemon.stop import log_path
from wgpy.daemon.uapi_client import serving_pid, socket_path
from wgpy.keys import PrivateKey

pytestmark = pytest.mark.root

MANY: Final = 10_000  # peers


class End:
    """One of two daemons, and the system's resources it uses."""

    def __init__(self, side: Side, other: Side, directory: Path) -> None:
        self.side, self.other, self.directory = side, other, directory
        self.up()

    def up(self) -> None:
        self.daemon = StartedWgpy(self.side, self.directory, peer_section(self.other))
        self.pid = serving_pid(self.side.name)

    def reaches(self, seconds: int = 30) -> bool:
        """Whether a ping is answered within this many seconds."""
        ping = ("ping", "-c1", "-i0.2", f"-w{seconds}", self.other.inner4)
        return ", 0 received" not in self.side.namespace.run(*ping, check=False)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert wait_for(lambda: not Path(f"/proc/{self.pid}").exists())

    def drops(self) -> list[dict[str, int]]:
        """The drops by reason, of the device and of each peer."""
        status = self.daemon.status()
        return [status["drops"], *(peer["drops"] for peer in status["peers"])]

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident(self) -> int:
        """Resident memory in MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[End, End]]:
    """Two daemons that have exchanged a packet. At the end, neither may have printed anything but its steps."""
    with Namespace() as left, Namespace() as right:
        veth_pair(left, right, (["10.0.0.1/24"], ["10.0.0.2/24"]))
        a = Side(left, "10.0.0.1", "10.9.0.1", "fd09::1")
        b = Side(right, "10.0.0.2", "10.9.0.2", "fd09::2")
        both = End(a, b, tmp_path), End(b, a, tmp_path)
        assert both[0].reaches()
        open_files = [end.open_files() for end in both]
        yield both
        assert wait_for(lambda: [end.open_files() for end in both] == open_files)
        for end in both:
            end.daemon.close()
            assert "Traceback" not in end.daemon.said
            assert not log_path(end.side.name).exists()


@contextmanager
def pinging(end: End) -> Iterator[list[str]]:
    """Pings ten times a second during the block; the summary is complete at its end."""
    said: list[str] = []
    process = end.side.namespace.popen("ping", "-i0.1", end.other.inner4, stdout=-1)
    yield said
    process.send_signal(signal.SIGINT)
    said.append(process.communicate(timeout=60)[0])


@pytest.mark.parametrize("which", [0, 1])
def test_a_peer_whose_daemon_was_killed_comes_back(ends: tuple[End, End], which: int) -> None:
    victim, other = ends[which], ends[1 - which]
    victim.kill()
    victim.up()
    assert victim.reaches()
    assert other.reaches()


def test_an_outer_address_that_is_removed_is_replaced_by_another(ends: tuple[End, End]) -> None:
    a, b = ends
    assert b.reaches()
    a.side.namespace.run("ip", "address", "add", "10.0.0.3/24", "dev", "veth0")
    a.side.namespace.run("sysctl", "-q", "net.ipv4.conf.all.promote_secondaries=1")
    a.side.namespace.run("ip", "address", "delete", "10.0.0.1/24", "dev", "veth0")
    assert a.reaches()
    assert b.reaches()
    assert b.daemon.status()["peers"][0]["endpoint"] == "10.0.0.3:51820"


def test_a_changed_route_is_used(ends: tuple[End, End]) -> None:
    a, b = ends
    veth_pair(a.side.namespace, b.side.namespace, (["10.1.0.1/24"], ["10.1.0.2/24"]), name="veth1")
    for end, via in ((a, "10.1.0.2"), (b, "10.1.0.1")):
        end.side.namespace.run("ip", "link", "set", "veth0", "down")
        end.side.namespace.run("ip", "address", "add", f"{end.side.outer}/32", "dev", "lo")
        end.side.namespace.run("ip", "route", "replace", f"{end.other.outer}/32", "via", via)
    assert a.reaches()
    assert b.reaches()


def test_traffic_resumes_when_a_lost_carrier_comes_back(ends: tuple[End, End]) -> None:
    a, _ = ends
    a.side.namespace.run("ip", "link", "set", a.side.name, "carrier", "off")
    assert wait_for(lambda: not a.reaches(1))  # the kernel takes note once a second
    a.side.namespace.run("ip", "link", "set", a.side.name, "carrier", "on")
    assert a.reaches()


def test_a_change_to_a_port_in_use_keeps_the_old_port(ends: tuple[End, End]) -> None:
    a, _ = ends

    def occupied() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("0.0.0.0", 5557))
            command = (forked_wgpy(), "set", a.side.name, "listen-port", "5557")
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "Address already in use" in done.stderr
        assert done.stderr.count("\n") == 1

    a.side.namespace.call(occupied)
    assert a.daemon.status()["listen_port"] == 51820
    assert a.reaches()


def test_ten_thousand_peers_are_removed_under_traffic(ends: tuple[End, End], tmp_path: Path) -> None:
    a, _ = ends
    alone = tmp_path / "alone.conf"
    own = f"[Interface]\nPrivateKey = {a.side.key.base64()}\nListenPort = 51820\n"
    alone.write_text(own + peer_section(a.other))
    crowd = tmp_path / "crowd.conf"
    crowd.write_text(
        alone.read_text()
        + "".join(
            f"\n[Peer]\nPublicKey = {PrivateKey(number.to_bytes(32)).public_key.base64()}\n"
            f"Endpoint = 10.0.0.2:9\nAllowedIPs = 172.16.{number >> 8}.{number & 255}/32\n"
            for number in range(1, MANY + 1)
        )
    )
    sizes = []
    with pinging(a) as said:
        for _ in range(3):
            for path in (crowd, alone):
                a.side.namespace.run(forked_wgpy(), "syncconf", a.side.name, str(path), timeout=60)
                sizes.append(a.resident())
    assert " 0% packet loss" in said[0], said[0]
    assert len(a.daemon.status()["peers"]) == 1
    assert sizes[-1] <= sizes[1] + 5, sizes


@pytest.mark.parametrize("verb", ["up", "down"])
def test_only_what_a_killed_daemon_left_is_removed(host: Host, verb: str) -> None:
    host.namespace.run("ip", "rule", "add", "not", "fwmark", "51900", "table", "51900")  # somebody else's
    before = host.surroundings()
    host.write("", "AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 192.0.2.2:51820")
    host.up()
    os.kill(serving_pid(host.name), signal.SIGKILL)
    assert wait_for(lambda: host.name not in host.namespace.run("ip", "-o", "link"))
    assert "lookup 51820" in host.namespace.run("ip", "rule")
    if verb == "up":
        assert "clean up after a killed daemon" in host.up()
        assert host.namespace.run("ip", "rule").count("lookup 51820") == 1
    said = host.wgpy("down", host.name)
    assert ("clean up after a killed daemon" in said) is (verb == "down")
    assert host.surroundings() == before
    assert not log_path(host.name).exists()
    assert "no daemon serves" in host.refused("down", host.name)


def test_the_socket_of_a_killed_daemon_is_removed(host: Host) -> None:
    host.write()
    host.up()
    os.kill(serving_pid(host.name), signal.SIGKILL)
    assert wait_for(lambda: host.name not in host.namespace.run("ip", "-o", "link"))
    assert host.wgpy("down", host.name) == f"[#] clean up after a killed daemon: {socket_path(host.name)}\n"
    assert not socket_path(host.name).exists()
    assert "no daemon serves" in host.refused("down", host.name)


def test_leftovers_of_another_namespace_or_that_cannot_be_read_are_left_alone(host: Host) -> None:
    path = Path(f"/run/wgpy/{host.name}.left")
    path.parent.mkdir(exist_ok=True)
    for text in ('{"namespace": 1, "entries": [4, "dns"]}', "", "[]", '{"namespace": "x"}', "{"):
        path.write_text(text)
        assert not Leftovers(host.name).clear(pytest.fail)
    path.unlink()
