"""A full tunnel whose daemon is killed: nothing leaks until the interface is brought up or taken down again."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.interop.conftest import Cable
from tests.support.forked import forked_wgpy
from tests.support.netns import is_settled
from tests.support.peers import WGPY, Wgpy, WireguardGo, capture, peer_section, wait_for
from wgpy.daemon.uapi_client import serving_pid

pytestmark = pytest.mark.root

FAR = {4: "203.0.113.5", 6: "2001:db8:99::5"}


def everything_through(cable: Cable, *families: int) -> Wgpy:
    """A full tunnel for these IP versions, and beside it another route to FAR."""
    run = cable.left.namespace.run
    run("ip", "route", "add", "default", "via", cable.right.outer)
    run("ip", "-6", "route", "add", "default", "via", "2001:db8::2")
    for far in FAR.values():
        cable.right.namespace.run("ip", "address", "add", far, "dev", "lo")
    assert wait_for(lambda: is_settled(cable.left.namespace))
    theirs = WireguardGo(cable.right, peer_section(cable.left))
    cable.cleanup.callback(theirs.close)
    allowed = ", ".join({4: "0.0.0.0/0", 6: "::/0"}[family] for family in families)
    ours = Wgpy(
        cable.left, cable.directory, re.sub("AllowedIPs = .*", f"AllowedIPs = {allowed}", peer_section(cable.right))
    )
    cable.cleanup.callback(run, forked_wgpy(), "down", cable.left.name, check=False)
    return ours


def kill(cable: Cable) -> None:
    os.kill(serving_pid(cable.left.name), signal.SIGKILL)
    assert wait_for(lambda: cable.left.name not in cable.left.namespace.run("ip", "-o", "link"))


def reaches(cable: Cable, far: str, *options: str) -> bool:
    said = cable.left.namespace.run("ping", "-c", "4", "-i", "0.3", "-W", "2", *options, far, check=False)
    return re.search("[1-9] received", said) is not None  # a busy machine may lose one


@pytest.mark.parametrize("families", [(4, 6), (4,)])
def test_nothing_leaks_when_the_daemon_of_a_full_tunnel_is_killed(cable: Cable, families: tuple[int, ...]) -> None:
    run = cable.left.namespace.run

    def surroundings() -> str:
        shown = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; nft list ruleset"
        return run("bash", "-c", shown)

    ours = everything_through(cable, *families)
    assert all(reaches(cable, FAR[family]) for family in families)
    for _ in range(2):
        kill(cable)
        inside = " or ".join(f"host {FAR[family]}" for family in families)
        with capture(cable.left.namespace, "veth0", f"({inside}) and not udp port {cable.right.port}") as seen:
            assert not any(reaches(cable, FAR[family]) for family in families)
            for family in families:
                run("bash", "-c", f"echo >/dev/udp/{FAR[family]}/99", check=False)
        assert seen == []
        assert reaches(cable, cable.right.outer), "what is not behind the default route is reached as ever"
        for family in families:
            assert reaches(cable, FAR[family], "-m", "51820"), "the daemon's own datagrams bear its mark"
        run(forked_wgpy(), "up", str(ours.path))
        assert all(reaches(cable, FAR[family]) for family in families)
        assert run("ip", "route", "show", "table", "51820").count("unreachable default") == 1
    kill(cable)
    run(forked_wgpy(), "down", cable.left.name)
    assert "unreachable default table" not in surroundings()
    assert "51820" not in surroundings()
    assert all(reaches(cable, FAR[family]) for family in families)


def test_leftovers_are_removed_before_names_are_looked_up(cable: Cable) -> None:
    """The name servers may only be reachable through the tunnel."""
    ours = everything_through(cable, 4)
    kill(cable)
    text = ours.path.read_text()
    ours.path.write_text(text.replace(f"Endpoint = {cable.right.outer}", "Endpoint = no-such-host.invalid"))
    run = cable.left.namespace.run
    said = run("env", "WG_ENDPOINT_RESOLUTION_RETRIES=0", *WGPY, "up", str(ours.path), check=False)
    assert said.index("clean up after a killed daemon: unreachable default") < said.index("no-such-host.invalid")
    assert "51820" not in run("ip", "rule")
    assert run("ip", "route", "show", "table", "51820", check=False).count("unreachable") == 0


def test_nothing_leaks_when_the_link_is_set_down(cable: Cable) -> None:
    everything_through(cable, 4)
    cable.left.namespace.run("ip", "link", "set", cable.left.name, "down")
    assert not reaches(cable, FAR[4])
