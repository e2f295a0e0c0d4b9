"""`struct virtio_net_hdr` (linux/virtio_net.h), which precedes each packet of a TUN opened with IFF_VNET_HDR.

It says whether a packet's checksum is unfinished, and whether the packet is a super-packet: TCP or UDP of up to 64 kB,
to be cut into segments before it is sent. With offloads on, the kernel hands over such packets, and accepts them.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple, Self

VNET_HEADER_SIZE: Final = 10
NEEDS_CSUM: Final = 1
GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80
MERGEABLE: Final = frozenset({GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4})

vnet_header: Final = Struct("=BBHHHH")  # native: the kernel's default unless TUNSETVNETLE


class VnetHeader(NamedTuple):
    """The header in its legacy form of 10 bytes, in the machine's byte order."""

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def pack(self) -> bytes:
        """The 10 bytes."""
        return vnet_header.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read the first 10 bytes of `data`."""
        return cls._make(vnet_header.unpack_from(data))


NO_OFFLOAD: Final = VnetHeader()
PLAIN: Final = NO_OFFLOAD.pack()
