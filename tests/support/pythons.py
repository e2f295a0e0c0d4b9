"""The other Pythons on which `make test` runs the tests that need no root: make an environment for each that is found.

python -m tests.support.pythons VERSION...
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

OWN: Final = f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"  # 3.14t is free-threaded
REQUIREMENTS: Final = ("requirements.txt", "requirements-gateway.txt", "requirements-dev.txt")


def main(versions: list[str]) -> int:
    for version, python in found(versions).items():
        command = ("tests/support/venv.sh", python, environment(version), *REQUIREMENTS)
        if status := subprocess.run(command, check=False).returncode:
            return status
    return 0


def found(versions: Iterable[str]) -> dict[str, str]:
    """Of other versions than this one: the programs of those that are here."""
    return {version: python for version in versions if version != OWN and (python := interpreter(version))}


def environment(version: str) -> str:
    """The directory of the environment of a version."""
    return f".venv-{version}"


def interpreter(version: str) -> str | None:
    """The program that is Python of that version and can make virtual environments."""
    for python in _candidates(version):
        command = (python, "-c", "import ensurepip, venv")
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return python
    return None


def _candidates(version: str) -> Iterator[str]:
    if on_path := shutil.which(f"python{version}"):
        yield on_path
    number, free_threaded = version.removesuffix("t"), "t" if version.endswith("t") else ""
    yield from map(str, Path.home().glob(f".pyenv/versions/{number}.*[0-9]{free_threaded}/bin/python"))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
