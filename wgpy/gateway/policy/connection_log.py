"""Entries of the connection log, with the keys of AWS Client VPN's where it has them.

https://docs.aws.amazon.com/vpn/latest/clientvpn-admin/connection-logging.html. As there, values are text, "NA" is what
is not known, and times are in UTC. Of our own are client-ipv6, groups, connection-end-reason and message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from wgpy.gateway.policy.sessions import Session, State, Traffic

_UNKNOWN: Final = "NA"
_TRAFFIC: Final = ("ingress-bytes", "ingress-packets", "egress-bytes", "egress-packets")


def entry(
    session: Session,
    *,
    interface: str,
    user: str,
    groups: Iterable[str],
    device_ip: str,
    port: str,
    began: float,
    wall: float,
) -> dict[str, Any]:
    """The entry of a session, `began` and `wall` (now) in seconds since 1970."""
    refused = session.state is State.ENDED and not session.opened
    ended = session.ended_at is not None and session.opened
    addresses = {address.version: str(address) for address in session.addresses}
    return {
        "connection-log-type": "connection-reset" if ended else "connection-attempt",
        "connection-attempt-status": "failed"
        if refused
        else "successful"
        if session.opened and not ended
        else _UNKNOWN,
        "connection-reset-status": _UNKNOWN,
        "connection-attempt-failure-reason": session.reason.value if refused and session.reason else _UNKNOWN,
        "connection-id": session.id,
        "client-vpn-endpoint-id": interface,
        "transport-protocol": "udp",
        "connection-start-time": _time(began),
        "connection-last-update-time": _time(wall),
        "client-ip": addresses.get(4, _UNKNOWN),
        "client-ipv6": addresses.get(6, _UNKNOWN),
        "common-name": session.device,
        "username": user or _UNKNOWN,
        "groups": sorted(groups),
        "device-ip": device_ip or _UNKNOWN,
        "port": port or _UNKNOWN,
        **{key: str(value) for key, value in zip(_TRAFFIC, session.traffic, strict=True)},
        "connection-end-time": _time(wall) if ended else _UNKNOWN,
        "connection-duration-seconds": str(max(0, round(wall - began))) if ended else _UNKNOWN,
        "connection-end-reason": session.reason.value if ended and session.reason else _UNKNOWN,
        "message": session.message,
        "posture-compliance-statuses": list(session.posture),
    }


def outcome(entry: Mapping[str, Any]) -> str:
    """What an entry says in a word: why its session ended or did not begin, or else that it is active or pending."""
    for key in ("connection-attempt-failure-reason", "connection-end-reason"):
        if entry[key] != _UNKNOWN:
            return str(entry[key])
    return "active" if entry["connection-attempt-status"] == "successful" else "pending"


def traffic(entry: Mapping[str, Any]) -> Traffic:
    """What had passed when the entry was made."""
    return Traffic(*(int(entry[key]) for key in _TRAFFIC))


def with_traffic(entry: Mapping[str, Any], passed: Traffic) -> dict[str, Any]:
    """The entry with other counters."""
    return {**entry, **{key: str(value) for key, value in zip(_TRAFFIC, passed, strict=True)}}


def ended(entry: Mapping[str, Any], reason: str, *, began: float, wall: float) -> dict[str, Any]:
    """The entry of a session that nobody was there to end, `began` and `wall` (now) in seconds since 1970."""
    return {
        **entry,
        "connection-log-type": "connection-reset",
        "connection-last-update-time": _time(wall),
        "connection-end-time": _time(wall),
        "connection-duration-seconds": str(max(0, round(wall - began))),
        "connection-end-reason": reason,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
