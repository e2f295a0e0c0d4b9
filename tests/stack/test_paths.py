"""Paths that take shorter packets than we send, with and without word of it (RFC 1191, 8201, 4821)."""

from __future__ import annotations

import errno
import random

import pytest

from tests.stack.line import PORT, Faults, Line, digest, transfer
from tests.stack.upload import Upload
from wgpy.burst import Burst
from wgpy.stack import icmp, ip
from wgpy.stack.tcp.state import State


@pytest.mark.parametrize("v6", [False, True])
def test_a_path_mtu_black_hole_is_found(v6: bool) -> None:
    """Long packets vanish without a word: after some timeouts they are made shorter."""
    data = random.Random(1).randbytes(200_000)
    line = Line(faults=Faults(mtu=1300), v6=v6)
    _, other = transfer(line, data, b"")
    assert digest(other.received) == digest(data)


def test_a_path_that_was_only_interrupted_gets_long_packets_again() -> None:
    """Silence makes them shorter. Once short ones pass, a long one is tried; it arrives, and all are long again."""
    upload = Upload()
    upload.line.faults.loss, back = 1.0, upload.line.now + 10
    upload.go_on(lambda: upload.line.now > back)
    assert upload.sender.segment == 536 - 12
    upload.line.faults.loss = 0.0
    upload.deliver()
    assert upload.sender.segment == 1420 - 40 - 12


def test_a_lost_long_packet_is_not_tried_again_for_ten_minutes() -> None:
    upload = Upload()
    upload.line.faults.mtu = 1300
    lengths: list[int] = []
    upload.line.seen = lambda to, packet: lengths.append(len(packet))
    upload.go_on(lambda: upload.sender.segment == 1220 - 12)
    upload.deliver()
    before = lengths.count(1420)
    upload.deliver()
    assert lengths.count(1420) == before > 1
    assert upload.sender.segment == 1220 - 12


@pytest.mark.parametrize("mtu", [576, 1280, 9000])
def test_the_mtu_changes_while_bytes_are_under_way(mtu: int) -> None:
    """No longer packet leaves, none is sent again for it, and segments grow up to what the peer's SYN has allowed."""
    upload = Upload()
    lengths: list[int] = []
    see = upload.line.seen

    def look(to: int, packet: bytes) -> None:
        see(to, packet)
        lengths.append(len(packet))

    upload.line.seen = look
    upload.line.hosts[0].resize(mtu, upload.line.now)
    upload.deliver()
    assert max(lengths) == min(mtu, 1420)
    assert upload.repeated == 0
    upload.line.hosts[0].resize(1420, upload.line.now)
    upload.deliver()
    assert max(lengths) == 1420
    assert upload.repeated == 0


def test_queued_packets_too_long_for_a_new_mtu_are_lost() -> None:
    line = Line()
    socket = line.hosts[0].bind_udp(None, 1000)
    for size in (1392, 100):
        line.hosts[0].send_udp(socket, bytes(size), (line.addresses[1], 53), line.now)
    line.hosts[0].resize(1280, line.now)
    burst = line.hosts[0].transmit(line.now)
    assert burst is not None
    assert burst.lengths == [128]
    assert line.hosts[0].transmit(line.now) is None


def test_segments_made_before_a_new_mtu_are_lost_and_sent_again() -> None:
    """Of two connections, one has a lone segment, behind which the other's long ones wait for the next call."""
    line = Line()
    host, far = line.hosts
    far.listen(None, 80)
    short, long = (host.connect(line.addresses[1], 80, line.now) for _ in range(2))
    for _ in range(2):
        line.flush()
        line.step()
    for connection, size in ((short, 10), (long, 5000)):
        connection.write(bytes(size))
        host.wake(connection)
    burst = host.transmit(line.now)
    assert burst is not None
    assert len(burst) == 1
    host.resize(1280, line.now)
    lengths: list[int] = []
    line.seen = lambda to, packet: lengths.append(len(packet))
    line.run(lambda: long.sender.acknowledged == long.sender.end)
    assert max(lengths) == 1280


def too_big(packet: bytes, mtu: int) -> bytes:
    """What a router says of a packet that is longer than its next link takes."""
    is_v6 = packet[0] >> 4 == 6
    source, router = (packet[8:24], packet[24:40]) if is_v6 else (packet[12:16], packet[16:20])
    kind = bytes((2, 0)) if is_v6 else bytes((3, 4))
    message = icmp._message(router, source, kind, mtu.to_bytes(4) + packet[:500])
    protocol = ip.ICMPV6 if is_v6 else ip.ICMP
    return ip.header(router, source, protocol, len(message)) + message


@pytest.mark.parametrize("v6", [False, True])
def test_a_router_reports_the_mtu(v6: bool) -> None:
    """Then nothing waits for a timeout, and later connections begin with it."""
    data = random.Random(1).randbytes(200_000)
    line = Line(faults=Faults(mtu=1300), v6=v6)

    def tell(to: int, packet: bytes) -> None:
        if len(packet) > 1300:
            line.hosts[1 - to].receive(Burst.of(too_big(packet, 1300)), line.now)

    line.seen = tell
    began = line.now
    one, other = transfer(line, data, b"")
    assert digest(other.received) == digest(data)
    assert line.now - began < 1.0 + 60
    assert one.connection is not None
    assert one.connection.sender.congestion.threshold > 1e9  # it was no congestion
    assert line.hosts[0]._paths.longest(line.addresses[1], line.now) == 1300
    assert line.hosts[0]._paths.longest(line.addresses[1], line.now + 700) == 1420


@pytest.mark.parametrize("v6", [False, True])
def test_forged_errors_change_nothing(v6: bool) -> None:
    """An ICMP error is believed only with a sequence number that is under way (RFC 5927)."""
    line = Line(v6=v6)
    line.hosts[1].listen(None, PORT)
    connection = line.hosts[0].connect(line.addresses[1], PORT, line.now)
    seen: list[bytes] = []
    line.seen = lambda to, packet: seen.append(packet) if to == 1 else None
    line.run(lambda: connection.state is State.ESTABLISHED)
    connection.write(bytes(1000))
    line.hosts[0].wake(connection)
    line.flush()
    packet = bytearray(seen[-1])
    at = 44 if v6 else 24
    number = int.from_bytes(packet[at : at + 4])
    for off in (1 << 20, 1 << 31, (1 << 32) - 5000):
        packet[at : at + 4] = ((number + off) % (1 << 32)).to_bytes(4)
        line.hosts[0].receive(Burst.of(too_big(bytes(packet), 600)), line.now)
    assert connection.framing.mtu == 1420
    packet[at : at + 4] = number.to_bytes(4)
    line.hosts[0].receive(Burst.of(too_big(bytes(packet), 1)), line.now)
    assert connection.framing.mtu == (1280 if v6 else 576)  # no shorter, whatever is claimed


def test_a_refused_datagram_is_reported_to_a_connected_socket() -> None:
    line = Line()
    socket = line.hosts[0].bind_udp(None, 1000)
    socket.peer = (line.addresses[1], 9)
    line.hosts[0].send_udp(socket, b"hello", socket.peer, line.now)
    line.run(lambda: socket.error)
    assert socket.error is not None
    assert socket.error.errno == errno.ECONNREFUSED


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("size", [0, 8, 1000, 5000])
def test_ping(v6: bool, size: int) -> None:
    line = Line(v6=v6)
    payload = random.Random(size).randbytes(size)
    line.hosts[0].ping(line.addresses[1], 7, 3, payload, line.now)
    line.run(lambda: any(news.echoes for news in line.news))
    (echo,) = next(news.echoes for news in line.news if news.echoes)
    assert echo == icmp.Echo(line.addresses[1], True, 7, 3, payload)


@pytest.mark.parametrize("options", [bytes(8), bytes((1, 1, 131, 7, 4, 0, 0, 0))])
def test_ipv4_options_are_skipped_except_source_routes(options: bytes) -> None:
    line = Line()
    message = icmp.echo(line.addresses[0], line.addresses[1], 1, 1, b"", is_reply=False)
    packet = bytearray(ip.header(line.addresses[0], line.addresses[1], ip.ICMP, len(message) + len(options)))
    packet[0] = 0x45 + len(options) // 4
    packet[10:12] = bytes(2)
    from wgpy.tun.checksum import checksum

    packet[10:12] = checksum(bytes(packet) + options).to_bytes(2)
    line.hosts[1].receive(Burst.of(bytes(packet) + options + message), line.now)
    answer = line.hosts[1].transmit(line.now)
    assert (answer is None) == (options[2] == 131)
    assert line.hosts[1].drops[ip.Drop.SOURCE_ROUTED] == (options[2] == 131)


@pytest.mark.parametrize(
    ("extensions", "drop"),
    [
        (bytes((58, 0, 1, 4, 0, 0, 0, 0)), None),  # hop by hop
        (bytes((60, 0, 1, 4, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0)), None),  # and destination options
        (bytes((43, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, 1, 0, 0, 0, 0)), ip.Drop.SOURCE_ROUTED),
        (bytes((0, 0, 1, 4, 0, 0, 0, 0)) * 9, ip.Drop.MALFORMED),
        (bytes((58, 200, 1, 4, 0, 0, 0, 0)), ip.Drop.MALFORMED),
    ],
)
def test_ipv6_extension_headers(extensions: bytes, drop: ip.Drop | None) -> None:
    line = Line(v6=True)
    message = icmp.echo(line.addresses[0], line.addresses[1], 1, 1, b"", is_reply=False)
    packet = ip.header(line.addresses[0], line.addresses[1], 0, len(extensions) + len(message)) + extensions + message
    line.hosts[1].receive(Burst.of(packet), line.now)
    assert (line.hosts[1].transmit(line.now) is None) == (drop is not None)
    assert list(line.hosts[1].drops) == ([drop] if drop else [])
