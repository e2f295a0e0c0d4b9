"""This Python, in the virtual machine of `kernel_peer`, with what a module loads."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from tests.support.kernel_peer import Guest
from tests.support.netns import Namespace

ROOT: Final = Path(__file__).parents[2]
PORT: Final = 8000
_LOADED: Final = """
import sys, importlib
importlib.import_module(sys.argv[1]).rehearse()
for module in list(sys.modules.values()):
    print(getattr(module, "__file__", None) or "")
"""


def python_in(
    there: Namespace, here: Namespace, address: str, directory: Path, module: str, *more: Path
) -> tuple[str, ...]:
    """The command that is `python -m module` in `there`. A guest fetches both from `here`, by way of `address`.

    The module's `rehearse` is a function that loads what it will need. A guest gets `more` files, at the same places.
    """
    if not isinstance(there, Guest):
        return (sys.executable, "-m", module)
    _pack(directory / "python.tar", module, *more)
    serving = here.popen(
        sys.executable, "-m", "http.server", str(PORT), "--bind", address, "--directory", str(directory),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    fetch = f"wget -qO - http://{address}:{PORT}/python.tar"
    there.run("sh", "-c", f"until {fetch} | tar -xf - -C /; do sleep 0.2; done")
    serving.terminate()
    serving.wait(10)
    path = ":".join([str(ROOT), *filter(None, sys.path)])
    return ("env", f"PYTHONPATH={path}", "PYTHONDONTWRITEBYTECODE=1", os.path.realpath(sys.executable), "-m", module)


def _pack(archive: Path, module: str, *more: Path) -> None:
    loaded = [sys.executable, "-c", _LOADED, module]
    done = subprocess.run(loaded, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    files = {Path(line) for line in done.stdout.splitlines() if line}
    files |= {cached for file in files if (cached := _cached(file)).exists()}
    files |= {file.with_name("__init__.py") for file in files if file.with_name("__init__.py").exists()}
    program = Path(os.path.realpath(sys.executable))
    libraries = set()
    for binary in (program, *(file for file in files if file.suffix == ".so")):
        said = subprocess.run(["ldd", binary], stdout=subprocess.PIPE, text=True, check=True).stdout
        libraries |= {Path(word) for word in said.split() if word.startswith("/")}
    with tarfile.open(archive, "w", dereference=True) as tar:
        for file in sorted({program, *files, *libraries, *more}):
            tar.add(file)


def _cached(file: Path) -> Path:
    return file.parent / "__pycache__" / f"{file.stem}.{sys.implementation.cache_tag}.pyc"
