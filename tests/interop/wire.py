"""The program under test on the wire: its interface on the right, and drivers at sockets on the left."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.interop.conftest import OUTER4, Cable, kernel_cable, kit_of, namespace_cable
from tests.interop.kit import FAILED, PACKETS, program_of
from tests.support.peers import Side, StockTools, Userspace, Wgpy, recorded
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


class SideBySide:
    """All programs that are judged, each alone at the end of a cable, for scenarios that wait for a real clock.

    The packets of each are kept if one of the module's tests fails with it, and the kit was told where.
    """

    def __init__(self, request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> None:
        self._request, self._factory = request, factory
        self._kit = kit_of(request.config)
        self._programs = self._kit.programs(on_the_wire=True)

    @contextmanager
    def opened(self) -> Iterator[dict[str, Subject]]:
        with ExitStack() as cleanup:
            subjects = {}
            for program in self._programs:
                context = opened(self._request, program, self._factory.mktemp("wire"))
                subjects[program] = cleanup.enter_context(context)
                if (path := self._packets(program)) is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cleanup.enter_context(recorded(subjects[program].cable.left.namespace, path))
            yield subjects

    def concern(self, item: pytest.Item) -> None:
        """Its failure is told with the packets of its program."""
        if (path := self._packets(program_of(item) or "")) is not None:
            item.stash[PACKETS] = path

    def close(self) -> None:
        """Forget the packets of programs with which nothing failed."""
        failed = {program_of(item) for item in self._request.session.items if item.stash.get(FAILED, False)}
        for program in self._programs:
            if (path := self._packets(program)) is not None and program not in failed:
                path.unlink(missing_ok=True)

    def _packets(self, program: str) -> Path | None:
        name = f"{self._request.module.__name__.rpartition('.')[2]}-{program}.pcap"
        return self._kit.packets / name if self._kit.packets is not None else None
