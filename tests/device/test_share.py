"""Devices that share an interface: whose peers, indices and packets are whose, and what is handed over."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from tests.support.bursts import burst_of
from tests.support.packets import ipv4_packet
from tests.support.workers import Workers
from tests.support.world import Host, World
from wgpy.burst import Burst, Datagrams
from wgpy.constants import MAX_WORKERS, MESSAGE_INITIATION
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.device.effects import DropReason, EventKind, ForeignInitiation, Handover
from wgpy.device.share import STALE_INTERVAL, Share
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError
from wgpy.keys import PrivateKey, PublicKey
from wgpy.noise.cookie import CookieStamp
from wgpy.noise.handshake import LocalStatic, RemoteStatic, create_initiation
from wgpy.noise.tai64n import tai64n

INNER = "10.0.0.9"
AWAY = Endpoint("198.51.100.7", 4444)
SHARED = AllowedIPChange(ip_network("10.1.0.0/16"))


class Gateway:
    """Two workers, the second of which serves the peer; and the peer."""

    def __init__(self) -> None:
        self.world = World()
        random = self.world.random.randbytes
        self.key = PrivateKey(random(32))
        self.peer: Host = self.world.host("peer")
        self.devices = [Device(random=random, wall_clock=lambda: 10**18, share=Share(number, 2)) for number in range(2)]
        for device in self.devices:
            device.configure(DeviceChange(private_key=self.key), self.now)
            device.start(self.now)
        self.configure(worker=1, allowed_ips=(AllowedIPChange(ip_network(INNER)),))
        self.world.configure(
            self.peer,
            public_key=self.key.public_key,
            endpoint=Endpoint("192.0.2.200", 51820),
            allowed_ips=(AllowedIPChange(ip_network("0.0.0.0/0")),),
        )

    @property
    def now(self) -> float:
        return self.world.now

    def configure(self, **fields: object) -> None:
        change = DeviceChange(peers=(PeerChange(public_key=self.peer.public_key, **fields),))  # type: ignore[arg-type]
        for device in self.devices:
            device.configure(change, self.now)

    def initiation(self) -> bytes:
        """A new one of the peer's."""
        self.world.now += 1
        self.peer.device.forget_sessions()
        effects = self.peer.device.send(ipv4_packet(INNER, "10.0.0.1"), self.now)
        return bytes(effects.transmits[0].datagrams.view)

    def connect(self, *, to: int = 1) -> None:
        """A session of the peer with the worker that serves it, whichever worker its initiation comes `to`."""
        found = self.devices[to].receive(Datagrams.of(self.initiation()), AWAY, self.now)
        for handover in found.handovers:
            found = self.devices[handover.worker].take_over(handover, self.now)
        (response,) = found.transmits
        confirmed = self.peer.device.receive(response.datagrams, Endpoint("192.0.2.200", 51820), self.now)
        for transmit in confirmed.transmits:
            self.devices[1].receive(transmit.datagrams, AWAY, self.now)

    def drops(self, worker: int) -> dict[str, int]:
        return dict(self.devices[worker].status().drops)


def outbound(*payloads: bytes) -> Burst:
    return burst_of(*(ipv4_packet("10.0.0.1", INNER, payload) for payload in payloads))


@pytest.mark.parametrize(("count", "bits"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (MAX_WORKERS, 6)])
def test_the_low_bits_of_an_index_are_the_workers_number(count: int, bits: int) -> None:
    for number in range(count):
        share = Share(number, count)
        assert share.mask == 2**bits - 1
        for drawn in (0, 1, 0xFFFFFFFF, 0xDEADBEEF):
            index = share.index(drawn)
            assert index & share.mask == number
            assert index >> bits == drawn >> bits, "all other bits are random"


def test_the_only_worker_has_all_indices() -> None:
    assert [Share().index(drawn) for drawn in (0, 7, 0xFFFFFFFF)] == [0, 7, 0xFFFFFFFF]


@pytest.mark.parametrize(("number", "count"), [(0, 0), (-1, 2), (2, 2), (0, MAX_WORKERS + 1)])
def test_an_impossible_share_is_refused(number: int, count: int) -> None:
    with pytest.raises(ConfigError, match=f"worker {number} of {count}"):
        Share(number, count)


def test_a_peer_of_a_nonexistent_worker_is_refused_and_nothing_changes() -> None:
    device = Device(random=Random(1).randbytes, wall_clock=lambda: 0, share=Share(0, 2))
    for worker in (-1, 2):
        peers = (
            PeerChange(public_key=PublicKey(b"a" * 32)),
            PeerChange(public_key=PublicKey(b"p" * 32), worker=worker),
        )
        with pytest.raises(ConfigError, match=f"worker {worker} is not one of 2"):
            device.configure(DeviceChange(peers=peers, fwmark=7), 0.0)
        assert device.status().peers == ()
        assert device.fwmark == 0


def test_only_the_peers_worker_has_a_row_a_session_and_timers_for_it() -> None:
    gateway = Gateway()
    gateway.connect()
    assert [len(device.status().peers) for device in gateway.devices] == [0, 1]
    assert [device.knows(gateway.peer.public_key) for device in gateway.devices] == [False, True]
    assert [device.has_session(gateway.peer.public_key, gateway.now) for device in gateway.devices] == [False, True]
    assert gateway.devices[0].next_timeout() is None
    assert [device.peer_at(ip_address(INNER).packed) for device in gateway.devices] == [gateway.peer.public_key] * 2


def test_packets_for_another_workers_peer_are_handed_over_as_one_burst_and_counted() -> None:
    gateway = Gateway()
    gateway.connect()
    burst = outbound(b"1" * 60, b"2" * 60, b"3" * 9)
    effects = gateway.devices[0].send(burst, gateway.now)
    assert effects.handovers == (Handover(1, burst),)
    assert (effects.transmits, effects.deliveries) == ([], [])
    assert [device.status().handed_over for device in gateway.devices] == [3, 0]
    (transmit,) = gateway.devices[1].take_over(effects.handovers[0], gateway.now).transmits
    assert transmit.endpoint == AWAY
    assert len(transmit.datagrams) == 3
    assert [device.status().handed_over for device in gateway.devices] == [3, 0], "those taken over do not count again"


def test_a_handover_that_did_not_arrive_counts_as_a_drop() -> None:
    gateway = Gateway()
    (handover,) = gateway.devices[0].send(outbound(b"1", b"2"), gateway.now).handovers
    gateway.devices[0].not_handed_over(handover, DropReason.HANDOVER_FULL)
    assert gateway.devices[0].status().handed_over == 0
    assert gateway.drops(0) == {"handover_full": 2}


def test_a_handover_is_not_handed_over_again() -> None:
    """Two workers that each believe that the other has the peer, as while it moves, must not play ping-pong."""
    gateway = Gateway()
    for handover in (Handover(0, outbound(b"1", b"2")), gateway.devices[0].send(outbound(b"3"), 0.0).handovers[0]):
        effects = gateway.devices[0].take_over(handover, gateway.now)
        assert (effects.handovers, effects.transmits, effects.deliveries) == ((), [], [])
    assert gateway.drops(0) == {"handover_misplaced": 3}
    assert gateway.devices[0].status().handed_over == 1


def test_an_initiation_of_another_workers_peer_is_answered_by_that_worker() -> None:
    gateway = Gateway()
    effects = gateway.devices[0].receive(Datagrams.of(gateway.initiation()), AWAY, gateway.now)
    assert effects.transmits == []
    assert effects.involves_peers, "so its source is read as a peer's"
    (handover,) = effects.handovers
    assert isinstance(handover.what, ForeignInitiation)
    (response,) = gateway.devices[1].take_over(handover, gateway.now).transmits
    assert response.endpoint == AWAY
    sender_index = int.from_bytes(response.datagrams.view[4:8], "little")
    assert sender_index & 1 == 1, "what answers it comes to this worker"
    gateway.connect(to=0)
    assert gateway.devices[1].has_session(gateway.peer.public_key, gateway.now)
    assert gateway.devices[0].status().handed_over == 2


def test_an_initiation_in_a_peers_name_is_not_handed_over() -> None:
    """Anyone who knows two public keys can make one that is right up to the timestamp, and send it to all workers."""
    gateway = Gateway()
    stranger, remote = PrivateKey(b"s" * 32), gateway.key.public_key
    pretender = cast(LocalStatic, SimpleNamespace(private=stranger, public=gateway.peer.public_key))
    agreed = RemoteStatic.of(LocalStatic(stranger), remote)
    message, _ = create_initiation(pretender, agreed, PrivateKey(b"e" * 32), 1, tai64n(2 * 10**18))
    stamped = CookieStamp(remote).stamp(message, gateway.now)
    effects = gateway.devices[0].receive(Datagrams.of(stamped), AWAY, gateway.now)
    assert effects.handovers == ()
    assert gateway.drops(0) == {"invalid_handshake": 1}


def test_replayed_initiations_are_handed_over_now_and_then() -> None:
    """The worker that serves the peer reports a peer whose clock was set back; but a recorded one costs it little."""
    gateway = Gateway()
    recorded = gateway.initiation()
    passed = []
    for _ in range(40):
        effects = gateway.devices[0].receive(Datagrams.of(recorded), AWAY, gateway.now)
        for handover in effects.handovers:
            gateway.devices[1].take_over(handover, gateway.now)
        passed.append(len(effects.handovers))
        gateway.world.now += STALE_INTERVAL / 8
    assert sum(passed) == 1 + 5
    assert gateway.drops(0) == {"replayed_initiation": 34}
    (row,) = gateway.devices[1].status().peers
    assert dict(row.drops) == {"replayed_initiation": 5}
    gateway.world.now += 5
    fresh = gateway.devices[0].receive(Datagrams.of(gateway.initiation()), AWAY, gateway.now)
    assert len(fresh.handovers) == 1, "replays do not keep a new one back"


def test_a_new_private_key_discards_secrets_agreed_under_the_old_one() -> None:
    gateway = Gateway()
    gateway.connect(to=0)
    before, gateway.key = gateway.key, PrivateKey(b"k" * 32)
    for device in gateway.devices:
        device.configure(DeviceChange(private_key=gateway.key), gateway.now)
    gateway.world.configure(gateway.peer, public_key=before.public_key, remove=True)
    gateway.world.configure(
        gateway.peer,
        public_key=gateway.key.public_key,
        endpoint=Endpoint("192.0.2.200", 51820),
        allowed_ips=(AllowedIPChange(ip_network("0.0.0.0/0")),),
    )
    gateway.connect(to=0)
    assert gateway.devices[1].has_session(gateway.peer.public_key, gateway.now)


def test_nothing_is_answered_or_handed_over_while_the_interface_is_down() -> None:
    gateway = Gateway()
    effects = gateway.devices[0].receive(Datagrams.of(gateway.initiation()), AWAY, gateway.now)
    packets = gateway.devices[0].send(outbound(b"1", b"2"), gateway.now)
    for device in gateway.devices:
        device.stop()
    for handover in effects.handovers + packets.handovers:
        taken = gateway.devices[1].take_over(handover, gateway.now)
        assert (taken.transmits, taken.deliveries, taken.handovers) == ([], [], ())
    assert gateway.drops(1) == {"interface_down": 3}
    assert gateway.devices[0].send(outbound(b"1"), gateway.now).handovers == ()
    assert gateway.drops(0) == {"interface_down": 1}


def test_a_peer_without_an_endpoint_is_unreachable_whichever_worker_reads_the_packet() -> None:
    gateway = Gateway()
    (handover,) = gateway.devices[0].send(outbound(b"1"), gateway.now).handovers
    (error,) = gateway.devices[1].take_over(handover, gateway.now).deliveries
    assert error.packet(0)[9] == 1, "ICMP"


def test_a_peer_moves_to_another_worker_with_its_networks() -> None:
    gateway = Gateway()
    gateway.configure(allowed_ips=(AllowedIPChange(ip_network("10.9.0.0/16")), AllowedIPChange(ip_network("fd00::/8"))))
    gateway.connect()
    gateway.configure(worker=0, endpoint=AWAY)
    assert [len(device.status().peers) for device in gateway.devices] == [1, 0]
    (row,) = gateway.devices[0].status().peers
    assert row.allowed_ips == tuple(map(ip_network, (INNER, "10.9.0.0/16", "fd00::/8")))
    assert row.endpoint == AWAY
    assert len(gateway.devices[1]._indices) == 0
    assert gateway.devices[1].next_timeout() is None
    (transmit,) = gateway.devices[0].send(outbound(b"1"), gateway.now).transmits
    assert transmit.datagrams.view[0] == MESSAGE_INITIATION
    assert gateway.devices[1].send(outbound(b"2"), gateway.now).handovers[0].worker == 0
    gateway.configure(remove=True)
    assert gateway.devices[0].receive(Datagrams.of(gateway.initiation()), AWAY, gateway.now).handovers == ()
    assert gateway.drops(0) == {"unknown_peer": 1}


def test_a_change_without_a_worker_leaves_the_peer_where_it_is() -> None:
    gateway = Gateway()
    gateway.connect()
    gateway.configure(persistent_keepalive=25, replace_allowed_ips=True, allowed_ips=(SHARED,))
    assert [len(device.status().peers) for device in gateway.devices] == [0, 1]
    assert gateway.devices[1].has_session(gateway.peer.public_key, gateway.now)
    packet = ipv4_packet("10.0.0.1", "10.1.0.1")
    assert gateway.devices[0].send(packet, gateway.now).handovers[0].worker == 1


def test_a_network_moves_between_peers_of_different_workers() -> None:
    gateway = Gateway()
    gateway.configure(allowed_ips=(SHARED,))
    other = PeerChange(public_key=PublicKey(b"o" * 32), worker=0, endpoint=AWAY, allowed_ips=(SHARED,))
    for device in gateway.devices:
        device.configure(DeviceChange(peers=(other,)), gateway.now)
    packet = ipv4_packet("10.0.0.1", "10.1.0.1")
    assert gateway.devices[1].send(packet, gateway.now).handovers[0].worker == 0
    assert gateway.devices[0].send(packet, gateway.now).transmits[0].endpoint == AWAY
    for device in gateway.devices:
        gone = PeerChange(public_key=other.public_key, remove=True)
        device.configure(DeviceChange(peers=(gone,)), gateway.now)
        assert device.send(packet, gateway.now).handovers == ()
        assert device.status().drops == {"no_peer": 1}


def test_peers_are_replaced_and_removed_whichever_worker_has_them() -> None:
    gateway = Gateway()
    other = PeerChange(public_key=PublicKey(b"o" * 32), worker=0, endpoint=AWAY)
    for device in gateway.devices:
        device.configure(DeviceChange(replace_peers=True, peers=(other,)), gateway.now)
        device.configure(DeviceChange(peers=(PeerChange(public_key=gateway.peer.public_key, update_only=True),)), 0.0)
    assert [len(device.status().peers) for device in gateway.devices] == [1, 0]
    assert gateway.devices[0].send(outbound(b"1"), gateway.now).handovers == ()
    gateway.configure(worker=1)
    gateway.configure(remove=True)
    assert [len(device.status().peers) for device in gateway.devices] == [1, 0]
    assert all(device.send(outbound(b"1"), gateway.now).handovers == () for device in gateway.devices)


def test_our_own_key_is_a_peer_of_no_worker() -> None:
    gateway = Gateway()
    for device in gateway.devices:
        own = PeerChange(public_key=gateway.key.public_key, worker=1, allowed_ips=(SHARED,))
        device.configure(DeviceChange(peers=(own,)), gateway.now)
        assert device.peer_at(ip_address("10.1.0.1").packed) is None
        device.configure(DeviceChange(private_key=gateway.peer.private_key), gateway.now)
        assert device.peer_at(ip_address(INNER).packed) is None
        assert device.status().peers == ()


def test_the_limit_of_peers_counts_those_of_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgpy.device.changes.MAX_PEERS", 3)
    gateway = Gateway()
    more = tuple(PeerChange(public_key=PublicKey(bytes([n]) * 32), worker=n % 2) for n in range(3))
    for device in gateway.devices:
        device.configure(DeviceChange(peers=more[:2]), gateway.now)
        with pytest.raises(ConfigError, match="too many peers: 3"):
            device.configure(DeviceChange(peers=more[2:]), gateway.now)


def test_events_and_addresses_come_from_the_worker_that_serves_the_peer() -> None:
    gateway = Gateway()
    gateway.connect(to=0)
    effects = gateway.devices[0].receive(
        Datagrams.of(gateway.initiation()), Endpoint("203.0.113.1", 5), gateway.now + 1
    )
    assert effects.events == []
    (handover,) = effects.handovers
    events = gateway.devices[1].take_over(handover, gateway.now + 1).events
    assert [(event.kind, event.endpoint) for event in events] == [
        (EventKind.ENDPOINT_MOVED, Endpoint("203.0.113.1", 5))
    ]


def test_a_replaced_worker_serves_the_same_peers() -> None:
    world = World()
    random = world.random.randbytes
    workers = Workers(2, random=random, wall_clock=lambda: 10**18, queue=lambda count: 0)
    key = PrivateKey(random(32))
    peers = tuple(PeerChange(public_key=PublicKey(bytes([n]) * 32), endpoint=AWAY) for n in range(4))
    change = DeviceChange(private_key=key, peers=peers)
    workers.configure(change, 0.0)
    before = workers.status()
    workers.replace(1, change, 1.0)
    assert workers.status() == before
