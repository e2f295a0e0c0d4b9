"""On the wire: transport data and roaming."""

from __future__ import annotations

import os

import pytest

from tests.interop.test_wire_handshake import driver as driver
from tests.interop.test_wire_handshake import flipped
from tests.interop.test_wire_handshake import open_subject as open_subject
from tests.interop.test_wire_handshake import subject as subject
from tests.interop.wire import Subject
from tests.support.packets import ipv4_packet
from tests.support.wire import Driver
from wgpy.constants import MESSAGE_TRANSPORT, TRANSPORT_OVERHEAD

pytestmark = [pytest.mark.root, pytest.mark.wire]


@pytest.mark.scenario("paper, 5.4.6: replay", "RFC 6479", "kernel receive.c, counter_validate")
def test_wire_data_is_accepted_once(driver: Driver) -> None:
    """A datagram of transport data that is sent three times is delivered once."""
    ping, sequence = driver.ping()
    assert driver.echoes(ping, ping, ping) == [sequence]
    assert driver.echoes(ping) == []


@pytest.mark.scenario("paper, 5.4.6: a sliding window", "RFC 6479", "kernel receive.c, counter_validate")
def test_wire_data_out_of_order_is_accepted_once(driver: Driver) -> None:
    """Data that arrives in another order, up to 500 counters late, is accepted, and each datagram once."""
    pings = [driver.ping() for _ in range(6)]
    order = [pings[i] for i in (5, 0, 3, 1, 4, 2)]
    assert driver.echoes(*(ping for ping, _ in order)) == [sequence for _, sequence in order]
    late, sequence = driver.ping()
    driver.session.send_counter += 500
    driver.exchange()
    assert driver.echoes(late, late) == [sequence]
    assert driver.echoes(*(ping for ping, _ in pings)) == []


@pytest.mark.scenario("paper, 5.4.6: a sliding window", "RFC 6479, 3", "kernel receive.c, counter_validate")
def test_wire_a_low_counter_is_not_accepted_again(driver: Driver) -> None:
    """After the counter has gone far ahead, what was received long before it is not accepted again.

    The window has moved beyond those counters, which an implementation must not take for new.
    """
    pings = [driver.ping()[0] for _ in range(4)]
    driver.exchange(*pings)
    for distance in (2**10, 2**13, 2**16, 2**32):
        driver.session.send_counter += distance
        driver.exchange()
        assert driver.echoes(*pings) == []


@pytest.mark.scenario("paper, 6.1: Reject-After-Messages", "paper, 6.2", "kernel receive.c, counter_validate")
def test_wire_counters_past_the_limit_are_refused(driver: Driver) -> None:
    """Data with a counter of more than Reject-After-Messages is not accepted, though its tag is right."""
    counted = driver.session.send_counter
    beyond = [driver.sealed(driver.ping_packet()[0], counter=counter) for counter in (2**64 - 8000, 2**64 - 1)]
    driver.session.send_counter = counted
    assert driver.echoes(*beyond) == []


@pytest.mark.scenario("paper, 5.1: silence is a virtue", "paper, 5.4.6: transport data")
def test_wire_data_that_was_tampered_with_is_not_answered(driver: Driver) -> None:
    """A change in the header, the packet or the tag has the datagram dropped in silence; the session goes on."""
    ping, sequence = driver.ping()
    assert driver.exchange(*(flipped(ping, at) for at in (8, 15, 16, 40, len(ping) - 16, len(ping) - 1))) == []
    assert driver.echoes(ping) == [sequence]


@pytest.mark.scenario("paper, 5.1: silence is a virtue", "kernel receive.c, wg_packet_consume_data")
def test_wire_data_for_an_unknown_index_is_not_answered(driver: Driver) -> None:
    """Data for an index that no session has is dropped in silence."""
    ping, _ = driver.ping()
    strange = [ping[:4] + os.urandom(4) + ping[8:] for _ in range(4)]
    assert driver.exchange(*strange, flipped(ping, 4), flipped(ping, 7)) == []


@pytest.mark.scenario("paper, 5.4.6: transport data", "kernel receive.c, prepare_skb_header")
def test_wire_truncated_and_oversized_data_is_not_answered(driver: Driver) -> None:
    """Data that is cut short anywhere, or as long as a datagram can be, is dropped in silence and does no harm."""
    ping, _ = driver.ping()
    cut = [ping[:size] for size in (1, 4, 8, 15, 16, 31, 32, len(ping) - 1)]
    long = [ping + bytes(1), ping + os.urandom(1400), ping[:16] + os.urandom(9000), ping[:16] + os.urandom(65000)]
    assert driver.exchange(*cut, *long) == []


@pytest.mark.scenario("paper, 5.4.6: padding", "kernel send.c, calculate_skb_padding")
def test_wire_packets_are_padded_to_16_bytes(driver: Driver) -> None:
    """What the program sends is padded to a multiple of 16 bytes, and padding that it receives is taken off."""
    for size in (1, 7, 16, 30):
        ping, sequence = driver.ping(size=size)
        (answer,) = driver.exchange(ping)
        assert answer.echoed == sequence
        assert (len(answer.data) - TRANSPORT_OVERHEAD) % 16 == 0
        assert len(answer.packets[0]) == 28 + size


@pytest.mark.scenario("paper, 2: cryptokey routing", "kernel receive.c, wg_packet_consume_data_done")
def test_wire_a_source_that_is_not_the_peers_is_dropped(driver: Driver) -> None:
    """Packets from an address that is not among the peer's allowed IPs are not delivered."""
    assert driver.echoes(*(driver.ping(source=source)[0] for source in ("10.8.0.200", "192.0.2.1", "127.0.0.1"))) == []


@pytest.mark.scenario("kernel receive.c, wg_packet_consume_data_done")
def test_wire_data_that_is_not_an_ip_packet_is_dropped(driver: Driver) -> None:
    """Authenticated data that is not a whole IPv4 or IPv6 packet is dropped, and the session goes on."""
    whole = ipv4_packet(driver.inner, "10.8.0.2", bytes(40))
    broken = [
        b"\0",
        os.urandom(1),
        b"\x45",
        whole[:10],
        b"\x00" + whole[1:],
        b"\x45\0\xff\xff" + whole[4:],
        b"\x60" * 39,
    ]
    assert driver.echoes(*(driver.sealed(text) for text in broken)) == []


@pytest.mark.scenario("paper, 6.5: keepalive", "kernel timers.c")
def test_wire_a_keepalive_is_not_answered(driver: Driver) -> None:
    """An empty packet of 32 bytes is accepted, and is answered by nothing."""
    assert driver.exchange(driver.sealed(b""), driver.sealed(b"")) == []


@pytest.mark.scenario("paper, 2.1: endpoints and roaming", "kernel receive.c, wg_packet_consume_data_done")
def test_wire_only_new_authentic_data_moves_the_endpoint(subject: Subject, driver: Driver) -> None:
    """The program answers to where the last datagram came from that was authentic and not a replay.

    A datagram that was changed, a replayed one, and a replayed initiation from elsewhere move nothing.
    """
    elsewhere = subject.socket()
    at = subject.endpoint_of(driver)
    replayed, _ = driver.ping()
    driver.exchange(replayed)
    initiation = driver.handshake()
    tampered = flipped(driver.ping()[0], 30)
    assert driver.exchange(replayed, tampered, initiation, elsewhere=elsewhere) == []
    elsewhere.sendto(tampered, (subject.side.outer, subject.side.port))
    elsewhere.sendto(replayed, (subject.side.outer, subject.side.port))
    driver.heard(0.2)
    assert subject.endpoint_of(driver) == at
    moving, _ = driver.ping()
    elsewhere.sendto(moving, (subject.side.outer, subject.side.port))
    driver.heard(0.3)
    assert subject.endpoint_of(driver).endswith(f":{elsewhere.getsockname()[1]}")
    elsewhere.settimeout(5)
    assert elsewhere.recv(2048)[0] == MESSAGE_TRANSPORT
