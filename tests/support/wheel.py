"""`make wheel`: the files of a release in dist/, and the wheel tried as its users get it, on every Python found.

    python -m tests.support.wheel VERSION...

On each Python the wheel is installed with its dependencies, as the index has them today, in a new environment outside
the checkout. There every public name is loaded, two devices do a handshake, and commands run. The exit status is 1 if
any of it fails.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.support.pythons import interpreter
from wgpy import __version__

ROOT: Final = Path(__file__).parents[2]
DIST: Final = ROOT / "dist"
_NAMES: Final = f"""
import wgpy, sysconfig
assert wgpy.__file__.startswith(sysconfig.get_path("purelib")), wgpy.__file__
assert wgpy.__version__ == "{__version__}"
for name in wgpy.__all__:
    getattr(wgpy, name)
"""


def main(versions: list[str]) -> int:
    shutil.rmtree(DIST, ignore_errors=True)
    print("==> building dist/", flush=True)
    subprocess.run((sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)), check=True, stdout=sys.stderr)
    (wheel,) = DIST.glob("*.whl")
    pythons = {version: python for version in versions if (python := interpreter(version))}
    failed = [version for version, python in pythons.items() if not works(version, python, wheel)]
    if absent := [version for version in versions if version not in pythons]:
        print(f"not tried, for they are not here: Python {', '.join(absent)}")
    print(*sorted(f"dist/{path.name}" for path in DIST.iterdir()), sep="\n")
    return int(bool(failed))


def works(version: str, python: str, wheel: Path) -> bool:
    """Whether the wheel can be installed there and does what it should; says so."""
    with tempfile.TemporaryDirectory(prefix="wgpy-wheel-") as directory:
        environment = Path(directory, "environment")
        program, wgpy = environment / "bin/python", environment / "bin/wgpy"
        steps: list[tuple[object, ...]] = [
            (python, "-m", "venv", environment),
            (program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[metrics,qr]"),
            (program, "-I", "-c", _NAMES),
            (program, "-I", ROOT / "examples/device_pair.py"),
            (wgpy, "lab", "site_to_site", "--draw"),
            (wgpy, "genkey"),
        ]
        for step in steps:
            command = tuple(map(str, step))
            done = subprocess.run(
                command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
            if done.returncode:
                print(
                    f"Python {version}: {' '.join(command)} exited with {done.returncode}:\n{done.stdout}", flush=True
                )
                return False
    print(f"Python {version}: works", flush=True)
    return True


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
