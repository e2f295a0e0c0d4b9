"""`make test`: every test on this Python and, beside them, those that need no root on the other Pythons found.

    python -m tests.support.suite VERSION...

The others take turns at the lowest priority, on a processor that the tests here leave free for most of the time. What
they print is shown when all is done. The exit status is 1 when any of them failed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

OWN: Final = f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"  # 3.14t is free-threaded
WITHOUT_ROOT: Final = ("-m", "not root and not fuzzer", "-p", "no:cacheprovider")
REQUIREMENTS: Final = ("requirements.txt", "requirements-dev.txt")


def main(versions: list[str]) -> int:
    others = {version: found for version in versions if version != OWN and (found := interpreter(version))}
    with tempfile.TemporaryDirectory(prefix="wgpy-tests-") as logs, ThreadPoolExecutor(1) as beside:
        running = {}
        for version, python in others.items():
            log = Path(logs, version)
            print(f"==> beside them, the tests that need no root on Python {version}: {log}", flush=True)
            running[log] = beside.submit(run_beside, version, python, log)
        print(f"==> every test on Python {OWN}", flush=True)
        failed = subprocess.run((sys.executable, "-m", "pytest", "-q"), check=False).returncode != 0
        for log, run in running.items():
            failed |= run.result() != 0
            print(f"==> the tests that need no root on Python {log.name}", log.read_text(), sep="\n", flush=True)
    return int(failed)


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


def run_beside(version: str, python: str, log: Path) -> int:
    """Set up another Python and run its tests; the exit status."""
    setting_up = ("tests/support/venv.sh", python, f".venv-{version}", *REQUIREMENTS)
    testing = (f".venv-{version}/bin/python", "-m", "pytest", "-q", *WITHOUT_ROOT)
    with log.open("w") as output:
        for command in (setting_up, testing):
            done = subprocess.run(("nice", "-n", "19", *command), stdout=output, stderr=output, check=False)
            if done.returncode:
                break
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
