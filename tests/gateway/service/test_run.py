"""The gateway's process, with the capabilities that its unit leaves it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace
from tests.support.peers import WGPY, fresh_name, wait_for
from wgpy import control

UNIT = Path(__file__).parents[3] / "systemd" / "wgpy-gateway.service"


@pytest.mark.root
def test_it_runs_with_the_capabilities_of_its_unit_and_what_it_made_stays_until_stop(tmp_path: Path) -> None:
    bounding = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert bounding
    left = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in bounding[1].split())
    confine = ["setpriv", "--no-new-privs", f"--bounding-set=-all,{left}", f"--inh-caps=-all,{left}"]
    places = ["--directory", str(tmp_path / "gateway"), "--key", str(tmp_path / "gateway.key")]
    name = fresh_name()
    with (
        Namespace() as host,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):

        def gateway(*words: str, check: bool = True) -> str:
            return host.run(forked_wgpy(), "gateway", *words, *places, check=check)

        gateway("init", "--interface", name, "--host", "192.0.2.1", "--pool", "10.99.0.0/24", "--data-plane", "wgpy")
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        process = host.popen(
            *(
                "env",
                f"NOTIFY_SOCKET={tmp_path / 'notify'}",
                *confine,
                *WGPY,
                "gateway",
                "run",
                "--metrics",
                "127.0.0.1:9586",
                *places,
            ),
            stderr=subprocess.PIPE,
        )
        assert manager.recv(100) == b"READY=1"
        assert control.status(name).listen_port == 51820
        assert json.loads(gateway("status", "--json"))["healthy"] is True
        curl = ["curl", "-sS", "--unix-socket", f"/run/wgpy/gateway-{name}.sock"]
        assert json.loads(host.run(*curl, "http://gateway/api/v1/status"))["healthy"] is True
        for page in ("healthz", "readyz"):
            assert host.run("curl", "-s", "-w", "%{http_code}", f"http://127.0.0.1:9586/{page}") == "ok\n200"
        metrics = host.run("curl", "-s", "http://127.0.0.1:9586/metrics")
        assert "wgpy_gateway_sessions 0.0" in metrics
        assert 'wgpy_gateway_dropped_packets_total{reason="denied"} 0.0' in metrics
        assert "wgpy_gateway_flow_records_lost_total 0.0" in metrics
        assert "runs already" in gateway("run", check=False)
        assert "runs already" in gateway("stop", check=False)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30)[1] == ""
        assert process.returncode == 0
        status = json.loads(gateway("status", "--json", check=False))
        assert (status["running"], status["interface_is_up"]) == (False, True)
        assert f"wgpy-gateway-{name}" in host.run("nft", "list", "tables")
        assert host.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"
        gateway("stop")
        assert wait_for(lambda: not control.is_up(name))
        assert host.run("nft", "list", "tables") == ""
