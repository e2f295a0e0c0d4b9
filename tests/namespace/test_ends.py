"""How tunnels without root end, and what fails on the way: each raises a typed error in time, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

import wgpy
from tests.adapters.conftest import NAME, PAGE, Web
from tests.adapters.conftest import web as web
from tests.interop.conftest import Cable
from tests.namespace.conftest import PORT, Server
from tests.support.descriptors import descriptors
from tests.support.nobody import NOBODY, as_nobody, let_pass
from tests.support.peers import wait_for

pytestmark = pytest.mark.root


def in_time(server: Server | Web, main: Callable[[], Awaitable[None]], seconds: float = 20) -> None:
    """Run it as nobody, within a time, after which there is no helper, no descriptor and no task more than before."""

    async def bounded() -> None:
        before = descriptors()
        async with asyncio.timeout(seconds):
            await main()
        assert wait_for(lambda: helpers() == [])
        await asyncio.sleep(0.1)  # closed transports' turns
        assert descriptors() == before
        assert asyncio.all_tasks() == {asyncio.current_task()}

    as_nobody(server.client, bounded)


def helpers() -> list[int]:
    """Our children that are not gone."""
    lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]  # whichever thread started them
    return [int(pid) for pid in " ".join(lists).split()]


@pytest.mark.usefixtures("network")
def test_tls_both_ways(cable: Cable, web: Web) -> None:
    """To Python's TLS server, and from curl."""

    async def main() -> None:
        trusting = ssl.create_default_context(cadata=web.authority)
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(pem)
        answered = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\n\r\nby TLS")
            writer.close()
            answered.set()

        async with wgpy.connect(web.config) as tunnel:
            reader, writer = await tunnel.open_connection(NAME, 8443, ssl=trusting)
            writer.write(b"GET /page HTTP/1.0\r\n\r\n")
            assert (await reader.read()).decode().endswith(PAGE)
            writer.close()
            with pytest.raises(ssl.SSLCertVerificationError):
                await tunnel.open_connection(NAME, 8443, ssl=True)
            async with await tunnel.start_server(answer, port=443, ssl=serving):
                await answered.wait()
                await asyncio.sleep(0.2)

    pem, authority = cable.directory / "served", cable.directory / "authority"
    pem.write_bytes((cable.directory / "pem").read_bytes())
    authority.write_text(web.authority)
    os.chown(pem, NOBODY, NOBODY)
    let_pass(cable.directory)
    fetch = f"curl -sS --cacert {authority} --connect-to {NAME}:443:{cable.left.inner4}:443 https://{NAME}/"
    retry = f"until {fetch} 2>/dev/null; do sleep 0.1; done"
    visitor = cable.right.namespace.popen("bash", "-c", retry, stdout=subprocess.PIPE)
    in_time(web, main)
    assert visitor.communicate(timeout=10)[0] == "by TLS"


@pytest.mark.usefixtures("network")
def test_several_tunnels_in_one_process(cable: Cable, server: Server) -> None:
    """Two to the other side, with one and the same address, and one between themselves."""

    async def main() -> None:
        key, own = wgpy.PrivateKey.generate(), server.config.private_key
        assert own is not None
        host = wgpy.InterfaceConfig(
            private_key=key,
            addresses=(ip_interface("10.9.0.1/24"),),
            peers=(wgpy.PeerConfig(public_key=own.public_key, allowed_ips=(ip_network("10.9.0.2/32"),)),),
        )
        async with wgpy.connect(host) as far, wgpy.connect(server.config) as first:
            guest = replace(
                server.config,
                addresses=(ip_interface("10.9.0.2/24"),),
                peers=(
                    wgpy.PeerConfig(
                        public_key=key.public_key,
                        endpoint=wgpy.EndpointName(host="127.0.0.1", port=far.listen_port),
                        allowed_ips=(ip_network("10.9.0.0/24"),),
                    ),
                ),
            )
            async with wgpy.connect(guest) as second, await far.start_server(greet, port=PORT):
                for tunnel, address in ((first, server.address), (second, "10.9.0.1")):
                    reader, writer = await tunnel.open_connection(address, PORT)
                    writer.write(b"take 5\nhello")
                    assert len(await reader.readexactly(32)) == 32
                    writer.close()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(bytes(32))
        writer.close()

    server.client.run("ip", "link", "set", "lo", "up")
    in_time(server, main)


def test_a_helper_that_dies_ends_the_tunnel(server: Server) -> None:
    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel:
            reader, writer = await tunnel.open_connection(server.address, PORT)
            serving = await tunnel.start_server(lambda reader, writer: None)
            (helper,) = helpers()
            os.kill(helper, signal.SIGKILL)
            with pytest.raises(wgpy.TunnelClosedError):
                await reader.read()
            with pytest.raises(wgpy.NamespaceError, match="close the tunnel and connect again"):
                await tunnel.wait_closed()
            for attempt in (tunnel.socket, lambda: tunnel.open_connection(server.address, PORT), tunnel.socket_factory):
                with pytest.raises(wgpy.TunnelClosedError):
                    await attempt()
            assert not serving.is_serving()
            writer.close()

    in_time(server, main)


def test_closing_a_tunnel_ends_its_connections(server: Server, network: str) -> None:
    async def main() -> None:
        async def waiting(reader: asyncio.StreamReader) -> None:
            with pytest.raises(wgpy.TunnelClosedError, match="closed while this connection was open"):
                await reader.read()

        async with wgpy.connect(server.config) as tunnel:
            streams = [await tunnel.open_connection(server.address, PORT) for _ in range(5)]
            for _, writer in streams:
                writer.write(b"take 9\n")
            tasks = [asyncio.create_task(waiting(reader)) for reader, _ in streams]
            opening = asyncio.create_task(tunnel.open_connection("10.8.0.77", 1))
            handshake = asyncio.create_task(tunnel.wait_for_handshake(server.side.public_key, timeout=5))
            sock = await (tunnel.socket() if network == "namespace" else tunnel.connected_socket(server.address, PORT))
            await asyncio.sleep(0.1)
            opening.cancel()
        await asyncio.gather(*tasks)
        await asyncio.gather(opening, handshake, return_exceptions=True)
        sock.close()

    in_time(server, main)


@pytest.mark.usefixtures("network")
def test_unresolvable_names_are_reported(server: Server, web: Web) -> None:
    async def main() -> None:
        async with wgpy.connect(server.config) as tunnel:
            with pytest.raises(wgpy.ResolveError, match=r"add DNS = ADDRESS to \[Interface\]"):
                await tunnel.getaddrinfo("db.internal", 5432)
        async with wgpy.connect(web.config) as tunnel:
            assert {info[4][:2] for info in await tunnel.getaddrinfo("web", 5432)} >= {(server.address, 5432)}
            with pytest.raises(wgpy.ResolveError, match="nowhere"):
                await tunnel.open_connection("nowhere.corp.test", 1)
        async with wgpy.connect(replace(server.config, dns=("10.8.0.77",))) as tunnel:
            with pytest.raises(wgpy.ResolveError, match=r"db\.internal"):
                await tunnel.getaddrinfo("db.internal", 5432)

    in_time(server, main, 30)


@pytest.mark.usefixtures("network")
def test_peers_that_never_answer_cause_timeouts(server: Server) -> None:
    (peer,) = server.config.peers
    silent = [
        (replace(peer, endpoint=wgpy.EndpointName(host="192.0.2.2", port=9)), "192.0.2.2:9 has not answered for 0.3 s"),
        (replace(peer, endpoint=wgpy.EndpointName(host="203.0.113.1", port=9)), "check the Endpoint"),  # no route
        (replace(peer, endpoint=None), "it has no Endpoint, so it must begin"),
        (replace(peer, public_key=wgpy.PrivateKey.generate().public_key), "both public keys"),
    ]

    async def main() -> None:
        for each, said in silent:
            async with wgpy.connect(replace(server.config, peers=(each,))) as tunnel:
                with pytest.raises(wgpy.HandshakeTimeout, match=said):
                    await tunnel.wait_for_handshake(each.public_key, timeout=0.3)
                with pytest.raises((TimeoutError, OSError)):
                    async with asyncio.timeout(0.3):
                        await tunnel.open_connection(server.address, PORT)
                with pytest.raises(wgpy.ConfigError, match="not a peer"):
                    await tunnel.wait_for_handshake(wgpy.PrivateKey.generate().public_key, timeout=0.3)

    in_time(server, main)


@pytest.mark.usefixtures("network")
def test_unusable_configurations_are_refused(server: Server) -> None:
    (peer,) = server.config.peers
    named = replace(peer, endpoint=wgpy.EndpointName(host="no-such-host.invalid", port=9))

    async def main() -> None:
        for config, error, said in (
            ("[Interface]\nPrivateKey = x\n", wgpy.ConfigError, "^expected a configuration file's path"),
            ("/nonexistent/wg0.conf", wgpy.ConfigError, "/nonexistent/wg0.conf: No such file"),
            ("/etc/passwd", wgpy.ConfigFileError, "/etc/passwd:1"),
            (wgpy.InterfaceConfig(), wgpy.ConfigError, "wgpy genkey"),
            (replace(server.config, peers=(named,)), wgpy.NetworkError, "no-such-host"),
        ):
            with pytest.raises(error, match=said):
                async with wgpy.connect(config, timeout=3):
                    pass
        async with wgpy.connect(server.config) as tunnel:
            taken = replace(server.config, listen_port=tunnel.listen_port)
            with pytest.raises(wgpy.SocketError, match=str(tunnel.listen_port)):
                async with wgpy.connect(taken):
                    pass

    in_time(server, main)


@pytest.mark.usefixtures("network")
def test_a_connect_cancelled_at_any_moment_leaves_nothing(server: Server) -> None:
    async def life() -> None:
        async with wgpy.connect(server.config) as tunnel:
            await tunnel.wait_for_handshake(server.side.public_key)
            reader, writer = await tunnel.open_connection(server.address, PORT)
            writer.write(b"send 100000000\n")
            while await reader.read(1 << 16):
                pass

    async def main() -> None:
        for milliseconds in (0, 1, 5, 20, 40, 60, 80, 100, 130, 160, 200, 300):
            living = asyncio.create_task(life())
            await asyncio.sleep(milliseconds / 1000)
            living.cancel()
            with pytest.raises(asyncio.CancelledError):
                await living

    in_time(server, main)
