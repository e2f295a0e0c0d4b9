"""Two ends and a cable, for each test: namespaces, or a namespace and a kernel that has WireGuard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import pytest

from tests.support.kernel_peer import CARD, Guest, has_wireguard
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import (
    BoringTun,
    CurrentWireguardGo,
    GotaTun,
    Kernel,
    Side,
    StockTools,
    Userspace,
    WireguardGo,
)

OUTER4 = ("192.0.2.1", "192.0.2.2")
OUTER6 = ("2001:db8::1", "2001:db8::2")


DAEMONS: Final[dict[str, type[Userspace]]] = {
    "wireguard-go": WireguardGo,
    "current": CurrentWireguardGo,
    "boringtun": BoringTun,
    "gotatun": GotaTun,
}


# What others do not do, whoever is on this side: wireguard-go there instead of wgpy fares the same.
CANNOT: Final = {
    ("test_2_", "gotatun"): "gotatun carries no packets of that size",
    ("test_14_", "boringtun"): "boringtun ends when a peer's endpoint is changed",
}


@dataclass
class Cable:
    """Two sides that can reach each other; what a test opens is closed in reverse."""

    left: Side
    right: Side
    directory: Path
    cleanup: ExitStack
    theirs: type[StockTools] = WireguardGo  # what runs on the right

    def over_ipv6(self) -> None:
        self.left.outer, self.right.outer = OUTER6

    def set_mtu(self, mtu: int) -> None:
        """What the cable itself takes, until the test is over."""
        for side in (self.left, self.right):
            side.namespace.run("ip", "link", "set", CARD, "mtu", str(mtu))
            self.cleanup.callback(side.namespace.run, "ip", "link", "set", CARD, "mtu", "1500")


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Cable]:
    with namespace_cable(tmp_path) as cable:
        yield cable


@pytest.fixture
def cable_to_program(request: pytest.FixtureRequest, program: str, tmp_path: Path) -> Iterator[Cable]:
    """A cable with that on the right which a module's fixture `program` names: "wgpy", or one of `programs`."""
    for (scenario, other), reason in CANNOT.items():
        if program == other and request.node.name.startswith(scenario):
            pytest.skip(reason)
    if program == "kernel":
        with kernel_cable(request.getfixturevalue("kernel_ends"), tmp_path) as cable:
            yield cable
    else:
        with namespace_cable(tmp_path) as cable:
            cable.theirs = DAEMONS.get(program, WireguardGo)
            yield cable


def programs() -> list[str]:
    """What is tested against: the kernel and Debian's, and if WGPY_INTEROP is set all others that are installed."""
    others = [name for name, daemon in DAEMONS.items() if shutil.which(daemon.command[0])]
    return ["kernel", *(others if os.environ.get("WGPY_INTEROP") else ["wireguard-go"])]


@contextmanager
def namespace_cable(tmp_path: Path) -> Iterator[Cable]:
    with ExitStack() as cleanup:
        a, b = cleanup.enter_context(Namespace()), cleanup.enter_context(Namespace())
        veth_pair(a, b, ((f"{OUTER4[0]}/24", f"{OUTER6[0]}/64"), (f"{OUTER4[1]}/24", f"{OUTER6[1]}/64")))
        yield Cable(*_sides(a, b), tmp_path, cleanup)


@pytest.fixture(scope="session")
def kernel_ends() -> Iterator[tuple[Namespace, Namespace]]:
    """A namespace, and one whose kernel has WireGuard: another here if ours does, else a virtual machine."""
    with ExitStack() as cleanup:
        ours = cleanup.enter_context(Namespace())
        if has_wireguard():
            theirs = cleanup.enter_context(Namespace())
            veth_pair(ours, theirs, ((), ()), name=CARD)
            yield ours, theirs
        else:
            yield ours, cast(Namespace, cleanup.enter_context(Guest(ours)))  # of which nothing but `run` is used


@contextmanager
def kernel_cable(ends: tuple[Namespace, Namespace], tmp_path: Path) -> Iterator[Cable]:
    """wgpy's end on the left, the kernel's on the right, with the same addresses as `cable`; as new for each test."""
    ours, _ = ends
    ours.run("nft", "flush", "ruleset")
    for family in ("-4", "-6"):
        ours.run("ip", family, "rule", "flush")
        ours.run("ip", family, "rule", "add", "priority", "32766", "table", "main")
    for namespace, addresses in zip(ends, zip(OUTER4, OUTER6, strict=True), strict=True):
        namespace.run("ip", "address", "flush", "dev", CARD)
        namespace.run("ip", "link", "set", CARD, "down")  # and with it routes
        namespace.run("ip", "link", "set", CARD, "up")
        namespace.run("ip", "address", "add", f"{addresses[0]}/24", "dev", CARD)
        namespace.run("ip", "address", "add", f"{addresses[1]}/64", "dev", CARD, "nodad")
    left, right = _sides(*ends)
    with ExitStack() as cleanup:
        yield Cable(left, right, tmp_path, cleanup, theirs=Kernel)


def _sides(left: Namespace, right: Namespace) -> tuple[Side, Side]:
    return Side(left, OUTER4[0], "10.8.0.1", "fd08::1"), Side(right, OUTER4[1], "10.8.0.2", "fd08::2", port=51821)
