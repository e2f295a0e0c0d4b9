"""What versions of Linux are known for."""

from __future__ import annotations

import pytest

from wgpy.config.values import ALL_OFFLOADS, NO_OFFLOADS, Offloads
from wgpy.system import kernel


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.18.2", (6, 18, 2)),
        ("7.0.0-14-generic", (7, 0, 0)),
        ("7.0.14-4-pve", (7, 0, 14)),
        ("7.1.0-rc5+", (7, 1, 0)),
        ("7.1", (7, 1)),
        ("4.4.0-19041-Microsoft", (4, 4, 0)),
        ("5.10.102.1-microsoft-standard-WSL2", (5, 10, 102)),
        ("rolling", ()),
        ("", ()),
    ],
)
def test_a_version_is_the_leading_numbers_of_a_release(release: str, version: tuple[int, ...]) -> None:
    assert kernel.version(release) == version


def test_linux_7_0_to_7_1_4_mangle_udp_segmentation() -> None:
    mangle = ["7.0.0-14-generic", "7.0", "7.0.2-6-pve", "7.0.14-4-pve", "7.1.0-rc5", "7.1", "7.1.4", "7.1.4-arch1-1"]
    do_not = ["6.18.2", "6.17.0-41-generic", "6.1.0-40-amd64", "7.1.5", "7.1.5-200.fc44", "7.2.0-rc1", "8.0", "", "x"]
    assert all(map(kernel.mangles_udp_gso, mangle))
    assert not any(map(kernel.mangles_udp_gso, do_not))


def test_the_environment_can_only_switch_offloads_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (kernel.NO_UDP_GSO, kernel.NO_TUN_OFFLOAD):
        monkeypatch.delenv(variable, raising=False)
    assert kernel.permitted() == ALL_OFFLOADS
    monkeypatch.setenv(kernel.NO_UDP_GSO, "1")
    assert kernel.permitted() == Offloads(udp_gso=False)
    monkeypatch.setenv(kernel.NO_TUN_OFFLOAD, "0")
    assert kernel.permitted() == Offloads(udp_gso=False)
    monkeypatch.setenv(kernel.NO_TUN_OFFLOAD, "yes")
    assert kernel.permitted() == Offloads(udp_gso=False, tun=False)
    assert kernel.permitted() & NO_OFFLOADS == NO_OFFLOADS
    assert kernel.permitted() & Offloads(udp_gro=False) == NO_OFFLOADS
