"""Run a program apart from the tests beside it: python -m tests.support.apart PROGRAM ARGUMENT...

It has a network namespace of its own, with `lo` up and no way out, and directories of its own in the place of those
where wgpy, wireguard-go and `ip netns` keep what goes by a name or is the machine's. Needs root.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from tests.support.nobody import leave_chroot
from wgpy.system.syscalls import CLONE_NEWNET, MS_PRIVATE, MS_REC, mount, unshare

OWN: Final = ("/run/netns", "/run/wgpy", "/run/wireguard", "/var/lib/wgpy")


def main(command: list[str]) -> None:
    directory = os.getcwd()
    leave_chroot()
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    unshare(CLONE_NEWNET)
    subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
    for path in OWN:
        os.makedirs(path, exist_ok=True)
        mount("tmpfs", path, "tmpfs")
        os.chmod(path, 0o755)
    os.chdir(directory)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
