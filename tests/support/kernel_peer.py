"""The Linux kernel's own WireGuard as a peer: here where the kernel has it, else in a small virtual machine.

The machine is Debian's cloud kernel with a file system of `initramfs.sh`, on qemu. Its network card is a tap in a
test's namespace; it is told what to run through a virtual console, a script and an answer at a time (`guest.sh`).
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import socket
import subprocess
import tempfile
import time
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

from tests.support.netns import Namespace, require_root

PACKAGE: Final = "linux-image-cloud-amd64"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wgpy"
# How to run it, best first, and the seconds it may take to boot. An idle machine takes 1 and 3; KVM that is there need
# not work, as in many a virtual machine, and then qemu ends or hangs.
ACCELERATORS: Final = {"kvm": 20.0, "tcg": 300.0}
CARD: Final = "veth0"  # on both sides, as of the cables between namespaces
# An emulator takes long for what this kernel need not do: zero pages before it gives them out, test its ciphers, draw
# addresses at random. In _QEMU the same goes for checks at each access to a program's memory, and for a fifth level of
# page tables.
_KERNEL: Final = "quiet panic=-1 mitigations=off init_on_alloc=0 cryptomgr.notests nokaslr no_timer_check"
_QEMU: Final = (
    "qemu-system-x86_64 -cpu max,-smap,-smep,-umip,-pku,-la57 -m 512 -nodefaults -display none -no-reboot "
    "-device virtio-serial-pci -device virtconsole,chardev=control "
    f"-netdev tap,id=card,ifname={CARD},script=no,downscript=no -device virtio-net-pci,netdev=card"
)


class Guest:
    """The virtual machine, with what tests use of a `Namespace`: `run`."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._kernel, self._system = images()
        self._boot()

    def _boot(self) -> None:
        """With the first accelerator that works."""
        refusals = []
        for accelerator, patience in ACCELERATORS.items():
            self._start(accelerator)
            try:
                self._greet(patience)
                return
            except (AssertionError, OSError) as error:
                refusals.append(f"{accelerator}: {error}\n{self._stderr.read_text()}")
                self.close()
            except BaseException:
                self.close()
                raise
        raise AssertionError("qemu does not boot\n" + "\n".join(refusals))

    def _start(self, accelerator: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="wgpy-guest-")
        self._stderr = Path(self._directory.name) / "stderr"
        chardev = ("-chardev", f"socket,id=control,path={self._directory.name}/control,server=on,wait=off")
        boot = ("-kernel", str(self._kernel), "-initrd", str(self._system), "-append", _KERNEL)
        command = (*_QEMU.split(), "-accel", accelerator, *chardev, *boot)
        with self._stderr.open("w") as stderr:
            self._process = self._namespace.popen(*command, stderr=stderr)
        self._control = socket.socket(socket.AF_UNIX)
        self._lines = self._control.makefile("r")

    def _greet(self, patience: float) -> None:
        end = time.monotonic() + patience
        while self._control.connect_ex(f"{self._directory.name}/control"):
            assert self._process.poll() is None, "qemu ended"
            assert time.monotonic() < end, "qemu does not open its console"
            time.sleep(0.05)
        self._control.settimeout(patience)
        assert self._lines.readline() == "ready\n", "the console says something else than that it is ready"
        self._ask(("ip", "link", "set", "eth0", "name", CARD), patience)

    def run(self, *command: str, check: bool = True, timeout: float = 120, **options: Any) -> str:
        """Run to completion and return what it printed, standard error included."""
        assert not options, "a guest knows none"
        try:
            said, status = self._ask(command, timeout)
        except AssertionError:
            self.close()
            self._boot()  # whoever comes next shall have one that answers
            raise
        if check:
            assert status == 0, f"{shlex.join(command)} exited with {status} in the guest:\n{said}"
        return said

    def _ask(self, command: Sequence[str], timeout: float) -> tuple[str, int]:
        self._control.settimeout(timeout)
        program, *arguments = command
        script = shlex.join([f"/bin/{program}", *arguments])  # with its path, or busybox takes its own of that name
        try:
            self._control.sendall(base64.b64encode(script.encode()) + b"\n")
            answer, _, status = self._lines.readline().rstrip("\n").partition(" ")
        except OSError:
            status = ""
        assert status, f"the guest says nothing to {shlex.join(command)} within {timeout:g} s"
        return base64.b64decode(answer).decode(errors="replace"), int(status)

    def close(self) -> None:
        self._lines.close()
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@cache
def images() -> tuple[Path, Path]:
    """Debian's kernel and the file system to boot it with, made once for each version of the package."""
    require_root()
    try:
        kernel = _kernel()
    except AssertionError:  # what apt knows, if anything, may be older than what is to be had
        _output("apt-get", "-qq", "update")
        kernel = _kernel()
    parts = [Path(__file__).with_name(name) for name in ("initramfs.sh", "guest.sh")]
    system = kernel / f"initramfs-{zlib.crc32(b''.join(part.read_bytes() for part in parts)):08x}"
    if not system.exists():
        _output(str(parts[0]), str(kernel), str(system))
    (image,) = (*kernel.glob("boot/vmlinuz-*"), *kernel.glob("usr/lib/modules/*/vmlinuz"))
    return image, system


def _kernel() -> Path:
    """Debian's present kernel, unpacked. Since Linux 7 its image and its modules are packages on which it depends."""
    package = next((name for name in _dependencies(PACKAGE) if name.startswith("linux-image-")), "")
    assert package, f"apt knows no {PACKAGE}"
    release = package.removeprefix("linux-image-")
    return unpacked(package, *(name for name in _dependencies(package) if name.endswith(f"-{release}")))


def _dependencies(package: str) -> list[str]:
    return re.findall(r"^  Depends: (\S+)$", _output("apt-cache", "depends", package), re.MULTILINE)


def unpacked(*packages: str) -> Path:
    """What is in some of Debian's packages, in the cache below the name of the first: whole or not at all."""
    place = CACHE / packages[0]
    if place.exists():
        return place
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        # As root in a directory of root's: apt's own user may not write here, which it would warn about.
        _output("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *packages, cwd=directory)
        for archive in Path(directory).glob("*.deb"):
            _output("dpkg-deb", "-x", str(archive), f"{directory}/unpacked")
        try:
            Path(f"{directory}/unpacked").rename(place)
        except OSError:
            if not place.exists():  # else another run was quicker
                raise
    return place


def has_wireguard() -> bool:
    """Whether this kernel makes WireGuard interfaces itself."""
    with Namespace() as namespace:
        namespace.run("ip", "link", "add", "wg0", "type", "wireguard", check=False)
        return "wg0" in namespace.run("ip", "link")


def _output(*command: str, cwd: str | None = None) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, f"{shlex.join(command)} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout
