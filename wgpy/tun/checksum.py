"""The Internet checksum (RFC 1071), of one packet and of every packet of a burst at once.

A one's complement sum of 16-bit words is the sum modulo 0xFFFF: 2**16 is 1 there, so a whole packet read as one big
number leaves the same remainder, and swapping the bytes of every word is multiplying by 256. Sums here are in network
byte order; they may be added to one another before they are folded by `complement`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

MODULUS: Final = 0xFFFF
_NUMPY_FROM: Final = 600  # bytes from which one numpy sum is cheaper than one long division
WORD: Final = np.dtype("<u2")  # of which sums are made: one that is stored as such a word lies in network order again

Rows = npt.NDArray[np.uint8]


def ones_sum(data: bytes | bytearray | memoryview) -> int:
    """The sum of `data` as 16-bit words, folded to 0..0xFFFE; an odd last byte is followed by a zero."""
    if len(data) & 1:
        return (ones_sum(data[:-1]) + (data[-1] << 8)) % MODULUS
    if len(data) < _NUMPY_FROM:
        return int.from_bytes(data, "big") % MODULUS
    return int(np.frombuffer(data, WORD).sum(dtype=np.int64)) * 256 % MODULUS


def complement(total: int) -> int:
    """The checksum to store for a sum: 0xFFFF in place of 0, which UDP keeps for "none" and which counts the same."""
    return MODULUS - total % MODULUS


def checksum(data: bytes | bytearray | memoryview, initial: int = 0) -> int:
    """The checksum to store for `data`, whose checksum field holds zero or a pseudo header's sum. 1..0xFFFF."""
    return complement(ones_sum(data) + initial)


def pseudo_header_sum(addresses: bytes | bytearray | memoryview, protocol: int, length: int) -> int:
    """The sum of a TCP or UDP pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1), folded to 0..0xFFFE.

    `addresses` is source and destination together, 8 or 32 bytes; `length` is the transport header's and payload's.
    """
    return (ones_sum(addresses) + protocol + length) % MODULUS


def store_checksums(rows: Rows, column: npt.NDArray[np.uint16], initial: int = 0) -> None:
    """Store `checksum` of each row of a (count, length) array into a column of WORDs; rows may lie apart."""
    sums = sums_beyond(rows, -initial)
    np.subtract(MODULUS, sums, out=column, casting="same_kind")


def sums_beyond(rows: Rows, total: int) -> npt.NDArray[np.uint32]:
    """How far each row's sum is from `total`, in the wrong byte order: 0 where they are the same."""
    sums = _swapped_sums(rows)
    sums += (-total * 256) % MODULUS
    sums %= MODULUS
    return sums


def _swapped_sums(rows: Rows) -> npt.NDArray[np.uint32]:
    """The sum of each row in the wrong byte order, not folded."""
    length = rows.shape[1]
    words: npt.NDArray[Any] = rows[:, : length & ~1].view(WORD)
    # 32,768 words fit into 32 bits, of which a vector holds twice as many as of 64; ndarray.sum is slower to begin.
    sums: npt.NDArray[np.uint32] = np.add.reduce(words, 1, np.uint32)
    if length & 1:
        sums += rows[:, -1]
    return sums
