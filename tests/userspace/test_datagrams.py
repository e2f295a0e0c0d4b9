"""UDP on the stack: endpoints as the event loop's, between two tunnels in memory."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from tests.userspace.pair import HERE, PORT, THERE, in_virtual_time, two
from wgpy.virtual import VirtualLoop


class Kept(asyncio.DatagramProtocol):
    """Keeps what it is told; answers if it `answers`."""

    def __init__(self, *, answers: bool = False) -> None:
        self.answers = answers
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.paused: list[bool] = []
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))
        if self.answers:
            self.transport.sendto(data.upper(), addr)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def pause_writing(self) -> None:
        self.paused.append(True)

    def resume_writing(self) -> None:
        self.paused.append(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@pytest.mark.parametrize("family", [0, 1])
def test_a_request_and_its_answer(family: int) -> None:
    async def main() -> None:
        async with two() as (here, there):
            server, _ = await there.create_datagram_endpoint(lambda: Kept(answers=True), local_addr=(None, PORT))
            client, kept = await here.create_datagram_endpoint(Kept, remote_addr=(THERE[family], PORT))
            for data in (b"hello", b"x" * 5000, b""):
                client.sendto(data)
                await asyncio.sleep(0.1)
            assert [data for data, _ in kept.received] == [b"HELLO", b"X" * 5000, b""]
            assert kept.received[0][1][:2] == (THERE[family], PORT)
            assert client.get_extra_info("sockname")[0] == HERE[family]
            with pytest.raises(ValueError, match="Invalid address"):
                client.sendto(b"x", (THERE[0], 1))
            server.close()
            await asyncio.sleep(0)
            client.sendto(b"nobody?")
            await asyncio.sleep(0.1)
            assert [type(error) for error in kept.errors] == [ConnectionRefusedError]
            client.close()
            await asyncio.sleep(0)
            assert kept.lost

    in_virtual_time(main)


def test_datagrams_without_room_wait_and_none_is_lost() -> None:
    async def main() -> None:
        async with two() as (here, there):
            _, server = await there.create_datagram_endpoint(Kept, local_addr=(THERE[0], PORT))
            client, kept = await here.create_datagram_endpoint(Kept, remote_addr=(THERE[0], PORT))
            client.sendto(b"first")
            await asyncio.sleep(1)  # a session
            for i in range(3000):
                client.sendto(i.to_bytes(2) * 50)
            assert kept.transport.get_write_buffer_size() > 0
            assert kept.paused == [True]
            client.close()
            assert not kept.lost
            await asyncio.sleep(1)
            assert kept.paused == [True, False]
            assert kept.lost
            assert [int.from_bytes(data[:2]) for data, _ in server.received[1:]] == list(range(3000))

    in_virtual_time(main)


def test_errors() -> None:
    async def main() -> None:
        async with two() as (here, _):
            client, kept = await here.create_datagram_endpoint(Kept, local_addr=(HERE[0], PORT))
            with pytest.raises(OSError, match="already in use"):
                await here.create_datagram_endpoint(Kept, local_addr=(HERE[0], PORT))
            client.sendto(bytes(70_000), (THERE[0], PORT))
            client.sendto(b"x", (THERE[1], PORT))
            client.sendto(b"to myself", ("127.0.0.1", PORT))
            await asyncio.sleep(0.1)
            assert kept.received == [(b"to myself", (HERE[0], PORT))]
            assert [getattr(error, "errno", None) for error in kept.errors] == [errno.EMSGSIZE, errno.ENETUNREACH]
            with pytest.raises(ValueError, match="not connected"):
                client.sendto(b"x")

    in_virtual_time(main)


class WithoutReaders(VirtualLoop):
    """As Windows's event loop, which cannot watch descriptors."""

    def add_reader(self, fd: Any, *args: Any) -> None:  # type: ignore[override]
        raise NotImplementedError

    remove_reader = add_writer = remove_writer = add_reader  # type: ignore[assignment]


@pytest.mark.parametrize("has_unix_sockets", [True, False])
def test_a_descriptor_for_datagrams_needs_no_readers_of_the_loop(
    monkeypatch: pytest.MonkeyPatch, has_unix_sockets: bool
) -> None:
    """Nor unix sockets, which Windows has not either."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with two() as (here, there):
            await there.create_datagram_endpoint(lambda: Kept(answers=True), local_addr=(None, PORT))
            with monkeypatch.context() as patch:
                if not has_unix_sockets:
                    patch.delattr(socket, "AF_UNIX")
                sock = await here.connected_socket(THERE[0], PORT, socket.SOCK_DGRAM)
            for data in (b"hello", b"", b"x" * 5000):
                sock.send(data)
                await asyncio.sleep(0.1)
                assert await loop.sock_recv(sock, 1 << 16) == data.upper()
            (transport,) = here._transports
            sock.close()
        await asyncio.sleep(0.1)
        assert transport.is_closing()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=WithoutReaders) as runner:
        runner.run(main())
