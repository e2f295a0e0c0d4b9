"""Two ends and a cable, for each test: namespaces, or a namespace and a kernel that has WireGuard."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from _pytest._code.code import TerminalRepr

from tests.interop.kit import FAILED, PACKETS, Kit, program_of, scenario_of
from tests.support.kernel_peer import CARD, Guest, has_wireguard
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import Kernel, Side, StockTools, Userspace, Wgpy, WireguardGo, recorded

OUTER4 = ("192.0.2.1", "192.0.2.2")
OUTER6 = ("2001:db8::1", "2001:db8::2")


def kit_of(config: pytest.Config) -> Kit:
    """What `python -m tests.interop` was asked for; else what the suite runs."""
    kit = config.pluginmanager.get_plugin("kit")
    return kit if isinstance(kit, Kit) else Kit()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kit = kit_of(config)
    unwanted = [item for item in items if not kit.wants(item)]
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]
    for item in items:
        if program_of(item) == "kernel":
            item.add_marker(pytest.mark.xdist_group("kernel"))  # several emulated at once leave each too little time


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test each program in turn: those it runs against or, on the wire, those that it judges."""
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "program" not in metafunc.fixturenames or "program" in named:
        return
    wire, without = (metafunc.definition.get_closest_marker(name) is not None for name in ("wire", "without_wgpy"))
    programs = kit_of(metafunc.config).programs(on_the_wire=wire, without_wgpy=without)
    metafunc.parametrize("program", programs, scope="module")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure tells which daemon ended, with what it wrote, and where the packets are."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        for daemon in Userspace.ended():
            _add(report, f"{daemon.command[0]} ended", daemon.last_words())
        if PACKETS in item.stash:
            _add(report, "packets", str(item.stash[PACKETS]))
    return report


def _add(report: pytest.TestReport, title: str, text: str) -> None:
    """Put it where the terminal and the JUnit record have it: into what is said of the failure."""
    if isinstance(report.longrepr, TerminalRepr) and hasattr(report.longrepr, "addsection"):
        report.longrepr.addsection(title, text)
    else:
        report.longrepr = f"{report.longrepr}\n{title}: {text}"


@pytest.fixture(autouse=True)
def _declared(request: pytest.FixtureRequest) -> None:
    """What a program is declared not to be able to is not run."""
    if reason := kit_of(request.config).refusal(scenario_of(request.node), program_of(request.node)):
        pytest.xfail(reason)


@dataclass
class Cable:
    """Two sides that can reach each other; what a test opens is closed in reverse."""

    left: Side
    right: Side
    directory: Path
    cleanup: ExitStack
    theirs: type[Wgpy | StockTools] = WireguardGo  # what runs on the right
    ours: type[Wgpy | StockTools] = Wgpy  # what runs on the left: the program under test

    def open(self, side: Side, *peers: str, mtu: int = 1420) -> Wgpy | StockTools:
        """The interface of the program on that side, up, with these [Peer] sections."""
        kind = self.ours if side.namespace is self.left.namespace else self.theirs
        if issubclass(kind, Wgpy):
            end: Wgpy | StockTools = kind(side, self.directory, *peers, extra=f"MTU = {mtu}")
        else:
            end = kind(side, *peers, mtu=mtu)
        self.cleanup.callback(end.close)
        return end

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
    """A cable between the program under test, on the left, and `program`, on the right."""
    kit = kit_of(request.config)
    with ExitStack() as cleanup:
        if program == "kernel":
            cable = cleanup.enter_context(kernel_cable(request.getfixturevalue("kernel_ends"), tmp_path))
        else:
            cable = cleanup.enter_context(namespace_cable(tmp_path))
        cable.ours, cable.theirs = kit.tested, kit.kind(program)
        cleanup.enter_context(packets_kept(request, cable))
        yield cable


@contextmanager
def packets_kept(request: pytest.FixtureRequest, cable: Cable) -> Iterator[None]:
    """Record what passes the left side, and keep it if the test fails and the kit was told where."""
    kit, item = kit_of(request.config), request.node
    if kit.packets is None:
        yield
        return
    kit.packets.mkdir(parents=True, exist_ok=True)
    path = kit.packets / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', item.name).strip('-')}.pcap"
    item.stash[PACKETS] = path
    with recorded(cable.left.namespace, path):
        yield
    if not item.stash.get(FAILED, False):
        path.unlink()


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
