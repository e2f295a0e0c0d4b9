"""Notices of the kernel: a client without a session has sent something, or somebody has changed nftables.

The first come by NFLOG, linux/netfilter/nfnetlink_log.h, the second as linux/netfilter/nf_tables.h has them. The rule
that logs is `from_client` in `wgpy.gateway.enforcement.ruleset`: one packet of a client in some seconds, so nobody can
make this grow. A notice that is lost comes again with a later packet.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from wgpy.errors import NetworkError
from wgpy.gateway.enforcement.ruleset import LENGTH
from wgpy.gateway.policy.destinations import Address

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_NETFILTER_HEADER: Final = struct.Struct("!BBH")  # nfgenmsg: family, version, resource id
_ATTRIBUTE: Final = struct.Struct("=HH")
_NETLINK_NETFILTER: Final = 12
_REQUEST_ACK: Final = 5
_PACKET, _CONFIG = 0x0400, 0x0401  # NFNL_SUBSYS_ULOG
_BIND: Final = 1  # NFULNL_CFG_CMD_BIND
_COPY_PACKET: Final = 2
_CFG_CMD, _CFG_MODE, _CFG_QTHRESH, _PAYLOAD = 1, 2, 5, 9
_ERROR: Final = 2
_GROUP_NFTABLES: Final = 7  # NFNLGRP_NFTABLES
_SUBSYSTEM_NFTABLES: Final = 10  # NFNL_SUBSYS_NFTABLES, in the high byte of a message's type
_NAME_OF_TABLE: Final = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and so on: the first of each message
_QUEUE: Final = 1 << 23  # bytes: twice what a new policy for 20,000 addresses needs
_RCVBUFFORCE: Final = 33  # SO_RCVBUFFORCE
UNKNOWN: Final = 0
"""In the place of a port: the kernel had more to tell than fits into the socket."""
_TYPE_MASK: Final = 0x7FFF


class Notices:
    """A socket that is readable when a client without a session has sent something. Raises NetworkError."""

    def __init__(self, group: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
            try:
                self._configure(group, _CFG_CMD, struct.pack("=B", _BIND))
                self._configure(group, _CFG_MODE, struct.pack("!IBB", LENGTH, _COPY_PACKET, 0))
                self._configure(group, _CFG_QTHRESH, struct.pack("!I", 1))  # at once, not after a second
            except OSError:
                self._socket.close()
                raise
        except OSError as error:
            remedy = (
                "run it as root; if it is, is another gateway on this port?"
                if error.errno == errno.EPERM
                else "needs nfnetlink_log"
            )
            raise NetworkError(f"NFLOG group {group}: {error.strerror}; {remedy}") from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> set[Address]:
        """The addresses of clients that have sent something since this was last called."""
        found: set[Address] = set()
        while True:
            try:
                found.update(_sources(self._socket.recv(1 << 16)))
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: some were lost, and come again
                continue

    def _configure(self, group: int, kind: int, value: bytes) -> None:
        attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
        attribute += bytes(-len(attribute) % 4)
        body = _NETFILTER_HEADER.pack(socket.AF_UNSPEC, 0, group) + attribute
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), _CONFIG, _REQUEST_ACK, 0, 0) + body)
        answer = self._socket.recv(1 << 16)
        number = struct.unpack_from("=i", answer, _HEADER.size)[0] if _HEADER.unpack_from(answer)[1] == _ERROR else 0
        if number:
            raise OSError(-number, os.strerror(-number))


class Changes:
    """A socket that is readable when somebody, we included, has changed nftables. Raises NetworkError.

    `table` is the name of the table that `read` looks for, without its family.
    """

    def __init__(self, table: str) -> None:
        self._name = table.encode() + b"\0"
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
            self._socket.bind((0, 1 << _GROUP_NFTABLES - 1))
            with suppress(OSError):  # without the capability, what does not fit is UNKNOWN
                self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _QUEUE)
        except OSError as error:
            raise NetworkError(f"netlink: {error.strerror}") from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> set[int]:
        """Who has changed the table since this was last called: the netlink ports, a program's number as a rule."""
        found: set[int] = set()
        while True:
            try:
                found.update(self._ports(self._socket.recv(1 << 16)))
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS
                found.add(UNKNOWN)

    def _ports(self, datagram: bytes) -> Iterator[int]:
        for kind, port, body in _messages(datagram):
            if kind >> 8 == _SUBSYSTEM_NFTABLES and (_NAME_OF_TABLE, self._name) in _attributes(body):
                yield port


def _sources(datagram: bytes) -> Iterator[Address]:
    """The source addresses of the packets in a datagram of the kernel's."""
    for kind, _, body in _messages(datagram):
        if kind == _PACKET:
            for attribute, value in _attributes(body):
                if attribute == _PAYLOAD:
                    yield from _source(value)


def _messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The type of each message, the netlink port of whoever caused it, and what follows its header."""
    start = 0
    while start + _HEADER.size <= len(datagram):
        length, kind, _, _, port = _HEADER.unpack_from(datagram, start)
        yield kind, port, datagram[start + _HEADER.size : start + length]
        start += max(_HEADER.size, length + 3 & ~3)


def _attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and value of each attribute of one of netfilter's messages."""
    place = _NETFILTER_HEADER.size
    while place + _ATTRIBUTE.size <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, place)
        yield kind & _TYPE_MASK, body[place + _ATTRIBUTE.size : place + size]
        place += max(_ATTRIBUTE.size, size + 3 & ~3)


def _source(packet: bytes) -> Iterator[Address]:
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        yield IPv4Address(packet[12:16])
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        yield IPv6Address(packet[8:24])
