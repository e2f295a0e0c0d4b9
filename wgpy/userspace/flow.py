"""How the stack's transports hold back a protocol that writes faster than packets leave."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any, Final

_HIGH_WATER: Final = 64 << 10  # bytes that wait: asyncio's own limits


class FlowControl(asyncio.WriteTransport):
    """The part of a transport that has limits for what waits, and tells its protocol of them."""

    _loop: asyncio.AbstractEventLoop
    _protocol: Any
    _writes_paused = False
    _low, _high = _HIGH_WATER // 4, _HIGH_WATER

    @abstractmethod
    def get_write_buffer_size(self) -> int: ...

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low

    def _pause_writes(self) -> None:
        """Hold the protocol back if too much waits."""
        if not self._writes_paused and self.get_write_buffer_size() > self._high:
            self._writes_paused = True
            self._call("pause_writing")

    def _resume_writes(self) -> None:
        """Let the protocol go on if little waits."""
        if self._writes_paused and self.get_write_buffer_size() <= self._low:
            self._writes_paused = False
            self._call("resume_writing")

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a method of the protocol; what it raises is the loop's to report."""
        try:
            getattr(self._protocol, name)(*arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report(error, f"protocol.{name}() failed")

    def _report(self, error: BaseException, message: str) -> None:
        context = {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        self._loop.call_exception_handler(context)
