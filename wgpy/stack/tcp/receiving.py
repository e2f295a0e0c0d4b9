"""The receiving half of a connection: order, window, acknowledgements (RFC 9293, 3.8.6; RFC 2018; RFC 5681, 4.2).

Offsets count the peer's sequence numbers from its SYN, which is 0.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from math import inf
from typing import Final

from wgpy.stack.memory import Budget

CAPACITY: Final = 4 << 20  # bytes: what one connection may have received and not read
LEAST_WINDOW: Final = 16 << 10  # what every connection may have, however much the others hold
FIRST_WINDOW: Final = 64 << 10  # at the beginning; then twice what was read, as fast as the peer's slow start can be
MAX_BLOCKS: Final = 256  # gaps that are remembered, and
MAX_PIECES: Final = 4096  # pieces behind gaps: what comes beyond is sent again later
DELAYED_ACK: Final = 0.04  # seconds: the kernel's TCP_DELACK_MIN
_QUICK_ACKS: Final = 16  # at the beginning, so that the peer's slow start is not held up (tcp_input.c)
_SMALL: Final = 2048  # bytes: pieces shorter than that are joined, for each object costs as much as a hundred bytes
_JOINED: Final = 1 << 16
_MAX_SACKS: Final = 3  # beside timestamps, RFC 2018, 3


class _Block:
    """Bytes that have come behind a gap."""

    __slots__ = ("end", "pieces", "start")

    def __init__(self, start: int, piece: bytes) -> None:
        self.start = start
        self.end = start + len(piece)
        self.pieces = deque((piece,))


class Receiver:
    """What one peer sent: in order for the application, out of order until the gaps are filled."""

    __slots__ = (
        "_blocks", "_budget", "_consumed", "_is_over", "_newest", "_pieces", "_quick", "_segment", "_starts",
        "_unacknowledged", "ack_at", "ack_now", "duplicate", "edge", "fin_at", "is_finished", "next", "scale",
        "unread", "unread_size",
    )  # fmt: skip

    def __init__(self, budget: Budget, segment: int) -> None:
        """`segment` is the payload of a full segment, in bytes."""
        self._budget = budget
        self._segment = segment
        self.next: int = 0  # the first byte that has not come
        self._consumed = 0  # by the application
        self.edge: int = 0  # the first byte that the peer may not send yet
        self.scale: int = 0
        self.unread: list[bytes | bytearray] = []  # an empty deque takes 760 bytes
        self.unread_size: int = 0
        self._blocks: list[_Block] = []
        self._starts: list[int] = []  # theirs
        self._pieces = 0
        self._newest: list[int] = []  # offsets in the blocks that changed last
        self.duplicate: tuple[int, int] | None = None  # to be told once (RFC 2883)
        self.fin_at: int | None = None
        self.is_finished: bool = False  # all has come, the FIN too
        self.ack_now: bool = False
        self.ack_at: float = inf
        self._unacknowledged = 0  # bytes
        self._quick = _QUICK_ACKS
        self._is_over = False

    def begin(self, scale: int) -> None:
        """The peer's SYN has come: its data follows."""
        self.next = self._consumed = self.edge = 1
        self.scale = scale
        self.edge += self._budget.take(LEAST_WINDOW, LEAST_WINDOW)  # more when it is established: a SYN costs nothing

    # From the peer.

    def accepts(self, start: int, length: int) -> bool:
        """Whether some of a segment of `length` sequence numbers lies in the window (RFC 9293, 3.10.7.4, first)."""
        if not length:
            return self.next <= start <= self.edge
        return start < max(self.edge, self.next + 1) and start + length > self.next

    def take(self, start: int, payload: bytes, *, is_last: bool, now: float) -> bool:
        """Take in payload from offset `start` on; `is_last`: a FIN follows it. Whether the application has news."""
        end = start + len(payload)
        if is_last and self.fin_at is None:
            self.fin_at = end
        if self.fin_at is not None and end > self.fin_at:  # nothing comes after a FIN
            payload = payload[: max(0, self.fin_at - start)]
        if start + len(payload) > self.edge:
            payload = payload[: max(0, self.edge - start)]
        end = start + len(payload)
        if payload and start < self.next:
            self.duplicate = (start, min(end, self.next))
            self.ack_now = True
            payload, start = payload[self.next - start :], self.next
        if payload and start > self.next:
            self._store(start, payload)
            self.ack_now = True
            return False
        before = self.next
        if payload:
            self._append(payload)
            self._unacknowledged += len(payload)
        if self._blocks:
            self.ack_now = True
            self._fill()
        if self.next == self.fin_at and not self.is_finished:
            self.next += 1
            self.is_finished = self.ack_now = True
        elif self._unacknowledged > self._segment or self._quick > 0:
            self._quick -= 1
            self.ack_now = self.ack_now or self._unacknowledged > 0
        elif self._unacknowledged and self.ack_at == inf:
            self.ack_at = now + DELAYED_ACK
        return self.next > before

    def repeated(self, start: int, end: int) -> None:
        """A segment was of no use: tell the peer at once what came twice (RFC 2883)."""
        self.ack_now = True
        if start < end <= self.next:
            self.duplicate = (start, end)

    def _append(self, payload: bytes | bytearray) -> None:
        size = len(payload)
        self.next += size
        self.unread_size += size
        last = self.unread[-1] if self.unread else b""
        if size < _SMALL and isinstance(last, bytearray) and len(last) < _JOINED:
            last += payload
        else:
            self.unread.append(bytearray(payload) if size < _SMALL and self.unread else payload)

    def _fill(self) -> None:
        """Take what lies in the first block, if its gap is filled."""
        while self._blocks and self._starts[0] <= self.next:
            block = self._blocks.pop(0)
            del self._starts[0]
            self._pieces -= len(block.pieces)
            skip = self.next - block.start
            for piece in block.pieces:
                if skip >= len(piece):
                    skip -= len(piece)
                    continue
                self._append(piece[skip:] if skip else piece)
                skip = 0

    def _store(self, start: int, payload: bytes) -> None:
        """Keep what came behind a gap, without what is there already: what came first stays."""
        end, is_new = start + len(payload), False
        i = bisect_right(self._starts, start)
        if i and self._blocks[i - 1].end > start:
            self._note(start)
            cut = min(self._blocks[i - 1].end, end)
            self.duplicate = (start, cut)
            payload, start = payload[cut - start :], cut
        while start < end:
            gap_end = min(end, self._starts[i]) if i < len(self._starts) else end
            if gap_end > start:
                if self._pieces >= MAX_PIECES:
                    return
                piece = payload[: gap_end - start]
                i = self._insert(i, start, piece)
                is_new = True
                payload, start = payload[len(piece) :], gap_end
            if start < end and i < len(self._blocks):
                skip = min(self._blocks[i].end, end) - start
                payload, start, i = payload[skip:], start + skip, i + 1
        if is_new:
            self._note(end - 1)

    def _note(self, offset: int) -> None:
        """The block with this offset has changed last."""
        i = bisect_right(self._starts, offset) - 1
        if i >= 0:
            start, end = self._starts[i], self._blocks[i].end
            others = [other for other in self._newest if not start <= other < end]
            self._newest = [offset, *others][:_MAX_SACKS]

    def _insert(self, i: int, start: int, piece: bytes) -> int:
        """Put a piece before block i, which begins behind it; returns which block holds what follows the piece."""
        left = self._blocks[i - 1] if i and self._blocks[i - 1].end == start else None
        right = self._blocks[i] if i < len(self._blocks) and self._starts[i] == start + len(piece) else None
        self._pieces += 1
        if left is not None:
            left.pieces.append(piece)
            left.end += len(piece)
            if right is None:
                return i
            del self._blocks[i], self._starts[i]
            if len(left.pieces) >= len(right.pieces):
                left.pieces.extend(right.pieces)
            else:  # the shorter is moved, so that no order of arrival makes this quadratic
                right.pieces.extendleft(reversed(left.pieces))
                left.pieces = right.pieces
            left.end = right.end
            return i - 1
        if right is not None:
            right.pieces.appendleft(piece)
            right.start = self._starts[i] = start
            return i
        if len(self._blocks) >= MAX_BLOCKS:
            self._pieces -= 1
            return i
        self._blocks.insert(i, _Block(start, piece))
        self._starts.insert(i, start)
        return i + 1

    # To the peer.

    def window(self) -> int:
        """The window to tell, in bytes, of which the header can say what `scale` leaves."""
        self._open()
        return max(0, self.edge - self.next)  # a FIN may have taken one more

    @property
    def _capacity(self) -> int:
        """Bytes that may have come and not been read at present."""
        capacity = 2 * self._consumed
        return FIRST_WINDOW if capacity < FIRST_WINDOW else capacity if capacity < CAPACITY else CAPACITY

    def _open(self) -> None:
        """Move the right edge on, in steps worth telling (RFC 9293, 3.8.6.2.2)."""
        free = self._consumed + self._capacity - self.edge
        if self._is_over or free < self._segment:
            return
        self.edge += self._budget.take(free, max(0, LEAST_WINDOW - (self.edge - self._consumed)))

    def acknowledged(self) -> None:
        """An acknowledgement of all that has come is on its way."""
        self.ack_now, self.ack_at, self._unacknowledged = False, inf, 0
        self.duplicate = None

    def blocks(self) -> list[tuple[int, int]]:
        """What to tell of gaps: a duplicate first (RFC 2883), then the blocks that changed last."""
        if not self._blocks and self.duplicate is None:
            return []
        told: list[tuple[int, int]] = [self.duplicate] if self.duplicate else []
        for offset in self._newest:
            i = bisect_right(self._starts, offset) - 1
            if i >= 0 and offset < self._blocks[i].end:
                block = self._starts[i], self._blocks[i].end
                told.append(block)
        return told[:_MAX_SACKS]

    # To the application.

    def read(self) -> bytes:
        """The oldest bytes that were not read, as many as came together; empty if there are none."""
        if not self.unread:
            return b""
        data = bytes(self.unread.pop(0))
        self.unread_size -= len(data)
        self._consumed += len(data)
        self._budget.give_back(len(data))
        told = self.edge
        self._open()
        if self.edge - told >= LEAST_WINDOW and told - self.next < self._capacity // 2:
            self.ack_now = True  # the peer may be waiting for room
        return data

    def finish(self) -> None:
        """Nothing more will come: what is not read is all that is held from now on."""
        if self._is_over:
            return
        self._is_over = True
        self._budget.give_back(self.edge - self._consumed - self.unread_size)
        self._blocks.clear()
        self._starts.clear()
        self._pieces = 0

    def discard(self) -> None:
        """Nobody will read any more."""
        self.finish()
        self._budget.give_back(self.unread_size)
        self.unread.clear()
        self.unread_size = 0
