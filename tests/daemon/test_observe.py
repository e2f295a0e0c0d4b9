"""What a daemon reports besides its status: events, metrics, and keys for Wireshark."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time

import pytest

from tests.interop.conftest import Cable
from tests.support.forked import forked_wgpy
from tests.support.peers import WGPY, Wgpy, WireguardGo, peer_section, wait_for
from wgpy.errors import LabError
from wgpy.keys import PresharedKey

pytestmark = pytest.mark.root


def bring_up(cable: Cable, *options: str, psk: PresharedKey | None = None) -> tuple[Wgpy, WireguardGo]:
    theirs = WireguardGo(cable.right, peer_section(cable.left, psk=psk))
    cable.cleanup.callback(theirs.close)
    named = peer_section(cable.right, psk=psk).replace("[Peer]", "[Peer]\n# Name = right-hand side")
    ours = Wgpy(cable.left, cable.directory, named, options=options)
    cable.cleanup.callback(ours.close)
    return ours, theirs


def test_events_are_lines_of_json(cable: Cable) -> None:
    path = cable.directory / "events"
    _, theirs = bring_up(cable, "--events", str(path))
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    assert path.stat().st_mode & 0o777 == 0o600
    assert wait_for(lambda: path.read_text().count("\n") == 2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["handshake_completed", "peer_heard"]
    for line in lines:
        assert line["interface"] == cable.left.name
        assert line["public_key"] == cable.right.public_key.base64()
        assert line["name"] == "right-hand side"
        assert line["endpoint"] == cable.right.endpoint
    cable.right.namespace.run("wg", "set", theirs.side.name, "listen-port", "9999")
    cable.right.namespace.run("ping", "-c", "1", "-W", "5", cable.left.inner4)
    assert wait_for(lambda: path.read_text().count("\n") == 3)
    assert json.loads(path.read_text().splitlines()[2])["event"] == "endpoint_moved"


def test_a_peer_that_does_not_answer_is_reported_as_lost(cable: Cable) -> None:
    """The daemon gives up after five seconds instead of 90."""
    impatient = "from wgpy import constants; constants.MAX_HANDSHAKE_RETRIES = -1; from wgpy.cli import main; main()"
    path = cable.directory / "events"

    class Impatient(Wgpy):
        program = (sys.executable, "-c", impatient)

    ours = Impatient(cable.left, cable.directory, peer_section(cable.right), options=("--events", str(path)))
    cable.cleanup.callback(ours.close)
    cable.left.namespace.run("ping", "-c", "1", "-W", "1", cable.right.inner4, check=False)
    assert wait_for(lambda: path.read_text() != "", 20)
    line = json.loads(path.read_text())
    assert (line["event"], line["public_key"]) == ("peer_lost", cable.right.public_key.base64())


def test_an_event_log_that_nobody_reads_does_not_delay_packets(cable: Cable) -> None:
    """Standard output is a full pipe."""
    theirs = WireguardGo(cable.right, peer_section(cable.left))
    cable.cleanup.callback(theirs.close)
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    while select.select([], [writable], [], 0)[1]:
        os.write(writable, bytes(1 << 12))
    os.set_blocking(writable, True)
    path = cable.directory / f"{cable.left.name}.conf"
    path.touch(mode=0o600)
    key, address = cable.left.key.base64(), f"{cable.left.inner4}/24"
    path.write_text(f"[Interface]\nPrivateKey = {key}\nAddress = {address}\n{peer_section(cable.right)}\n")
    namespace = cable.left.namespace
    daemon = namespace.popen(*WGPY, "run", str(path), "--events", "-", stdout=writable, stderr=subprocess.DEVNULL)
    cable.cleanup.callback(daemon.wait, 60)
    cable.cleanup.callback(daemon.terminate)
    assert wait_for(lambda: "LOWER_UP" in namespace.run("ip", "link", "show", cable.left.name, check=False))
    namespace.run("ping", "-c", "3", "-i", "0.2", "-W", "5", cable.right.inner4)
    os.close(readable)
    os.close(writable)


def test_show_names_peers_and_stock_wg_can_still_read_the_status(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    assert "  name: right-hand side\n" in cable.left.namespace.run(forked_wgpy(), "show", cable.left.name)
    assert ours.status()["peers"][0]["name"] == "right-hand side"
    assert cable.left.namespace.run("wg", "show", cable.left.name, "peers").strip() == cable.right.public_key.base64()


def test_prometheus_reads_the_metrics(cable: Cable) -> None:
    _, theirs = bring_up(cable, "--metrics", "127.0.0.1:9586")
    namespace = cable.left.namespace
    namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    stranger = ("ip", "address", "add", "10.66.0.1/32", "dev", theirs.side.name)
    cable.right.namespace.run(*stranger)
    cable.right.namespace.run("ping", "-c", "1", "-W", "0.1", "-I", "10.66.0.1", cable.left.inner4, check=False)
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9586/metrics', timeout=5).read().decode())"
    text = namespace.run("python3", "-c", fetch)
    from prometheus_client.parser import text_string_to_metric_families

    samples = {s.name: s for family in text_string_to_metric_families(text) for s in family.samples}
    sent = samples["wireguard_sent_bytes_total"]
    assert sent.labels == {
        "interface": cable.left.name,
        "public_key": cable.right.public_key.base64(),
        "allowed_ips": f"{cable.right.inner4}/32,{cable.right.inner6}/128",
        "friendly_name": "right-hand side",
    }
    assert sent.value >= 148 + 128
    assert samples["wireguard_received_bytes_total"].value >= 92 + 128
    assert samples["wireguard_dropped_packets_total"].labels == {
        "interface": cable.left.name,
        "public_key": cable.right.public_key.base64(),
        "friendly_name": "right-hand side",
        "reason": "disallowed_source",
    }
    assert abs(samples["wireguard_latest_handshake_seconds"].value - time.time()) < 60


def test_idle_connections_to_the_metrics_block_nobody(cable: Cable) -> None:
    """1,003 connections once took all descriptors: the daemon spun, and `wg show` got no answer."""
    bring_up(cable, "--metrics", "127.0.0.1:9586")
    program = r"""
import gzip, resource, socket, subprocess, sys, urllib.request
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
silent = [socket.create_connection(("127.0.0.1", 9586)) for _ in range(1003)]
for each in silent[::2]:
    try:
        each.send(b"GET / HTTP/1.1\r\n")
    except OSError:
        pass
print(subprocess.run(["wg", "show", sys.argv[1], "listen-port"], capture_output=True, timeout=20, check=True).stdout)
text = urllib.request.urlopen("http://127.0.0.1:9586/metrics", timeout=20).read()
assert b"wireguard_sent_bytes_total" in text
headers = {"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"}
request = urllib.request.Request("http://127.0.0.1:9586/", headers=headers)
with urllib.request.urlopen(request, timeout=20) as answer:
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert gzip.decompress(answer.read()).endswith(b"# EOF\n")
"""
    cable.left.namespace.run("python3", "-c", program, cable.left.name)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "192.0.2.250:9586"])
def test_an_unusable_address_for_metrics_is_reported_and_up_is_undone(cable: Cable, address: str) -> None:
    with pytest.raises(LabError, match=f"--metrics {address}"):
        Wgpy(cable.left, cable.directory, peer_section(cable.right), options=("--metrics", address))
    assert cable.left.name not in cable.left.namespace.run("ip", "-o", "link")


@pytest.mark.parametrize("preshared", [False, True])
def test_wireshark_decrypts_a_capture_with_the_key_log(cable: Cable, preshared: bool) -> None:
    keys, capture = cable.directory / "keys", cable.directory / "capture.pcap"
    bring_up(cable, "--keylog", str(keys), psk=PresharedKey.generate() if preshared else None)
    recorder = cable.left.namespace.popen(
        "tcpdump", "-U", "-i", "veth0", "-w", str(capture), "udp", stderr=subprocess.PIPE
    )
    assert recorder.stderr is not None
    recorder.stderr.readline()  # "listening on"
    cable.left.namespace.run("ping", "-c", "2", "-i", "0.2", "-W", "5", cable.right.inner4)
    assert wait_for(lambda: capture.stat().st_size > 900)
    recorder.terminate()
    recorder.wait(60)
    assert keys.stat().st_mode & 0o777 == 0o600
    tshark = [
        "tshark",
        "-r",
        str(capture),
        "-o",
        f"wg.keylog_file:{keys}",
        "-Y",
        "icmp",
        "-T",
        "fields",
        "-e",
        "icmp.type",
    ]
    shown = subprocess.run(tshark, capture_output=True, text=True, check=True).stdout.split()
    assert shown == ["8", "0", "8", "0"]
