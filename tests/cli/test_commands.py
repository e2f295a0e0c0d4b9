"""Commands that need no root: keys, `check`, help, and their error messages."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.forked import forked_wgpy
from wgpy.cli import commands, main
from wgpy.cli.commands import parse
from wgpy.cli.interface import permitted
from wgpy.config.values import ALL_OFFLOADS, NO_OFFLOADS, Offloads
from wgpy.keys import PrivateKey

KEY = PrivateKey(b"k" * 32)
GOOD = f"""[Interface]
PrivateKey = {KEY.base64()}
[Peer]
PublicKey = {PrivateKey(b"p" * 32).public_key.base64()}
AllowedIPs = 10.0.0.0/8
"""


def wgpy(*arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `wgpy` in a process of its own, as a user would."""
    command = (forked_wgpy(), *arguments)
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, cwd=cwd)


def test_genkey_and_pubkey_make_a_pair() -> None:
    private = wgpy("genkey").stdout
    key = PrivateKey.from_base64(private.strip())
    assert key.base64() + "\n" == private, "it is clamped already"
    assert wgpy("pubkey", stdin=private).stdout == key.public_key.base64() + "\n"
    psk = wgpy("genpsk").stdout
    assert len(psk) == 45
    assert psk != wgpy("genpsk").stdout


@pytest.mark.parametrize("text", ["", "[Interface]\n", "[Interface]\nPostUp = wg set %i private-key /k\n"])
def test_check_warns_of_a_missing_private_key_unless_a_hook_sets_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(text)
    done = wgpy("check", str(path))
    assert done.returncode == 0
    assert ("PrivateKey: missing" in done.stdout) is ("private-key" not in text)


def test_a_file_in_another_encoding_gives_one_error(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_bytes("[Interface]\nMTU = 1\n".encode("utf-16"))
    assert wgpy("check", str(path)).stdout.count("\n") == 1


@pytest.mark.parametrize("config", [".", "..", "", "a/b", "sixteen-letters-"])
def test_an_invalid_interface_name_is_reported(config: str) -> None:
    done = wgpy("up", config)
    assert done.returncode == 1
    assert "expected an interface name of at most 15 characters, or a path to NAME.conf" in done.stderr


@pytest.mark.root
def test_pubkey_prints_what_wg_pubkey_prints() -> None:
    private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout
    public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout
    assert wgpy("pubkey", stdin=private).stdout == public


@pytest.mark.parametrize("stdin", ["", "x", "A" * 44, KEY.base64()[:-1], KEY.base64() + "x", "\x00", "é" * 44])
def test_pubkey_refuses_an_invalid_key_without_repeating_it(stdin: str) -> None:
    done = wgpy("pubkey", stdin=stdin)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("wgpy: standard input is not a private key")
    assert done.stderr.count("\n") == 1


def test_writing_a_key_to_a_world_readable_file_is_warned_about(tmp_path: Path) -> None:
    for mode, warned in ((0o644, True), (0o600, False)):
        path = tmp_path / f"{mode:o}"
        path.touch()
        path.chmod(mode)
        with path.open("w") as file:
            done = subprocess.run(
                [sys.executable, "-m", "wgpy", "genkey"], stdout=file, stderr=subprocess.PIPE, text=True, check=True
            )
        assert ("world accessible" in done.stderr) is warned
        assert len(path.read_text()) == 45


def test_check_reads_wireproxys_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, other = tmp_path / "proxy.conf", tmp_path / "wg0.conf"
    path.write_text(GOOD + "[Socks5]\nBindAddress = 127.0.0.1:1080\n")
    assert main(["check", str(path)]) == 0
    assert "`up` and wg-quick refuse it (warning)" in capsys.readouterr().out
    path.write_text(GOOD + "[Socks5]\nBindAdress = 127.0.0.1:1080\n")
    assert main(["check", str(path)]) == 1
    assert f"{path}:7: BindAdress: expected one of BindAddress" in capsys.readouterr().out
    path.write_text(f"WGConfig = {other.name}\n[http]\nBindAddress = 3128\n")
    other.write_text("[Interface]\nMTU = 1\n")
    assert main(["check", str(path)]) == 1
    assert f"{other}:2: MTU" in capsys.readouterr().out


def test_check_is_quiet_about_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(GOOD)
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok\n"


def test_check_reports_every_problem_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(GOOD + "AlowedIPs = 10.0.0.1\nEndpoint = nowhere\n[Peer]\nPersistentKeepalive = 70000\n")
    assert main(["check", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:6", f"{path}:7", f"{path}:8", f"{path}:9"]
    assert "AllowedIPs" in lines[0]
    assert main(["check", "--json", str(path)]) == 1
    problems = json.loads(capsys.readouterr().out)
    assert [(problem["line"], problem["severity"]) for problem in problems] == [(n, "error") for n in (6, 7, 8, 9)]


@pytest.mark.parametrize("verb", [["up"], ["down"], ["apply"], ["check"], ["strip"], ["setconf", "wg0"], ["exec"]])
def test_file_contents_passed_as_a_file_name_are_not_repeated(verb: list[str]) -> None:
    done = wgpy(*verb, GOOD, *(["true"] if verb == ["exec"] else []))
    assert done.returncode == 1
    assert done.stderr.startswith("wgpy: expected a")
    assert KEY.base64() not in done.stdout + done.stderr


def test_check_prints_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wg0.conf"
    secret = KEY.base64()[:-2] + "!!"
    path.write_text(GOOD.replace(KEY.base64(), secret) + f"PresharedKey = {secret}\n")
    assert main(["check", str(path)]) == 1
    assert secret[:8] not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "No such file"), (b"\xff\xfe\x00", "line 1"), (b"", "ok"), (b"[Interface]\nMTU = 12\n", ":2: MTU")],
)
def test_check_of_an_odd_file_gives_no_traceback(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "wg0.conf"
    if content is not None:
        path.write_bytes(content)
    done = wgpy("check", str(path))
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert expected.replace("line 1", f"{path}:1") in said
    assert done.returncode == (0 if expected == "ok" else 1)


def test_an_endless_file_gives_a_one_line_error() -> None:
    done = wgpy("check", "/dev/zero")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "wgpy: /dev/zero: too large for a configuration: more than 256 MiB\n"


@pytest.mark.parametrize("verb", ["up", "run", "down", "show", "check", "genkey", "genpsk", "pubkey"])
def test_each_command_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "-h"])
    assert ended.value.code == 0
    assert verb in capsys.readouterr().out


def test_without_arguments_the_help_is_printed() -> None:
    done = subprocess.run([sys.executable, "-m", "wgpy"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "genkey" in done.stdout


@pytest.mark.parametrize("module", commands.MODULES)
def test_each_command_loads_only_its_module(module: str) -> None:
    verbs = argparse.ArgumentParser().add_subparsers()
    import_module(f"wgpy.cli.{module}").add(verbs)
    assert tuple(verbs.choices) == commands.MODULES[module]


def test_show_loads_only_what_it_needs() -> None:
    """People run `show` in a loop and by hand: importing what only a daemon needs would double its time."""
    program = "import sys; from wgpy.cli import main; main(['show', 'doesnotexist']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"wgpy.cli.show", "wgpy.daemon.uapi_client"} <= loaded
    assert not loaded & {"asyncio", "json", "logging", "numpy", "pyroute2", "secrets", "subprocess", "wgpy.cli.doctor"}


def test_down_loads_nothing_of_the_daemon_that_it_stops() -> None:
    program = "import sys; from wgpy.cli import main; main(['down', 'doesnotexist']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "no daemon serves doesnotexist" in done.stderr
    loaded = set(done.stdout.split())
    assert "wgpy.daemon.stop" in loaded
    assert not loaded & {"asyncio", "numpy", "wgpy.daemon.process"}


@pytest.mark.parametrize("arguments", [["shwo"], ["up"], ["up", "a", "b"], ["show", "--yaml"]])
def test_wrong_usage_exits_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: wgpy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shwo"], "unknown command 'shwo'; did you mean `wgpy show`?"),
        (["shwo", "wg0"], "unknown command 'shwo'; did you mean `wgpy show`?"),
        (["upp"], "unknown command 'upp'; did you mean `wgpy up`?"),
        (["upp", "wg0"], "unknown command 'upp'; did you mean `wgpy up`?"),
        (["xyzzy", "wg0"], "unknown command 'xyzzy'; `wgpy -h` lists them"),
    ],
)
def test_a_misspelt_command_gets_a_short_answer(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WG_QUICK_USERSPACE_IMPLEMENTATION", raising=False)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 2, "the usage, and this"
    assert ("wgpy serve" in error) is (len(arguments) == 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--verison"], "wgpy: error: unknown option --verison; did you mean --version?"),
        (["-x", "show"], "wgpy: error: unknown option -x; `wgpy -h` lists them"),
        (["-f"], "wgpy: error: -f: expected an interface name, and nothing else"),
        (["show", "wg0", "--jsno"], "wgpy show: error: unknown option --jsno; did you mean --json?"),
        (["exec", "--wiat=3", "x.conf", "true"], "wgpy exec: error: unknown option --wiat; did you mean --wait?"),
        (["client", "list", "--confg", "x"], "wgpy client: error: the following arguments are required: --config"),
        (["client", "list", "--config", "x", "--jsn"], "wgpy client: error: unknown option --jsn; did you mean --"),
        (["up", "a", "b"], "wgpy up: error: unrecognized arguments: b"),
    ],
)
def test_a_misspelt_option_is_reported_with_the_likely_one(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", ""], "'' cannot be an interface's name: use 1 to 15 bytes without '/', ':' and spaces"),
        (["-f", "a/b"], "'a/b' cannot be an interface's name: use 1 to 15 bytes without '/', ':' and spaces"),
        (["check", ""], "expected a file, not an empty name or this directory"),
        (["setconf", "wg0", ""], "expected a file, not an empty name or this directory"),
    ],
)
def test_an_empty_argument_is_reported_in_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert capsys.readouterr().err == f"wgpy: {said}\n"


@pytest.mark.parametrize(
    ("words", "command", "wait"),
    [
        ("wg0.conf curl -sI URL", "curl -sI URL", None),
        ("wg0.conf -- curl -sI URL", "curl -sI URL", None),
        ("--wait 5 wg0.conf curl --wait 9 -v", "curl --wait 9 -v", 5),
        ("wg0.conf --wait 5 -v ip -6 route", "ip -6 route", 5),
        ("-v --wait=5 wg0.conf sh -c x -- y", "sh -c x -- y", 5),
        ("--wai 5 wg0.conf -- -odd", "-odd", 5),
        ("-- wg0.conf curl -sI URL", "curl -sI URL", None),
        ("wg0.conf env", "env", None),
    ],
)
def test_the_program_that_exec_runs_keeps_its_own_options_as_with_env(
    words: str, command: str, wait: float | None
) -> None:
    arguments = commands.parse(["exec", *words.split()])
    assert arguments.config == "wg0.conf"
    assert arguments.command == command.split()
    assert arguments.wait == wait
    assert arguments.verbose is (words.startswith("-v") or " -v ip" in words)


def test_the_help_of_client_lists_its_actions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["client", "-h"])
    told = " ".join(capsys.readouterr().out.split())
    for action in ("add", "list", "remove", "enable", "disable"):
        assert f"{action}: " in told


@pytest.mark.parametrize(
    ("arguments", "by_wg_quick", "taken"),
    [
        (["wg0"], False, True),
        (["-f", "server"], False, True),
        (["server"], False, False),  # like serve
        (["server"], True, True),
        (["client"], True, True),
        (["show"], True, False),  # where the variable is exported, and somebody looks
        (["-f", "show"], False, True),
    ],
)
def test_an_interface_may_have_the_name_of_a_command(
    arguments: list[str], by_wg_quick: bool, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WG_QUICK_USERSPACE_IMPLEMENTATION", raising=False)
    if by_wg_quick:
        monkeypatch.setenv("WG_QUICK_USERSPACE_IMPLEMENTATION", "wgpy")
    if not taken and not by_wg_quick:
        with pytest.raises(SystemExit, match="2"):
            commands.parse(arguments)
        return
    parsed = commands.parse(arguments)
    assert (parsed.interface == arguments[-1]) is taken


def test_an_interrupt_while_commands_are_loaded_gives_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> argparse.Namespace:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "parse", interrupted)
    assert main(["doctor"]) == 130


def test_an_error_is_marked_as_wgpys_on_every_line_and_points_out_a_file_in_this_directory(tmp_path: Path) -> None:
    path = tmp_path / "absent0.conf"
    path.touch(mode=0o600)
    path.write_text("[Interface]\nMTU = x\nTable = ?\n")
    said = wgpy("up", str(path)).stderr.splitlines()
    assert [line.rpartition(": ")[0] for line in said] == [f"wgpy: {path}:2: MTU", f"wgpy: {path}:3: Table"]
    here = wgpy("up", "absent0", cwd=tmp_path).stderr
    assert here.endswith("absent0.conf: No such file or directory; there is one here: ./absent0.conf\n")


@pytest.mark.parametrize("verb", ["up", "run", "down"])
@pytest.mark.parametrize("name", ["no-such-interface-at-all.conf", "dir/too-long-a-name-for-it.conf", "a b", ""])
def test_an_impossible_name_gives_a_one_line_error(verb: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, name]) == 1
    said = capsys.readouterr().err
    assert said.startswith("wgpy: ")
    assert said.count("\n") == 1


def test_show_reports_a_missing_interface() -> None:
    done = wgpy("show", "doesnotexist")
    assert done.returncode == 1
    assert "doesnotexist" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_stops_reading_causes_no_error_message(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text("nonsense\n" * 5000)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m wgpy check {path} | head -1"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_pubkey_reads_standard_input_in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(KEY.base64() + "\n\n"))
    assert main(["pubkey"]) == 0
    assert capsys.readouterr().out.strip() == KEY.public_key.base64()


def test_a_closed_standard_output_gives_no_traceback() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m wgpy show wgnone >&-"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["genkey >&-", "genkey > /dev/full", "pubkey <&-", "check /dev/null >&-"])
def test_closed_or_full_streams_give_no_traceback(command: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m wgpy {command}"], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_byte_order_mark_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wg0.conf"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert main(["check", str(path)]) == 0
    assert "ok" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["up", "run", "serve", "exec", "proxy", "forward", "stdio"])
def test_every_command_that_carries_packets_has_the_offload_options(verb: str) -> None:
    def allowed(*options: str) -> Offloads:
        return permitted(parse([verb, *options, "wg0.conf", *(("true",) if verb == "exec" else ())]))

    assert allowed() == ALL_OFFLOADS
    assert allowed("--no-udp-gso") == Offloads(udp_gso=False)
    assert allowed("--no-tun-offload") == Offloads(tun=False)
    assert allowed("--no-offload") == NO_OFFLOADS
