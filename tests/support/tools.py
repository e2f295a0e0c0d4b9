"""The programs that tests run, and stand-ins that only record how they were called."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

TOOLS = ("ip", "ss", "ping", "iperf3", "wg", "wireguard-go", "nft", "sysctl", "setpriv", "tcpdump", "tshark")


def missing() -> str:
    """What the tests marked `root` lack here; empty when nothing."""
    if os.geteuid() != 0:
        return "root"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun (modprobe tun)"
    return ", ".join(tool for tool in TOOLS if shutil.which(tool) is None)


def needs(*programs: str) -> pytest.MarkDecorator:
    """Marks a test that runs these programs: it is skipped where one of them is missing."""
    lacking = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"needs {', '.join(lacking)}")


def path_without(directory: Path, *hidden: str) -> str:
    """A PATH on which all programs of this machine are, but for those."""
    for programs in map(Path, os.environ["PATH"].split(":")):
        for program in programs.iterdir() if programs.is_dir() else ():
            link = directory / program.name
            if program.name not in hidden and not link.is_symlink():
                link.symlink_to(program)
    return str(directory)


class Tools:
    """A PATH of our own and a log of what was called with which standard input."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"

    def add(self, name: str, script: str = "", *, under: str = "") -> None:
        program = self.directory / (under or name)
        log = f'echo {name} "$@" >>{self.log}; while read -r line; do echo "< $line" >>{self.log}; done'
        program.write_text(f"#!/bin/sh\n{log}\n{script}\n")
        program.chmod(0o755)

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []
