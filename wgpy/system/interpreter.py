"""Python processes of our own, into which nobody else can bring a module."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wgpy import __version__

ROOT: Final = str(Path(__file__).parents[2])
"""The directory that has this package."""

_PROGRAM: Final = """\
import sys; {path}
from wgpy import __version__
if __version__ != {version!r}: sys.exit("wgpy " + __version__ + " was installed over the running {version}: restart it")
from wgpy.{module} import main; main({arguments})"""


def isolated(module: str, arguments: str, path: Sequence[str] | None = None) -> list[str]:
    """The command that runs `main` of a module of this package, with `arguments` as they stand in a program.

    It imports from `path`; without one, from this package and the standard library, and starts in 40 ms. -I and -S:
    nothing of the environment, the working directory or site-packages is imported. Of another version, which somebody
    may have installed since this process began, it runs nothing: the two might not understand each other.
    """
    wanted = f"sys.path.append({ROOT!r})" if path is None else f"sys.path[:] = {list(path)!r}"
    program = _PROGRAM.format(path=wanted, version=__version__, module=module, arguments=arguments)
    return [sys.executable, "-I", "-S", "-c", program]
