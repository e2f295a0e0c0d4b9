"""Notices of the kernel: of clients' packets, of connections that are over, and of changes of nftables.

Packets come by NFLOG, linux/netfilter/nfnetlink_log.h. The rules that log are in `wgpy.gateway.enforcement.ruleset`.
They let through one packet of a client without a session in some seconds, so nobody can make this grow, and a notice
that is lost comes again with a later packet; and for the flow log, so many denied packets in a second. Connections come
as linux/netfilter/nfnetlink_conntrack.h has them, and changes as linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, NamedTuple

from wgpy.errors import NetworkError
from wgpy.gateway.enforcement.ruleset import LENGTH
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.netfilter import ATTRIBUTE, HEADER, NETFILTER_HEADER, attributes, messages

_NETLINK_NETFILTER: Final = 12
_REQUEST_ACK: Final = 5
_PACKET, _CONFIG = 0x0400, 0x0401  # NFNL_SUBSYS_ULOG
_BIND: Final = 1  # NFULNL_CFG_CMD_BIND
_COPY_PACKET: Final = 2
_CFG_CMD, _CFG_MODE, _CFG_QTHRESH = 1, 2, 5
_PAYLOAD, _PREFIX = 9, 10  # NFULA_PAYLOAD, NFULA_PREFIX
_ERROR: Final = 2
_GROUP_DESTROYED: Final = 3  # NFNLGRP_CONNTRACK_DESTROY
_DESTROYED: Final = 0x0102  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_ACCOUNTING: Final = ("nf_conntrack_acct", "nf_conntrack_timestamp")  # of connections that begin from then on
_MOST: Final = 1000  # datagrams that are read before others have their turn
_GROUP_NFTABLES: Final = 7  # NFNLGRP_NFTABLES
_SUBSYSTEM_NFTABLES: Final = 10  # NFNL_SUBSYS_NFTABLES, in the high byte of a message's type
_NAME_OF_TABLE: Final = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and so on: the first of each message
_QUEUE: Final = 1 << 23  # bytes: twice what a new policy for 20,000 addresses needs
_RCVBUFFORCE: Final = 33  # SO_RCVBUFFORCE
UNKNOWN: Final = 0
"""In the place of a port: the kernel had more to tell than fits into the socket."""


class Noticed(NamedTuple):
    """Who has sent something without a session, and the beginning of each packet that was denied and logged."""

    clients: set[Address]
    denied: list[bytes]


class Notices:
    """A socket that is readable when there are packets of clients to know of. Raises NetworkError."""

    def __init__(self, group: int) -> None:
        self.lost: int = 0  # how often there were more than fit into the socket
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

    def read(self) -> Noticed:
        """What there is since this was last called."""
        found = Noticed(set(), [])
        for _ in range(_MOST):
            try:
                datagram = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: some were lost; those of clients come again
                self.lost += 1
                continue
            for message in messages(datagram):
                if message.kind == _PACKET:
                    logged = dict(attributes(message.attributes))
                    packet = logged.get(_PAYLOAD, b"")
                    if logged.get(_PREFIX, b"").rstrip(b"\0"):
                        found.denied.append(packet)
                    else:
                        found.clients.update(_source(packet))
        return found

    def _configure(self, group: int, kind: int, value: bytes) -> None:
        attribute = ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value
        attribute += bytes(-len(attribute) % 4)
        body = NETFILTER_HEADER.pack(socket.AF_UNSPEC, 0, group) + attribute
        self._socket.send(HEADER.pack(HEADER.size + len(body), _CONFIG, _REQUEST_ACK, 0, 0) + body)
        answer = self._socket.recv(1 << 16)
        number = struct.unpack_from("=i", answer, HEADER.size)[0] if HEADER.unpack_from(answer)[1] == _ERROR else 0
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
        for message in messages(datagram):
            is_about_nftables = message.kind >> 8 == _SUBSYSTEM_NFTABLES
            if is_about_nftables and (_NAME_OF_TABLE, self._name) in attributes(message.attributes):
                yield message.port


class Connections:
    """A socket that is readable when conntrack has forgotten a connection. Raises NetworkError.

    Connections that begin from now on have counters and times.
    """

    def __init__(self) -> None:
        self.lost: int = 0  # how often there were more than fit into the socket
        for name in _ACCOUNTING:
            setting = Path("/proc/sys/net/netfilter") / name
            try:
                if setting.read_text().strip() == "0":
                    setting.write_text("1")
            except OSError as error:
                raise NetworkError(f"net.netfilter.{name}: {error.strerror}; set it before, with sysctl -w") from error
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
            self._socket.bind((0, 1 << _GROUP_DESTROYED - 1))
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _QUEUE)
        except OSError as error:
            raise NetworkError(f"conntrack: {error.strerror}; needs nf_conntrack_netlink") from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[bytes]:
        """The attributes of connections that are over, for `wgpy.gateway.policy.flow_log.read_flow`."""
        found: list[bytes] = []
        for _ in range(_MOST):
            try:
                datagram = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS
                self.lost += 1
                continue
            found += (message.attributes for message in messages(datagram) if message.kind == _DESTROYED)
        return found


def _source(packet: bytes) -> Iterator[Address]:
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        yield IPv4Address(packet[12:16])
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        yield IPv6Address(packet[8:24])
