"""`wgpy.control`: the same changes to wgpy, wireguard-go and the kernel's WireGuard, each checked by the stock `wg`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.interop.conftest import Cable, kernel_cable
from tests.interop.conftest import cable as cable
from tests.interop.conftest import kernel_ends as kernel_ends
from tests.support.guest_python import python_in
from tests.support.netns import Namespace
from tests.support.peers import StockTools, Wgpy, WireguardGo
from wgpy import control
from wgpy.device.changes import DeviceChange
from wgpy.errors import ConfigError, ControlError
from wgpy.net import wireguard

CHANGES = "tests.support.control_changes"
DONE = "all is as wg shows it\n"


@pytest.mark.root
@pytest.mark.parametrize("kind", [Wgpy, WireguardGo])
def test_a_daemon_is_found_and_changed(cable: Cable, kind: type[Wgpy] | type[StockTools]) -> None:
    interface = Wgpy(cable.left, cable.directory) if kind is Wgpy else WireguardGo(cable.left)
    cable.cleanup.callback(interface.close)
    assert cable.left.namespace.run(sys.executable, "-m", CHANGES, cable.left.name) == DONE


@pytest.mark.root
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("kernel")
def test_a_kernel_interface_is_found_and_changed(kernel_ends: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    with kernel_cable(kernel_ends, tmp_path) as cable:
        here, there = cable.left.namespace, cable.right.namespace
        command = python_in(there, here, cable.left.outer, tmp_path, CHANGES)
        there.run("ip", "link", "add", "wg0", "type", "wireguard")
        try:
            assert there.run(*command, "wg0", timeout=300) == DONE
        finally:
            there.run("ip", "link", "delete", "wg0")


def test_a_missing_interface_is_reported() -> None:
    for name in ("nope", "", "../x", "a\0b", "x" * 200):
        for call in (lambda name=name: control.status(name), lambda name=name: control.configure(name, DeviceChange())):
            with pytest.raises(ControlError):
                call()
    assert not control.is_up("nope")
    with pytest.raises(ControlError, match="No such device"):
        control.apply("nope", "[Interface]\n")
    with pytest.raises(ConfigError, match="listen port"):
        control.configure("nope", DeviceChange(listen_port=70000))


def test_an_interface_of_another_kind_is_not_found_even_from_a_coroutine() -> None:
    async def main() -> None:
        assert "lo" not in wireguard.interfaces()
        with pytest.raises(ControlError, match="not a WireGuard interface"):
            wireguard.read("lo")
        with pytest.raises(ControlError, match="No such device"):
            wireguard.write("nope", DeviceChange())

    asyncio.run(main())
