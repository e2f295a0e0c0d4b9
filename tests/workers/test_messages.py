"""What control and workers tell each other: all of it arrives, and control believes nothing malformed."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest

from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.effects import DropReason, Event, EventKind
from wgpy.endpoint import Endpoint
from wgpy.errors import ControlError
from wgpy.keys import PresharedKey, PrivateKey
from wgpy.noise.tai64n import tai64n
from wgpy.workers.messages import (
    pack_change,
    pack_event,
    pack_hosts,
    pack_initiations,
    pack_sessions,
    pack_unanswered,
    unpack_change,
    unpack_event,
    unpack_hosts,
    unpack_initiations,
    unpack_key,
    unpack_log,
    unpack_sessions,
    unpack_unanswered,
)

ONE, TWO, THREE = (PrivateKey(bytes([number]) * 32).public_key for number in (1, 2, 3))
STAMPED = tai64n(10**18)
V4, V6 = Endpoint("192.0.2.1", 1), Endpoint("fe80::1", 2, scope_id=3)


def over_the_wire(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "change",
    [
        DeviceChange(),
        DeviceChange(private_key=PrivateKey(bytes(32)), listen_port=0, fwmark=0, replace_peers=True),
        DeviceChange(
            private_key=PrivateKey(b"k" * 32),
            listen_port=7,
            fwmark=2**32 - 1,
            peers=(
                PeerChange(public_key=ONE, worker=1, preshared_key=PresharedKey(bytes(32)), persistent_keepalive=0),
                PeerChange(public_key=TWO, worker=None, update_only=True, endpoint=V6),
                PeerChange(public_key=THREE, worker=0, remove=True),
                PeerChange(
                    public_key=ONE,
                    worker=1,
                    endpoint=V4,
                    replace_allowed_ips=True,
                    allowed_ips=(
                        AllowedIPChange(ip_network("10.0.0.0/8")),
                        AllowedIPChange(ip_network("fd00::/64"), remove=True),
                    ),
                ),
            ),
        ),
    ],
)
def test_a_change_arrives_unchanged(change: DeviceChange) -> None:
    assert unpack_change(over_the_wire(pack_change(change))) == change


def test_sessions_arrive_unchanged() -> None:
    sessions = {TWO: (V4, 1.5), THREE: (V6, 1e9)}
    assert unpack_sessions(over_the_wire(pack_sessions(ONE, sessions))) == (ONE, sessions)


@pytest.mark.parametrize("kind", EventKind)
@pytest.mark.parametrize("endpoint", [V4, V6, None])
@pytest.mark.parametrize("reason", [None, DropReason.REPLAYED_INITIATION])
def test_an_event_arrives_unchanged(kind: EventKind, endpoint: Endpoint | None, reason: DropReason | None) -> None:
    event = Event(kind, ONE, endpoint, reason)
    assert unpack_event(over_the_wire(pack_event(event, 7, STAMPED))) == (event, 7, STAMPED)
    assert unpack_unanswered(over_the_wire(pack_unanswered(ONE, endpoint, 7))) == (ONE, endpoint, 7)


def test_the_timestamps_of_initiations_arrive_unchanged() -> None:
    initiations = {ONE: STAMPED, TWO: b"\xff" * 12}
    assert unpack_initiations(over_the_wire(pack_initiations(initiations))) == initiations


RIGHT = {
    unpack_event: pack_event(Event(EventKind.ENDPOINT_MOVED, ONE, V4, DropReason.REPLAYED), 7, STAMPED),
    unpack_unanswered: pack_unanswered(ONE, V4, 7),
    unpack_hosts: pack_hosts([b"\xc0\0\2\1", bytes(8)]),
    unpack_key: {"label": "LOCAL_STATIC_PRIVATE_KEY", "key": "ab" * 32},
    unpack_log: {"level": 30, "name": "wgpy.tun", "text": "said"},
}
WRONG: tuple[Any, ...] = (None, [], {}, "", "x", -1, 2**63, 1.5, True, {"a": 1}, "10.0.0.1", "300.1.1.1:1", "A" * 44)


@pytest.mark.parametrize("unpack", RIGHT, ids=lambda unpack: unpack.__name__)
def test_any_message_of_a_worker_is_read_or_refused(unpack: Any) -> None:
    """Each field in turn is missing, or something else; and so is the whole."""
    right = over_the_wire(RIGHT[unpack])
    unpack(right)
    for value in WRONG:
        with pytest.raises(ControlError):
            unpack(value)
        for field in right:
            with suppress(ControlError):
                unpack(right | {field: value})
    for field in right:
        with pytest.raises(ControlError):
            unpack({name: value for name, value in right.items() if name != field})


def test_a_worker_cannot_log_in_the_name_of_another_library() -> None:
    assert unpack_log({"level": 10, "name": "asyncio", "text": ""})[1] == "wgpy"
    assert unpack_log({"level": 10, "name": "wgpyx", "text": ""})[1] == "wgpy"
    assert unpack_log({"level": 10, "name": "wgpy.new", "text": ""})[1] == "wgpy"
    logging.getLogger("wgpy.known")
    assert unpack_log({"level": 10, "name": "wgpy.known", "text": ""})[1] == "wgpy.known"


def test_a_worker_cannot_fill_a_loggers_memory_with_levels() -> None:
    """A logger remembers of each level whether it is on."""
    levels = [unpack_log({"level": level, "name": "wgpy", "text": ""})[0] for level in (-7, 20, 10**4000)]
    assert levels == [logging.DEBUG, logging.INFO, logging.CRITICAL]


def test_a_worker_cannot_place_its_peer_where_no_other_worker_would_take_it() -> None:
    """Control tells the process that replaces it, which would refuse that, again and again."""
    endpoints: tuple[object, ...] = ("[fe80::1%4294967296]:1", "[fe80::1%3]:65536", [])
    for endpoint in endpoints:
        with pytest.raises(ControlError, match="not about a peer"):
            unpack_event(RIGHT[unpack_event] | {"endpoint": endpoint})


@pytest.mark.parametrize("hosts", [[bytes(5)], [bytes(4)] * 257, [b""]])
def test_hosts_are_no_more_than_the_filter_knows_and_of_a_hosts_length(hosts: list[bytes]) -> None:
    with pytest.raises(ControlError, match="not hosts"):
        unpack_hosts(over_the_wire(pack_hosts(hosts)))
