"""Which peers can no longer be answered from the local address that they spoke to, after routes have changed.

The rule is the kernel's for IPv4 (its socket.c, send4), here for both families: a source is kept while the route from
it leaves by the interface that the peer was heard on. wireguard-go asks the kernel in the same way (its
device/sticky_linux.go).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Final

from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.system.rtnetlink import outgoing_interface

MAX_QUESTIONS: Final = 1000  # for each change; each takes some 10 µs


def lost_sources(heard: Iterable[tuple[PublicKey, Endpoint]], mark: int) -> list[PublicKey]:
    """Those of the peers whose source must be forgotten; `mark` is the firewall mark of what is sent to them.

    The kernel is asked about the network namespace of the calling thread. If it cannot be asked, all are returned.
    """
    heard = list(heard)
    if not heard:
        return []
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        netlink = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    except OSError:
        return [public_key for public_key, _ in heard]

    def leaves_by(endpoint: Endpoint) -> int | None:
        try:
            return outgoing_interface(
                netlink, endpoint.address_bytes, endpoint.source, scope_id=endpoint.scope_id, mark=mark
            )
        except OSError:
            return None

    with netlink:
        return those_astray(heard, leaves_by)


def those_astray(
    heard: Iterable[tuple[PublicKey, Endpoint]], leaves_by: Callable[[Endpoint], int | None]
) -> list[PublicKey]:
    """Those of the peers that are no longer reached, from their source, by the interface that they were heard on.

    `leaves_by` returns the index of the interface that leads to an endpoint from its source, None if none does. It is
    asked once for each pair of a host and a source, and at most MAX_QUESTIONS times: peers beyond that are returned.
    """
    interfaces: dict[Endpoint, int | None] = {}
    astray = []
    for public_key, endpoint in heard:
        pair = endpoint._replace(port=0, source_ifindex=0)
        if pair not in interfaces and len(interfaces) < MAX_QUESTIONS:
            interfaces[pair] = leaves_by(endpoint)
        if interfaces.get(pair) != endpoint.source_ifindex:
            astray.append(public_key)
    return astray
