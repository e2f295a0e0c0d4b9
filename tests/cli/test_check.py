"""`wgpy check`: files that are well formed and still wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon.test_up_down import Host
from tests.daemon.test_up_down import host as host
from wgpy.cli import main
from wgpy.keys import PrivateKey, PublicKey

KEY = PrivateKey(b"k" * 32)
PEER = PublicKey(b"p" * 32).base64()
AMNEZIA = "Jc = 4\nJmin = 40\nJmax = 70\nS1 = 86\nS2 = 120\nH1 = 1\nH2 = 2\nH3 = 3\nH4 = 4\n"


class Said:
    """Runs `check` on a file with these lines: whether it passes, and what it prints."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.capsys = path, capsys

    def __call__(self, interface: str = "", peer: str = "", key: str = PEER) -> tuple[bool, str]:
        text = f"[Interface]\nPrivateKey = {KEY.base64()}\n{interface}\n[Peer]\nPublicKey = {key}\n{peer}\n"
        self.path.write_text(text)
        passes = main(["check", str(self.path)]) == 0
        return passes, self.capsys.readouterr().out


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(tmp_path / "wg0.conf", capsys)


def test_check_warns_that_a_peer_with_the_interfaces_own_key_is_ignored(said: Said) -> None:
    passes, text = said(key=KEY.public_key.base64())
    assert passes
    assert ":5: PublicKey: is this interface's own; the peer is ignored (warning)\n" in text


def test_a_private_key_given_as_a_public_key_is_an_error_that_does_not_repeat_it(said: Said) -> None:
    for key, peer, where in ((KEY.base64(), "", ":5: PublicKey"), (PEER, f"PresharedKey = {KEY.base64()}", ":6: Pre")):
        passes, text = said(peer=peer, key=key)
        assert not passes
        assert where in text
        assert "is this interface's PrivateKey" in text
        assert KEY.base64() not in text


def test_check_warns_of_a_file_that_others_may_read_or_write_as_up_does(said: Said) -> None:
    said()
    said.path.chmod(0o644)
    assert "world accessible" not in said()[1], "nobody can reach it in a private directory"
    said.path.parent.chmod(0o755)
    passes, text = said("PostUp = true")
    assert passes
    assert f"{said.path}:1: `{said.path}' is world accessible: chmod 600 {said.path} (warning)\n" in text
    assert "has hooks" not in text
    said.path.chmod(0o620)
    assert "until then `up` refuses it" in said("PostUp = true")[1]
    assert "`up`" not in said()[1]
    said.path.chmod(0o600)
    assert said("PostUp = true") == (True, f"{said.path}: ok\n")


def test_the_file_that_a_wireproxy_file_names_is_checked_too(said: Said, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    said()
    said.path.chmod(0o644)
    proxy = tmp_path / "proxy.conf"
    proxy.write_text("WGConfig = wg0.conf\n[Socks5]\nBindAddress = 127.0.0.1:1080\n")
    proxy.chmod(0o604)
    assert main(["check", str(proxy)]) == 0
    text = said.capsys.readouterr().out
    assert f"chmod 600 {proxy} (warning)\n" in text
    assert f"chmod 600 {said.path} (warning)\n" in text


@pytest.mark.parametrize(
    ("allowed", "endpoint", "around"),
    [
        ("0.0.0.0/1, 128.0.0.0/1", "192.0.2.2:5", "128.0.0.0/1"),
        ("10.0.0.0/8, 10.9.0.0/16", "10.9.8.7:5", "10.9.0.0/16"),
        ("::/0, 2001:db8::/32", "[2001:db8::7]:5", "2001:db8::/32"),
    ],
)
def test_check_warns_of_an_endpoint_inside_the_tunnel(said: Said, allowed: str, endpoint: str, around: str) -> None:
    peer = f"AllowedIPs = {allowed}\nEndpoint = {endpoint}"
    passes, text = said(peer=peer)
    assert passes
    assert f":7: Endpoint: is within {around} of AllowedIPs" in text
    host = endpoint.rpartition(":")[0].strip("[]")
    for interface in ("FwMark = 7", "Table = off", f"PostUp = ip route add {host} via 192.0.2.254"):
        assert "Endpoint" not in said(interface, peer)[1]


def test_check_accepts_an_endpoint_outside_or_behind_a_default_route_by_rules(said: Said) -> None:
    for allowed in ("0.0.0.0/0, ::/0", "10.0.0.0/8, ::/1"):
        assert "Endpoint" not in said(peer=f"AllowedIPs = {allowed}\nEndpoint = 192.0.2.2:5")[1]


def test_an_mtu_below_1280_is_an_error_with_ipv6_addresses(said: Said) -> None:
    passes, text = said("Address = 10.9.0.1/24, fd09::1/64\nMTU = 1279")
    assert not passes
    assert ":4: MTU: expected at least 1280" in text
    assert said("Address = 10.9.0.1/24, fd09::1/64\nMTU = 1280")[0]
    assert said("Address = 10.9.0.1/24\nMTU = 576")[0]
    passes, text = said("Address = 10.9.0.1/24\nMTU = 1279", "AllowedIPs = ::/0")
    assert passes
    assert ":4: MTU: less than the 1280" in text


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("AllowedIPs = 10.0.0.0/8 10.1.0.0/16, fd00::/8", "'10.0.0.0/8 10.1.0.0/16'"),
        ("Endpoint = 192.0.2.2 :  x", "'192.0.2.2 :  x'"),
        ("PersistentKeepalive = 2 5 s", "'2 5 s'"),
    ],
)
def test_a_wrong_value_is_shown_as_it_is_written(said: Said, line: str, shown: str) -> None:
    assert f", not {shown}\n" in said(peer=line)[1]


def test_white_space_within_a_value_is_ignored_as_in_wg(said: Said) -> None:
    passes, text = said(
        peer="AllowedIPs = 10.0 .0.0/ 8 , fd00: :/8\nEndpoint = 192.0.2.2 : 5\nPersistentKeepalive = 2 5"
    )
    assert passes, text


def test_keys_of_amneziawg_give_one_message_that_names_them(said: Said) -> None:
    passes, text = said(AMNEZIA)
    assert not passes
    assert text.count("\n") == 1, text
    assert ":3: Jc: a key of AmneziaWG, like Jmin, Jmax, S1, S2, H1, H2, H3, H4;" in text
    assert "delete these lines if the other end is plain WireGuard" in text
    assert ":3: Jc: a key of AmneziaWG; WireGuard" in said("Jc = 4")[1]


@pytest.mark.root
def test_up_warns_which_endpoint_is_routed_into_the_tunnel(host: Host) -> None:
    """`up` asks for the kernel's routes: a more specific one may lead elsewhere, such as to a neighbour."""
    host.write(peer="AllowedIPs = 0.0.0.0/1, 128.0.0.0/1\nEndpoint = 198.51.100.7:5")
    assert f"warning: 198.51.100.7 is routed into {host.name} itself" in host.up()
    host.write(peer="AllowedIPs = 0.0.0.0/1, 128.0.0.0/1\nEndpoint = 192.0.2.2:5")
    assert "warning" not in host.wgpy("apply", str(host.path))
    host.write(peer="AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 198.51.100.7:5")
    assert "warning" not in host.wgpy("apply", str(host.path))
