"""The stock `wg` on our daemon: every verb does what it does to wireguard-go, and very many peers are no problem."""

from __future__ import annotations

import base64
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import Cable
from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace
from tests.support.peers import WGPY, Wgpy, WireguardGo, fresh_name, peer_section, wait_for
from wgpy.keys import PresharedKey, PrivateKey

pytestmark = pytest.mark.root

KEYS = {name: PrivateKey(name.encode() * 32) for name in "kabcn"}
PUBLIC = {name.upper(): key.public_key.base64() for name, key in KEYS.items()}
PSK = PresharedKey(b"s" * 32)
A, B, C = (PUBLIC[name] for name in "ABC")
START = f"""[Interface]
PrivateKey = {KEYS["k"].base64()}
ListenPort = 7001
FwMark = 0x1f
[Peer]
PublicKey = {A}
PresharedKey = {PSK.base64()}
AllowedIPs = 10.1.0.0/16, fd01::/64
Endpoint = 192.0.2.1:1000
PersistentKeepalive = 25
[Peer]
PublicKey = {B}
Endpoint = [2001:db8::5]:2000
AllowedIPs = 0.0.0.0/0, ::/0
"""
PARAMETERS = [
    "public-key", "private-key", "listen-port", "fwmark", "peers", "preshared-keys", "endpoints", "allowed-ips",
    "latest-handshakes", "transfer", "persistent-keepalive", "dump",
]  # fmt: skip


class Interfaces:
    """An interface of wgpy and one of wireguard-go, in namespaces of their own, given the same commands by `wg`."""

    def __init__(self, ours: Namespace, theirs: Namespace, directory: Path) -> None:
        self.sides = [(ours, fresh_name()), (theirs, fresh_name())]
        self.directory = directory

    def wg(self, verb: str, *words: str) -> list[str]:
        """What `wg VERB INTERFACE WORDS` says of each, in an order of its own; and they agree on it."""
        said = []
        for namespace, name in self.sides:
            text = namespace.run("bash", "-c", '"$@"; echo "status $?"', "bash", "wg", verb, name, *words, check=False)
            text, _, status = text.replace(name, "NAME").rpartition("status ")
            sections = text.rstrip("\n").split("\n\n")
            parts = sorted(sections if len(sections) > 1 else text.splitlines())
            random_port = re.compile(r"(ListenPort = |port: )\d{5}")  # ours are of four digits
            said.append([f"status {status.strip()}", *(random_port.sub(r"\1any", part) for part in parts)])
        ours, theirs = said
        assert ours == theirs, (verb, *words)
        return ours

    def file(self, text: str) -> str:
        path = self.directory / "file.conf"
        path.write_text(text)
        return str(path)


@pytest.fixture
def interfaces(tmp_path: Path) -> Iterator[Interfaces]:
    with Namespace() as ours, Namespace() as theirs:
        interfaces = Interfaces(ours, theirs, tmp_path)
        (_, our_name), (_, their_name) = interfaces.sides
        ours.run(forked_wgpy(), our_name)
        environment = {**os.environ, "LOG_LEVEL": "silent", "WG_PROCESS_FOREGROUND": "1"}
        theirs.popen("wireguard-go", "-f", their_name, env=environment)
        sockets = [Path(f"/var/run/wireguard/{name}.sock") for _, name in interfaces.sides]
        assert wait_for(lambda: all(path.exists() for path in sockets))
        interfaces.wg("setconf", interfaces.file(START))
        yield interfaces
        ours.run("ip", "link", "delete", our_name)
        theirs.run("ip", "link", "delete", their_name)
        assert wait_for(lambda: not any(path.exists() for path in sockets))


def test_every_form_of_show_agrees(interfaces: Interfaces) -> None:
    assert any(f"PublicKey = {A}" in section for section in interfaces.wg("showconf"))
    for words in ([], *([parameter] for parameter in PARAMETERS)):
        assert "status 0" in "\n".join(interfaces.wg("show", *words))


@pytest.mark.parametrize("verb", ["setconf", "addconf", "syncconf"])
def test_a_file_has_the_same_effect(interfaces: Interfaces, verb: str) -> None:
    for namespace, name in interfaces.sides:
        namespace.run("ip", "link", "set", name, "up")
    for text in (
        f"[Peer]\nPublicKey = {C}\nAllowedIPs = 10.1.0.0/16, 10.1.2.3\n[Peer]\nPublicKey = {A}\nAllowedIPs = ::/0\n",
        f"[Interface]\nFwMark = off\nListenPort = 7002\n[Peer]\nPublicKey = {B}\nPersistentKeepalive = 9\n",
        f"[Interface]\nPrivateKey = {KEYS['a'].base64()}\n[Peer]\nPublicKey = {A}\nAllowedIPs = 10.0.0.0/8\n",  # own
        "[Interface]\nListenPort = 7003\n",
        START,
    ):
        assert interfaces.wg(verb, interfaces.file(text))[0] == "status 0"
        interfaces.wg("showconf")


def test_set_has_the_same_effect(interfaces: Interfaces) -> None:
    meaning = dict(PUBLIC)
    for name, content in (("KEYFILE", KEYS["n"].base64()), ("PSKFILE", PSK.base64())):
        (interfaces.directory / name).write_text(content)
        meaning[name] = str(interfaces.directory / name)
    for words in (
        "listen-port 7004 fwmark 0xffffffff",
        "private-key KEYFILE",
        "peer C preshared-key PSKFILE endpoint 127.0.0.1:9 persistent-keepalive 65535 allowed-ips 10.1.0.0/16,fd00::/8",
        "peer A preshared-key /dev/null persistent-keepalive off",
        "peer B remove peer A endpoint [::1]:7",
        "peer B remove",
        "peer N",  # itself
        "private-key /dev/null fwmark off",
        "peer B allowed-ips 0.0.0.0/0",
        "private-key KEYFILE peer C remove peer B allowed-ips 1.2.3.4/32",
    ):
        assert interfaces.wg("set", *(meaning.get(word, word) for word in words.split())) == ["status 0"]
        interfaces.wg("showconf")


def test_a_port_in_use_gets_the_same_answer(interfaces: Interfaces) -> None:
    for namespace, name in interfaces.sides:
        namespace.run("ip", "link", "set", name, "up")
        other = 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(("", 7009)); input("bound\\n")'
        holder = namespace.popen(WGPY[0], "-c", other, stdin=-1, stdout=-1)
        assert holder.stdout is not None
        holder.stdout.readline()
    said = "\n".join(interfaces.wg("set", "listen-port", "7009"))
    assert "Unable to modify interface: Address already in use" in said
    assert "status 1" in said


def ask(name: str, request: str) -> str:
    """Speak to a socket as a program would."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(f"/var/run/wireguard/{name}.sock")
        client.sendall(request.encode())
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()


def test_update_only_and_the_removal_of_allowed_ips(interfaces: Interfaces) -> None:
    """What this `wg` does not send, and others do."""
    namespace, name = interfaces.sides[0]

    def allowed() -> dict[str, str]:
        lines = namespace.run("wg", "show", name, "allowed-ips").splitlines()
        return {key: ips for key, _, ips in (line.partition("\t") for line in lines)}

    a, c = (KEYS[letter].public_key.hex() for letter in "ac")
    assert ask(name, f"set=1\npublic_key={c}\nupdate_only=true\nallowed_ip=10.5.0.0/16\n\n") == "errno=0\n\n"
    assert C not in allowed()
    update = "update_only=true\nallowed_ip=10.5.0.0/16\nallowed_ip=-fd01::/64\nallowed_ip=-10.77.0.0/16"
    assert ask(name, f"set=1\npublic_key={a}\n{update}\n\n") == "errno=0\n\n"
    assert allowed()[A] == "10.1.0.0/16 10.5.0.0/16"
    assert ask(name, f"set=1\npublic_key={a}\nallowed_ip=-0.0.0.0/0\n\n") == "errno=0\n\n", "that is another peer's"
    assert allowed()[B] == "0.0.0.0/0 ::/0"


@pytest.mark.parametrize("tool", [("wg",), WGPY], ids=["wg", "wgpy"])
def test_syncconf_keeps_the_sessions_of_the_peers_that_stay(cable: Cable, tool: tuple[str, ...]) -> None:
    left, right = cable.left, cable.right
    theirs = WireguardGo(right, peer_section(left))
    cable.cleanup.callback(theirs.close)
    ours = Wgpy(left, cable.directory, peer_section(right))
    cable.cleanup.callback(ours.close)
    left.namespace.run("ping", "-c", "1", "-W", "5", right.inner4)

    def handshake() -> object:
        return next(p for p in ours.status()["peers"] if p["public_key"] == right.public_key.base64())[
            "latest_handshake"
        ]

    before = handshake()
    path = cable.directory / "sync.conf"
    for extra in (f"[Peer]\nPublicKey = {C}\nAllowedIPs = 10.77.0.0/16", ""):
        interface = f"[Interface]\nPrivateKey = {left.key.base64()}\nListenPort = {left.port}\n"
        path.write_text(f"{interface}{peer_section(right, endpoint=None)}\n{extra}\n")
        left.namespace.run(*tool, "syncconf", left.name, str(path))
        assert len(ours.status()["peers"]) == 1 + bool(extra)
        left.namespace.run("ping", "-c", "1", "-W", "5", right.inner4)
        assert handshake() == before


PATIENCE = 60  # seconds; on an idle machine each takes about two


def key(number: int) -> str:
    return base64.b64encode(number.to_bytes(32, "big")).decode()


@pytest.mark.parametrize("what", ["allowed IPs", "peers"])
def test_very_many_peers_and_prefixes_agree(interfaces: Interfaces, what: str) -> None:
    """As many allowed IPs of one peer as the kernel's own test has; and 10,000 peers."""
    namespace, name = interfaces.sides[0]
    if what == "allowed IPs":
        networks = [f"{10 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24" for n in range(130_561)]
        lists = [f"AllowedIPs = {', '.join(networks[n : n + 1000])}" for n in range(0, len(networks), 1000)]
        text = "\n".join(["[Peer]", f"PublicKey = {key(5)}", *lists, ""])
        expected = {key(5): " ".join(networks)}
    else:
        expected = {key(n + 2): f"10.{n // 256}.{n % 256}.0/24" for n in range(10_000)}
        text = "".join(
            f"[Peer]\nPublicKey = {public_key}\nPresharedKey = {PSK.base64()}\nAllowedIPs = {network}\n"
            for public_key, network in expected.items()
        )
    path = interfaces.file(text)
    for verb in ("setconf", "syncconf"):
        began = time.monotonic()
        namespace.run("wg", verb, name, path)
        lines = namespace.run("wg", "show", name, "allowed-ips").splitlines()
        assert time.monotonic() - began < PATIENCE
        assert {line.split("\t")[0]: line.split("\t")[1] for line in lines} == expected
    assert ask(name, "set=1\nreplace_peers=true\n\n") == "errno=0\n\n"
    assert namespace.run("wg", "show", name, "peers") == ""
