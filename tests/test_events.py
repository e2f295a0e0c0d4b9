"""How often a tunnel tells that a peer has moved, in virtual time."""

from __future__ import annotations

import asyncio

from wgpy import virtual
from wgpy.device.effects import Event, EventKind
from wgpy.endpoint import Endpoint
from wgpy.events import Events
from wgpy.keys import PublicKey

PEER, OTHER = PublicKey(b"p" * 32), PublicKey(b"o" * 32)


def moved(port: int, peer: PublicKey = PEER) -> Event:
    return Event(EventKind.ENDPOINT_MOVED, peer, Endpoint("192.0.2.1", port))


def test_a_peer_that_moves_with_every_packet_is_told_of_once_a_second() -> None:
    told: list[Event] = []

    async def main() -> None:
        events = Events(lambda: "wg0", told.append)
        for port in range(1, 15_001):
            events.happened(moved(port))
        events.happened(moved(7, OTHER))
        assert told == [moved(1), moved(7, OTHER)]
        await asyncio.sleep(1.5)
        events.happened(moved(8))
        events.happened(moved(9))
        assert told[2:] == [moved(15_000)]
        await asyncio.sleep(1)
        assert told[3:] == [moved(9)]
        await asyncio.sleep(60)
        events.happened(moved(10))
        assert told[4:] == [moved(10)]

    virtual.run(main())


def test_after_the_end_nothing_is_told() -> None:
    told: list[Event] = []

    async def main() -> None:
        events = Events(lambda: "wg0", told.append)
        events.happened(moved(1))
        events.happened(moved(2))
        events.close()
        await asyncio.sleep(5)

    virtual.run(main())
    assert told == [moved(1)]
