"""The WireGuard programs that are known here, which of them are installed, and their versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Final

from tests.support.kernel_peer import has_wireguard, images
from tests.support.peers import (
    BoringTun,
    CurrentWireguardGo,
    GotaTun,
    Kernel,
    StockTools,
    Userspace,
    Wgpy,
    WireguardGo,
)
from wgpy import __version__

DAEMONS: Final[dict[str, type[Userspace]]] = {
    "wireguard-go": WireguardGo,
    "current": CurrentWireguardGo,
    "boringtun": BoringTun,
    "gotatun": GotaTun,
}
KINDS: Final[dict[str, type[Wgpy | StockTools]]] = {"kernel": Kernel, **DAEMONS, "wgpy": Wgpy}


def installed() -> list[str]:
    """Of the known programs those that can run here. The kernel's WireGuard always can, in a virtual machine."""
    return [name for name in KINDS if name not in DAEMONS or shutil.which(DAEMONS[name].command[0])]


def others() -> list[str]:
    """What wgpy is tested against: the kernel and Debian's wireguard-go; with WGPY_INTEROP set, all installed ones."""
    chosen = set(KINDS) if os.environ.get("WGPY_INTEROP") else {"kernel", "wireguard-go"}
    return [name for name in installed() if name in chosen - {"wgpy"}]


def judged() -> list[str]:
    """What is judged on the wire: wgpy, and the kernel to judge the scenarios; with WGPY_INTEROP set, all installed."""
    return installed() if os.environ.get("WGPY_INTEROP") else ["wgpy", "kernel"]


def kernel_version() -> str:
    if has_wireguard():
        return subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    return images()[0].name.removeprefix("vmlinuz-")


def version(program: str) -> str:
    """A program's name and its version, as it or its package tells; only the name if it is not one of KINDS."""
    if program in ("kernel", "wgpy"):
        return f"Linux {kernel_version()}" if program == "kernel" else f"wgpy {__version__}"
    if program == "wireguard-go":
        return f"wireguard-go {_output('dpkg-query', '-W', '-f', '${Version}', program)} (Debian's)"
    if program not in DAEMONS:
        return program
    command = DAEMONS[program].command[0]
    if program == "current":
        found = re.search(r"mod\s+\S+\s+(\S+)", _output("go", "version", "-m", command))
        return f"wireguard-go {found[1] if found else ''}"
    return _output(command, "--version").splitlines()[0]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
