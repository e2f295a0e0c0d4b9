"""The userspace API, as programs use it: whatever is wrong gets an errno, and nothing of it is applied."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace
from tests.support.peers import WGPY, fresh_name
from wgpy.daemon import uapi_client, uapi_server
from wgpy.keys import PrivateKey

pytestmark = pytest.mark.root

KEY = PrivateKey(b"k" * 32)
PEER = PrivateKey(b"p" * 32).public_key
FIRST = f"set=1\nfwmark=7\nreplace_peers=true\npublic_key={PEER.hex()}\n"  # would change everything
LONG = "9" * 200_000


class Interface:
    """A bare interface with a peer, and its socket."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.name = fresh_name()
        namespace.run(forked_wgpy(), self.name)
        peer = f"public_key={PEER.hex()}\nallowed_ip=10.1.0.0/16"
        assert self.ask(f"set=1\nprivate_key={KEY.hex()}\nlisten_port=7001\n{peer}\n\n") == "errno=0\n\n"

    def ask(self, request: str, *, end: bool = True) -> str:
        """All that the daemon answers until it closes the connection; with `end`, we end our side first."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(f"/var/run/wireguard/{self.name}.sock")
            client.sendall(request.encode("latin-1"))
            if not end:
                return client.recv(1 << 16).decode()
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()

    def shown(self) -> str:
        return self.namespace.run("wg", "showconf", self.name)


@pytest.fixture(scope="module")
def interface() -> Iterator[Interface]:
    with Namespace() as namespace:
        interface = Interface(namespace)
        yield interface
        namespace.run("ip", "link", "delete", interface.name)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("listen_port=1", errno.EINVAL),
        ("private_key=" + "00" * 32, errno.EINVAL),
        ("public_key=" + "0" * 63, errno.EINVAL),
        ("preshared_key=", errno.EINVAL),
        ("endpoint=example.org:51820", errno.EINVAL),
        ("endpoint=[fe80::1%nosuch]:51820", errno.EINVAL),
        ("persistent_keepalive_interval=65536", errno.EINVAL),
        ("allowed_ip=10.0.0.0", errno.EINVAL),
        ("allowed_ip=10.0.0.0/08", errno.EINVAL),
        ("allowed_ip=-10.0.0.0/33", errno.EINVAL),
        ("replace_allowed_ips=false", errno.EINVAL),
        ("update_only=1", errno.EINVAL),
        ("remove=yes", errno.EINVAL),
        ("protocol_version=2", errno.EINVAL),
        ("no_such_key=1", errno.EINVAL),
        ("remove=true\r", errno.EINVAL),
        ("\xff\x00=1", errno.EINVAL),
        ("no equals sign", errno.EPROTO),
        pytest.param(f"fwmark={LONG}", errno.EIO, id="a long value"),  # pytest tells programs the test's name
        pytest.param(LONG, errno.EIO, id="a long line"),
    ],
)
def test_a_bad_line_gets_an_error_and_nothing_of_its_request_is_applied(
    interface: Interface, line: str, code: int
) -> None:
    before = interface.shown()
    assert interface.ask(f"{FIRST}{line}\nallowed_ip=10.9.0.0/16\n\n", end=False) == f"errno=-{code}\n\n"
    assert interface.shown() == before


@pytest.mark.parametrize("request_", [FIRST, FIRST.rstrip("\n"), "set=1\n", "s", f"{FIRST}allowed_ip=10.1.0.0/1"])
def test_half_a_request_has_no_effect(interface: Interface, request_: str) -> None:
    before = interface.shown()
    assert interface.ask(request_) == f"errno=-{errno.EPROTO}\n\n"
    assert interface.shown() == before


def test_an_error_of_get_is_positive(interface: Interface) -> None:
    assert interface.ask("get=1\nlisten_port\n\n") == f"errno={errno.EINVAL}\n\n"
    assert interface.ask("get=1\n") == f"errno={errno.EPROTO}\n\n"


def test_a_line_that_is_no_request_is_eproto_and_an_empty_one_gets_no_answer(interface: Interface) -> None:
    assert interface.ask("hello\n\n", end=False) == f"errno=-{errno.EPROTO}\n\n"
    assert interface.ask("") == interface.ask("\n\n") == ""


def test_each_of_several_requests_gets_an_answer(interface: Interface) -> None:
    keep = f"public_key={PEER.hex()}\npersistent_keepalive_interval="
    requests = [
        f"set=1\n{keep}9\n\n",
        "set=1\nnonsense\n\n",
        f"set=1\nfwmark={LONG}\n\n",
        "get=1\n\n",
        f"set=1\n{keep}0\n\n",
    ]
    answers = interface.ask("".join(requests)).split("\n\n")
    told = answers.pop(3)
    assert answers == ["errno=0", "errno=-71", "errno=-5", "errno=0", ""]
    assert "persistent_keepalive_interval=9\n" in told
    assert told.endswith("\nerrno=0")


def test_idle_connections_and_half_requests_do_not_block_others(interface: Interface) -> None:
    """There may be 64: the connections that stay silent are closed, and those that send requests are not."""
    with ExitStack() as stack:

        def connected() -> socket.socket:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(f"/var/run/wireguard/{interface.name}.sock")
            client.settimeout(10)
            return client

        regular = connected()
        regular.sendall(b"get=1\n\n")
        assert regular.recv(1 << 16)
        pid = uapi_client.serving_pid(interface.name)
        for number in range(300):
            with suppress(ConnectionError):  # it may have made room already
                connected().sendall(b"set=1\nfwmark=9\n" if number % 2 else b"")
        assert "listening port: 7001" in interface.namespace.run("wg", "show", interface.name)
        assert len(os.listdir(f"/proc/{pid}/fd")) < 150
        regular.sendall(b"get=1\n\n")
        assert b"errno=0" in regular.recv(1 << 16)
    assert "fwmark" not in interface.shown().lower()


def test_no_user_but_a_group_that_root_chose_may_write_beside_the_socket(interface: Interface) -> None:
    """As with wireguard-go, `chmod 770 /var/run/wireguard` lets a group see which interfaces there are."""
    name, directory = fresh_name(), uapi_client.DIRECTORY
    before = directory.stat().st_mode
    try:
        directory.chmod(0o770)
        interface.namespace.run(forked_wgpy(), name)
        interface.namespace.run("ip", "link", "delete", name)
        directory.chmod(0o777)
        said = interface.namespace.run("sh", "-c", '"$@" 2>&1; true', "sh", *WGPY, "--foreground", name)
        assert f"other users may write in {directory}: chown root {directory}; chmod 755 {directory}" in said
    finally:
        directory.chmod(before)


def test_the_memory_of_a_request_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uapi_server, "MAX_REQUEST", 1000)

    async def main() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"set=1\n" + b"allowed_ip=10.0.0.0/8\n" * 1000 + b"\nget=1\n\n")
        lines, code = await uapi_server._read_request(reader)
        assert len(lines) < 50
        assert code == errno.EIO
        assert await uapi_server._read_request(reader) == (["get=1"], 0)

    asyncio.run(main())
