"""Explicit congestion notification (RFC 3168): routers mark packets where they would soon drop them."""

from __future__ import annotations

from typing import Final

from wgpy.stack.tcp.header import ACK, CWR, ECE

_PLAIN_FROM: Final = 2  # the try with which a SYN does without: some paths drop those that ask (RFC 3168, 6.1.1.1)


class Marks:
    """Whether both sides take part, and what is to be told: that we saw a mark, that we heeded one."""

    __slots__ = ("_echoes", "_has_reduced", "takes_part")

    def __init__(self) -> None:
        self.takes_part: bool = True  # asked for, until the peer's SYN has answered
        self._echoes = self._has_reduced = False

    def asked(self, tries: int, *, is_answer: bool) -> int:
        """The flags of a SYN, or of its answer, after `tries` that were lost."""
        if not self.takes_part or tries >= _PLAIN_FROM:
            return 0
        return ECE if is_answer else ECE | CWR

    def learn(self, flags: int) -> None:
        """The peer's SYN, or its answer to ours, bears these."""
        self.takes_part = flags & (ECE | CWR) == (ECE if flags & ACK else ECE | CWR) and self.takes_part

    def arrived(self, flags: int, *, is_marked: bool) -> bool:
        """A segment has come; whether the peer was told of a mark on what we sent."""
        if not self.takes_part:
            return False
        if flags & CWR:
            self._echoes = False
        self._echoes = self._echoes or is_marked
        return bool(flags & ECE)

    def reduced(self) -> None:
        """The window was made smaller for a mark: the peer need tell no more."""
        self._has_reduced = True

    def flags(self, *, has_new_data: bool) -> int:
        """The flags of a segment that leaves."""
        told = ECE if self._echoes else 0
        if self._has_reduced and has_new_data:
            self._has_reduced = False
            told |= CWR
        return told
