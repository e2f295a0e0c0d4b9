"""A file that is changed keeps everything else that people wrote into it."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

import wgpy
from wgpy.config.edit import rewritten
from wgpy.config.values import EndpointName, InterfaceConfig, PeerConfig
from wgpy.config.wgquick import parse
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

OWN = PrivateKey(b"o" * 32)
ALICE, BOB, CAROL = (PrivateKey(letter * 32).public_key for letter in (b"a", b"b", b"c"))
FILE = f"""\
# The office's gateway

[interface]
address=10.0.0.1/24   # the office
ListenPort = 51820
PostUp = echo "up" # of %i

# Alice: her laptop
[Peer]
# friendly_name = Alice
PublicKey = {ALICE.base64()}
AllowedIPs = 10.0.0.2/32,10.0.0.9   # two of them
Endpoint = alice.example.org:51820
# her telephone is not here

# [Peer]
# PublicKey = (Dora comes back in spring)

[Peer]
publickey={BOB.base64()}
AllowedIPs = 10.0.0.3/32
"""


def changed(config: InterfaceConfig) -> str:
    return str(rewritten(parse(FILE), config))


def with_peer(public_key: PublicKey, **values: object) -> InterfaceConfig:
    config = parse(FILE).config
    peers = (replace(peer, **values) if peer.public_key == public_key else peer for peer in config.peers)  # type: ignore[arg-type]
    return replace(config, peers=tuple(peers))


def test_without_a_change_the_text_stays_the_same() -> None:
    assert changed(parse(FILE).config) == FILE


def test_a_value_is_changed_in_place_and_keeps_its_comment() -> None:
    config = replace(parse(FILE).config, addresses=(ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")))
    assert changed(config) == FILE.replace("address=10.0.0.1/24 ", "address=10.0.0.1/24, fd00::1/64 ")
    moved = with_peer(ALICE, allowed_ips=(ip_network("10.0.0.2/32"),))
    assert changed(moved) == FILE.replace("10.0.0.2/32,10.0.0.9 ", "10.0.0.2/32 ")


def test_a_new_value_is_added_at_the_end_of_its_section() -> None:
    assert changed(replace(parse(FILE).config, mtu=1380)) == FILE.replace("of %i\n", "of %i\nMTU = 1380\n")
    assert changed(with_peer(BOB, persistent_keepalive=25)) == FILE + "PersistentKeepalive = 25\n"


def test_removing_a_value_removes_its_line() -> None:
    assert changed(replace(parse(FILE).config, listen_port=0)) == FILE.replace("ListenPort = 51820\n", "")
    assert changed(with_peer(ALICE, endpoint=None)) == FILE.replace("Endpoint = alice.example.org:51820\n", "")


def test_a_new_peer_gets_a_section_at_the_end_with_its_name() -> None:
    carol = PeerConfig(
        public_key=CAROL,
        name="Carol",
        allowed_ips=(ip_network("10.0.0.4/32"),),
        endpoint=EndpointName(host="c", port=1),
    )
    config = parse(FILE).config
    section = f"\n[Peer]\n# Name = Carol\nPublicKey = {CAROL.base64()}\nAllowedIPs = 10.0.0.4/32\nEndpoint = c:1\n"
    assert changed(replace(config, peers=(*config.peers, carol))) == FILE + section


def test_removing_a_peer_removes_the_comments_next_to_it_and_no_others() -> None:
    config = parse(FILE).config
    start, end = FILE.index("# Alice: her laptop"), FILE.index("# [Peer]")
    assert changed(replace(config, peers=config.peers[1:])) == FILE[:start] + FILE[end:]
    assert changed(replace(config, peers=config.peers[:1])) == FILE[: FILE.rindex("[Peer]")]


def test_a_name_is_added_and_changed() -> None:
    assert changed(with_peer(ALICE, name="Alicia")) == FILE.replace("friendly_name = Alice", "friendly_name = Alicia")
    named = changed(with_peer(BOB, name="Bob"))
    assert named == FILE.replace("[Peer]\npublickey", "[Peer]\n# Name = Bob\npublickey")


def test_hooks_have_a_line_each() -> None:
    text = changed(replace(parse(FILE).config, post_up=("true; # 1", "false")))
    assert text == FILE.replace('PostUp = echo "up" # of %i\n', "PostUp = true; # 1\nPostUp = false\n")


def test_a_peer_with_several_sections_keeps_the_last() -> None:
    file = parse(FILE + f"[Peer]\nPublicKey = {ALICE.base64()}\nAllowedIPs = 10.1.0.0/16\n")
    assert str(rewritten(file, file.config)) == str(file)
    peers = tuple(replace(peer, persistent_keepalive=9) for peer in file.config.peers)
    after = rewritten(file, replace(file.config, peers=peers))
    assert str(after).count(ALICE.base64()) == 1
    assert {peer.public_key: peer for peer in after.config.peers} == {peer.public_key: peer for peer in peers}


def test_an_empty_file_becomes_a_configuration() -> None:
    config = InterfaceConfig(listen_port=7, peers=(PeerConfig(public_key=BOB),))
    assert str(rewritten(parse(""), config)) == f"[Interface]\nListenPort = 7\n\n[Peer]\nPublicKey = {BOB.base64()}\n"


def test_line_ends_are_kept_and_used_for_new_lines() -> None:
    file = parse(FILE.replace("\n", "\r\n"))
    text = str(rewritten(file, replace(file.config, mtu=1380)))
    assert text.count("\r\n") == text.count("\n") == FILE.count("\n") + 1


@pytest.mark.parametrize("name", ["two\nlines", " spaces ", "bell\a"])
def test_values_that_no_file_can_hold_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot hold"):
        changed(with_peer(BOB, name=name))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"table": "a b"},
            "cannot hold this: Table: expected auto, off, or a routing table's number or name, not 'a b'",
        ),
        (
            {"private_key": OWN, "peers": (PeerConfig(public_key=BOB, preshared_key=PresharedKey(bytes(OWN))),)},
            "cannot hold this: PresharedKey: is this interface's PrivateKey, which must stay secret",
        ),
        ({"post_up": ("bell\a",)}, "cannot hold this: has a control character"),
        (
            {"post_up": ("echo", "two\nlines"), "post_down": ("three\nmore\nlines",)},
            "a name, hook or search domain has",
        ),
        ({"pre_up": ("echo\nPostUp = reboot",)}, "a name, hook or search domain has characters"),
    ],
)
def test_values_that_no_file_may_have_are_reported_with_their_key(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^.*{re.escape(said)}[^\n]*$"):
        changed(replace(parse(FILE).config, **values))  # type: ignore[arg-type]


def test_an_mtu_too_small_for_ipv6_is_reported_before_a_file_is_written() -> None:
    with pytest.raises(ConfigError, match="mtu: expected at least 1280, because IPv6 needs that"):
        changed(replace(parse(FILE).config, mtu=1000, addresses=(ip_interface("fd00::1/64"),)))


def test_a_file_is_read_edited_and_written_with_its_comments_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.touch(mode=0o640)
    path.write_text(FILE)
    file = wgpy.config.read(path)
    kept = tuple(peer for peer in file.config.peers if peer.public_key != ALICE)
    wgpy.config.write(path, wgpy.config.rewritten(file, replace(file.config, listen_port=4711, peers=kept)))
    text = path.read_text()
    assert "ListenPort = 4711" in text
    assert "# The office's gateway" in text
    assert 'PostUp = echo "up" # of %i' in text
    assert "Alice" not in text
    assert wgpy.config.read(path).config == replace(file.config, listen_port=4711, peers=kept)
    assert path.stat().st_mode & 0o777 == 0o640
    wgpy.config.write(tmp_path / "new.conf", file)
    assert (tmp_path / "new.conf").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match=r"absent\.conf: No such file"):
        wgpy.config.read(tmp_path / "absent.conf")
    with pytest.raises(ConfigError, match="No such file"):
        wgpy.config.write(tmp_path / "absent" / "wg0.conf", file)


def test_the_switches_in_comments_are_kept_set_and_removed() -> None:
    text = FILE.replace("ListenPort", "# UdpGso = off  # a poor card\nListenPort")
    file = parse(text)
    assert str(rewritten(file, file.config)) == text
    assert str(rewritten(file, replace(file.config, udp_gso=True))) == FILE
    assert str(rewritten(file, replace(file.config, mtu=1380))) == text.replace("of %i\n", "of %i\nMTU = 1380\n")
    assert changed(replace(parse(FILE).config, tun_offload=False)) == FILE.replace(
        "of %i\n", "of %i\n# TunOffload = off\n"
    )
