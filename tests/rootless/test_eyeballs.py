"""Happy eyeballs, in virtual time: the order, the delays, and that nothing stays open."""

from __future__ import annotations

import asyncio

import pytest

from wgpy import virtual
from wgpy.errors import TunnelClosedError
from wgpy.rootless.eyeballs import first_of, interleaved


class Attempts:
    """`addresses` are (seconds, error or None): what each attempt does."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []
        self.open: list[str] = []

    async def attempt(self, address: tuple[str, float, OSError | None]) -> str:
        name, seconds, error = address
        loop = asyncio.get_running_loop()
        self.begun.append((name, round(loop.time() - self.start, 3)))
        await asyncio.sleep(seconds)
        if error is not None:
            raise error
        self.open.append(name)
        return name

    async def run(self, *addresses: tuple[str, float, OSError | None]) -> str:
        self.start = asyncio.get_running_loop().time()
        return await first_of(addresses, self.attempt, self.open.remove)


def test_address_families_alternate() -> None:
    assert interleaved(["a6", "b6", "c6", "a4", "b4"], lambda name: name[1]) == ["a6", "a4", "b6", "b4", "c6"]


def test_a_silent_address_costs_a_quarter_of_a_second() -> None:
    attempts = Attempts()
    assert virtual.run(attempts.run(("silent", 100, None), ("good", 0.1, None), ("never", 0, None))) == "good"
    assert attempts.begun == [("silent", 0.0), ("good", 0.25)]
    assert attempts.open == ["good"]


def test_a_refused_address_costs_no_time() -> None:
    attempts = Attempts()
    assert virtual.run(attempts.run(("refused", 0.01, ConnectionRefusedError()), ("good", 0.1, None))) == "good"
    assert attempts.begun == [("refused", 0.0), ("good", 0.01)]


def test_of_two_that_answer_at_once_one_is_closed() -> None:
    attempts = Attempts()
    virtual.run(attempts.run(("one", 0.5, None), ("other", 0.25, None)))
    assert len(attempts.open) == 1


def test_the_last_error_is_raised_and_a_closed_tunnel_at_once() -> None:
    last = TimeoutError("last")
    with pytest.raises(TimeoutError, match="last"):
        virtual.run(Attempts().run(("one", 0.01, ConnectionRefusedError()), ("other", 0.5, last)))
    attempts = Attempts()
    with pytest.raises(TunnelClosedError):
        virtual.run(attempts.run(("one", 0.01, TunnelClosedError()), ("other", 0.5, None)))
    assert len(attempts.begun) == 1
