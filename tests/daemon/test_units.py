"""The systemd units: systemd understands them, and wgpy works within their restrictions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.netns import Namespace
from tests.support.peers import WGPY, fresh_name, wait_for
from tests.support.tools import needs
from wgpy.keys import PrivateKey

UNITS = Path(__file__).parents[2] / "systemd"


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", ["wgpy@.service", "wgpy-quick@.service", "wgpy-gateway.service"])
@pytest.mark.parametrize("spoilt", [False, True])
def test_systemd_accepts_each_unit(tmp_path: Path, unit: str, spoilt: bool) -> None:
    program = tmp_path / "bin/wgpy"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = (UNITS / unit).read_text().replace("/usr/local", str(tmp_path))
    (tmp_path / unit).write_text(text.replace("RestartSec=", "RestartSeconds=").replace("RemainAfter", "RemainsAfter"))
    if not spoilt:
        (tmp_path / unit).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if unit in line]
    assert bool(said) is spoilt, done.stderr
    assert spoilt or done.returncode == 0


@needs("systemd-analyze")
@pytest.mark.parametrize(
    ("unit", "exposure"), [("wgpy@.service", 3.0), ("wgpy-quick@.service", 7.0), ("wgpy-gateway.service", 3.0)]
)
def test_each_unit_is_restricted_as_far_as_possible(unit: str, exposure: float) -> None:
    """By systemd's own scale of 0 to 10. wgpy-quick@ says which hooks each missing directive would break."""
    command = ("systemd-analyze", "security", "--offline=true", f"--threshold={exposure * 10:.0f}", str(UNITS / unit))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ UMask=" in done.stdout


@pytest.mark.root
def test_a_units_capabilities_are_enough_for_a_full_tunnel_and_its_hooks(tmp_path: Path) -> None:
    bounding = re.search(r"^CapabilityBoundingSet=(.*)$", (UNITS / "wgpy@.service").read_text(), re.MULTILINE)
    assert bounding
    left = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in bounding[1].split())
    confine = ["setpriv", "--no-new-privs", f"--bounding-set=-all,{left}", f"--inh-caps=-all,{left}"]
    name = fresh_name()
    config, witness = tmp_path / f"{name}.conf", tmp_path / "witness"
    config.touch(mode=0o600)
    config.write_text(
        f"""[Interface]
PrivateKey = {PrivateKey.generate().base64()}
Address = 10.9.0.1/24, fd09::1/64
ListenPort = 443
PostUp = grep CapBnd /proc/self/status > {witness}; wg show %i listen-port >> {witness}
PostUp = sysctl -q -w net.ipv4.ip_forward=1; nft add table inet hooked
PostDown = nft delete table inet hooked
[Peer]
PublicKey = {PrivateKey(b"p" * 32).public_key.base64()}
AllowedIPs = 0.0.0.0/0, ::/0
"""
    )
    with Namespace() as namespace:
        process = namespace.popen(*confine, *WGPY, "run", str(config))
        assert wait_for(lambda: "hooked" in namespace.run("nft", "list", "tables"))
        bounds, port = witness.read_text().splitlines()
        assert int(bounds.split()[1], 16) == 1 << 10 | 1 << 12 | 1 << 13  # linux/capability.h
        assert port == "443"
        assert namespace.run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv4.conf.all.src_valid_mark") == "1\n1\n"
        assert "suppress_prefixlength" in namespace.run("ip", "rule")
        process.terminate()
        assert process.wait(60) == 0
        assert namespace.run("nft", "list", "tables") == ""
