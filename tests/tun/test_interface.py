"""An interface that is renamed, or moved into another network namespace, is asked about where it is."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from tests.support.netns import Namespace, in_fresh_namespace
from wgpy.tun import attach
from wgpy.tun.linux import LinuxTun


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def gso_max_size(name: str) -> int:
    shown = subprocess.run(["ip", "-json", "-details", "link", "show", name], check=True, capture_output=True)
    return int(json.loads(shown.stdout)[0]["gso_max_size"])


@pytest.mark.root
@in_fresh_namespace
def test_a_renamed_interface_is_not_confused_with_one_that_has_its_old_name() -> None:
    tun = LinuxTun.open("wg0")
    ip("link", "set", "wg0", "name", "wg1")
    ip("tuntap", "add", "wg0", "mode", "tun")
    before = gso_max_size("wg0")
    tun.mtu = 1280
    assert gso_max_size("wg1") == attach.super_packet_limit(1280) != before
    assert gso_max_size("wg0") == before
    tun.close()


@pytest.mark.root
@in_fresh_namespace
@pytest.mark.parametrize("refused", ["to know where it is", "to go there"])
def test_an_interface_in_another_namespace_is_not_confused_with_a_namesake(
    refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    tun = LinuxTun.open("wg0")
    away = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    while os.stat(f"/proc/{away.pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
        time.sleep(0.01)
    ip("link", "set", "wg0", "netns", str(away.pid))
    ip("tuntap", "add", "wg0", "mode", "tun")
    before = gso_max_size("wg0")
    if refused == "to go there":  # it takes CAP_SYS_ADMIN, which a daemon need not have
        monkeypatch.setattr("wgpy.tun.interface.open_socket", refuse)
        assert tun.link() is None
    else:  # then it is taken to be here, but nothing of what is here is changed
        monkeypatch.setattr("wgpy.tun.interface._TUNGETDEVNETNS", 0)
    tun.mtu = 1280
    assert gso_max_size("wg0") == before
    away.kill()
    away.wait()
    tun.close()


@pytest.mark.root
@in_fresh_namespace
@pytest.mark.parametrize("offload", [True, False])
def test_padding_stops_at_a_routes_mtu_in_any_namespace(offload: bool) -> None:
    tun = LinuxTun.open("wg0", offload=offload)
    with Namespace() as inside, inside.udp_socket() as sender:
        ip("link", "set", "wg0", "netns", inside.name)
        inside.run("ip", "link", "set", "wg0", "mtu", "1300", "up")
        inside.run("ip", "address", "add", "10.9.0.1/24", "dev", "wg0")

        def padded(size: int) -> set[int]:
            """Three packets of `size` bytes."""
            link = tun.link()
            assert link is not None
            tun.mtu = link[1]
            for _ in range(3):
                sender.sendto(bytes(size - 28), ("10.9.0.2", 9))
            found = set()
            while (burst := tun.read()) is not None:
                found |= {len(single.view) - 32 for single in burst.singles() if single.lengths == [size]}
            return found

        assert padded(1297) == {1300}
        inside.run("ip", "route", "add", "10.9.0.2", "dev", "wg0", "mtu", "1299")
        assert padded(1297) == {1299}
        assert padded(1270) == {1280}
        inside.run("ip", "link", "set", "wg0", "mtu", "1298")
        assert padded(1297) == {1298}
        inside.run("ip", "route", "delete", "10.9.0.2", "dev", "wg0")
        inside.run("ip", "link", "set", "wg0", "mtu", "1300")
        assert padded(1297) == {1300}
        tun.close()
