"""Forwards between this host and itself."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from tests.relay.helpers import ANY_PORT, HOST, NOWHERE, admission, echo, port_of, receive, run, shouting, talk, udp_to
from wgpy.config.services import Place
from wgpy.net.admission import Admitted
from wgpy.net.streams import Stream, reset
from wgpy.relay import forward as forwarding
from wgpy.relay.forward import forward_datagrams, forward_streams
from wgpy.relay.networks import HostNetwork, connect, serve


def test_a_forward_passes_on_bytes_and_the_end_of_each_direction() -> None:
    async def main() -> None:
        async with shouting() as port:
            listener = await forward_streams(HOST, ANY_PORT, HOST, Place("127.0.0.1", port), admission())
            async with listener:
                said = bytes(range(97, 123)) * 100_000
                assert await talk(await asyncio.open_connection("127.0.0.1", port_of(listener)), said) == said.upper()

    run(main)


def test_a_connection_that_is_closed_already_is_reset_without_harm() -> None:
    async def main() -> None:
        async with shouting() as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.transport.abort()
            await asyncio.sleep(0.01)
            reset(writer)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # which then knows the socket no more
        runner.run(main())


def test_connections_cut_off_at_the_end_of_the_loop_are_not_logged_as_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The streams of Python 3.11 log every task that was cancelled, with a traceback."""

    async def main() -> None:
        async with (
            shouting() as port,
            await forward_streams(HOST, ANY_PORT, HOST, Place("127.0.0.1", port), admission()) as listener,
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
            await asyncio.sleep(0.1)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                if "shouting" not in repr(task):
                    task.cancel()  # as asyncio.run does in the end
            writer.close()

    run(main)
    assert caplog.text == ""


def test_a_forward_to_nobody_is_reset() -> None:
    async def main() -> None:
        async with await forward_streams(HOST, ANY_PORT, HOST, Place("127.0.0.1", NOWHERE), admission()) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(main)


def test_each_sender_of_datagrams_gets_its_own_answers() -> None:
    async def main() -> None:
        async with echo() as port:
            listener = await forward_datagrams(HOST, ANY_PORT, HOST, Place("127.0.0.1", port), admission())
            one, other = udp_to(port_of(listener)), udp_to(port_of(listener))
            with one, other:
                for number in range(3):
                    one.send(b"one %d" % number)
                    other.send(b"other %d" % number)
                assert [await receive(one) for _ in range(3)] == [b"one 0", b"one 1", b"one 2"]
                assert [await receive(other) for _ in range(3)] == [b"other 0", b"other 1", b"other 2"]
            listener.close()

    run(main)


def test_an_idle_flow_ends_and_a_new_datagram_begins_another(monkeypatch: pytest.MonkeyPatch) -> None:
    close = forwarding._Flow.close

    async def main() -> None:
        closed: asyncio.Queue[forwarding._Flow] = asyncio.Queue()

        def close_and_tell(flow: forwarding._Flow) -> None:
            close(flow)
            closed.put_nowait(flow)

        monkeypatch.setattr(forwarding._Flow, "close", close_and_tell)
        async with echo() as port:
            listener = await forward_datagrams(HOST, ANY_PORT, HOST, Place("127.0.0.1", port), admission(), idle=0.5)
            with udp_to(port_of(listener)) as sock:
                for _ in range(2):
                    sock.send(b"again")
                    assert await receive(sock) == b"again"
                    await closed.get()
            listener.close()

    run(main)


def test_idle_connections_beyond_the_limit_block_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with shouting() as port:
            listener = await forward_streams(HOST, ANY_PORT, HOST, Place("127.0.0.1", port), admission(100))
            async with listener:
                first, old = await asyncio.open_connection("127.0.0.1", port_of(listener))
                old.write(b"in use")
                await old.drain()
                await asyncio.sleep(0.05)
                idle = [await asyncio.open_connection("127.0.0.1", port_of(listener)) for _ in range(40)]
                assert await talk(await asyncio.open_connection("127.0.0.1", port_of(listener)), b"new") == b"NEW"
                assert await talk((first, old), b"!") == b"IN USE!"
                for _, writer in idle:
                    writer.close()

    run(main)
    assert caplog.text.count("are closed for new ones") == 2  # once with each event loop


def test_senders_of_one_datagram_do_not_end_an_answered_flow() -> None:
    async def main() -> None:
        async with echo() as port:
            admitting = admission(40)
            listener = await forward_datagrams(HOST, ANY_PORT, HOST, Place("127.0.0.1", port), admitting)
            with udp_to(port_of(listener)) as lasting:
                for round_ in range(20):
                    lasting.send(b"%d" % round_)
                    assert await receive(lasting) == b"%d" % round_
                    for _ in range(20):
                        with udp_to(port_of(listener)) as once:
                            once.send(b"x")
                    await asyncio.sleep(0)
                    assert admitting.used <= admitting.capacity
                protocol = listener.get_protocol()
                assert isinstance(protocol, forwarding._Listener)
                assert len(protocol._flows) <= admitting.capacity // 2 + 1
            listener.close()

    run(main)


def test_the_bytes_that_wait_for_a_socket_are_bounded() -> None:
    async def main() -> None:
        flow = forwarding._Flow(lambda answer: None)
        for _ in range(1000):
            flow.send(bytes(60_000))
        assert sum(map(len, flow._waiting)) <= 1 << 16

    run(main)


def test_every_connection_has_keepalives() -> None:
    """Both connections of a forward have keepalives: if the other end has vanished, they end within minutes."""

    class Told(HostNetwork):
        async def open_connection(self, host: str, port: int, *, limit: int) -> Stream:
            self.stream = await super().open_connection(host, port, limit=limit)
            return self.stream

    async def main() -> None:
        kept: list[asyncio.StreamWriter] = []
        async with shouting() as port:
            network = Told()

            async def serving(stream: Stream, admitted: Admitted) -> None:
                kept.append(stream[1])
                kept.append((await connect(network, "127.0.0.1", port))[1])
                for writer in kept:
                    sock = writer.get_extra_info("socket")
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 120
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 180_000
                    writer.close()
                stream[1].write(b"")

            async with await serve(HOST, "127.0.0.1", 0, serving, admission()) as server:
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
                assert await reader.read() == b""
                writer.close()
            assert len(kept) == 2

    run(main)


def test_two_ends_that_break_at_once_are_not_logged_as_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """uvloop raises RuntimeError if a closed connection is written to."""

    async def main() -> None:
        accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.put_nowait(writer)

        async with await asyncio.start_server(server, "127.0.0.1", 0) as there:
            place = Place("127.0.0.1", port_of(there))
            async with await forward_streams(HOST, ANY_PORT, HOST, place, admission()) as listener:
                for _ in range(200):
                    _, near = await asyncio.open_connection("127.0.0.1", port_of(listener))
                    far = await accepted.get()
                    near.write(b"x" * 100_000)
                    far.write(b"x" * 100_000)
                    await asyncio.sleep(0)
                    reset(near)
                    reset(far)
                await asyncio.sleep(0.1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert caplog.text == ""


def test_a_stranger_that_is_refused_again_and_again_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with await forward_streams(HOST, ANY_PORT, HOST, Place("127.0.0.1", NOWHERE), admission()) as listener:
            for _ in range(50):
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
                with pytest.raises(ConnectionResetError):
                    await reader.read()
                writer.close()

    run(main)
    assert 0 < caplog.text.count("Connection refused") <= 10
