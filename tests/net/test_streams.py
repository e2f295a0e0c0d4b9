"""Streams of asyncio that end in unusual ways."""

from __future__ import annotations

import asyncio
import gc
from typing import Any, cast

import pytest

from wgpy.errors import TunnelClosedError
from wgpy.net.streams import close


class _Writer:
    """Of a connection whose end is an error that comes late."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """Nothing happens yet."""

    async def wait_closed(self) -> None:
        await self.ended


def test_who_no_longer_waits_for_a_connections_end_is_not_told_how_it_ended() -> None:
    """Python 3.14 logs what the future in `shield` raises after the wait was cancelled."""
    said: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))
        writer = _Writer()
        closing = asyncio.create_task(close(cast(asyncio.StreamWriter, writer)))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not writer.ended.cancelled()
        writer.ended.set_exception(TunnelClosedError("the tunnel was closed"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())
    assert said == []
