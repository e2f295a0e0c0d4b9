"""How a tunnel passes events on, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from wgpy import events as wgpy_events
from wgpy import virtual
from wgpy.device.effects import Event, EventKind
from wgpy.endpoint import Endpoint
from wgpy.events import Events
from wgpy.keys import PublicKey

PEER, OTHER = PublicKey(b"p" * 32), PublicKey(b"o" * 32)


def moved(port: int, peer: PublicKey = PEER) -> Event:
    return Event(EventKind.ENDPOINT_MOVED, peer, Endpoint("192.0.2.1", port))


def test_a_peer_that_moves_with_every_packet_is_reported_once_a_second() -> None:
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


def test_after_closing_no_event_is_reported() -> None:
    told: list[Event] = []

    async def main() -> None:
        events = Events(lambda: "wg0", told.append)
        events.happened(moved(1))
        events.happened(moved(2))
        events.close()
        await asyncio.sleep(5)

    virtual.run(main())
    assert told == [moved(1)]


def test_a_subscriber_that_takes_no_events_keeps_some_of_them_and_the_rest_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wgpy_events, "MAX_QUEUED", 3)
    told = [Event(EventKind.HANDSHAKE_COMPLETED, PEER, Endpoint("192.0.2.1", port)) for port in range(1, 6)]

    async def main() -> None:
        events = Events(lambda: "wg0", None)
        slow = events.subscribe()
        for event in told:
            events.happened(event)
        assert events.dropped == 2
        assert [await anext(slow), await anext(slow)] == told[:2]
        events.happened(told[4])
        events.close()
        assert [event async for event in slow] == [told[2], told[4]]
        assert [event async for event in events.subscribe()] == []
        assert events.dropped == 2

    virtual.run(main())
