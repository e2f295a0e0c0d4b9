"""Manual pages and completion have every command and key, and the programs they are made for understand them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.netns import Namespace
from tests.support.peers import WGPY, fresh_name
from wgpy.cli import documents
from wgpy.config import clients, services, wgquick
from wgpy.keys import PrivateKey, PublicKey

ROOT = Path(__file__).parents[2]


def printed(document: str) -> str:
    command = [sys.executable, "-m", "wgpy.cli.documents", document]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is missing")


def test_the_manual_has_every_command_and_option() -> None:
    page = printed("man").replace("\\-", "-")
    assert len(documents.commands()) > 10
    for command in documents.commands():
        assert f".SS {command.usage}\n" in page
        for argument in command.arguments:
            if "-h" not in argument.flags:
                assert argument.help in page
                assert all(f"\\fB{flag}\\fR" in page for flag in argument.flags)


KEYS = {
    *(name for _, name, _ in wgquick.described_keys()),
    *(key.name for key in (*wgquick.ROWS, *wgquick.COMMENTS)),
    wgquick.NAME,
    "# Endpoint",
    clients._DISABLED,
    "WGConfig",
}


def test_the_manual_of_files_has_every_key_with_its_meaning() -> None:
    assert clients._ENDPOINT.fullmatch("# Endpoint = vpn.example.org")
    assert {*documents.MEANINGS, "WGConfig"} == KEYS
    assert list(documents.WIREPROXY) == ["WGConfig", *(f"[{section}]" for section in services.SECTIONS)]
    page = printed("conf")
    bold = [line[3:].replace("\\-", "-") for line in page.splitlines() if line.startswith(".B ")]
    assert sorted(bold) == sorted([*documents.MEANINGS, *documents.WIREPROXY, "wgpy check"])
    for section, keys in services.SECTIONS.items():
        assert [key for key in keys if key not in documents.WIREPROXY[f"[{section}]"]] == []


def test_the_page_about_files_has_every_key() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    described = {key.partition(" = ")[0].strip() for row in rows for key in re.findall(r"`([^`]+)`", row[0])}
    assert KEYS - described == set()
    for section, keys in services.SECTIONS.items():
        (row,) = [row for row in rows if row[0].strip() == f"`[{section}]`"]
        assert re.findall(r"`(\w+)`", row[1]) == list(keys)


@needs("groff")
@pytest.mark.parametrize("page", ["man", "conf"])
def test_the_manuals_are_sound(page: str) -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-z"]
    done = subprocess.run(command, input=printed(page), capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_line_that_begins_like_a_request_is_text() -> None:
    assert documents._roff(".x -y\\z") == "\\&.x \\-y\\ez"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("wgpy sho", {"show", "showconf"}),
        ("wgpy --v", {"--version"}),
        ("wgpy run --no", {"--no-offload", "--no-udp-gso", "--no-tun-offload"}),
        ("wgpy up ./on", {"./one.conf"}),
        ("wgpy up --no-offload ./on", {"./one.conf"}),
        ("wgpy up --events log ./", {"./one.conf", "./sub"}),
        ("wgpy up --metrics ./", set()),
        ("wgpy client --config ./", {"./one.conf", "./sub"}),
        ("wgpy lab --capture ./", {"./sub"}),
        ("wgpy client re", {"remove"}),
        ("wgpy up --events ./o", {"./one.conf", "./other"}),
        ("wgpy check ./o", {"./one.conf"}),
        ("wgpy setconf wg0 ./", {"./one.conf", "./sub"}),
        ("wgpy set wg0 p", {"private-key", "peer"}),
        ("wgpy set wg0 peer K= en", {"endpoint"}),
        ("wgpy set wg0 peer K= preshared-key ./o", {"./one.conf", "./other"}),
        ("wgpy set wg0 fwmark ''", {"off"}),
        ("wgpy set wg0 listen-port ''", set()),
        ("wgpy show in", {"interfaces"}),
        ("wgpy show wg0 latest", {"latest-handshakes"}),
        ("wgpy genkey x", set()),
        ("wgpy nonsense x", set()),
    ],
)
def test_bash_completes(tmp_path: Path, line: str, expected: set[str]) -> None:
    for name in ("one.conf", "other"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    assert bash_offers(tmp_path, line) == expected


def bash_offers(directory: Path, line: str, path: str = "/usr/bin:/bin") -> set[str]:
    program = (
        f'source /dev/fd/3 3<<<"$DOCUMENT"; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); '
        '_wgpy; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-uc", program],
        env={"DOCUMENT": documents.bash(), "PATH": path},
        cwd=directory, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which `wgpy` runs the code under test."""
    program = tmp_path / "bin" / "wgpy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m wgpy "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:/usr/bin:/bin"


def test_bash_completes_clients_and_runs_nothing_that_a_name_contains(tmp_path: Path, path: str) -> None:
    key, other, evil = (PublicKey(letter * 32).base64() for letter in (b"a", b"b", b"c"))
    (tmp_path / "gw.conf").write_text(
        f"[Interface]\n\n[Peer]\n# Name = alice\nPublicKey = {key}\n\n"
        f"[Peer]\n# Name = $(touch run)\nPublicKey = {evil}\n\n"
        f"#! [Peer]\n#! # Name = bob\n#! PublicKey = {other}\n"
    )
    assert {"alice", "bob"} < bash_offers(tmp_path, "wgpy client remove --config gw.conf ''", path)
    assert bash_offers(tmp_path, "wgpy client --config gw.conf disable a", path) == {"alice"}
    assert bash_offers(tmp_path, "wgpy client --config gw.conf add a", path) == set()
    assert bash_offers(tmp_path, "wgpy client --config", path) == {"--config"}
    assert not (tmp_path / "run").exists()


@pytest.mark.root
def test_bash_completes_interfaces_and_peers(tmp_path: Path, path: str) -> None:
    name, peer = fresh_name(), PublicKey(b"p" * 32).base64()
    conf = tmp_path / f"{name}.conf"
    conf.touch(mode=0o600)
    conf.write_text(f"[Interface]\nPrivateKey = {PrivateKey.generate().base64()}\n[Peer]\nPublicKey = {peer}\n")
    with Namespace() as namespace:
        namespace.run(*WGPY, "up", str(conf))
        try:
            for line in ("wgpy show", "wgpy set", "wgpy syncconf", "wgpy down"):
                assert bash_offers(tmp_path, f"{line} {name[:-1]}", path) >= {name}
            assert bash_offers(tmp_path, f"wgpy set {name} peer ''", path) == {peer}
        finally:
            namespace.run(*WGPY, "down", str(conf))


@needs("zsh")
def test_zsh_understands_it(tmp_path: Path) -> None:
    """The completion system's own builtins cannot run outside a prompt; here _arguments only shows its words."""
    (tmp_path / "_wgpy").write_text(printed("zsh"))
    program = "_arguments() { print -l -- $@ }; words=(wgpy run x); CURRENT=3; source ./_wgpy"
    done = subprocess.run(["zsh", "-fec", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "--no-offload[" in done.stdout
    assert done.stdout.splitlines()[-1] == ":CONFIG:_wgpy_configs"


@needs("fish")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("wgpy sho", {"show", "showconf"}),
        ("wgpy run --no", {"--no-offload", "--no-udp-gso", "--no-tun-offload"}),
        ("wgpy show wg0 latest", {"latest-handshakes"}),
        ("wgpy up ./on", {"./one.conf"}),
    ],
)
def test_fish_completes(tmp_path: Path, line: str, expected: set[str]) -> None:
    (tmp_path / "one.conf").touch()
    (tmp_path / "wgpy.fish").write_text(printed("fish"))
    done = subprocess.run(
        ["fish", "--no-config", "-c", f'source ./wgpy.fish; complete -C "{line}"'],
        cwd=tmp_path, capture_output=True, text=True, check=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stderr == ""
    assert {said.split("\t")[0] for said in done.stdout.splitlines()} == expected


@pytest.mark.parametrize("arguments", [[], ["html"], ["man", "conf"]])
def test_anything_else_is_wrong_usage(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "wgpy.cli.documents", *arguments]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
