"""A lab: builds its network from a topology, starts daemons with its files, records results, and removes it all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from wgpy import control
from wgpy.device.status import DeviceStatus
from wgpy.errors import LabError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.labs import netns
from wgpy.labs.netns import Namespace
from wgpy.labs.report import Check
from wgpy.labs.topology import Cable, Topology
from wgpy.labs.traffic import wait_for

WGPY: Final = (sys.executable, *(["-I"] if sys.flags.isolated else []), "-m", "wgpy")
_PLACE: Final = re.compile(r"<(private|public|preshared) key of ([\w-]+)(?: and ([\w-]+))?>")
_SOCKETS: Final = Path("/var/run/wireguard")
_ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CAUGHT: Final = (*_ENDINGS, signal.SIGALRM)
_AGAIN: Final = 1  # seconds


class Lab:
    """A running lab. As a context manager it builds the network, and removes all of it at the end, whatever happens.

    Namespaces are named `lab-PID-NODE` and interfaces `FILE-PID`, so that several labs can run at once.
    """

    directory: Path  # of this run's files

    def __init__(
        self, directory: Path, topology: Topology, *, tell: Callable[[str], None] = print, capture: Path | None = None
    ) -> None:
        self.name: str = directory.name
        self.checks: list[Check] = []
        self.topology = topology
        self._source = directory
        self._tell = tell
        self._capture = capture
        self._keys: dict[str, PrivateKey] = {}
        self._preshared: dict[frozenset[str], PresharedKey] = {}
        self._nodes: dict[str, Namespace] = {}
        self._lines: dict[frozenset[str], subprocess.Popen[str]] = {}
        self._interfaces: list[str] = []
        self._old_handlers: dict[signal.Signals, Any] = {}
        self._ended_by = 0  # the signal that interrupted it

    def __enter__(self) -> Self:
        sweep()
        for number in _CAUGHT:
            self._old_handlers[number] = signal.signal(number, self._interrupted)
        try:
            self.directory = Path(tempfile.mkdtemp(prefix=f"wgpy-lab-{os.getpid()}-"))
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything; signals are ignored until that is done."""
        for number in _CAUGHT:
            signal.signal(number, signal.SIG_IGN)
        signal.alarm(0)
        _remove(os.getpid())
        for node in self._nodes.values():
            node.delete()
        for line in self._lines.values():
            line.communicate()
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    def _interrupted(self, number: int, _frame: object) -> None:
        """End the lab, and try again soon: Python ignores what is raised amid an import or a destructor."""
        self._ended_by = self._ended_by or number
        signal.alarm(_AGAIN)
        raise SystemExit(128 + self._ended_by)

    # What a lab prints.

    def step(self, text: str) -> None:
        self._tell(f"==> {text}")

    def show(self, text: str) -> None:
        self._tell("\n".join(f"    {line}" for line in text.strip().splitlines()))

    def check(self, what: str, passed: bool, measured: str) -> None:
        """Record a result, and print it."""
        self.checks.append(Check(self.name, what, bool(passed), measured))
        self._tell(f"    {'ok  ' if passed else 'FAIL'}  {what}: {measured}")

    # The network.

    def __getitem__(self, node: str) -> Namespace:
        return self._nodes[node]

    def address(self, node: str) -> str:
        """A node's address on its first cable."""
        return self.topology.addresses(node)[0].partition("/")[0]

    def ask_at(self, node: str, server: str) -> None:
        """Give a node its own name server instead of this machine's."""
        directory = netns.RESOLVER / self[node].name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "resolv.conf").write_text(f"nameserver {server}\n")

    def quality(self, a: str, b: str, *, delay_ms: float = 0, loss: float = 0) -> None:
        """Change the delay and the loss of a slow line."""
        stdin = self._lines[frozenset((a, b))].stdin
        assert stdin is not None
        stdin.write(f"{delay_ms} {loss}\n")
        stdin.flush()

    def _build(self) -> None:
        for node in self.topology.nodes:
            self._nodes[node.name] = namespace = Namespace(f"lab-{os.getpid()}-{node.name}")
            if node.kind != "host":
                namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for cable in self.topology.cables:
            self._lay(cable)
        leaving = set()
        for cable in self.topology.cables:
            if cable.a not in leaving:
                leaving.add(cable.a)
                gateway = cable.b_address.partition("/")[0]
                netns.ip("-n", self[cable.a].name, "route", "add", "default", "via", gateway)
        if self._capture:
            self._record(self._capture)

    def _lay(self, cable: Cable) -> None:
        a, b = self[cable.a], self[cable.b]
        if cable.is_poor:
            command = (*WGPY[:-2], "-m", "wgpy.labs.line", a.name, cable.b, b.name, cable.a)
            line = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            self._lines[frozenset((cable.a, cable.b))] = line
            assert line.stdout is not None
            if line.stdout.readline() != "ready\n":
                raise LabError(f"the line from {cable.a} to {cable.b} could not be made")
            self.quality(cable.a, cable.b, delay_ms=cable.delay_ms or 0, loss=cable.loss)
        else:
            netns.join(a, cable.b, b, cable.a)
        netns.bring_up(a, cable.b, cable.a_address, mtu=cable.mtu)
        netns.bring_up(b, cable.a, cable.b_address, mtu=cable.mtu)

    def _record(self, directory: Path) -> None:
        """Capture the packets of every cable, at its first end, into one file each."""
        directory.mkdir(parents=True, exist_ok=True)
        for cable in self.topology.cables:
            path = directory / f"{self.name}-{cable.a}-{cable.b}.pcap"
            command = ("tcpdump", "-Unni", cable.b, "-Z", "root", "-w", str(path))
            recorder = self[cable.a].popen(*command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
            assert recorder.stderr is not None
            if "listening on" not in recorder.stderr.readline():
                raise LabError(f"tcpdump: {recorder.stderr.read()}")

    # Daemons and their files.

    def key(self, name: str) -> PublicKey:
        """The public key that replaces `<public key of NAME>` in the files."""
        return self._private(name).public_key

    def interface(self, name: str) -> str:
        """The name of the interface that `NAME.conf` brings up."""
        return f"{name}-{os.getpid()}"

    def file(self, name: str) -> Path:
        """Copy a file of the lab's directory, with its placeholders replaced by keys for this run; mode 0600."""
        source = Path(name)
        stem = self.interface(source.stem) if source.suffix == ".conf" else source.stem
        path = self.directory / f"{stem}{source.suffix}"
        if not path.exists():
            text = _PLACE.sub(self._fill, (self._source / name).read_text())
            path.touch(mode=0o600)
            path.write_text(text)
        return path

    def _fill(self, place: re.Match[str]) -> str:
        kind, one, other = place.groups()
        if kind == "preshared":
            return self._preshared.setdefault(frozenset((one, other)), PresharedKey.generate()).base64()
        return self._private(one).base64() if kind == "private" else self.key(one).base64()

    def _private(self, name: str) -> PrivateKey:
        return self._keys.setdefault(name, PrivateKey.generate())

    def up(self, **files: str) -> None:
        """For each `name="node"`, run `wgpy up` with NAME.conf in that node, all at once. Files they use must exist."""
        started = {}
        for name, node in files.items():
            path = self.file(f"{name}.conf")
            self._interfaces.append(self.interface(name))
            log = (self.directory / f"{name}.log").open("w+")
            started[name] = (
                log,
                self[node].popen(*WGPY, "up", str(path), stdout=log, stderr=subprocess.STDOUT, cwd=self.directory),
            )
        for name, (log, process) in started.items():
            with log:
                if process.wait(60):
                    log.seek(0)
                    raise LabError(f"wgpy up {name}.conf: {log.read()}")

    def wgpy(self, node: str, *arguments: str, check: bool = True) -> str:
        """Run `wgpy` in a node."""
        return self[node].run(*WGPY, *arguments, check=check, cwd=self.directory)

    def status(self, name: str) -> DeviceStatus:
        """The status of NAME.conf's interface, whichever node has it: control sockets are in no network namespace."""
        return control.status(self.interface(name))

    def wireguard_go(self, node: str, name: str, *addresses: str, mtu: int = 1420) -> None:
        """Run Debian's wireguard-go in a node, and configure it with `wg setconf` (NAME.conf) and `ip`."""
        interface = self.interface(name)
        environment = {**os.environ, "LOG_LEVEL": "error", "WG_PROCESS_FOREGROUND": "1"}
        self[node].popen(
            "wireguard-go", "-f", interface, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._interfaces.append(interface)
        if not wait_for((_SOCKETS / f"{interface}.sock").exists):
            raise LabError("wireguard-go did not start")
        self[node].run("wg", "setconf", interface, str(self.file(f"{name}.conf")))
        netns.bring_up(self[node], interface, *addresses, mtu=mtu)

    # Looking around.

    def hints(self) -> str:
        """Commands with which a user can look around while the lab runs."""
        lines = [
            f"ip netns exec {self[node.name].name} bash    # {node.note or node.kind}" for node in self.topology.nodes
        ]
        shows = [f"{' '.join(WGPY)} show {interface}" for interface in self._interfaces]
        return "\n".join([*lines, *shows, f"ls {self.directory}    # its files"])


def missing(*programs: str) -> str:
    """What keeps labs from running here, and the remedy; empty if nothing does."""
    if os.geteuid() != 0:
        return "labs need root, for network namespaces and TUN: run it with sudo"
    if not Path("/dev/net/tun").exists():
        return "labs need /dev/net/tun: modprobe tun"
    packages = {
        "ip": "iproute2",
        "ping": "iputils-ping",
        "sysctl": "procps",
        "nft": "nftables",
        "wg": "wireguard-tools",
    }
    absent = [program for program in programs if shutil.which(program) is None]
    needed = " ".join(packages.get(program, program) for program in absent)
    return f"labs need {', '.join(absent)}: apt-get install {needed}" if absent else ""


def sweep() -> None:
    """Remove what is left of labs whose process was killed."""
    names = [path.name for path in Path("/run/netns").glob("lab-*-*")]
    for pid in {int(name.split("-")[1]) for name in names if name.split("-")[1].isdigit()}:
        if not Path(f"/proc/{pid}").exists():
            _remove(pid)


def _remove(pid: int) -> None:
    """Remove everything that one process's lab made: namespaces and their processes, sockets, logs and files."""
    netns.delete(*(path.name for path in Path("/run/netns").glob(f"lab-{pid}-*")))
    for path in (*_SOCKETS.glob(f"*-{pid}.sock"), *Path("/run/wgpy").glob(f"*-{pid}.log")):
        path.unlink(missing_ok=True)
    for path in Path(tempfile.gettempdir()).glob(f"wgpy-lab-{pid}-*"):
        shutil.rmtree(path, ignore_errors=True)
