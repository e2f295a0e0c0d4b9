"""The interop kit: programs that do not start are told from those that fail, and broken ones are caught."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.interop import __main__ as kit
from tests.interop.catalogue import page, scenarios
from tests.interop.conftest import Cable
from tests.interop.conftest import cable as cable
from tests.interop.programs import KINDS
from tests.support import peers
from tests.support.peers import Userspace, wait_for

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs/how-to/interop.md"
SOURCE = re.compile(
    r"paper, \d|RFC \d+|kernel [a-z]+\.(c|sh)|Linux \d|wg\(8\)|wireguard-go |https://www\.wireguard\.com/"
)
# wgpy with three checks taken out: each counter and each timestamp is new to it, and every mac1 is right.
BROKEN = """
from wgpy.cli import main
from wgpy.device.handshake import Handshake
from wgpy.device.replay import ReplayWindow
from wgpy.noise.cookie import CookieChecker

ReplayWindow.accept = ReplayWindow.accept_run = lambda self, counters: True
CookieChecker.verify_mac1 = lambda self, message: True
Handshake.latest_timestamp = property(lambda self: bytes(12), lambda self, timestamp: None)
main()
"""


def program(directory: Path, text: str) -> str:
    """An executable file."""
    path = directory / "program"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def run(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "tests.interop", *options)
    records = (f"--json={directory}/json", f"--junit={directory}/junit", f"--packets={directory}/packets")
    return subprocess.run([*command, *records], capture_output=True, text=True, check=False, cwd=ROOT, timeout=200)


def outcomes(directory: Path) -> dict[str, dict[str, str]]:
    return {result["scenario"]: result for result in json.loads((directory / "json").read_text())["results"]}


def test_each_scenario_says_what_it_expects_and_cites_its_source() -> None:
    found = scenarios()
    assert len(found) > 45
    assert len({scenario.name for scenario in found}) == len(found)
    for scenario in found:
        assert re.match(r"\S.{30,}\.$", scenario.expected.partition("\n")[0]), scenario.name
        assert scenario.sources, scenario.name
        assert all(SOURCE.match(source) for source in scenario.sources), scenario
        assert f"### `{scenario.name}`\n\n{scenario.expected}" in page()


def test_the_stored_page_has_the_generators_text() -> None:
    assert (ROOT / kit.RECORD).read_text().startswith(kit._INTRODUCTION)


def test_declared_gaps_of_programs_name_scenarios() -> None:
    names = [scenario.name for scenario in scenarios()]
    for name, kind in KINDS.items():
        for pattern in kind.cannot:
            assert any(fnmatchcase(scenario, pattern) for scenario in names), f"{name}: {pattern}"


def test_every_test_on_the_wire_is_a_scenario() -> None:
    names = {scenario.name for scenario in scenarios()}
    for path in (ROOT / "tests/interop").glob("test_wire_*.py"):
        assert set(re.findall(r"^def test_(\w+)", path.read_text(), re.MULTILINE)) <= names


def test_the_commands_of_the_page_are_right() -> None:
    text = HOW_TO.read_text().replace("\\\n", "")
    lines = re.findall(r"^python -m tests\.interop (.*?)(?: +#.*)?$", text, re.MULTILINE)
    assert len(lines) > 6
    known = scenarios()
    parser = kit._parser()
    for line in lines:
        options = parser.parse_args(shlex.split(line))
        for pattern in options.only or ():
            assert any(fnmatchcase(scenario.name, pattern) for scenario in known), line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--program", "mine"], "expected NAME=COMMAND"),
        (["--program", "mine=/no/such/program"], "there is no program /no/such/program"),
        (["--program", "gotatun=sh"], "that name is one of our own"),
        (["--program", "mine=sh", "--only", "nothing"], "--only nothing: no scenario has that name"),
        (["--program", "mine=sh", "--cannot", "1_*"], "expected SCENARIO=REASON"),
        (["--program", "mine=sh", "--cannot", "nothing=why"], "--cannot nothing: no scenario has that name"),
        (["--program", "mine=sh", "--against", "wgpy,other"], "--against: other is not one of kernel, "),
        (["--program", "mine=sh", "--write"], "say where: --write FILE"),
        (["--cannot", "1_*=why"], "--cannot is about the program of --program"),
    ],
)
def test_wrong_options_are_reported(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        kit.main(options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_list_has_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert kit.main(["--list"]) == 0
    said = capsys.readouterr().out
    assert all(scenario.name in said for scenario in scenarios())


@pytest.mark.root
def test_a_program_that_exits_at_once_is_reported_with_its_output(tmp_path: Path) -> None:
    command = program(tmp_path, "#!/bin/sh\necho 'no licence for '$2 >&2\nexit 7\n")
    done = run(tmp_path, "--program", f"mine={command}", "--against", "wgpy")
    assert done.returncode == 1
    (result,) = outcomes(tmp_path).values()
    assert result["scenario"] == "0_it_starts_answers_and_ends"
    assert re.search(r"exited with status 7:\nno licence for wgt\w+", result["reason"])
    assert result["reason"] in done.stdout


@pytest.mark.root
def test_a_program_that_has_ended_is_not_waited_for(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "START_TIMEOUT", 1e6)
    cable.theirs = Userspace.called("mine", (program(cable.directory, "#!/bin/sh\necho why >&2; exit 7\n"),), {})
    with pytest.raises(AssertionError, match="exited with status 7:\nwhy"):
        cable.open(cable.right)


@pytest.mark.root
def test_a_program_that_never_makes_its_socket_is_reported(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "START_TIMEOUT", 0.3)
    command = program(cable.directory, "#!/bin/sh\necho 'thinking'\nexec sleep 60\n")
    cable.theirs = Userspace.called("mine", (command,), {})
    with pytest.raises(
        AssertionError, match=r"does not answer on /var/run/wireguard/\w+\.sock within 0.3 s:\nthinking"
    ):
        cable.open(cable.right)
    assert Userspace.started == []


@pytest.mark.root
def test_a_program_under_another_name_passes_with_its_gaps_declared(tmp_path: Path) -> None:
    options = ("--program", "other=wireguard-go", "--against", "wgpy", "--write", str(tmp_path / "record"))
    chosen = ("--only", "[01]_*", "--only", "3_*", "--only", "wire_a_stranger*", "--cannot", "3_*=pads too much")
    done = run(tmp_path, *options, *chosen)
    assert done.returncode == 0, done.stdout
    found = {name: result["outcome"] for name, result in outcomes(tmp_path).items()}
    assert found == {
        "0_it_starts_answers_and_ends": "pass",
        "1_counters_are_exact": "pass",
        "3_route_mtus_work_with_the_padding": "cannot",
        "wire_a_stranger_is_not_answered": "pass",
    }
    assert "| 3 route mtus work with the padding | cannot |" in (tmp_path / "record").read_text()
    assert not list((tmp_path / "packets").iterdir())


@pytest.mark.root
def test_a_broken_wireguard_is_caught(tmp_path: Path) -> None:
    command = program(tmp_path, f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{BROKEN}")
    caught = (
        "wire_a_wrong_mac1_is_not_answered",
        "wire_an_initiation_is_answered_once",
        "wire_data_is_accepted_once",
        "wire_data_out_of_order_is_accepted_once",
        "wire_a_low_counter_is_not_accepted_again",
    )
    only = [f"--only={name}" for name in (*caught, "wire_a_stranger_is_not_answered")]
    done = run(tmp_path, "--program", f"broken={command}", *only)
    assert done.returncode == 1
    found = outcomes(tmp_path)
    assert {name for name, result in found.items() if result["outcome"] == "fail"} == set(caught)
    for name in caught:
        packets = Path(found[name]["packets"])
        said = subprocess.run(["tcpdump", "-nr", packets], capture_output=True, text=True, check=True).stdout
        assert "192.0.2.2.51821: UDP, length 148" in said
    suite = ElementTree.parse(tmp_path / "junit").getroot()[0]
    assert suite.attrib["name"] == "broken"
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("6", "5")


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False).stdout


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_terminated_run_ends_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    record = tmp_path / "record"
    command = [sys.executable, "-m", "tests.interop", "--against=wgpy", f"--json={record}"]
    with subprocess.Popen(
        ["env", "--default-signal=INT", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as running:
        prefix = f"wgpy-{running.pid}-"

        def started() -> bool:
            """Whether a program runs in one of its network namespaces."""
            names = [line.split()[0] for line in ip("netns").splitlines() if line.startswith(prefix)]
            return any(ip("netns", "pids", name) for name in names)

        assert wait_for(started, 60)
        running.send_signal(number)
        assert running.stdout is not None
        said = running.stdout.read()
        assert running.wait(60) == 130, said
    assert prefix not in ip("netns")
    assert "Traceback" not in said
    assert not record.exists()
