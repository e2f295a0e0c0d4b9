"""bash, zsh and fish complete a line with what the command would accept."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace
from tests.support.peers import fresh_name
from wgpy.cli import completion
from wgpy.keys import PrivateKey, PublicKey

ROOT = Path(__file__).parents[2]

_BASH: Final = """
source ./completion
COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_wgpy
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

# The completion system runs only while a line is edited, so the editor starts with the line, completes it and ends.
# compadd -A stores what matches; with -O, -A or -D the completion system only asks, and adds nothing.
_ZSH: Final = """
fpath=($PWD $fpath)
autoload -Uz compinit && compinit -C -u -d $DUMP
compadd() {
    [[ ${@[1,(i)--]} == *' '-[OAD]' '* || $1 == -[OAD] ]] || {
        local -a offered
        builtin compadd -A offered "$@"
        print -rl -- $offered >>~/offered
    }
    builtin compadd "$@"
}
zle -C offer list-choices _main_complete
zle-line-init() { BUFFER=$LINE CURSOR=$#LINE; zle offer; exit 0 }
zle -N zle-line-init
"""


def bash(directory: Path, line: str, path: str) -> list[str]:
    words = f"{line}''" if line.endswith(" ") else line
    (directory / "completion").write_text(completion.bash())
    command = ("bash", "--norc", "-uc", _BASH.format(line=words))
    return said_by(command, directory, path)


def fish(directory: Path, line: str, path: str) -> list[str]:
    (directory / "wgpy.fish").write_text(completion.fish())
    command = ("fish", "--no-config", "-c", "source ./wgpy.fish; complete -C $argv[1]", line)
    return [offer.partition("\t")[0] for offer in said_by(command, directory, path)]


def said_by(command: tuple[str, ...], directory: Path, path: str) -> list[str]:
    environment = {"HOME": str(directory / "home"), "PATH": path}
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def zsh(directory: Path, line: str, path: str) -> list[str]:
    home = directory / "home"
    (home / ".zshrc").write_text(_ZSH)
    (directory / "_wgpy").write_text(completion.zsh())
    offered = home / "offered"
    offered.write_text("")
    environment = {"HOME": str(home), "PATH": path, "LINE": line, "TERM": "dumb"}
    environment["DUMP"] = str(directory.parent / "zcompdump")  # which the first makes, and the others read
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ("zsh", "-i", "+o", "globalrcs"), env=environment, cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs
    ) as shell:
        os.close(theirs)
        said = drained(ours)
        assert shell.wait(30) == 0, said
    return offered.read_text().splitlines()


def drained(terminal: int) -> bytes:
    """Everything that is written to a terminal, until nobody has it open any more."""
    said = b""
    with open(terminal, "rb", buffering=0) as file:
        while True:
            try:
                said += file.read(4096)
            except OSError:
                return said


SHELLS: Final = {"bash": bash, "zsh": zsh, "fish": fish}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which `wgpy` runs the code under test."""
    program = tmp_path / "home" / "bin" / "wgpy"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m wgpy "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:/usr/bin:/bin"


@pytest.fixture(params=SHELLS)
def offers(request: pytest.FixtureRequest, tmp_path: Path, path: str) -> Callable[[str], set[str]]:
    """What a shell offers in `tmp_path`, files by their names."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is missing")

    def offered(line: str) -> set[str]:
        found = SHELLS[request.param](tmp_path, line, path)
        return {offer.removeprefix("./").rstrip("/") for offer in found} - {""}

    return offered


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("wgpy sho", {"show", "showconf"}),
        ("wgpy --v", {"--version"}),
        ("wgpy run --no", {"--no-offload", "--no-udp-gso", "--no-tun-offload"}),
        ("wgpy up ./on", {"one.conf"}),
        ("wgpy up --no-offload ./on", {"one.conf"}),
        ("wgpy up --events log ./on", {"one.conf"}),
        ("wgpy up --events log ./s", {"sub"}),
        ("wgpy up --metrics ./", set()),
        ("wgpy up ./one.conf ./", set()),
        ("wgpy client --config ./o", {"one.conf"}),
        ("wgpy client --config ./s", {"sub"}),
        ("wgpy lab --capture ./", {"sub", "home"}),
        ("wgpy lab hub", {"hub_and_spoke"}),
        ("wgpy client re", {"remove"}),
        ("wgpy exec --network n", {"namespace"}),
        ("wgpy exec one.conf mkfif", {"mkfifo"}),
        ("wgpy exec one.conf ls ./o", {"one.conf", "other"}),
        ("wgpy up --events ./o", {"one.conf", "other"}),
        ("wgpy check ./o", {"one.conf"}),
        ("wgpy setconf wg0 ./o", {"one.conf"}),
        ("wgpy set wg0 p", {"private-key", "peer"}),
        ("wgpy set wg0 peer K= en", {"endpoint"}),
        ("wgpy set wg0 peer K= preshared-key ./o", {"one.conf", "other"}),
        ("wgpy set wg0 fwmark ", {"off"}),
        ("wgpy set wg0 listen-port ", set()),
        ("wgpy show in", {"interfaces"}),
        ("wgpy show wg0 latest", {"latest-handshakes"}),
        ("wgpy genkey x", set()),
        ("wgpy nonsense x", set()),
    ],
)
def test_a_line_is_completed(tmp_path: Path, offers: Callable[[str], set[str]], line: str, expected: set[str]) -> None:
    for name in ("one.conf", "other"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    assert offers(line) == expected


def test_clients_are_completed_and_nothing_that_a_name_contains_is_run(
    tmp_path: Path, offers: Callable[[str], set[str]]
) -> None:
    key, other, evil = (PublicKey(letter * 32).base64() for letter in (b"a", b"b", b"c"))
    (tmp_path / "gw.conf").write_text(
        f"[Interface]\n\n[Peer]\n# Name = alice\nPublicKey = {key}\n\n"
        f"[Peer]\n# Name = $(touch run)\nPublicKey = {evil}\n\n"
        f"#! [Peer]\n#! # Name = bob\n#! PublicKey = {other}\n"
    )
    assert {"alice", "bob"} < offers("wgpy client remove --config gw.conf ")
    assert offers("wgpy client --config gw.conf disable a") == {"alice"}
    assert offers("wgpy client --config gw.conf add a") == set()
    assert offers("wgpy client --config") == {"--config"}
    assert not (tmp_path / "run").exists()


@pytest.mark.root
def test_interfaces_and_peers_are_completed(tmp_path: Path, offers: Callable[[str], set[str]]) -> None:
    name, peer = fresh_name(), PublicKey(b"p" * 32).base64()
    conf = tmp_path / f"{name}.conf"
    conf.touch(mode=0o600)
    conf.write_text(f"[Interface]\nPrivateKey = {PrivateKey.generate().base64()}\n[Peer]\nPublicKey = {peer}\n")
    with Namespace() as namespace:
        namespace.run(forked_wgpy(), "up", str(conf))
        try:
            for line in ("wgpy show", "wgpy set", "wgpy syncconf", "wgpy down"):
                assert offers(f"{line} {name[:-1]}") >= {name}
            assert offers(f"wgpy set {name} peer ") == {peer}
        finally:
            namespace.run(forked_wgpy(), "down", str(conf))
