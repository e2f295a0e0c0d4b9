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
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, Final, Protocol, Self

from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.labs.traffic import iperf3 as iperf3
from wgpy.labs.traffic import wait_for as wait_for

WGPY: Final = (sys.executable, "-m", "wgpy")
START_TIMEOUT: Final = 15.0  # seconds in which a daemon has to answer `wg`
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

    cannot: ClassVar[Mapping[str, str]] = {}
    program: ClassVar[tuple[str, ...]] = ()  # if it is not `forked_wgpy`

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
        self.said = self.wgpy("up", str(self.path), *options)
        self.running = True

    def wgpy(self, *arguments: str) -> str:
        return self.side.namespace.run(*(self.program or (forked_wgpy(),)), *arguments)

    def status(self) -> dict[str, Any]:
        """`wgpy show --json`."""
        status: dict[str, Any] = json.loads(self.side.namespace.run(forked_wgpy(), "show", self.side.name, "--json"))
        return status[self.side.name]  # type: ignore[no-any-return]

    def close(self) -> None:
        if self.running:
            self.running = False
            self.said += self.wgpy("down", self.side.name)


class StartedWgpy(Wgpy):
    """As a user starts it, by a Python of its own: what it takes is measured."""

    program = WGPY


class StockTools(ABC):
    """Somebody else's interface, configured by `wg setconf` and `ip`."""

    cannot: ClassVar[Mapping[str, str]] = {}  # scenarios of tests/interop, by name or pattern, and why it fails them

    def __init__(self, side: Side, *peers: str, mtu: int = 1420) -> None:
        self.side = side
        self.open()
        lines = ["[Interface]", f"PrivateKey = {side.key.base64()}", f"ListenPort = {side.port}", *peers]
        steps = [
            f"wg setconf {side.name} /dev/stdin <<'END'",
            *lines,
            "END",
            "ip=$(which ip)",  # with its path, or the guest's shell takes busybox's
            f"$ip address add {side.inner4}/24 dev {side.name}",
            f"$ip address add {side.inner6}/64 dev {side.name} nodad",
            f"$ip link set {side.name} mtu {mtu} up",
        ]
        side.namespace.run("sh", "-ec", "\n".join(steps))

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
    started: ClassVar[list[Userspace]] = []  # and not closed, of all such daemons
    process: subprocess.Popen[str]
    output: IO[str]

    def open(self) -> None:
        name = self.side.name
        environment = {**os.environ, "LOG_LEVEL": "error", "WG_PROCESS_FOREGROUND": "1", "WG_LOG_LEVEL": "error"}
        self.output = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed by close)
        self.process = self.side.namespace.popen(
            *self.command, "-f", name, env=environment, stdout=self.output, stderr=self.output
        )
        self.started.append(self)
        wait_for(lambda: _answers(name) or self.has_ended, START_TIMEOUT)
        if self.has_ended:
            failure = self.last_words()
        elif not _answers(name):
            failure = f"does not answer on {_socket(name)} within {START_TIMEOUT:g} s{self._quoted_output()}"
        else:
            return
        self.close()
        raise AssertionError(f"{self.command[0]} {failure}")

    def close(self) -> None:
        if self not in self.started:  # closing twice is harmless
            return
        self.started.remove(self)
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:  # boringtun 0.7.1 now and then does not heed it
            self.process.kill()
            self.process.wait(30)
            Path(_socket(self.side.name)).unlink(missing_ok=True)
        self.output.close()

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def last_words(self) -> str:
        """How a daemon that ended by itself went, and what it wrote."""
        return f"exited with status {self.process.returncode}{self._quoted_output()}"

    def _quoted_output(self) -> str:
        self.output.seek(0)
        said = self.output.read()[-4096:].rstrip()
        return f":\n{said}" if said else ", and wrote nothing"

    @classmethod
    def ended(cls) -> list[Userspace]:
        """Those that ended though nobody closed them; a daemon that is about to end is waited for."""
        wait_for(lambda: any(daemon.has_ended for daemon in cls.started), seconds=1)
        return [daemon for daemon in cls.started if daemon.has_ended]

    @classmethod
    def called(cls, name: str, command: Sequence[str], cannot: Mapping[str, str]) -> type[Self]:
        """The daemon that `command` starts."""
        return type(name, (cls,), {"command": tuple(command), "cannot": cannot})


def _socket(name: str) -> str:
    return f"/var/run/wireguard/{name}.sock"


def _answers(name: str) -> bool:
    """Whether somebody listens to `wg`; a socket's file may be there before that, and after."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(_socket(name)) == 0


PADS_TO_THE_INTERFACES_MTU: Final = {"3_*": "wireguard-go pads to the interface's MTU, not to the route's"}


class WireguardGo(Userspace):
    """Debian's wireguard-go."""

    cannot = PADS_TO_THE_INTERFACES_MTU
    command = ("wireguard-go",)


class CurrentWireguardGo(Userspace):
    """As of: go install golang.zx2c4.com/wireguard@latest"""

    cannot = PADS_TO_THE_INTERFACES_MTU
    command = (str(Path.home() / "go/bin/wireguard"),)


BORINGTUN_ON_SILENCE: Final = "boringtun counts a peer's silence from its last datagram, not from our data"


class BoringTun(Userspace):
    """As of: cargo install boringtun-cli"""

    cannot: ClassVar = {
        "1_counters_are_exact": "boringtun counts the bytes of packets, not of datagrams",
        "the_counters_of_both_ends_agree": "boringtun counts the bytes of packets, not of datagrams",
        "14_*": "boringtun ends when a peer's endpoint is changed",
        "wire_each_handshake_has_its_own_keys_and_indices": "boringtun's indices count up",
        "wire_counters_past_the_limit_are_refused": "boringtun knows no limit of counters",
        "wire_packets_are_padded_to_16_bytes": "boringtun does not pad",
        "wire_the_initiator_renews_*": BORINGTUN_ON_SILENCE,
        "wire_the_responder_does_not_renew_*": BORINGTUN_ON_SILENCE,
        "wire_under_load_*": "boringtun answers every initiation and gives no cookies, whatever the flood",
        "wire_unanswered_data_causes_*": "boringtun sees no silence after data that it sent within 250 ms of a receipt",
        "wire_data_without_a_reply_*": "boringtun sees no silence after data within 250 ms of a handshake",
    }
    command = (str(Path.home() / ".cargo/bin/boringtun-cli"), "--disable-drop-privileges")


class GotaTun(Userspace):
    """As of: cargo install gotatun-cli"""

    cannot: ClassVar = {
        "1_counters_are_exact": "gotatun counts the bytes of packets, not of datagrams",
        "the_counters_of_both_ends_agree": "gotatun counts the bytes of packets, not of datagrams",
        "2_*": "gotatun carries no packets of that size",
        "wire_the_initiator_renews_*": "gotatun does not renew a session within a second of data after 120 seconds",
        "wire_under_load_*": "gotatun counts initiations by source address, and finds no load in a flood from many",
        "wire_unknown_types_are_not_answered": "gotatun does not look at the reserved bytes",
        "wire_a_responder_sends_no_data_*": "gotatun sends data before the session is confirmed",
    }
    command = (str(Path.home() / ".cargo/bin/gotatun"), "--disable-drop-privileges")


@contextmanager
def capture(namespace: Namespace, interface: str, expression: str) -> Iterator[list[str]]:
    """What passes an interface meanwhile, one line a packet, as tcpdump tells it; filled in at the end."""
    lines: list[str] = []
    recorder = _tcpdump(namespace, "-nnl", "--immediate-mode", "-i", interface, expression)
    yield lines
    time.sleep(0.3)  # what is under way
    recorder.terminate()
    lines += filter(None, recorder.communicate(timeout=60)[0].splitlines())


@contextmanager
def recorded(namespace: Namespace, path: Path) -> Iterator[None]:
    """What passes all interfaces of a namespace meanwhile, as a pcap file of 27 MB at most.

    It has the first 512 bytes of each of the first 50,000 packets: a loop in the routes makes millions.
    """
    bounds = ("-s", "512", "-c", "50000")
    recorder = _tcpdump(namespace, "-U", "--immediate-mode", "-Z", "root", *bounds, "-i", "any", "-w", str(path))
    try:
        yield
    finally:
        recorder.terminate()
        recorder.communicate(timeout=60)


def _tcpdump(namespace: Namespace, *options: str) -> subprocess.Popen[str]:
    """Start it, and wait until it listens."""
    recorder = namespace.popen("tcpdump", *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert recorder.stderr is not None
    while "listening on" not in recorder.stderr.readline():
        assert recorder.poll() is None, "tcpdump ended"
    return recorder
