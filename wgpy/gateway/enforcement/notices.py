"""Notices of the kernel: a client without a session has sent something, or somebody has changed nftables.

The first come by NFLOG, linux/netfilter/nfnetlink_log.h. The rule that logs is `from_client` in
`wgpy.gateway.enforcement.ruleset`: one packet of a client in some seconds, so nobody can make this grow. A notice that
is lost comes again with a later packet.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
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
    """A socket that is readable when somebody, we included, has changed nftables. Raises NetworkError."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
            self._socket.bind((0, 1 << _GROUP_NFTABLES - 1))
        except OSError as error:
            raise NetworkError(f"netlink: {error.strerror}") from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> None:
        """Forget what there is to read."""
        while True:
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: there were many
                continue


def _sources(message: bytes) -> Iterator[Address]:
    """The source addresses of the packets in a message of the kernel's."""
    start = 0
    while start + _HEADER.size <= len(message):
        length, kind = _HEADER.unpack_from(message, start)[:2]
        if kind == _PACKET:
            place, end = start + _HEADER.size + _NETFILTER_HEADER.size, start + length
            while place + _ATTRIBUTE.size <= end:
                size, attribute = _ATTRIBUTE.unpack_from(message, place)
                if attribute & _TYPE_MASK == _PAYLOAD:
                    yield from _source(message[place + _ATTRIBUTE.size : place + size])
                place += max(_ATTRIBUTE.size, size + 3 & ~3)
        start += max(_HEADER.size, length + 3 & ~3)


def _source(packet: bytes) -> Iterator[Address]:
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        yield IPv4Address(packet[12:16])
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        yield IPv6Address(packet[8:24])
