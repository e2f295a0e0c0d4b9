"""Lone packets of many connections leave in few bursts, and none overtakes another of its connection or socket."""

from __future__ import annotations

from tests.stack.peer import OURS, PEER, make_host
from wgpy.stack.host import Host

OTHER = bytes((10, 0, 0, 9))


def bursts(host: Host) -> list[list[bytes]]:
    found = []
    while (burst := host.transmit(0.0)) is not None:
        padded = {-(-length // 16) for length in burst.lengths}
        assert len(padded) == 1
        found.append([bytes(packet) for packet in burst.packets()])
    return found


def test_packets_of_one_kind_leave_together() -> None:
    """SYNs to two hosts, by turns."""
    host = make_host()
    for number in range(20):
        host.connect(OTHER if number % 2 else PEER, 1000 + number, 0.0)
    first, second = bursts(host)
    assert [packet[16:20] for packet in first] == [PEER] * 10
    assert [packet[16:20] for packet in second] == [OTHER] * 10


def test_datagrams_keep_their_order() -> None:
    host = make_host()
    socket = host.bind_udp(OURS)
    sizes = [100, 100, 90, 5, 100, 5]
    for number, size in enumerate(sizes):
        host.send_udp(socket, bytes([number]) * size, (PEER, 53), 0.0)
    sent = [packet[28:] for burst in bursts(host) for packet in burst]
    assert sent == [bytes([number]) * size for number, size in enumerate(sizes)]


def test_a_connection_keeps_its_order_while_others_send() -> None:
    """What one sends anew, as long as what another sends, leaves after the shorter packet that it repeats."""
    host, peer = make_host(), Host([PEER], mtu=1420, random=bytes)
    peer.listen(None, 80)
    repeating, other = (host.connect(PEER, 80, 0.0) for _ in range(2))
    for _ in range(2):
        for one, another in ((host, peer), (peer, host)):
            while (burst := one.transmit(0.0)) is not None:
                another.receive(burst.copy(), 0.0)
    repeating.write(bytes(50))
    host.wake(repeating)
    assert len(bursts(host)) == 1
    repeating.sender.timed_out(0.0)
    for connection in (other, repeating):
        connection.write(bytes(900))
        host.wake(connection)
    sent = [packet for burst in bursts(host) for packet in burst]
    own = [int.from_bytes(packet[24:28]) for packet in sent if packet[20:22] == repeating.names.local_port.to_bytes(2)]
    assert len(sent) == 3
    assert own == [repeating.framing.number(1), repeating.framing.number(51)]
