"""Unit tests of a program that uses wgpy: no root, no network, and two hours pass in a moment."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

import wgpy
from wgpy import virtual


class Office:
    """The program under test: an office's gateway, which reports when its branch cannot be reached."""

    def __init__(self) -> None:
        self.alarms: list[str] = []

    def heard(self, event: wgpy.Event) -> None:
        if event.kind is wgpy.EventKind.HANDSHAKE_ABANDONED:
            self.alarms.append("the branch is out of reach")


async def open_door(tunnel: wgpy.RootlessTunnel) -> bytes:
    """Also under test: asks the branch's door, over TCP, to open."""
    reader, writer = await tunnel.open_connection("10.0.1.1", 80)
    writer.write(b"open\n")
    answer = await reader.readline()
    writer.close()
    return answer


class World:
    """The office at 192.0.2.1 and its branch at 192.0.2.2, in this process's memory."""

    def __init__(self) -> None:
        self.network = wgpy.MemoryNetwork(delay=0.02)
        self.office = Office()
        self.lans = wgpy.MemoryTun("office"), wgpy.MemoryTun("branch")

    def stacks(self) -> tuple[wgpy.Stack, wgpy.Stack]:
        """The same two with TCP/IP: what `wgpy.connect` gives a program."""
        office, branch = (
            wgpy.Stack(
                replace(tunnel.config, addresses=(ip_interface(f"10.0.{i}.1/24"),)),
                udp=self.network.host(f"192.0.2.{i + 1}"),
                clock=asyncio.get_running_loop().time,
            )
            for i, tunnel in enumerate(self.tunnels())
        )
        return office, branch

    def tunnels(self) -> tuple[wgpy.Tunnel, wgpy.Tunnel]:
        keys = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate()
        clock = asyncio.get_running_loop().time
        office, branch = (
            wgpy.Tunnel(
                wgpy.InterfaceConfig(
                    private_key=keys[here],
                    listen_port=51820,
                    peers=(
                        wgpy.PeerConfig(
                            public_key=keys[there].public_key,
                            endpoint=wgpy.EndpointName(host=f"192.0.2.{there + 1}", port=51820),
                            allowed_ips=(ip_network(f"10.0.{there}.0/24"),),
                        ),
                    ),
                ),
                tun=self.lans[here],
                udp=self.network.host(f"192.0.2.{here + 1}"),
                clock=clock,
                on_event=self.office.heard if here == 0 else None,
            )
            for here, there in ((0, 1), (1, 0))
        )
        return office, branch


def packet(source: str, destination: str, payload: bytes) -> bytes:
    """An IPv4 packet. Nothing here verifies its checksum."""
    header = b"\x45\x00" + (20 + len(payload)).to_bytes(2, "big") + bytes(4) + b"\x40\xfd\x00\x00"
    return header + ip_address(source).packed + ip_address(destination).packed + payload


@pytest.fixture
def world() -> World:
    return World()


def test_a_packet_reaches_the_branch(world: World) -> None:
    async def main() -> None:
        office, branch = world.tunnels()
        async with office, branch:
            (peer,) = office.config.peers
            await office.wait_for_handshake(peer.public_key)
            sent = packet("10.0.0.1", "10.0.1.1", b"hello")
            world.lans[0].inject(sent)
            await asyncio.sleep(world.network.delay)
            assert world.lans[1].take() == sent

    virtual.run(main())


def test_keys_are_renewed_every_two_minutes(world: World) -> None:
    async def main() -> None:
        office, branch = world.tunnels()
        async with office, branch:
            events = office.events()
            for _ in range(2 * 60 * 60):
                world.lans[0].inject(packet("10.0.0.1", "10.0.1.1", b"tick"))
                await asyncio.sleep(1)
        kinds = [event.kind async for event in events]  # the loop ends when the tunnel is closed
        assert set(kinds) == {wgpy.EventKind.HANDSHAKE_COMPLETED, wgpy.EventKind.PEER_HEARD}
        assert kinds.count(wgpy.EventKind.PEER_HEARD) == 1  # the branch was never silent again
        assert 59 <= kinds.count(wgpy.EventKind.HANDSHAKE_COMPLETED) <= 61

    virtual.run(main())


def test_the_office_is_told_when_the_branch_is_cut_off(world: World) -> None:
    async def main() -> None:
        office, branch = world.tunnels()
        async with office, branch:
            world.network.carries = lambda *_: False
            events, loop = office.events(), asyncio.get_running_loop()
            begin = loop.time()
            world.lans[0].inject(packet("10.0.0.1", "10.0.1.1", b"anybody?"))
            assert (await anext(events)).kind is wgpy.EventKind.HANDSHAKE_UNANSWERED
            assert world.office.alarms == []
            assert (await anext(events)).kind is wgpy.EventKind.HANDSHAKE_ABANDONED
            assert 60 < loop.time() - begin < 120  # it keeps trying for a minute and a half
            assert world.office.alarms == ["the branch is out of reach"]

    virtual.run(main())


def test_the_door_opens_over_a_line_that_loses_a_tenth(world: World) -> None:
    async def door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"open it is\n" if await reader.readline() == b"open\n" else b"what?\n")
        writer.close()

    async def main() -> None:
        office, branch = world.stacks()
        async with office, branch:
            chance = random.Random(1)
            world.network.carries = lambda *_: chance.random() > 0.1
            await branch.start_server(door, port=80)
            for _ in range(20):
                assert await open_door(office) == b"open it is\n"

    virtual.run(main())
