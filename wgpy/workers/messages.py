"""What the messages between control and workers hold: values of the core as text, and checked when they are read."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from wgpy.config.uapi import format_set, parse_set
from wgpy.device.changes import DeviceChange
from wgpy.device.effects import DropReason, Event, EventKind
from wgpy.endpoint import Endpoint
from wgpy.errors import ControlError
from wgpy.keys import KEY_SIZE, PublicKey
from wgpy.net.queues import MAX_KNOWN_HOSTS
from wgpy.noise.tai64n import TIMESTAMP_SIZE

_LABEL: Final = re.compile(r"[A-Z_]{1,64}")


def pack_change(change: DeviceChange) -> dict[str, Any]:
    """A change, with the worker of each of its peers."""
    return {"set": format_set(change), "workers": [peer.worker for peer in change.peers]}


def unpack_change(packed: dict[str, Any]) -> DeviceChange:
    """The change that `pack_change` packed."""
    change = parse_set(packed["set"].splitlines()[1:-1])
    peers = (replace(peer, worker=worker) for peer, worker in zip(change.peers, packed["workers"], strict=True))
    return replace(change, peers=tuple(peers))


def pack_sessions(owner: PublicKey, sessions: Mapping[PublicKey, tuple[Endpoint, float]]) -> dict[str, Any]:
    """Sessions, as `Device.resume` takes them."""
    return {
        "owner": owner.base64(),
        "sessions": {key.base64(): [str(endpoint), began] for key, (endpoint, began) in sessions.items()},
    }


def unpack_sessions(packed: dict[str, Any]) -> tuple[PublicKey, dict[PublicKey, tuple[Endpoint, float]]]:
    """The sessions that `pack_sessions` packed."""
    return PublicKey.from_base64(packed["owner"]), {
        PublicKey.from_base64(key): (Endpoint.parse(endpoint), began)
        for key, (endpoint, began) in packed["sessions"].items()
    }


def pack_initiations(initiations: Mapping[PublicKey, bytes]) -> dict[str, Any]:
    """The timestamps of peers' last initiations (`Device.refuse_initiations`)."""
    return {key.base64(): timestamp.hex() for key, timestamp in initiations.items()}


def unpack_initiations(packed: dict[str, Any]) -> dict[PublicKey, bytes]:
    """The timestamps that `pack_initiations` packed."""
    return {PublicKey.from_base64(key): bytes.fromhex(timestamp) for key, timestamp in packed.items()}


def pack_event(event: Event, floor: int, initiation: bytes) -> dict[str, Any]:
    """An event, with the worker's timestamp floor (`Device.timestamp_floor`) and the peer's `last_initiation`."""
    return {
        "kind": event.kind,
        "key": event.public_key.base64(),
        "endpoint": str(event.endpoint) if event.endpoint else None,
        "reason": event.reason,
        "floor": floor,
        "initiation": initiation.hex(),
    }


def unpack_event(packed: Any) -> tuple[Event, int, bytes]:
    """The event, the floor and the last initiation that a worker sent. Raises ControlError if it is no such thing."""
    try:
        public_key, endpoint, floor = unpack_unanswered(packed)
        reason = None if packed["reason"] is None else DropReason(packed["reason"])
        initiation = bytes.fromhex(packed["initiation"])
        if len(initiation) != TIMESTAMP_SIZE:
            raise ValueError
        return Event(EventKind(packed["kind"]), public_key, endpoint, reason), floor, initiation
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError("not an event") from error


def pack_unanswered(public_key: PublicKey, endpoint: Endpoint | None, floor: int) -> dict[str, Any]:
    """An initiation without an answer, and the worker's timestamp floor."""
    return {"key": public_key.base64(), "endpoint": str(endpoint) if endpoint else None, "floor": floor}


def unpack_unanswered(packed: Any) -> tuple[PublicKey, Endpoint | None, int]:
    """The peer, its endpoint and the floor that a worker sent. Raises ControlError if it is nothing of the kind."""
    try:
        endpoint = None if packed["endpoint"] is None else Endpoint.parse(packed["endpoint"])
        floor = packed["floor"]
        if type(floor) is not int or not 0 <= floor < 1 << 63:
            raise ValueError
        return PublicKey.from_base64(packed["key"]), endpoint, floor
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ControlError("not about a peer") from error


def pack_hosts(hosts: Iterable[bytes]) -> dict[str, Any]:
    """Hosts at which peers are known: 4 bytes of an IPv4 address, or 8 of an IPv6 address."""
    return {"hosts": [host.hex() for host in hosts]}


def unpack_hosts(packed: Any) -> list[bytes]:
    """At most MAX_KNOWN_HOSTS hosts. Raises ControlError."""
    try:
        hosts = list(map(bytes.fromhex, packed["hosts"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError("not hosts") from error
    if len(hosts) > MAX_KNOWN_HOSTS or not {*map(len, hosts)} <= {4, 8}:
        raise ControlError("not hosts")
    return hosts


def unpack_key(packed: Any) -> tuple[str, bytes]:
    """A label and a key of the key log. Raises ControlError."""
    try:
        label, key = packed["label"], bytes.fromhex(packed["key"])
        if not _LABEL.fullmatch(label) or len(key) != KEY_SIZE:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError("not a key") from error
    return label, key


def unpack_log(packed: Any) -> tuple[int, str, str]:
    """The level of a log record, its logger's name and its text. Raises ControlError."""
    try:
        level, name, text = packed["level"], packed["name"], packed["text"]
        if type(level) is not int or type(name) is not str or type(text) is not str:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError("not a log record") from error
    is_ours = name.partition(".")[0] == "wgpy" and name in logging.Logger.manager.loggerDict  # a new one would stay
    level = min(max(level, logging.DEBUG), logging.CRITICAL)  # a logger remembers every level that it has seen
    return level, name if is_ours else "wgpy", text
