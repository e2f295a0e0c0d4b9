"""`wgpy apply`: a running interface becomes what its file says, and nobody notices who need not."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Cable
from tests.support.peers import WGPY, Wgpy, WireguardGo, peer_section
from wgpy.keys import PrivateKey

pytestmark = pytest.mark.root

OTHER = PrivateKey(b"o" * 32).public_key.base64()


def bring_up(cable: Cable) -> tuple[Wgpy, WireguardGo]:
    theirs = WireguardGo(cable.right, cable.directory, peer_section(cable.left))
    cable.cleanup.callback(theirs.close)
    ours = Wgpy(cable.left, cable.directory, peer_section(cable.right))
    cable.cleanup.callback(ours.close)
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    return ours, theirs


def apply(ours: Wgpy, *, check: bool = True) -> str:
    return ours.side.namespace.run(*WGPY, "apply", str(ours.path), check=check)


def test_what_is_added_and_taken_away_is_applied_while_traffic_passes(cable: Cable) -> None:
    ours, theirs = bring_up(cable)
    run, name = cable.left.namespace.run, cable.left.name
    before = ours.path.read_text()
    handshake = theirs.wg("latest-handshakes")
    pinging = cable.left.namespace.popen("ping", "-i", "0.05", "-c", "100", "-q", cable.right.inner4, stdout=-1)
    ours.path.write_text(
        before.replace("Address = ", "Address = 10.77.0.1/24, ").replace("[Interface]", "[Interface]\nMTU = 1300")
        + f"[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 172.16.0.0/12, 10.77.0.128/25\nPersistentKeepalive = 30\n"
    )
    said = apply(ours)
    for step in (f"wg syncconf {name}", "address add 10.77.0.1/24", "mtu 1300", "route add 172.16.0.0/12"):
        assert step in said
    assert "10.77.0.128/25" not in said, "the address's own route leads there already"
    assert "172.16.0.0/12" in run("ip", "route", "show", "dev", name)
    assert "mtu 1300" in run("ip", "link", "show", name)
    assert OTHER in run("wg", "show", name, "peers")
    assert apply(ours) == "", "there is nothing left to do"
    ours.path.write_text(before)
    said = apply(ours)
    for step in ("syncconf", "address delete 10.77.0.1/24", "route delete 172.16.0.0/12"):
        assert step in said
    assert OTHER not in run("wg", "show", name, "peers")
    report, _ = pinging.communicate(timeout=20)
    assert " 0% packet loss" in report
    assert theirs.wg("latest-handshakes") == handshake


def test_the_port_that_chance_chose_stays(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    ours.path.write_text(ours.path.read_text().replace("ListenPort = 51820\n", ""))
    assert apply(ours) == ""
    assert ours.status()["listen_port"] == 51820


def test_what_takes_down_and_up_is_said(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    ours.path.write_text(ours.path.read_text().replace("AllowedIPs = ", "AllowedIPs = 0.0.0.0/0, "))
    said = apply(ours, check=False)
    assert "the default route" in said
    assert "next up" in said
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)


def test_a_file_with_a_mistake_changes_nothing(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    before = ours.status()["peers"][0]["allowed_ips"]
    ours.path.write_text(ours.path.read_text() + "AllowedIPs = 10.0.0.0/33\nMTU = 5\n")
    said = apply(ours, check=False)
    assert said.count("\n") == 2, said
    assert ours.status()["peers"][0]["allowed_ips"] == before


def test_strip_leaves_what_wg_takes(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    run, name = cable.left.namespace.run, cable.left.name
    stripped = run(*WGPY, "strip", str(ours.path))
    assert "Address" not in stripped
    before = run("wg", "showconf", name)
    run("bash", "-c", f"wg syncconf {name} <({' '.join(WGPY)} strip {ours.path})")
    assert run("wg", "showconf", name) == before
