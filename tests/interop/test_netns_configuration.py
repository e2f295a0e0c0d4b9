"""What the kernel's netns.sh asks of configuration alone, by its numbers: the stock `wg` on the program under test."""

from __future__ import annotations

import base64

import pytest

from tests.interop.conftest import Cable, kit_of
from tests.interop.test_stock_wg import ask, key
from tests.support.peers import WGPY
from wgpy.keys import PresharedKey, PrivateKey

pytestmark = pytest.mark.root


class Ours:
    """An interface of the program under test, empty, under `wg`."""

    def __init__(self, cable: Cable) -> None:
        cable.open(cable.left)
        self.namespace, self.name, self.directory = cable.left.namespace, cable.left.name, cable.directory
        assert self.private_key(None) == "(none)"
        assert ask(self.name, "set=1\nreplace_peers=true\n\n") == "errno=0\n\n"

    def set(self, *words: str) -> None:
        self.namespace.run("wg", "set", self.name, *words)

    def file(self, text: str | None) -> str:
        """A file that says so, or one without anything."""
        path = self.directory / "text"
        path.write_text(text or "")
        return str(path) if text else "/dev/null"

    def private_key(self, text: str | None) -> str:
        """Set it, and say what `wg` then shows."""
        self.set("private-key", self.file(text))
        return self.show("private-key")

    def show(self, what: str) -> str:
        return self.namespace.run("wg", "show", self.name, what).rstrip("\n")

    def allowed_ips(self) -> dict[str, list[str]]:
        lines = (line.partition("\t") for line in self.show("allowed-ips").splitlines())
        return {public_key: networks.split() for public_key, _, networks in lines}


@pytest.fixture
def ours(request: pytest.FixtureRequest, cable: Cable) -> Ours:
    cable.ours = kit_of(request.config).tested
    return Ours(cable)


@pytest.mark.scenario("kernel netns.sh, 16")
def test_16_a_get_answer_longer_than_a_buffer(ours: Ours) -> None:
    """`wg` reads back 40 peers of 52 prefixes, 30 peers from a file, and a peer without prefixes before one of 197."""
    many = {key(a): [f"{a}.{b}.0.0/16" for b in range(1, 53)] for a in range(2, 42)}
    text = "".join(f"[Peer]\nPublicKey = {k}\nAllowedIPs = {', '.join(many[k])}\n" for k in many)
    ours.namespace.run("wg", "setconf", ours.name, ours.file(text))
    assert ours.allowed_ips() == many

    thirty = [PrivateKey.generate().public_key.base64() for _ in range(30)]
    sections = {f"[Peer]\nPublicKey = {k}\nAllowedIPs = 10.{n}.0.0/16, fd00:{n}::/32" for n, k in enumerate(thirty, 1)}
    ours.namespace.run("wg", "setconf", ours.name, ours.file("\n".join(sections) + "\n"))
    for program in (("wg",), WGPY):
        shown = ours.namespace.run(*program, "showconf", ours.name).rstrip("\n").split("\n\n")
        assert set(shown[1:]) == sections

    first, second = key(2), key(3)
    assert ask(ours.name, "set=1\nreplace_peers=true\n\n") == "errno=0\n\n"
    networks = [f"abcd::{n:x}/128" for n in range(1, 198)]
    ours.set("peer", first)
    ours.set("peer", second, "allowed-ips", ",".join(networks))
    assert ours.allowed_ips() == {first: ["(none)"], second: networks}


@pytest.mark.scenario("Linux 6.16, WGALLOWEDIP_F_REMOVE_ME", "kernel netns.sh, 17")
def test_17_single_prefixes_are_removed(ours: Ours) -> None:
    """Of 394 allowed IPs, six are removed by `allowed_ip=-PREFIX`; a prefix of another peer's is left alone."""
    networks = [f"192.168.{n}.0/24" for n in range(197)] + [f"abcd:{n:x}::/32" for n in range(1, 198)]
    one, other = key(2), key(3)
    ours.set("peer", one, "allowed-ips", ",".join(networks))
    ours.set("peer", other, "allowed-ips", "10.0.0.0/8")
    gone = [*networks[:3], *networks[-3:]]
    for _ in range(2):
        lines = "".join(f"allowed_ip=-{network}\n" for network in (*gone, "10.0.0.0/8"))
        assert ask(ours.name, f"set=1\npublic_key={bytes_of(one)}\n{lines}\n") == "errno=0\n\n"
        left = [network for network in networks if network not in gone]
        assert len(left) == 388
        assert ours.allowed_ips() == {one: left, other: ["10.0.0.0/8"]}


def bytes_of(public_key: str) -> str:
    return base64.b64decode(public_key).hex()


@pytest.mark.scenario("kernel netlink.c, wg_set_device and set_peer", "kernel netns.sh, 18")
def test_18_peers_are_added_and_removed(ours: Ours) -> None:
    """Keys are read back, clamped, and taken away by a key of zeros.

    A peer that has the interface's own public key is removed, and cannot be added.
    """
    assert "Unable to access interface" in ours.namespace.run("wg", "show", "doesnotexist", check=False)
    mine, psk, peer = PrivateKey.generate(), PresharedKey.generate(), PrivateKey.generate()
    theirs = peer.public_key.base64()
    assert ours.private_key(mine.base64()) == mine.base64()
    assert ours.show("public-key") == mine.public_key.base64()
    for text in (psk.base64(), None):
        ours.set("peer", theirs, "preshared-key", ours.file(text))
        assert ours.show("preshared-keys") == f"{theirs}\t{text or '(none)'}"
    assert ours.private_key(None) == "(none)"
    assert ours.show("public-key") == "(none)"

    assert ours.private_key(peer.base64()) == peer.base64(), "who had that key is a peer no more"
    assert ours.show("peers") == ""
    ours.set("peer", theirs)
    assert ours.show("peers") == "", "and does not become one"
    assert ours.private_key("/" + mine.base64()[1:]) == "+" + mine.base64()[1:]
    ours.set("peer", theirs)
    assert ours.show("peers") == theirs


@pytest.mark.scenario("kernel allowedips.c", "kernel netns.sh, 18")
@pytest.mark.parametrize(
    "networks",
    [
        ["0.0.0.0/0", "10.0.0.0/8", "100.0.0.0/10", "172.16.0.0/12", "192.168.0.0/16"],
        ["::/0", "1700::/111", "5000::/4", "e000::/37", "9000::/75"],
    ],
)
def test_18_nested_prefixes_are_replaced(ours: Ours, networks: list[str]) -> None:
    """A peer's allowed IPs are replaced as a whole, also where some lie within others."""
    for those in (networks, networks[:1], networks[1:], []):
        ours.set("peer", key(2), "allowed-ips", ",".join(those))
        assert ours.allowed_ips() == {key(2): those or ["(none)"]}
