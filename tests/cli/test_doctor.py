"""`wgpy doctor`: what it reports if things work or do not, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Namespace
from tests.support.nobody import as_nobody
from tests.support.peers import WGPY
from wgpy.cli import doctor, main
from wgpy.daemon import dns, timestamp, uapi_client
from wgpy.net import queues
from wgpy.system import kernel


def found(said: str) -> dict[str, dict[str, str]]:
    return {finding["name"]: finding for finding in json.loads(said)}


def test_every_probe_reports_and_every_problem_has_a_remedy() -> None:
    findings = list(doctor.examine())
    assert len(findings) >= len(doctor.PROBES)
    for finding in findings:
        assert finding.status in ("ok", "warn", "fail")
        assert "\n" not in str(finding)
        assert finding.message
        assert not finding.message.startswith("cannot be determined"), finding


def test_doctor_prints_one_line_for_each_probe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def good(name: str) -> Iterator[doctor.Finding]:
        yield doctor.Finding(name, "ok", "works")

    def bad(name: str) -> Iterator[doctor.Finding]:
        yield doctor.Finding(name, "warn", "does not", "buy another")

    monkeypatch.setattr(doctor, "PROBES", (good, bad))
    assert main(["doctor"]) == 0, "a tunnel can work"
    assert capsys.readouterr().out == "ok    good: works\nwarn  bad: does not; buy another\n"
    assert main(["doctor", "--json"]) == 0
    assert found(capsys.readouterr().out)["bad"] == {
        "name": "bad",
        "status": "warn",
        "message": "does not",
        "remedy": "buy another",
    }


def test_a_failure_exits_with_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def hopeless(name: str) -> Iterator[doctor.Finding]:
        yield doctor.Finding(name, "fail", "no")

    monkeypatch.setattr(doctor, "PROBES", (hopeless,))
    assert main(["doctor"]) == 1


def test_a_probe_that_raises_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Iterator[doctor.Finding]:
        yield doctor.Finding(name, "ok", "so far")
        raise ZeroDivisionError("oh")

    def good(name: str) -> Iterator[doctor.Finding]:
        yield doctor.Finding(name, "ok", "works")

    monkeypatch.setattr(doctor, "PROBES", (broken, good))
    assert [str(finding) for finding in doctor.examine()] == [
        "ok    broken: so far",
        "warn  broken: cannot be determined: ZeroDivisionError: oh",
        "ok    good: works",
    ]


def test_a_clock_behind_the_last_timestamp_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timestamp, "FLOOR_FILE", tmp_path / "floor")
    assert [finding.status for finding in doctor._clock("clock")] == ["ok"]
    (tmp_path / "floor").write_text(f"{2**62}\n")
    (finding,) = doctor._clock("clock")
    assert finding.status == "warn"
    assert "behind" in finding.message


def test_doctor_names_the_packages_of_missing_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = {finding.name: finding for finding in doctor.examine()}
    for name in ("firewall", "DNS", "bash", "wg", "wg-quick"):
        assert findings[name].status == "warn"
        assert findings[name].remedy.startswith("install "), name


def test_the_dns_tool_is_resolvconf_where_resolved_does_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dns.tools() == []
    for program in ("resolvconf", "resolvectl", "systemctl"):
        (tmp_path / program).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / program).chmod(0o755)
        assert dns.tools() == ["resolvconf"]
    (tmp_path / "systemctl").write_text("#!/bin/sh\nexit 0\n")
    assert dns.tools() == ["resolvectl", "resolvconf"]


def test_doctor_does_not_leave_the_socket_directory_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uapi_client, "DIRECTORY", tmp_path / "wireguard")
    assert [finding.status for finding in doctor._uapi_sockets("x")] == ["ok"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "wireguard").write_text("a file")
    assert [finding.status for finding in doctor._uapi_sockets("x")] == ["warn"]  # exec works


def test_doctor_reports_a_kernel_that_cannot_sort_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "SO_ATTACH_REUSEPORT_CBPF", 9999)
    findings = {finding.name: finding for finding in doctor._udp("udp")}
    assert findings["udp queues"].status == "warn"
    assert "Linux 4.5" in findings["udp queues"].remedy


@pytest.mark.root
def test_doctor_tries_a_tunnel_and_leaves_nothing_behind() -> None:
    with Namespace() as namespace:
        namespace.run("ip", "link", "set", "lo", "up")
        commands = ("ip -o link", "ip rule", "ip route show table all", "nft list ruleset", "sysctl net.ipv4.conf.all")
        before = [namespace.run(*command.split()) for command in commands]
        sockets = list(uapi_client.DIRECTORY.glob("*"))
        findings = found(namespace.run(*WGPY, "doctor", "--json"))
        assert [namespace.run(*command.split()) for command in commands] == before
        assert not [path for path in uapi_client.DIRECTORY.glob(".doctor*") if path not in sockets]
    for name in ("daemon", "commands without root", "library"):
        assert findings[name]["status"] == "ok", findings[name]
    for name in ("privilege", "tun", "netlink", "uapi sockets", "udp", "udp queues", "UDP GSO", "UDP GRO", "firewall"):
        assert findings[name]["status"] == "ok", findings[name]


@pytest.mark.root
def test_doctor_reports_what_is_switched_off() -> None:
    with Namespace() as namespace:
        namespace.run("sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1")
        namespace.run("ip", "link", "set", "lo", "down")
        findings = found(namespace.run(*WGPY, "doctor", "--json"))
    assert findings["IPv6"]["status"] == "warn"
    assert findings["IPv6"]["remedy"] == "sysctl net.ipv6.conf.all.disable_ipv6=0"
    assert findings["UDP GSO"]["status"] == "warn"
    assert findings["UDP GSO"]["remedy"] == "ip link set lo up"


@pytest.mark.root
def test_an_ordinary_user_is_told_what_works_for_them() -> None:
    """The daemon does not work, but everything else does, so nothing is reported as `fail`."""

    async def main() -> None:
        await asyncio.to_thread(body)

    def body() -> None:
        done = subprocess.run([*WGPY, "doctor", "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        findings = found(done.stdout)
        assert not [finding for finding in findings.values() if finding["status"] == "fail"]
        assert findings["daemon"]["status"] == "warn"
        assert "wgpy up, run and serve do not work: the host's interfaces cannot be" in findings["daemon"]["message"]
        assert findings["uapi sockets"]["status"] == "warn"
        for name in ("commands without root", "library"):
            assert findings[name]["status"] == "ok", findings[name]

    with Namespace() as namespace:
        as_nobody(namespace, main)


@pytest.mark.root
def test_without_privileges_doctor_points_to_the_stack() -> None:
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", *WGPY, "doctor", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    findings = found(done.stdout)
    for name in ("privilege", "tun"):
        assert findings[name]["status"] == "warn"
        assert "root" in str(findings[name])
    assert findings["without root"]["message"].startswith(
        "tunnels use wgpy's own TCP/IP stack, because no namespace can be"
    )
    assert "do not work: " in findings["daemon"]["message"]
    assert findings["commands without root"]["message"] == (
        "wgpy proxy, forward and stdio work, on wgpy's own stack: exec does not"
    )
    assert findings["library"]["status"] == "ok"
    assert findings["udp"]["status"] == findings["udp queues"]["status"] == "ok"


@pytest.mark.parametrize(
    ("release", "variables", "remedies"),
    [
        ("6.18.2", (), ("", "")),
        ("7.0.0-14-generic", (), ("use Linux 7.1.5 or later", "this kernel may mangle them: use Linux 7.1.5 or later")),
        ("7.1.5", (), ("", "")),
        ("6.18.2", ("WGPY_NO_UDP_GSO", "WGPY_NO_TUN_OFFLOAD"), ("unset WGPY_NO_UDP_GSO", "unset WGPY_NO_TUN_OFFLOAD")),
    ],
)
@pytest.mark.root
def test_offloads_that_are_not_used_are_reported_with_the_reason(
    release: str, variables: tuple[str, ...], remedies: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel, "release", lambda: release)
    monkeypatch.setattr(doctor, "_DEVICES", tmp_path)
    for variable in variables:
        monkeypatch.setenv(variable, "1")
    findings = {finding.name: finding for finding in (*doctor._udp_offload("udp"), *doctor._tun("tun"))}
    told = findings["UDP GSO"], findings["tun USO"]
    assert tuple(finding.remedy for finding in told) == remedies
    assert {finding.status for finding in told} == {"warn" if any(remedies) else "ok"}


def test_doctor_reports_a_virtual_network_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A guest cannot see what the host's kernel does with UDP super-packets."""
    monkeypatch.setattr(kernel, "release", lambda: "6.17.0-41-generic")
    monkeypatch.setattr(doctor, "_DEVICES", tmp_path)
    (tmp_path / "virtio_net").mkdir()
    (tmp_path / "eth0/device").mkdir(parents=True)
    (tmp_path / "eth0/device/driver").symlink_to(tmp_path / "virtio_net")
    (finding,) = (finding for finding in doctor._udp_offload("udp") if finding.name == "UDP GSO")
    assert (finding.status, finding.remedy[-12:]) == ("ok", "--no-udp-gso")
