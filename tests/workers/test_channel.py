"""The channel between control and a worker: whole messages in order, and nothing that a worker may not send."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from struct import pack

import pytest

from tests.support.descriptors import descriptors
from wgpy.errors import ControlError
from wgpy.workers import channel
from wgpy.workers.channel import Channel, Kind, Message

HEADER = "!IBB"


async def the_next(channel: Channel) -> Message:
    message = await channel.receive()
    assert message is not None
    return message


def connected(main: Callable[[Channel, Channel], Awaitable[None]], *, takes_fds: bool = True) -> None:
    """Run with a channel's two ends; the first takes descriptors or not."""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        one, other = Channel(ours, takes_fds=takes_fds), Channel(theirs, takes_fds=True)
        try:
            await main(one, other)
        finally:
            one.close()
            other.close()

    asyncio.run(run())


def received_from(raw: Callable[[socket.socket], object], *, takes_fds: bool = False) -> Message | None:
    """What a channel makes of bytes that something else than a channel sent."""

    async def run() -> Message | None:
        ours, theirs = socket.socketpair()
        with theirs:
            one = Channel(ours, takes_fds=takes_fds)
            raw(theirs)
            try:
                return await asyncio.wait_for(one.receive(), 10)
            finally:
                one.close()

    return asyncio.run(run())


def test_messages_of_any_length_arrive_whole_and_in_order() -> None:
    bodies = [b"", b"x", bytes(range(256)) * 4000, b"y" * 70_000, b"", b"z" * 3_000_000]

    async def main(one: Channel, other: Channel) -> None:
        for body in bodies:
            other.send(Kind.CONFIGURE, body)
        for body in bodies:
            assert await one.receive() == Message(Kind.CONFIGURE, body, [])
        other.close()
        assert await one.receive() is None

    connected(main)


def test_descriptors_arrive_with_their_message_even_if_closed_meanwhile() -> None:
    async def main(one: Channel, other: Channel) -> None:
        other.send(Kind.CONFIGURE, b"x" * 3_000_000)  # more than the socket takes
        for number in range(5):
            reader, writer = os.pipe()
            other.send(Kind.UP, b"%d" % number, [reader, writer][: 1 + number % 2])
            os.write(writer, b"%d" % number)
            os.close(reader)
            os.close(writer)
        assert (await the_next(one)).fds == []
        for number in range(5):
            message = await the_next(one)
            assert (message.kind, message.body, len(message.fds)) == (Kind.UP, b"%d" % number, 1 + number % 2)
            assert os.read(message.fds[0], 9) == b"%d" % number
            for fd in message.fds:
                assert not os.get_inheritable(fd)
                os.close(fd)

    before = descriptors()
    connected(main)
    assert descriptors() == before


def test_descriptors_of_a_worker_are_discarded() -> None:
    reader, writer = os.pipe()

    def send(sock: socket.socket) -> None:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))
        sock.sendmsg([pack(HEADER, 2, Kind.DONE, 0) + b"{}"], [rights])

    assert received_from(send) == Message(Kind.DONE, b"{}", [])
    os.close(writer)
    assert os.read(reader, 1) == b""  # nobody holds the other end
    os.close(reader)


@pytest.mark.parametrize(
    "raw",
    [
        pack(HEADER, 0, 99, 0),
        pack(HEADER, 0, 0, 0),
        pack(HEADER, channel.MAX_SHORT + 1, Kind.EVENT, 0),
        pack(HEADER, channel.MAX_LONG + 1, Kind.DONE, 0),
        pack(HEADER, 0, Kind.DONE, 1),
        pack(HEADER, 10, Kind.EVENT, 0) + b"cut off",
        b"\0\0",
    ],
)
def test_an_invalid_message_ends_the_conversation(raw: bytes) -> None:
    def send(sock: socket.socket) -> None:
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)

    assert received_from(send) is None


def test_a_message_that_lacks_its_descriptors_ends_the_conversation() -> None:
    assert received_from(lambda sock: sock.sendall(pack(HEADER, 0, Kind.UP, 2)), takes_fds=True) is None


def test_messages_that_may_be_lost_are_dropped_while_the_other_end_does_not_read() -> None:
    async def main(one: Channel, other: Channel) -> None:
        for _ in range(5000):
            one.tell(Kind.EVENT, {"text": "x" * 1000})
        assert one.dropped > 1000
        assert one._waiting < channel.MAX_WAITING + 2000
        arrived = 0
        while arrived < 5000 - one.dropped:
            assert (await the_next(other)).json() == {"text": "x" * 1000}
            arrived += 1
        one.send(Kind.DONE, "the next")
        assert (await the_next(other)).body == b"the next"

    connected(main)


def test_closing_ends_a_waiting_receive_and_later_messages_are_lost_silently() -> None:
    async def main(one: Channel, other: Channel) -> None:
        waiting = asyncio.ensure_future(one.receive())
        await asyncio.sleep(0)
        one.close()
        assert await asyncio.wait_for(waiting, 10) is None
        one.send(Kind.DONE)
        other.send(Kind.DONE, b"x" * 1_000_000)
        other.send(Kind.DONE)
        assert await other.receive() is None

    connected(main)


def test_a_body_that_is_not_json_is_marked() -> None:
    for body in (b"{", b"\xff", b"[" * channel.MAX_SHORT, b"1" * channel.MAX_SHORT):
        with pytest.raises(ControlError, match="EVENT: not JSON"):
            Message(Kind.EVENT, body, []).json()
