"""The programs that are measured, and tunnels of each of them between two network namespaces."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from benchmarks import goals
from benchmarks.foreign import Ipsec, OpenVpn
from tests.interop.programs import version as interop_version
from tests.support.kernel_peer import has_wireguard
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import (
    BoringTun,
    CurrentWireguardGo,
    GotaTun,
    Interface,
    Kernel,
    Side,
    StartedWgpy,
    Userspace,
    WireguardGo,
    peer_section,
)
from wgpy.daemon import uapi_client

OUTER: Final = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}


class Opener(Protocol):
    """Opens one end of a tunnel, given both ends and a directory for files."""

    def __call__(self, side: Side, other: Side, directory: Path) -> Interface: ...


class Program(NamedTuple):
    """A program that makes tunnels."""

    name: str
    open: Opener
    missing: Callable[[], str]  # why it cannot be measured here; empty if it can
    version: Callable[[], str]
    is_wireguard_daemon: bool = True


def _wgpy(side: Side, other: Side, directory: Path) -> Interface:
    return StartedWgpy(side, directory, peer_section(other))


def _userspace(name: str, kind: type[Userspace], key: str) -> Program:
    program = kind.command[0]

    def open_(side: Side, other: Side, directory: Path) -> Interface:
        return kind(side, peer_section(other))

    return Program(
        name,
        open_,
        lambda: "" if shutil.which(program) else f"no {Path(program).name} is installed",
        lambda: interop_version(key),
    )


PROGRAMS: Final = {
    program.name: program
    for program in (
        Program(goals.WGPY, _wgpy, lambda: "", lambda: interop_version("wgpy")),
        _userspace(goals.GO, CurrentWireguardGo, "current"),
        _userspace(goals.GOTATUN, GotaTun, "gotatun"),
        _userspace(goals.BORINGTUN, BoringTun, "boringtun"),
        _userspace(goals.OLD_GO, WireguardGo, "wireguard-go"),
        Program(goals.OPENVPN, OpenVpn, OpenVpn.missing, OpenVpn.version, False),
        Program(goals.IPSEC, Ipsec, Ipsec.missing, Ipsec.version, False),
        Program(
            goals.KERNEL,
            lambda side, other, directory: Kernel(side, peer_section(other)),
            lambda: "" if has_wireguard() else "this kernel has no WireGuard",
            lambda: interop_version("kernel"),
            False,
        ),
    )
}


@dataclass
class Tunnel:
    """A tunnel: its program and its two ends."""

    program: Program
    left: Side
    right: Side
    directory: Path
    ends: tuple[Interface, Interface]

    def pids(self) -> list[int]:
        """The processes that carry its packets; none if the kernel does."""
        if self.program.is_wireguard_daemon:
            return [uapi_client.serving_pid(end.side.name) for end in self.ends]
        return [end.process.pid for end in self.ends if isinstance(end, OpenVpn)]


def cable(cleanup: ExitStack, outer: int = 4) -> tuple[Side, Side]:
    """Two namespaces connected by both families; `outer`, 4 or 6, is the family that the tunnel will use."""
    a, b = cleanup.enter_context(Namespace()), cleanup.enter_context(Namespace())
    veth_pair(a, b, tuple((f"{OUTER[4][end]}/24", f"{OUTER[6][end]}/64") for end in (0, 1)))  # type: ignore[arg-type]
    here, there = OUTER[outer]
    return Side(a, here, "10.8.0.1", "fd08::1"), Side(b, there, "10.8.0.2", "fd08::2")


@contextmanager
def tunnel(program: Program, outer: int = 4) -> Iterator[Tunnel]:
    """A tunnel whose ends are up and which has carried nothing yet."""
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        left, right = cable(cleanup, outer)
        ends = []
        for side, other in ((left, right), (right, left)):
            ends.append(program.open(side, other, directory))
            cleanup.callback(ends[-1].close)
        yield Tunnel(program, left, right, directory, (ends[0], ends[1]))


def wait_until_up(tunnel: Tunnel) -> None:
    """Wait until the first packet has passed."""
    tunnel.left.namespace.run("ping", "-c", "1", "-i", "0.2", "-w", "10", tunnel.right.inner4)


def resident(pid: int, kind: str = "VmRSS") -> int:
    """A process's resident memory in kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(kind))
