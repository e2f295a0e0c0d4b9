"""The Linux kernel's own WireGuard as a peer: here where the kernel has it, else in a small virtual machine.

The machine is Debian's cloud kernel with a file system of `initramfs.sh`, on qemu. Its network card is a tap in a
test's namespace; it is told what to run through a virtual console, a script and an answer at a time (`guest.sh`).
"""

from __future__ import annotations

import base64
import os
import shlex
import socket
import subprocess
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, Final, Self

from tests.support.netns import Namespace, require_root

PACKAGE: Final = "linux-image-cloud-amd64"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wgpy"
BOOT_TIMEOUT: Final = 120.0  # seconds; it takes 3 on an idle machine
CARD: Final = "veth0"  # on both sides, as of the cables between namespaces
_QEMU: Final = (
    "qemu-system-x86_64 -accel tcg -cpu max -m 256 -nodefaults -display none -no-reboot "
    "-device virtio-serial-pci -device virtconsole,chardev=control "
    f"-netdev tap,id=card,ifname={CARD},script=no,downscript=no -device virtio-net-pci,netdev=card"
)


class Guest:
    """The virtual machine, with what tests use of a `Namespace`: `run`."""

    def __init__(self, namespace: Namespace) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="wgpy-guest-")
        control = f"{self._directory.name}/control"
        kernel, system = images()
        chardev = ("-chardev", f"socket,id=control,path={control},server=on,wait=off")
        boot = ("-kernel", str(kernel), "-initrd", str(system), "-append", "quiet panic=-1 mitigations=off")
        self._process = namespace.popen(*_QEMU.split(), *chardev, *boot, stderr=subprocess.PIPE)
        self._control = socket.socket(socket.AF_UNIX)
        self._lines = self._control.makefile("r")
        try:
            self._connect(control)
            self._control.settimeout(BOOT_TIMEOUT)
            assert self._lines.readline() == "ready\n"
            self.run("ip", "link", "set", "eth0", "name", CARD)
        except BaseException:
            self.close()
            raise

    def _connect(self, control: str) -> None:
        end = time.monotonic() + BOOT_TIMEOUT
        while self._control.connect_ex(control):
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"qemu did not start: {self._process.communicate()[1]}")
            time.sleep(0.05)

    def run(self, *command: str, check: bool = True, timeout: float = 60, **options: Any) -> str:
        """Run to completion and return what it printed, standard error included."""
        assert not options, "a guest knows none"
        self._control.settimeout(timeout)
        program, *arguments = command
        script = shlex.join([f"/bin/{program}", *arguments])  # with its path, or busybox takes its own of that name
        self._control.sendall(base64.b64encode(script.encode()) + b"\n")
        answer, _, status = self._lines.readline().rstrip("\n").partition(" ")
        said = base64.b64decode(answer).decode(errors="replace")
        if check:
            assert status == "0", f"{shlex.join(command)} exited with {status} in the guest:\n{said}"
        return said

    def close(self) -> None:
        self._lines.close()
        self._control.close()
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def images() -> tuple[Path, Path]:
    """Debian's kernel and the file system to boot it with, made once for each version of the package."""
    require_root()
    depends = _output("apt-cache", "depends", PACKAGE).split("Depends: ")
    assert len(depends) > 1, f"apt knows no {PACKAGE}: run apt-get update"
    package = depends[1].split()[0]
    unpacked = CACHE / package
    parts = [Path(__file__).with_name(name) for name in ("initramfs.sh", "guest.sh")]
    system = unpacked / f"initramfs-{zlib.crc32(b''.join(part.read_bytes() for part in parts)):08x}"
    unpacked.mkdir(parents=True, exist_ok=True)
    if not list(unpacked.glob("boot/vmlinuz-*")):
        with tempfile.TemporaryDirectory(dir=unpacked) as directory:
            # As root in a directory of root's: apt's own user may not write here, which it would warn about.
            _output("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package, cwd=directory)
            (archive,) = Path(directory).glob("*.deb")
            _output("dpkg-deb", "-x", str(archive), str(unpacked))
    if not system.exists():
        _output(str(parts[0]), str(unpacked), str(system))
    (kernel,) = unpacked.glob("boot/vmlinuz-*")
    return kernel, system


def has_wireguard() -> bool:
    """Whether this kernel makes WireGuard interfaces itself."""
    with Namespace() as namespace:
        namespace.run("ip", "link", "add", "wg0", "type", "wireguard", check=False)
        return "wg0" in namespace.run("ip", "link")


def _output(*command: str, cwd: str | None = None) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, f"{shlex.join(command)} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout
