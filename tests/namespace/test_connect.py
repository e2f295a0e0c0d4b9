"""connect() as an unprivileged user, against Debian's wireguard-go: the kernel's sockets, through the tunnel."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import resource
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import wgpy
from tests.interop.conftest import Cable
from tests.namespace.conftest import PORT, Server
from tests.support.nobody import NOBODY, as_nobody, let_pass
from tests.support.peers import capture, wait_for
from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.device.effects import EventKind

pytestmark = pytest.mark.root

IP_MTU = 14  # linux/in.h


async def download(tunnel: wgpy.RootlessTunnel, address: str, size: int) -> None:
    """Fetch so many bytes, and check them by their SHA-256."""
    reader, writer = await tunnel.open_connection(address, PORT)
    writer.write(b"send %d\n" % size)
    digest = hashlib.sha256()
    while size > 0:
        chunk = await reader.read(min(size, 1 << 20))
        assert chunk
        digest.update(chunk)
        size -= len(chunk)
    assert await reader.readexactly(32) == digest.digest()
    writer.close()
    await writer.wait_closed()


async def upload(tunnel: wgpy.RootlessTunnel, address: str, content: bytes) -> None:
    reader, writer = await tunnel.open_connection(address, PORT)
    writer.write(b"take %d\n" % len(content) + content)
    assert await reader.readexactly(32) == hashlib.sha256(content).digest()
    writer.close()
    await writer.wait_closed()


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("family", ["inner4", "inner6"])
def test_tcp_both_ways_without_root(server: Server, family: str) -> None:
    address = getattr(server.side, family)

    async def main() -> None:
        assert os.geteuid() == NOBODY
        async with wgpy.connect(server.config) as tunnel:
            await download(tunnel, address, 20_000_000)
            await upload(tunnel, address, os.urandom(5_000_000))
            assert await tunnel.ping(address, timeout=60) > 0
            with pytest.raises(OSError, match=r"No route to host|Network is unreachable"):
                await tunnel.ping("192.0.2.77")
            (peer,) = tunnel.status().peers
            assert peer.rx_bytes > 20_000_000

    as_nobody(server.client, main)


@pytest.mark.usefixtures("network")
@pytest.mark.timeout(600)
def test_a_gigabyte_arrives_unchanged(server: Server) -> None:
    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel:
            await download(tunnel, server.address, 1_000_000_000)

    as_nobody(server.client, main)


@pytest.mark.usefixtures("network")
def test_only_wireguard_packets_are_seen_outside(server: Server) -> None:
    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel:
            await download(tunnel, server.address, 200_000)

    with capture(server.client, "veth0", "(ip and not icmp) or (ip6 and (tcp or udp))") as seen:
        as_nobody(server.client, main)
    # Most of it, however many datagrams a line stands for: what is sent together may be seen as one, and a busy machine
    # may not see all.
    assert sum(int(line.rpartition("length ")[2]) for line in seen) > 100_000
    foreign = [line for line in seen if f".{server.side.port}" not in line or "UDP" not in line]
    assert foreign == []


@pytest.mark.usefixtures("network")
def test_a_thousand_connections_at_once(server: Server) -> None:
    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel, asyncio.timeout(60):
            everybody = asyncio.Barrier(1000)

            async def one() -> None:
                reader, writer = await tunnel.open_connection(server.address, PORT)
                await everybody.wait()
                writer.write(b"take 5\nhello")
                assert await reader.readexactly(32) == hashlib.sha256(b"hello").digest()
                writer.close()
                await writer.wait_closed()

            await asyncio.gather(*(one() for _ in range(1000)))

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, max(4096, before[1])))
    try:
        as_nobody(server.client, main)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_no_program_inherits_the_helpers_descriptors(server: Server) -> None:
    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel:
            sock, made = await tunnel.socket(), (await tunnel.socket_factory())()
            held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if is_inheritable(int(fd))]
            assert not [name for name in held if "tun" in name or "net:" in name]
            assert not sock.get_inheritable()
            assert not made.get_inheritable()
            sock.close()
            made.close()

    def is_inheritable(fd: int) -> bool:
        try:
            return os.get_inheritable(fd)
        except OSError:  # that of the listing
            return False

    as_nobody(server.client, main)


@pytest.mark.usefixtures("network")
def test_on_a_path_with_a_small_mtu_the_tunnel_keeps_the_mtu_that_ipv6_needs(server: Server, cable: Cable) -> None:
    """The datagrams are fragmented on their way then, as with `wgpy up`."""
    server.client.run("ip", "route", "replace", f"{cable.right.outer}/32", "via", cable.right.outer, "mtu", "1300")

    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel, asyncio.timeout(10):
            assert tunnel.mtu == 1280
            reader, writer = await tunnel.open_connection(server.address, PORT)
            writer.write(b"take 5\nhello")
            assert await reader.readexactly(1)
            writer.close()

    as_nobody(server.client, main)


@pytest.mark.usefixtures("network")
def test_datagrams_pass_both_ways(server: Server) -> None:
    class Client(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def datagram_received(self, data: bytes, addr: object) -> None:
            self.received.set_result(data)

    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel, asyncio.timeout(10):
            transport, client = await tunnel.create_datagram_endpoint(Client, remote_addr=(server.address, PORT))
            transport.sendto(b"hello")
            assert await client.received == b"hello"

    as_nobody(server.client, main)


def test_a_server_in_the_tunnel_is_reachable_from_the_peer(cable: Cable, server: Server, network: str) -> None:
    async def main() -> None:
        answered = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"you are " + writer.get_extra_info("peername")[0].encode())
            writer.close()
            await writer.wait_closed()
            answered.set()

        async with wgpy.connect(server.config) as tunnel, asyncio.timeout(20):
            await tunnel.wait_for_handshake(server.side.public_key)
            await tunnel.start_server(answer, port=80)
            ready.touch()
            await answered.wait()

    let_pass(cable.directory)
    cable.directory.chmod(0o777)
    ready, to = cable.directory / "listening", f"/dev/tcp/{cable.left.inner4}/80"
    fetch = f"until [ -e {ready} ]; do sleep 0.05; done; exec 3<>{to}; cat <&3"
    visitor = server.side.namespace.popen("bash", "-c", fetch, stdout=-1)
    as_nobody(server.client, main)
    mapped = "::ffff:" if network == "namespace" else ""  # one socket for both families
    assert visitor.communicate(timeout=10)[0] == f"you are {mapped}{server.address}"


@pytest.mark.usefixtures("network")
def test_peers_are_added_and_removed_while_it_runs(server: Server) -> None:
    async def refused(tunnel: wgpy.RootlessTunnel) -> None:
        with pytest.raises(OSError, match="Connect call failed") as raised:
            await tunnel.open_connection(server.address, PORT)
        assert raised.value.errno == errno.EHOSTUNREACH

    async def main() -> None:
        (peer,) = server.config.peers
        async with wgpy.connect(replace(server.config, peers=())) as tunnel:
            await refused(tunnel)
            events = tunnel.events()
            await tunnel.reconfigure(server.config)
            await download(tunnel, server.address, 1000)
            event = await anext(events)
            assert (event.kind, event.public_key) == (EventKind.HANDSHAKE_COMPLETED, peer.public_key)
            tunnel.configure(DeviceChange(peers=(PeerChange(public_key=peer.public_key, remove=True),)))
            await refused(tunnel)

    as_nobody(server.client, main)


def test_another_mtu_reaches_the_network(server: Server, network: str) -> None:
    """Connections that are open go on. What the stack then sends is looked at in tests/userspace."""

    async def main() -> None:
        async with wgpy.connect(replace(server.config, mtu=1420)) as tunnel:
            reader, writer = await tunnel.open_connection(server.address, PORT)
            content = os.urandom(2_000_000)
            writer.write(b"take %d\n" % len(content) + content[:1_000_000])
            if network == "namespace":  # whose kernel would not hear of it
                with pytest.raises(AttributeError, match="reconfigure"):
                    tunnel.mtu = 1300
                assert tunnel.mtu == 1420
            await tunnel.reconfigure(replace(server.config, mtu=1300))
            assert tunnel.mtu == 1300
            writer.write(content[1_000_000:])
            assert await reader.readexactly(32) == hashlib.sha256(content).digest()
            writer.close()
            if network == "namespace":
                with await tunnel.connected_socket(server.address, PORT, socket.SOCK_DGRAM) as sock:
                    assert sock.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1300

    as_nobody(server.client, main)


def test_nothing_is_left_behind(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGPY_LEFT_BEHIND", server.side.name)  # inherited by this test's helpers and no others

    async def main() -> None:
        for _ in range(3):
            async with wgpy.connect(server.config) as tunnel:
                await download(tunnel, server.address, 1000)

    def helpers() -> list[bytes]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"WGPY_LEFT_BEHIND={server.side.name}".encode() in (path / "environ").read_bytes():
                    found.append((path / "cmdline").read_bytes())
        return [line for line in found if b"wgpy.namespace.helper" in line]

    as_nobody(server.client, main)
    assert wait_for(lambda: not helpers())
