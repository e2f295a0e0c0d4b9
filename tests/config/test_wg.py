"""The changes that setconf, addconf and syncconf make with a file of wg(8)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from wgpy.config import wg
from wgpy.config.values import EndpointName
from wgpy.config.wgquick import ConfigFileError, read_value
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.status import DeviceStatus, PeerStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey

KEY, PSK = PrivateKey(b"k" * 32), PresharedKey(b"s" * 32)
A, B, C = (PrivateKey(letter * 32).public_key for letter in (b"a", b"b", b"c"))
ZERO = bytes(32)


def test_addconf_changes_only_what_the_file_has() -> None:
    read = wg.parse(f"[Interface]\nFwMark = 0x10\n[Peer]\nPublicKey = {A}\nEndpoint = example.org:5\n")
    assert read.change == DeviceChange(fwmark=16, peers=(PeerChange(public_key=A, replace_allowed_ips=True),))
    assert read.endpoints == {A: EndpointName(host="example.org", port=5)}


def test_names_are_replaced_by_addresses() -> None:
    read = wg.parse(f"[Peer]\nPublicKey = {A}\nEndpoint = example.org:5\n[Peer]\nPublicKey = {B}\n")
    there = Endpoint("192.0.2.1", 5)
    assert [peer.endpoint for peer in read.located({A: there}).peers] == [there, None]


@pytest.mark.parametrize("line", ["Address = 10.0.0.1/8", "MTU = 1420", "DNS =", "PostUp = true", "SaveConfig = false"])
def test_keys_of_wg_quick_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(ConfigFileError) as refused:
        wg.parse(f"[Interface]\n{line}\n", "file")
    (problem,) = refused.value.problems
    assert (problem.line, problem.key) == (2, line.split(" =")[0])
    assert "line unrecognized" in problem.message


def test_setconf_replaces_everything() -> None:
    change = wg.replacing(wg.parse("").change)
    assert change == DeviceChange(private_key=PrivateKey(ZERO), listen_port=0, fwmark=0, replace_peers=True)
    given = DeviceChange(private_key=KEY, listen_port=5, fwmark=6, replace_peers=True)
    assert wg.replacing(given) == given


def test_syncconf_removes_missing_peers_and_clears_missing_values() -> None:
    now = DeviceStatus(
        peers=(
            PeerStatus(public_key=A, preshared_key=PSK, persistent_keepalive=9, endpoint=Endpoint("192.0.2.1", 5)),
            PeerStatus(public_key=B),
        )
    )
    text = f"[Peer]\nPublicKey = {A}\nAllowedIPs = 10.0.0.0/8\n[Peer]\nPublicKey = {C}\n"
    change = wg.synchronizing(wg.parse(text).change, now)
    assert not change.replace_peers
    assert change.peers == (
        PeerChange(
            public_key=A,
            preshared_key=PresharedKey(ZERO),
            persistent_keepalive=0,
            replace_allowed_ips=True,
            allowed_ips=(AllowedIPChange(ip_network("10.0.0.0/8")),),
        ),
        PeerChange(public_key=C, replace_allowed_ips=True),
        PeerChange(public_key=B, remove=True),
    )


def test_syncconf_is_setconf_if_no_peer_stays() -> None:
    change = wg.parse(f"[Peer]\nPublicKey = {A}\n").change
    assert wg.synchronizing(change, DeviceStatus()) == wg.replacing(change)
    empty = DeviceChange()
    assert wg.synchronizing(empty, DeviceStatus(peers=(PeerStatus(public_key=A),))) == wg.replacing(empty)


def test_a_single_value_is_read_as_in_a_file() -> None:
    assert read_value("FwMark", "0xff") == 255
    assert read_value("PersistentKeepalive", "off") == 0
    with pytest.raises(ConfigError, match="ListenPort: expected a port number, 0 to 65535, not '65536'"):
        read_value("ListenPort", "65536")
    with pytest.raises(ConfigError) as refused:
        read_value("PublicKey", PSK.base64()[:-2])
    assert PSK.base64()[:8] not in str(refused.value)


def test_removing_single_prefixes_becomes_a_whole_list() -> None:
    one, other, third = map(ip_network, ("10.0.0.0/24", "10.0.1.0/24", "fd00::/64"))
    now = DeviceStatus(
        peers=(PeerStatus(public_key=A, allowed_ips=(one, other)), PeerStatus(public_key=B, allowed_ips=(third,)))
    )
    moved = PeerChange(public_key=A, allowed_ips=(AllowedIPChange(third), AllowedIPChange(one, remove=True)))
    emptied = PeerChange(public_key=B, allowed_ips=(AllowedIPChange(other, remove=True),))
    change = DeviceChange(peers=(moved, emptied))
    whole = wg.without_removals(change, now)
    assert [peer.replace_allowed_ips for peer in whole.peers] == [True, True]
    assert [[allowed.network for allowed in peer.allowed_ips] for peer in whole.peers] == [[other, third], []]
    anew = wg.without_removals(DeviceChange(replace_peers=True, peers=(moved,)), now)
    assert [allowed.network for allowed in anew.peers[0].allowed_ips] == [third]
