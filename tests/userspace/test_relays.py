"""Relays that listen in a tunnel: a peer is one client to them, whichever of its addresses it uses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_network

from tests.userspace.pair import HERE, PORT, THERE, in_virtual_time, two
from wgpy.config.services import Place
from wgpy.config.values import InterfaceConfig
from wgpy.net.admission import ULIMIT, Admission
from wgpy.relay.forward import forward_datagrams, forward_streams

ALL = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def with_all_addresses(config: InterfaceConfig) -> InterfaceConfig:
    return replace(config, peers=(replace(config.peers[0], allowed_ips=ALL),))


def test_a_peer_is_one_client_whichever_of_its_addresses_it_uses() -> None:
    """A peer with a /48 would be 65,536 clients of a connection each, and an honest client with two would make room."""

    async def main() -> None:
        admission = Admission(960, ULIMIT)
        async with two(change=with_all_addresses) as (here, there):
            (peer,) = (peer.public_key for peer in there.config.peers)
            target = Place(THERE[0], PORT)
            served: list[asyncio.StreamWriter] = []
            await there.start_server(lambda reader, writer: served.append(writer), port=PORT)
            await forward_streams(there, Place("", PORT + 1), here, target, admission)
            datagrams = await forward_datagrams(there, Place(THERE[0], PORT + 2), here, target, admission)
            streams = [await here.open_connection(host, PORT + 1) for host in THERE for _ in range(2)]
            sender, _ = await here.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(THERE[0], PORT + 2))
            sender.sendto(b"x")
            await asyncio.sleep(1)
            assert list(admission._holdings) == [peer.base64()]
            assert admission.used == 4 * 3 + 2
            assert there.client_of(("172.16.0.1", 5)) == "172.16.0.1"  # of nobody, by now
            for host in (*HERE, "10.200.1.1", "fd77::1", "::ffff:10.9.9.9", "fd00::1%1"):
                assert there.peer_at(host) == peer
            assert there.peer_at("192.0.2.1") is None
            for writer in (*served, *(writer for _, writer in streams)):
                writer.close()
            sender.close()
            datagrams.close()
            await asyncio.sleep(1)

    in_virtual_time(main)
