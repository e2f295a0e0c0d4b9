"""How often nftables has been changed, by whomever: cheap to ask, where listing a large table costs a lot."""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from wgpy.errors import NetworkError
from wgpy.gateway.policy.netfilter import HEADER, NETFILTER_HEADER, attributes, messages

_NETLINK_NETFILTER: Final = 12
_REQUEST: Final = 1
_ASK, _ANSWER = 0x0A10, 0x0A0F  # NFNL_SUBSYS_NFTABLES, and NFT_MSG_GETGEN or NEWGEN
_ID: Final = 1  # NFTA_GEN_ID


def generation() -> int:
    """The number of the last transaction of nftables in this network namespace (linux/netfilter/nf_tables.h).

    Each adds one, so where it is the same as before, all tables are as they were. Raises NetworkError.
    """
    request = HEADER.pack(HEADER.size + NETFILTER_HEADER.size, _ASK, _REQUEST, 0, 0)
    request += NETFILTER_HEADER.pack(socket.AF_UNSPEC, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as link:
            link.send(request)
            datagram = link.recv(1 << 16)
    except OSError as error:
        raise NetworkError(f"nftables: {error.strerror}") from error
    for message in messages(datagram):
        value = dict(attributes(message.attributes)).get(_ID, b"")
        if message.kind == _ANSWER and len(value) == 4:
            return int.from_bytes(value, "big")
    error_number = -struct.unpack_from("=i", datagram, HEADER.size)[0]
    raise NetworkError(f"nftables: {os.strerror(error_number)}")
