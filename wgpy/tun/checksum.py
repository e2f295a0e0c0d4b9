"""The Internet checksum (RFC 1071) of one packet, or of all packets of a burst at once.

A one's complement sum of 16-bit words is their sum modulo 0xFFFF. Modulo 0xFFFF, 2**16 is 1, so a whole packet read as
one big number has the same remainder, and swapping the bytes of every word multiplies the sum by 256. Sums here are in
network byte order; they may be added to one another before `complement` folds them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

MODULUS: Final = 0xFFFF
_NUMPY_FROM: Final = 600  # bytes from which a numpy sum is faster than one long division
WORD: Final = np.dtype("<u2")  # of which sums are made; a sum of such words stored as one is in network order again


def ones_sum(data: bytes | bytearray | memoryview) -> int:
    """The sum of `data` as 16-bit words, folded to 0..0xFFFE; an odd last byte is padded with a zero."""
    size = len(data)
    if size < _NUMPY_FROM:
        return (int.from_bytes(data) << 8 * (size & 1)) % MODULUS
    if size & 1:
        return (ones_sum(data[:-1]) + (data[-1] << 8)) % MODULUS
    return int(np.frombuffer(data, WORD).sum(dtype=np.int64)) * 256 % MODULUS


def complement(total: int) -> int:
    """The checksum to store for a sum. It is 0xFFFF instead of 0, which has the same value but means "none" in UDP."""
    return MODULUS - total % MODULUS


def checksum(data: bytes | bytearray | memoryview, initial: int = 0) -> int:
    """The checksum to store for `data`, whose checksum field holds zero or a pseudo header's sum. 1..0xFFFF."""
    return complement(ones_sum(data) + initial)


def pseudo_header_sum(addresses: bytes | bytearray | memoryview, protocol: int, length: int) -> int:
    """The sum of a TCP or UDP pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1), folded to 0..0xFFFE.

    `addresses` is source and destination together, 8 or 32 bytes; `length` is the transport header's and payload's.
    """
    return (ones_sum(addresses) + protocol + length) % MODULUS


class Rows:
    """The same range of bytes of many packets, as an array over their buffer, to sum each packet's."""

    __slots__ = ("_odd", "_words")

    def __init__(self, buffer: memoryview | bytearray, at: int, stride: int, count: int, length: int) -> None:
        """`length` bytes of each of `count` packets that are `stride` bytes apart; the first packet's begin at `at`."""
        self._words: npt.NDArray[Any] = np.ndarray((count, length // 2), WORD, buffer, at, (stride, 2))
        self._odd: npt.NDArray[Any] | None = None
        if length & 1:
            self._odd = np.ndarray((count,), np.uint8, buffer, at + length - 1, (stride,))

    def differences(self, total: int) -> npt.NDArray[np.uint32]:
        """How far each packet's sum is from `total`, with its bytes swapped; 0 where they are equal."""
        # The sum of 32,768 words fits into 32 bits, and a vector holds twice as many of those as of 64 bits.
        # ndarray.sum has a higher fixed cost.
        sums: npt.NDArray[np.uint32] = np.add.reduce(self._words, 1, np.uint32)
        if self._odd is not None:
            sums += self._odd
        if total:
            sums += (-total * 256) % MODULUS
        sums %= MODULUS
        return sums

    def store_checksums(self, column: npt.NDArray[np.uint16], initial: int = 0) -> None:
        """Store each packet's `checksum` into a column of WORDs."""
        np.subtract(MODULUS, self.differences(-initial), out=column, casting="same_kind")
