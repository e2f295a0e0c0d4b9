"""Real WireGuard interfaces in network namespaces: wgpy's own daemon and Debian's wireguard-go under the stock `wg`.

Names of interfaces must differ between namespaces, because /var/run/wireguard is shared by all of them.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from tests.support.netns import Namespace
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.labs.traffic import iperf3 as iperf3
from wgpy.labs.traffic import wait_for as wait_for

WGPY: Final = (sys.executable, "-m", "wgpy")
_numbers = itertools.count()


def fresh_name() -> str:
    """An interface name nobody else uses."""
    return f"wgt{os.getpid() % 100000}x{next(_numbers)}"


def wgpy_program(directory: Path) -> Path:
    """A program that is `wgpy`, for those that want a path."""
    program = directory / "wgpy"
    program.write_text(f'#!/bin/sh\nexec {" ".join(WGPY)} "$@"\n')
    program.chmod(0o755)
    return program


@dataclass
class Side:
    """One end of a tunnel: where it is, who it is, and its addresses inside."""

    namespace: Namespace
    outer: str
    inner4: str
    inner6: str
    port: int = 51820
    key: PrivateKey = field(default_factory=PrivateKey.generate)
    name: str = field(default_factory=fresh_name)

    @property
    def public_key(self) -> PublicKey:
        return self.key.public_key

    @property
    def endpoint(self) -> str:
        return f"[{self.outer}]:{self.port}" if ":" in self.outer else f"{self.outer}:{self.port}"


class Interface(Protocol):
    """A WireGuard interface that somebody serves."""

    side: Side

    def close(self) -> None: ...


def peer_section(other: Side, *, psk: PresharedKey | None = None, endpoint: str | None = "", keepalive: int = 0) -> str:
    """[Peer] for `other`; `endpoint` "" is its own, None leaves it out."""
    lines = ["[Peer]", f"PublicKey = {other.public_key.base64()}"]
    if psk:
        lines.append(f"PresharedKey = {psk.base64()}")
    if endpoint is not None:
        lines.append(f"Endpoint = {endpoint or other.endpoint}")
    if keepalive:
        lines.append(f"PersistentKeepalive = {keepalive}")
    lines.append(f"AllowedIPs = {other.inner4}/32, {other.inner6}/128")
    return "\n".join(lines)


class Wgpy:
    """`wgpy up` of a file; `close` is `wgpy down`."""

    program: ClassVar[tuple[str, ...]] = WGPY

    def __init__(self, side: Side, directory: Path, *peers: str, extra: str = "", options: Sequence[str] = ()) -> None:
        self.side = side
        self.path = directory / f"{side.name}.conf"
        self.path.touch(mode=0o600)
        lines = [
            "[Interface]",
            f"Address = {side.inner4}/24, {side.inner6}/64",
            f"PrivateKey = {side.key.base64()}",
            f"ListenPort = {side.port}",
            extra,
            *peers,
        ]
        self.path.write_text("\n".join(lines) + "\n")
        self.said = side.namespace.run(*self.program, "up", str(self.path), *options)
        self.running = True

    def status(self) -> dict[str, Any]:
        """`wgpy show --json`."""
        status: dict[str, Any] = json.loads(self.side.namespace.run(*WGPY, "show", self.side.name, "--json"))
        return status[self.side.name]  # type: ignore[no-any-return]

    def close(self) -> None:
        if self.running:
            self.running = False
            self.said += self.side.namespace.run(*self.program, "down", self.side.name)


class StockTools(ABC):
    """Somebody else's interface, configured by `wg setconf` and `ip`."""

    counts_datagrams: ClassVar[bool] = True  # its transfer counters are those of the kernel: all UDP payload
    confirms_handshakes: ClassVar[bool] = True  # it tells of a handshake when its peer has shown to have the keys

    def __init__(self, side: Side, *peers: str, mtu: int = 1420) -> None:
        self.side = side
        self.open()
        lines = ["[Interface]", f"PrivateKey = {side.key.base64()}", f"ListenPort = {side.port}", *peers]
        name, run = side.name, side.namespace.run
        run("sh", "-c", f"wg setconf {name} /dev/stdin <<'END'\n{chr(10).join(lines)}\nEND")
        run("ip", "address", "add", f"{side.inner4}/24", "dev", name)
        run("ip", "address", "add", f"{side.inner6}/64", "dev", name, "nodad")
        run("ip", "link", "set", name, "mtu", str(mtu), "up")

    def wg(self, *arguments: str) -> str:
        """`wg show NAME ...`, without the trailing newline."""
        return self.side.namespace.run("wg", "show", self.side.name, *arguments).rstrip("\n")

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class Kernel(StockTools):
    """The kernel's own, where `side` has one."""

    def open(self) -> None:
        self.side.namespace.run("ip", "link", "add", self.side.name, "type", "wireguard")

    def close(self) -> None:
        self.side.namespace.run("ip", "link", "delete", self.side.name, check=False)


class Userspace(StockTools):
    """A daemon that is called as wireguard-go is."""

    command: ClassVar[tuple[str, ...]]
    started: ClassVar[list[subprocess.Popen[str]]] = []  # and not closed, of all such daemons

    def open(self) -> None:
        name = self.side.name
        environment = {**os.environ, "LOG_LEVEL": "error", "WG_PROCESS_FOREGROUND": "1", "WG_LOG_LEVEL": "error"}
        self.process = self.side.namespace.popen(*self.command, "-f", name, env=environment)
        self.started.append(self.process)
        assert wait_for(partial(_answers, name)), f"{self.command[0]} did not start"

    def close(self) -> None:
        if self.process in self.started:  # closing twice is harmless
            self.started.remove(self.process)
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:  # boringtun 0.7.1 now and then does not heed it
            self.process.kill()
            self.process.wait(30)
            Path(f"/var/run/wireguard/{self.side.name}.sock").unlink(missing_ok=True)

    @classmethod
    def ended(cls) -> list[int]:
        """The exit statuses of those that ended though nobody closed them; who is about to is waited for."""
        wait_for(lambda: any(process.poll() is not None for process in cls.started), seconds=1)
        return [process.returncode for process in cls.started if process.poll() is not None]


def _answers(name: str) -> bool:
    """Whether somebody listens to `wg`; a socket's file may be there before that, and after."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(f"/var/run/wireguard/{name}.sock") == 0


class WireguardGo(Userspace):
    """Debian's wireguard-go."""

    command = ("wireguard-go",)


class CurrentWireguardGo(Userspace):
    """As of: go install golang.zx2c4.com/wireguard@latest"""

    command = (str(Path.home() / "go/bin/wireguard"),)


class BoringTun(Userspace):
    """As of: cargo install boringtun-cli"""

    counts_datagrams = False
    command = (str(Path.home() / ".cargo/bin/boringtun-cli"), "--disable-drop-privileges")


class GotaTun(Userspace):
    """As of: cargo install gotatun-cli"""

    counts_datagrams = False
    confirms_handshakes = False
    command = (str(Path.home() / ".cargo/bin/gotatun"), "--disable-drop-privileges")


@contextmanager
def capture(namespace: Namespace, interface: str, expression: str) -> Iterator[list[str]]:
    """What passes an interface meanwhile, one line a packet, as tcpdump tells it; filled in at the end."""
    lines: list[str] = []
    command = ("tcpdump", "-nnl", "--immediate-mode", "-i", interface, expression)
    recorder = namespace.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert recorder.stderr is not None
    while "listening on" not in recorder.stderr.readline():
        assert recorder.poll() is None, "tcpdump ended"
    yield lines
    time.sleep(0.3)  # what is under way
    recorder.terminate()
    lines += filter(None, recorder.communicate(timeout=60)[0].splitlines())
