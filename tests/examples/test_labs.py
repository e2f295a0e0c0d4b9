"""Every lab runs, finds what it should, and leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.peers import WGPY, wait_for
from wgpy.cli.lab import NAMES, directory


def leftovers(pid: int) -> list[Path]:
    """What is still named for the lab of a process."""
    places = {"/run/netns": f"lab-{pid}-*", "/var/run/wireguard": f"*-{pid}.sock", "/run/wgpy": f"*-{pid}.log"}
    places |= {"/tmp": f"wgpy-lab-{pid}-*", "/etc/netns": f"lab-{pid}-*"}
    return [path for place, pattern in places.items() for path in Path(place).glob(pattern)]


def processes(pid: str) -> list[str]:
    """The command lines of what still runs for the lab of a process: they name its namespaces, interfaces or files."""
    names = (f"lab-{pid}-", f"-{pid} ", f"-{pid}.conf", f"wgpy-lab-{pid}-")
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [command for command in commands.splitlines() if any(name in f"{command} " for name in names)]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = ("env", "--default-signal=INT", *WGPY, "lab", *arguments)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def run(name: str) -> tuple[int, int, str, str]:
    """A lab to its end: its process, exit status, findings and progress."""
    lab = start(name, "--json")
    found, progress = lab.communicate(timeout=280)
    return lab.pid, lab.returncode, found, progress


@pytest.fixture(scope="module")
def labs(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[tuple[int, int, str, str]]]]:
    """All labs of this session, three at a time: mostly they wait."""
    tests = [item for item in request.session.items if "labs" in getattr(item, "fixturenames", ())]
    names = [test.callspec.params["name"] for test in tests]  # type: ignore[attr-defined]
    with ThreadPoolExecutor(3) as pool:
        yield {name: pool.submit(run, name) for name in names}
        pool.shutdown(cancel_futures=True)


@pytest.mark.root
@pytest.mark.xdist_group("labs")
@pytest.mark.parametrize("name", NAMES)
def test_a_lab_passes_and_leaves_nothing(name: str, labs: dict[str, Future[tuple[int, int, str, str]]]) -> None:
    pid, status, found, progress = labs[name].result()
    checks = json.loads(found)
    assert status == 0, [check for check in checks if not check["passed"]] + [progress]
    assert len(checks) >= 4
    assert all(check["passed"] and check["measured"] for check in checks)
    assert leftovers(pid) == []


@pytest.mark.root
@pytest.mark.parametrize("name", ["site_to_site", "private_api"])
@pytest.mark.parametrize(
    ("number", "said", "seconds"), [(signal.SIGTERM, ":", 0.2), (signal.SIGINT, "==>", 0.5), (signal.SIGHUP, "ok", 0.0)]
)
def test_an_interrupted_lab_leaves_nothing(name: str, number: signal.Signals, said: str, seconds: float) -> None:
    lab = start(name)
    assert lab.stdout is not None
    next(line for line in lab.stdout if said in line)  # while it builds, as daemons start, and amid traffic
    time.sleep(seconds)  # wherever it is by then
    os.killpg(lab.pid, number)
    errors = lab.communicate(timeout=60)[1]
    assert lab.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert leftovers(lab.pid) == []
    assert processes(str(lab.pid)) == []


@pytest.mark.root
def test_a_lab_ends_though_a_destructor_swallows_the_interruption(tmp_path: Path) -> None:
    """As the import system's do: Python prints what is raised in one, and goes on."""
    program = """
import os, signal, sys, time
from pathlib import Path
from wgpy.labs.lab import Lab
from wgpy.labs.topology import Topology

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

with Lab(Path(sys.argv[1]), Topology("nothing", (), ())):
    Swallows()
    print("it went on", flush=True)
    time.sleep(30)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stdout == "it went on\n"


@pytest.mark.root
def test_the_next_run_removes_a_lab_that_was_killed() -> None:
    lab = start("site_to_site")
    assert wait_for(lambda: len(leftovers(lab.pid)) > 3)
    lab.kill()
    lab.communicate(timeout=10)
    assert leftovers(lab.pid)
    program = "from wgpy.labs.lab import sweep; sweep()"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert leftovers(lab.pid) == []


@pytest.mark.root
def test_a_kept_lab_can_be_inspected_and_captured(tmp_path: Path) -> None:
    lab = start("site_to_site", "--keep", "--capture", str(tmp_path))
    assert lab.stdout is not None
    said = []
    for line in lab.stdout:
        said.append(line)
        if line.startswith("ls "):
            break
    show = next(line for line in said if " show " in line)
    assert "latest handshake" in subprocess.run(["sh", "-c", show], capture_output=True, text=True, check=True).stdout
    lab.send_signal(signal.SIGINT)
    assert "FAIL" not in lab.communicate(timeout=30)[0]
    assert lab.returncode == 0
    assert leftovers(lab.pid) == []
    outer = tmp_path / "site_to_site-paris-internet.pcap"
    seen = subprocess.run(["tcpdump", "-nnr", outer, "-c", "50"], capture_output=True, text=True, check=True).stdout
    assert "51820" in seen
    assert "10.1.1.2" not in seen.replace("10.1.1.2 > 10.2.2.2: ICMP echo request", "", 2)  # sent before the tunnel was


def test_a_lab_needs_root() -> None:
    # Loaded as root first, if we are: nobody may be kept from reading this checkout.
    program = (
        "import os, sys, wgpy.cli.commands, wgpy.cli.lab, wgpy.labs.lab, wgpy.labs.report; from wgpy.cli import main; "
        "wgpy.cli.lab._load = lambda name: {}; os.geteuid() or os.setuid(65534); sys.exit(main(sys.argv[1:]))"
    )
    command = (WGPY[0], "-c", program, "lab", "site_to_site")
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "root" in said.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_is_what_the_lab_builds(name: str) -> None:
    drawn = subprocess.run([*WGPY, "lab", name, "--draw"], capture_output=True, text=True, check=True).stdout
    assert (directory(name) / "topology.svg").read_text() == drawn, f"wgpy lab {name} --draw >topology.svg"
    assert "topology.svg" in (directory(name) / "README.md").read_text()
