"""Reads what the kernel's netfilter says over netlink: messages of attributes, as linux/netfilter/nfnetlink.h has them.

What is cut short ends where it is cut: nothing here raises.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
NETFILTER_HEADER: Final = struct.Struct("!BBH")  # nfgenmsg: family, version, resource id
ATTRIBUTE: Final = struct.Struct("=HH")  # nlattr: length, type
_TYPE_MASK: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


class Message(NamedTuple):
    """One message: its type, the netlink port of whoever caused it, and its attributes as bytes."""

    kind: int
    port: int
    attributes: bytes


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages in what one call of recv(2) returned."""
    start, begin = 0, HEADER.size + NETFILTER_HEADER.size
    while start + HEADER.size <= len(datagram):
        length, kind, _, _, port = HEADER.unpack_from(datagram, start)
        yield Message(kind, port, datagram[start + begin : start + length])
        start += max(HEADER.size, length + 3 & ~3)


def attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and value of each attribute; the value of a nested one is made of attributes, too."""
    place = 0
    while place + ATTRIBUTE.size <= len(body):
        size, kind = ATTRIBUTE.unpack_from(body, place)
        yield kind & _TYPE_MASK, body[place + ATTRIBUTE.size : place + size]
        place += max(ATTRIBUTE.size, size + 3 & ~3)
