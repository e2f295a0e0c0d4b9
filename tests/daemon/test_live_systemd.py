"""The units under a running systemd: starting, watchdog, reload, restart and limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.machine import Machine
from tests.support.peers import wait_for
from wgpy.keys import PrivateKey
from wgpy.system.priority import NICE

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("systemd")]

OURS, THEIRS, OTHER = PrivateKey(b"o" * 32), PrivateKey(b"t" * 32), PrivateKey(b"x" * 32)
CONFIG = f"""[Interface]
PrivateKey = {OURS.base64()}
Address = 10.9.0.1/24, fd09::1/64
DNS = 10.9.0.2, example.org
[Peer]
PublicKey = {THEIRS.public_key.base64()}
Endpoint = 192.0.2.2:51820
AllowedIPs = 0.0.0.0/0, ::/0
"""
PEER = """
ip netns add peer
ip link add veth0 type veth peer name veth0 netns peer
ip address add 192.0.2.1/24 dev veth0; ip link set veth0 up
alias peer='ip netns exec peer'
peer ip address add 192.0.2.2/24 dev veth0; peer ip link set veth0 up; peer ip link set lo up
peer wireguard-go peer0
peer wg set peer0 listen-port 51820 private-key /dev/stdin peer {public_key} allowed-ips 10.9.0.1/32,fd09::1/128
peer ip address add 10.9.0.2/24 dev peer0; peer ip -6 address add fd09::2/64 dev peer0 nodad; peer ip link set peer0 up
peer ip address add 203.0.113.1/32 dev lo
"""
# LimitNICE does nothing where this system may not raise its own limits (CAP_SYS_RESOURCE).
PERMITTED = "[Service]\nCapabilityBoundingSet=CAP_SYS_NICE\n"
QUICKLY = "[Service]\nRestartSec=100ms\nWatchdogSec=2\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine")) as machine:
        script = PEER.format(public_key=OURS.public_key.base64())
        machine.run("bash", "-ec", f"shopt -s expand_aliases\n{script}", text=THEIRS.base64() + "\n")
        machine.write("/etc/wireguard/wg0.conf", CONFIG)
        machine.write("/etc/systemd/system/wgpy@.service.d/quickly.conf", QUICKLY)
        for name in ("wgpy@", "wgpy-quick@"):
            machine.write(f"/etc/systemd/system/{name}.service.d/permitted.conf", PERMITTED)
        machine.run("systemctl", "daemon-reload")
        yield machine


@pytest.fixture
def unit(machine: Machine) -> Iterator[str]:
    machine.write("/etc/wireguard/wg0.conf", CONFIG)
    machine.run("systemctl", "start", "wgpy@wg0")
    yield "wgpy@wg0"
    machine.run("systemctl", "stop", "wgpy@wg0")
    machine.run("systemctl", "reset-failed", "wgpy@wg0", check=False)


def reaches(machine: Machine, address: str) -> bool:
    return " 1 received" in machine.run("ping", "-c1", "-W5", address, check=False)


def nice(machine: Machine, pid: str) -> int:
    return int(machine.run("ps", "-o", "nice=", pid))


def handshake(machine: Machine) -> str:
    return machine.run("wg", "show", "wg0", "latest-handshakes")


def test_a_full_tunnel_is_ready_when_start_returns_and_gone_when_stop_returns(machine: Machine, unit: str) -> None:
    assert machine.properties(unit, "NRestarts", "ActiveState") == ["0", "active"]
    assert nice(machine, *machine.properties(unit, "MainPID")) == NICE
    for address in ("10.9.0.2", "fd09::2", "203.0.113.1"):
        assert reaches(machine, address)
    assert "dev wg0" in machine.run("ip", "route", "get", "198.51.100.1")
    assert machine.run("resolvectl", "dns", "wg0").split()[-1] == "10.9.0.2"
    assert machine.run("resolvectl", "domain", "wg0").split()[-2:] == ["example.org", "~."]
    machine.run("systemctl", "stop", unit)
    assert "wg0" not in machine.run("ip", "link")
    assert "suppress_prefixlength" not in machine.run("ip", "rule")
    assert "wg0" not in machine.run("resolvectl", "dns")


def test_a_reload_applies_the_edited_file_and_keeps_the_session(machine: Machine, unit: str) -> None:
    assert reaches(machine, "10.9.0.2")
    before = handshake(machine)
    added = f"[Peer]\nPublicKey = {OTHER.public_key.base64()}\nAllowedIPs = 10.9.0.3/32\n"
    machine.write("/etc/wireguard/wg0.conf", CONFIG + added)
    machine.run("systemctl", "reload", unit)
    assert OTHER.public_key.base64() in machine.run("wg", "show", "wg0", "peers")
    assert before in handshake(machine)
    assert reaches(machine, "10.9.0.2")
    assert before in handshake(machine)
    assert machine.properties(unit, "NRestarts", "ActiveState") == ["0", "active"]


@pytest.mark.parametrize(("signal", "why"), [("KILL", "signal"), ("STOP", "watchdog")])
def test_a_daemon_that_is_killed_or_hangs_is_restarted(machine: Machine, unit: str, signal: str, why: str) -> None:
    (pid,) = machine.properties(unit, "MainPID")
    machine.run("kill", f"-{signal}", pid)
    assert wait_for(lambda: machine.properties(unit, "NRestarts", "ActiveState") == ["1", "active"])
    assert machine.properties(unit, "MainPID") != [pid]
    assert f"result '{why}'" in machine.run("journalctl", "--unit", unit, "--output=cat")
    assert reaches(machine, "10.9.0.2")


def test_up_and_down_work_within_the_restrictions_of_wgpy_quick(machine: Machine) -> None:
    """With a hook that could not work in wgpy@: it makes a network namespace that everyone can see."""
    hooks = "PostUp = ip netns add hooked; nft add table inet hooked; sysctl -qw net.ipv4.ip_forward=1\n"
    hooks += "PostUp = umask >/run/witness; nice >>/run/witness\n"
    hooks += "PostDown = nft delete table inet hooked; ip netns delete hooked\n"
    machine.write("/etc/wireguard/wg0.conf", CONFIG.replace("[Peer]", hooks + "[Peer]"))
    machine.run("systemctl", "start", "wgpy-quick@wg0")
    assert reaches(machine, "203.0.113.1")
    machine.run("ip", "netns", "exec", "hooked", "true")
    assert nice(machine, machine.run("pgrep", "-f", "wgpy up wg0").strip()) == NICE
    assert machine.run("cat", "/run/witness") == "0022\n0\n"
    assert machine.run("resolvectl", "dns", "wg0").split()[-1] == "10.9.0.2"
    machine.run("systemctl", "reload", "wgpy-quick@wg0")
    assert reaches(machine, "10.9.0.2")
    machine.run("systemctl", "stop", "wgpy-quick@wg0")
    assert "wg0" not in machine.run("ip", "link")
    assert "hooked" not in machine.run("ip", "netns") + machine.run("nft", "list", "tables")


def test_the_gateway_works_within_its_restrictions_and_is_restarted_when_it_is_killed(machine: Machine) -> None:
    machine.write("/etc/systemd/system/wgpy-gateway.service.d/quickly.conf", QUICKLY)
    machine.run("systemctl", "daemon-reload")
    for words in (
        "init --interface wg7 --host 192.0.2.1 --port 51999 --pool 10.99.0.0/24 --data-plane wgpy --flow-log",
        "user add alice",
        "device add phone --user alice --output /root/phone.conf",
        "rule add all 0.0.0.0/0 --everyone",
    ):
        machine.run("wgpy", "gateway", *words.split())
    machine.run("systemctl", "start", "wgpy-gateway")
    try:
        assert '"healthy": true' in machine.run("wgpy", "gateway", "status", "--json")
        assert "10.99.0.2/32" in machine.run("wg", "show", "wg7", "allowed-ips")
        (pid,) = machine.properties("wgpy-gateway", "MainPID")
        machine.run("kill", "-KILL", pid)
        assert wait_for(lambda: machine.properties("wgpy-gateway", "NRestarts", "ActiveState") == ["1", "active"])
        assert "10.99.0.2/32" in machine.run("wg", "show", "wg7", "allowed-ips")
        assert machine.run("stat", "-c", "%a", "/var/log/wgpy/flows.jsonl") == "600\n"
        machine.run("wgpy", "gateway", "device", "disable", "phone")
        assert wait_for(lambda: "10.99.0.2" not in machine.run("wg", "show", "wg7", "allowed-ips"))
        machine.run("systemctl", "stop", "wgpy-gateway")
        assert "wgpy-gateway-wg7" in machine.run("nft", "list", "tables")
        assert "iif wg7" in machine.run("ip", "rule")
        errors = machine.run("journalctl", "--unit=wgpy-gateway", "--output=cat", "--priority=err")
        assert "Traceback" not in errors
    finally:
        machine.run("systemctl", "stop", "wgpy-gateway")
        machine.run("wgpy", "gateway", "stop")
    assert "wgpy-gateway-wg7" not in machine.run("nft", "list", "tables")
    assert "iif wg7" not in machine.run("ip", "rule")
    assert "wg7" not in machine.run("ip", "link")
