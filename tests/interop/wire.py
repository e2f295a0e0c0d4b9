"""The program under test on the wire: its interface on the right, and drivers at sockets on the left."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.interop.conftest import OUTER4, Cable, kernel_cable, kit_of, namespace_cable
from tests.support.peers import Side, StockTools, Userspace, Wgpy
from tests.support.wire import Driver
from wgpy.keys import PrivateKey


class Subject:
    """A program's interface, to which peers are added one after the other."""

    def __init__(self, cable: Cable) -> None:
        self.cable = cable
        self.side: Side = cable.right
        self._numbers = itertools.count(10)
        self._end: Wgpy | StockTools | None = None

    def driver(self, *, keepalive: int = 0, endpoint: bool = True) -> Driver:
        """A new peer of the program; with an `endpoint` the program knows where it is, and can begin."""
        self._be_up()
        driver = Driver(self.socket(), self.side, f"10.8.0.{next(self._numbers)}")
        words = ["allowed-ips", f"{driver.inner}/32", "persistent-keepalive", str(keepalive)]
        words += ["endpoint", f"{OUTER4[0]}:{driver.port}"] if endpoint else []
        self.run("wg", "set", self.side.name, "peer", driver.public_key.base64(), *words)
        return driver

    def stranger(self) -> Driver:
        """Somebody who knows the program's public key, and whom it does not know."""
        self._be_up()
        return Driver(self.socket(), self.side, "10.8.0.9", key=PrivateKey.generate())

    def socket(self) -> socket.socket:
        """Another socket on the left, at a port of its own."""
        opened = self.cable.left.namespace.udp_socket()
        self.cable.cleanup.callback(opened.close)
        opened.bind((OUTER4[0], 0))
        return opened

    def ping(self, driver: Driver) -> None:
        """Have the program's host send one packet to a driver. The answer is not waited for."""
        self.run("sh", "-c", f"ping -c 1 -W 1 {driver.inner} >/dev/null 2>&1 &")

    def endpoint_of(self, driver: Driver) -> str:
        lines = self.run("wg", "show", self.side.name, "endpoints").splitlines()
        return dict(line.split("\t") for line in lines)[driver.public_key.base64()]

    def run(self, *command: str) -> str:
        return self.side.namespace.run(*command)

    def _be_up(self) -> None:
        """Open the interface, and again if the program ended in an earlier test."""
        if isinstance(self._end, Userspace) and self._end.has_ended:
            self._end.close()
            self._end = None
        if self._end is None:
            self._end = self.cable.open(self.side)


@contextmanager
def opened(request: pytest.FixtureRequest, program: str, directory: Path) -> Iterator[Subject]:
    """The program, alone at the end of a cable."""
    with ExitStack() as cleanup:
        if program == "kernel":
            cable = cleanup.enter_context(kernel_cable(request.getfixturevalue("kernel_ends"), directory))
        else:
            cable = cleanup.enter_context(namespace_cable(directory))
        cable.theirs = kit_of(request.config).kind(program)
        yield Subject(cable)
