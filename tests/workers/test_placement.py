"""Which worker gets a peer: evenly, and for as long as the peer is there."""

from __future__ import annotations

from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.keys import PrivateKey, PublicKey
from wgpy.workers.placement import Placement, gaining

PEERS = [PrivateKey(bytes([number]) * 32).public_key for number in range(1, 10)]


def adding(*peers: PublicKey, replace_peers: bool = False) -> DeviceChange:
    return DeviceChange(peers=tuple(PeerChange(public_key=peer) for peer in peers), replace_peers=replace_peers)


def workers(change: DeviceChange) -> list[int | None]:
    return [peer.worker for peer in change.peers]


def test_peers_are_divided_evenly_and_stay_where_they_are() -> None:
    placement = Placement(4)
    assert workers(placement.place(adding(*PEERS[:8]))) == [0, 1, 2, 3] * 2
    assert workers(placement.place(adding(*reversed(PEERS[:8])))) == [3, 2, 1, 0] * 2
    assert placement.counts == [2] * 4
    assert set(placement.placed) == set(PEERS[:8])


def test_a_removed_peer_makes_room_for_the_next() -> None:
    placement = Placement(2)
    placement.place(adding(*PEERS[:4]))
    gone = {PEERS[1], PEERS[3]}
    placed = placement.place(DeviceChange(peers=tuple(PeerChange(public_key=peer, remove=True) for peer in gone)))
    assert workers(placed) == [1, 1]
    placement.keep(lambda peer: peer not in gone)
    assert placement.counts == [2, 0]
    assert workers(placement.place(adding(*PEERS[4:6]))) == [1, 1]


def test_updates_and_removals_place_no_unknown_peer() -> None:
    placement = Placement(2)
    changes = (PeerChange(public_key=PEERS[0], update_only=True), PeerChange(public_key=PEERS[1], remove=True))
    assert workers(placement.place(DeviceChange(peers=changes))) == [None, None]
    assert placement.counts == [0, 0]


def test_a_list_that_replaces_another_is_divided_anew() -> None:
    placement = Placement(2)
    placement.place(adding(*PEERS[:6]))
    placed = placement.place(adding(PEERS[1], PEERS[3], PEERS[6], PEERS[7], replace_peers=True))
    assert workers(placed) == [1, 1, 0, 0]
    assert placement.counts == [2, 2]


def test_the_worker_that_gains_a_peer_is_told_first() -> None:
    placement = Placement(3)
    placement.place(adding(*PEERS[:3]))
    moves = (PeerChange(public_key=PEERS[1]), PeerChange(public_key=PEERS[2], remove=True))
    assert gaining(placement.place(DeviceChange(peers=moves))) == {1}
    assert gaining(placement.place(DeviceChange(listen_port=1))) == set()
