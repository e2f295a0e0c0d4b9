"""wgpy against the kernel's WireGuard and Debian's wireguard-go, configured by wg-quick files and the stock `wg`."""

from __future__ import annotations

import time
from functools import partial

import pytest

from tests.interop.conftest import Cable, programs
from tests.support.peers import WGPY, Side, StockTools, Wgpy, iperf3, peer_section, wait_for
from wgpy.keys import PresharedKey

pytestmark = pytest.mark.root


@pytest.fixture(params=programs())
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cable(cable_to_program: Cable) -> Cable:
    return cable_to_program


def bring_up(
    cable: Cable, *, psk: PresharedKey | None = None, extra: str = "", options: tuple[str, ...] = ()
) -> tuple[Wgpy, StockTools]:
    """wgpy left, the other right; each knows where the other is."""
    theirs = cable.theirs(cable.right, peer_section(cable.left, psk=psk))
    cable.cleanup.callback(theirs.close)
    ours = Wgpy(cable.left, cable.directory, peer_section(cable.right, psk=psk), extra=extra, options=options)
    cable.cleanup.callback(ours.close)
    return ours, theirs


def ping_both_ways(cable: Cable, *options: str) -> None:
    for here, there in ((cable.left, cable.right), (cable.right, cable.left)):
        for address in (there.inner4, there.inner6):
            here.namespace.run("ping", "-c", "3", "-i", "0.1", "-W", "5", *options, address)


@pytest.mark.parametrize("outer", ["IPv4", "IPv6"])
@pytest.mark.parametrize("preshared", [False, True])
def test_ping_both_ways(cable: Cable, outer: str, preshared: bool) -> None:
    if outer == "IPv6":
        cable.over_ipv6()
    ours, theirs = bring_up(cable, psk=PresharedKey.generate() if preshared else None)
    ping_both_ways(cable)
    ping_both_ways(cable, "-s", "1392")  # 1420 bytes: what the tunnel's MTU holds
    ping_both_ways(cable, "-s", "4000")  # fragments inside
    (peer,) = ours.status()["peers"]
    assert peer["endpoint"] == cable.right.endpoint
    assert peer["has_preshared_key"] is preshared
    if not cable.theirs.counts_datagrams:
        return
    ours_says = (peer["tx_bytes"], peer["rx_bytes"])
    theirs_says = tuple(int(word) for word in theirs.wg("transfer").split()[1:])
    assert ours_says == theirs_says, "what we sent is what they received, to the byte"


@pytest.mark.parametrize("outer", ["IPv4", "IPv6"])
@pytest.mark.parametrize("options", [(), ("--no-offload",)], ids=["offload", "no-offload"])
def test_tcp_and_udp_both_ways(cable: Cable, outer: str, options: tuple[str, ...]) -> None:
    if outer == "IPv6":
        cable.over_ipv6()
    bring_up(cable, options=options)
    for address in (cable.left.inner4, cable.left.inner6):
        for direction in ((), ("-R",)):
            through = partial(iperf3, cable.right.namespace, cable.left.namespace, address, *direction)
            tcp = through("-n", "2M", "-w", "128K")
            assert tcp["sum_received"]["bytes"] >= 2**20  # when it has sent all, it does not wait for the window
            udp = through("-u", "-b", "10M", "-k", "500")
            assert udp["sum"]["packets"] >= 500
            assert udp["sum"]["lost_percent"] < 50  # a busy machine loses some


def test_a_wrong_preshared_key_lets_nothing_through(cable: Cable) -> None:
    theirs = cable.theirs(cable.right, peer_section(cable.left, psk=PresharedKey.generate()))
    cable.cleanup.callback(theirs.close)
    ours = Wgpy(cable.left, cable.directory, peer_section(cable.right, psk=PresharedKey.generate()))
    cable.cleanup.callback(ours.close)
    said = cable.left.namespace.run("ping", "-c", "2", "-i", "0.2", "-W", "1", cable.right.inner4, check=False)
    assert "100% packet loss" in said
    assert theirs.wg("latest-handshakes").split()[1] == "0" or not theirs.confirms_handshakes
    assert ours.status()["peers"][0]["latest_handshake"] is None


def move(side: Side, version: int) -> str:
    """Another outer address for the one it has; as it stands in an endpoint."""
    old, new, length = (side.outer, "192.0.2.77", 24) if version == 4 else (side.outer, "2001:db8::77", 64)
    nodad = () if version == 4 else ("nodad",)
    add = ("ip", "address", "add", f"{new}/{length}", "dev", "veth0", *nodad)
    side.namespace.run(*add)
    side.namespace.run("ip", "address", "delete", f"{old}/{length}", "dev", "veth0")
    side.namespace.run(*add, check=False)  # for an IPv4 address may go with the one it was second to
    return new if version == 4 else f"[{new}]"


@pytest.mark.parametrize("version", [4, 6])
def test_4_they_roam_and_we_follow(cable: Cable, version: int) -> None:
    if version == 6:
        cable.over_ipv6()
    ours, theirs = bring_up(cable)
    ping_both_ways(cable)
    host = move(cable.right, version)
    cable.right.namespace.run("wg", "set", cable.right.name, "listen-port", "9999")
    cable.right.namespace.run("ping", "-c", "1", "-W", "5", cable.left.inner4)
    assert ours.status()["peers"][0]["endpoint"] == f"{host}:9999"
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    assert theirs.wg("endpoints").split()[1] == cable.left.endpoint


@pytest.mark.parametrize("version", [4, 6])
def test_4_we_roam_and_they_follow(cable: Cable, version: int) -> None:
    if version == 6:
        cable.over_ipv6()
    ours, theirs = bring_up(cable)
    ping_both_ways(cable)
    host = move(cable.left, version)
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    assert theirs.wg("endpoints").split()[1] == f"{host}:51820"
    cable.right.namespace.run("ping", "-c", "1", "-W", "5", cable.left.inner6)
    assert ours.status()["peers"][0]["rx_bytes"] > 0


def test_stock_wg_reads_our_status(cable: Cable) -> None:
    ours, theirs = bring_up(cable, psk=PresharedKey.generate())
    ping_both_ways(cable)
    dump = cable.left.namespace.run("wg", "show", cable.left.name, "dump").splitlines()
    assert dump[0].split("\t") == [cable.left.key.base64(), cable.left.public_key.base64(), "51820", "off"]
    fields = dump[1].split("\t")
    assert fields[0] == cable.right.public_key.base64()
    assert fields[2:4] == [cable.right.endpoint, f"{cable.right.inner4}/32,{cable.right.inner6}/128"]
    assert int(fields[4]) > 1_600_000_000
    assert fields[7] == "off"
    assert wait_for(lambda: shown_by(cable, "wg") == shown_by(cable, *WGPY)), "but for the age of the handshake"
    assert ours.status()["public_key"] == cable.left.public_key.base64()
    assert theirs.wg("peers") == cable.left.public_key.base64()


def shown_by(cable: Cable, *program: str) -> str:
    return cable.left.namespace.run(*program, "show", cable.left.name)


def test_traffic_goes_on_while_their_sessions_are_lost(cable: Cable) -> None:
    """Their daemon starts anew with the same keys: our session is void, theirs does not exist."""
    _, theirs = bring_up(cable)
    ping_both_ways(cable)
    theirs.close()
    restarted = cable.theirs(cable.right, peer_section(cable.left))
    cable.cleanup.callback(restarted.close)
    restarted.side.namespace.run("ping", "-c", "3", "-i", "0.2", "-W", "5", cable.left.inner4)
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)


def test_down_leaves_nothing_behind(cable: Cable) -> None:
    namespace = cable.left.namespace

    def surroundings() -> list[str]:
        commands = ("ip -o link", "ip route show table all", "ip rule", "ip -6 rule", "ss -Hlun", "nft list ruleset")
        return [namespace.run(*command.split()) for command in commands]

    assert wait_for(lambda: "tentative" not in namespace.run("ip", "-6", "address"))  # the cable has settled
    before = surroundings()
    everything = peer_section(cable.right).replace("AllowedIPs = ", "AllowedIPs = 0.0.0.0/0, ::/0, 172.20.0.0/16, ")
    theirs = cable.theirs(cable.right, peer_section(cable.left))
    cable.cleanup.callback(theirs.close)
    ours = Wgpy(cable.left, cable.directory, everything)
    assert wait_for(lambda: cable.left.name in namespace.run("ip", "-o", "link"))
    ping_both_ways(cable)
    ours.close()
    assert surroundings() == before


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", ["kernel"], indirect=True)
def test_a_rekey_passes_unnoticed(cable: Cable) -> None:
    """Over the 120 seconds after which we, who began the session, renew it; a ping a tenth of a second, none lost."""
    ours, _ = bring_up(cable)
    said = cable.left.namespace.run("ping", "-i", "0.1", "-w", "128", "-q", cable.right.inner4, timeout=150)
    assert " 0% packet loss" in said
    (peer,) = ours.status()["peers"]
    assert peer["latest_handshake"] > time.time() - 60, "there was a second handshake"
