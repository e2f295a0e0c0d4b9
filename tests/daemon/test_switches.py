"""Each offload can be turned off by an option, the environment and the file, whatever runs the tunnel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Namespace
from tests.support.peers import WGPY, fresh_name, wait_for, wgpy_program
from wgpy.keys import PrivateKey

pytestmark = pytest.mark.root

KEY = PrivateKey(b"k" * 32)
ONE_AT_A_TIME = "datagrams leave one at a time, without UDP segmentation offload: switched off"
# ETHTOOL_GTSO of linux/ethtool.h: whether the kernel hands TCP super-packets to an interface.
HAS_TSO = """
import array, fcntl, socket, struct, sys
value = array.array("B", struct.pack("II", 0x1E, 0))
fcntl.ioctl(socket.socket(), 0x8946, struct.pack("16sP", sys.argv[1].encode(), value.buffer_info()[0]))
print("TSO" if struct.unpack("II", value)[1] else "no TSO")
"""
SWITCHES = {
    "nothing": ((), {}, "", True, True),
    "options": (("--no-udp-gso", "--no-tun-offload"), {}, "", False, False),
    "one option": (("--no-udp-gso",), {}, "", False, True),
    "all at once": (("--no-offload",), {}, "", False, False),
    "environment": ((), {"WGPY_NO_UDP_GSO": "1", "WGPY_NO_TUN_OFFLOAD": "1"}, "", False, False),
    "one variable": ((), {"WGPY_NO_TUN_OFFLOAD": "1"}, "", True, False),
    "file": ((), {}, "# UdpGso = off\n# TunOffload = off\n", False, False),
    "one line": ((), {}, "# TunOffload = off\n", True, False),
}
PARAMETERS = ("options", "environment", "lines", "gso", "tso")
switched = pytest.mark.parametrize(PARAMETERS, SWITCHES.values(), ids=SWITCHES)
SOURCES = ("nothing", "options", "environment", "file")
switched_once = pytest.mark.parametrize(PARAMETERS, [SWITCHES[source] for source in SOURCES], ids=SOURCES)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


def conf(directory: Path, lines: str) -> Path:
    path = directory / f"{fresh_name()}.conf"
    path.touch(mode=0o600)
    path.write_text(f"[Interface]\nPrivateKey = {KEY.base64()}\n{lines}Address = 10.9.0.1/24\n")
    return path


def within(namespace: Namespace, *command: str) -> list[str]:
    return ["ip", "netns", "exec", namespace.name, *command]


@switched
def test_the_switches_work_with_run(
    namespace: Namespace,
    tmp_path: Path,
    options: tuple[str, ...],
    environment: dict[str, str],
    lines: str,
    gso: bool,
    tso: bool,
) -> None:
    path, log = conf(tmp_path, lines), tmp_path / "log"
    with log.open("w") as written:
        command = within(namespace, *WGPY, "run", *options, str(path))
        process = subprocess.Popen(command, stderr=written, env=os.environ | environment)
        try:
            assert wait_for(lambda: path.stem in namespace.run("ip", "-o", "address"))
            said = namespace.run(sys.executable, "-c", HAS_TSO, path.stem)
        finally:
            process.terminate()
            process.wait(20)
    assert (ONE_AT_A_TIME not in log.read_text(), said == "TSO\n") == (gso, tso)


@switched_once
def test_the_switches_work_with_exec(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str], lines: str, gso: bool, tso: bool
) -> None:
    command = [*WGPY, "exec", "-v", *options, str(conf(tmp_path, lines)), "--", sys.executable, "-c", HAS_TSO, "wg0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    assert (ONE_AT_A_TIME not in done.stderr, done.stdout == "TSO\n") == (gso, tso)


@switched_once
def test_the_switches_work_with_connect(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str], lines: str, gso: bool, tso: bool
) -> None:
    """The library, where an argument takes the place of the option."""
    offloads = "NO_OFFLOADS" if options else "ALL_OFFLOADS"
    program = f"""
import logging, sys, subprocess, wgpy
from wgpy.config.values import ALL_OFFLOADS, NO_OFFLOADS
logging.basicConfig(level=logging.INFO)
with wgpy.blocking.connect({str(conf(tmp_path, lines))!r}, offloads={offloads}) as tunnel:
    program = ("{sys.executable}", "-c", {HAS_TSO!r}, "wg0")
    process = tunnel._call(tunnel._tunnel.create_subprocess_exec(*program))
    tunnel._call(process.wait())
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    assert (ONE_AT_A_TIME not in done.stderr, done.stdout == "TSO\n") == (gso, tso)


@pytest.mark.parametrize("switch", ["nothing", "options", "one option", "environment", "one variable"])
def test_the_switches_work_with_serve(namespace: Namespace, tmp_path: Path, switch: str) -> None:
    options, environment, _, gso, tso = SWITCHES[switch]
    name, log = fresh_name(), tmp_path / "log"
    with log.open("w") as written:
        command = within(namespace, *WGPY, "serve", "-f", *options, name)
        process = subprocess.Popen(command, stderr=written, env=os.environ | environment | {"LOG_LEVEL": "verbose"})
        try:
            assert wait_for(lambda: name in namespace.run("wg", "show", "interfaces"))
            namespace.run("ip", "link", "set", name, "up")
            assert wait_for(lambda: namespace.run("ss", "-Hlun") != "")
            said = namespace.run(sys.executable, "-c", HAS_TSO, name)
        finally:
            process.terminate()
            process.wait(20)
    assert (ONE_AT_A_TIME not in log.read_text(), said == "TSO\n") == (gso, tso)


def test_under_wg_quick_the_environment_has_the_switches(namespace: Namespace, tmp_path: Path) -> None:
    """wg-quick passes no options on, so the environment sets the offloads, events, metrics and key log."""
    path = conf(tmp_path, "")
    program = wgpy_program(tmp_path)
    environment = {
        "WG_QUICK_USERSPACE_IMPLEMENTATION": str(program),
        "WGPY_NO_UDP_GSO": "1",
        "WGPY_NO_TUN_OFFLOAD": "1",
        "WGPY_EVENTS": str(tmp_path / "events"),
        "WGPY_KEYLOG": str(tmp_path / "keylog"),
        "WGPY_METRICS": "127.0.0.1:9586",
        "LOG_LEVEL": "verbose",
    }
    environment |= {"PATH": os.environ["PATH"]}
    with (tmp_path / "log").open("w") as log:
        up = within(namespace, "unshare", "-m", "wg-quick", "up", str(path))
        subprocess.run(up, env=environment, stdout=log, stderr=log, check=True)
    try:
        assert namespace.run(sys.executable, "-c", HAS_TSO, path.stem) == "no TSO\n"
        assert ONE_AT_A_TIME in (tmp_path / "log").read_text()
        assert (tmp_path / "events").exists()
        assert (tmp_path / "keylog").exists()
        page = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9586/metrics').read().decode())"
        assert "wireguard_sent_bytes_total" in namespace.run(sys.executable, "-c", page)
    finally:
        namespace.run("ip", "link", "delete", path.stem)
