"""Endpoints by name: found again when the name moves or the peer does not answer. No packet leaves this process."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from wgpy.config.values import EndpointName
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.net import names
from wgpy.net.names import Names
from wgpy.net.resolve import MAX_LOOKUPS, look_up

KEY, OTHER = PublicKey(b"k" * 32), PublicKey(b"o" * 32)
NAME = EndpointName(host="peer.example", port=51820)
OLD, NEW, SIX = Endpoint("192.0.2.1", 51820), Endpoint("192.0.2.2", 51820), Endpoint("2001:db8::1", 51820)


class Resolver:
    """Answers for peer.example; counts the questions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[str] = ["192.0.2.1"]
        self.questions = 0
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        self.questions += 1
        assert host == "peer.example"
        if not self.answers:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [(0, 0, 0, "", (a, port, 0, 0) if ":" in a else (a, port)) for a in self.answers]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    monkeypatch.setattr(names, "INTERVAL", 0.02)
    monkeypatch.setattr(names, "PATIENCE", 0.0)
    return Resolver(monkeypatch)


def moves(*steps: Any, of: dict[PublicKey, EndpointName] | None = None, regularly: bool = False) -> list[Endpoint]:
    """Where the peer was moved to while the steps were taken, with time for lookups after each."""
    found: list[Endpoint] = []

    async def main() -> None:
        watch = Names({KEY: NAME} if of is None else of, lambda key, endpoint: found.append(endpoint))
        if regularly:
            watch.start()
        for step in steps:
            await asyncio.sleep(0.05)
            step(watch)
        await asyncio.sleep(0.1)
        watch.close()

    asyncio.run(main())
    return found


def test_a_silent_peer_moves_to_where_its_name_points_now(resolver: Resolver) -> None:
    resolver.answers = ["192.0.2.2"]
    assert moves(lambda watch: watch.unanswered(KEY, OLD)) == [NEW]


def test_a_silent_peer_whose_name_still_points_there_stays(resolver: Resolver) -> None:
    assert moves(lambda watch: watch.unanswered(KEY, OLD)) == []
    assert resolver.questions == 1


def test_a_silent_peer_is_tried_at_the_next_address_of_its_name(resolver: Resolver) -> None:
    resolver.answers = ["192.0.2.1", "2001:db8::1"]
    assert moves(lambda watch: watch.unanswered(KEY, OLD), lambda watch: watch.unanswered(KEY, SIX)) == [SIX, OLD]


def test_a_peer_follows_its_name(resolver: Resolver) -> None:
    def renumber(_: Names) -> None:
        resolver.answers = ["192.0.2.2"]

    assert moves(renumber, regularly=True) == [NEW]


def test_answers_in_another_order_move_no_peer(resolver: Resolver) -> None:
    resolver.answers = ["192.0.2.1", "192.0.2.2"]
    assert moves(lambda _: resolver.answers.reverse(), regularly=True) == []


def test_a_resolver_that_fails_moves_no_peer(resolver: Resolver) -> None:
    assert moves(lambda _: resolver.answers.clear(), lambda watch: watch.unanswered(KEY, OLD), regularly=True) == []
    assert resolver.questions > 2


def test_a_peer_that_was_given_an_address_no_longer_follows_its_name(resolver: Resolver) -> None:
    resolver.answers = ["192.0.2.2"]
    assert moves(lambda watch: watch.forget(KEY), lambda watch: watch.unanswered(KEY, OLD)) == []


def test_addresses_are_not_looked_up(resolver: Resolver) -> None:
    for host in ("192.0.2.1", "2001:db8::1", "fe80::1%eth0"):
        of = {KEY: EndpointName(host=host, port=1)}
        assert moves(lambda watch: watch.unanswered(KEY, OLD), of=of, regularly=True) == []
    assert moves(lambda watch: watch.unanswered(OTHER, OLD)) == []
    assert resolver.questions == 0


def test_a_silent_peer_does_not_cause_many_lookups(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "PATIENCE", 60.0)
    moves(*[lambda watch: watch.unanswered(KEY, OLD)] * 4)
    assert resolver.questions == 1


ENDING = """
import asyncio, socket, threading
from wgpy.config.values import EndpointName
from wgpy.net.resolve import look_up
asked = threading.Event()
socket.getaddrinfo = lambda *_, **__: asked.set() or threading.Event().wait()
async def main():
    looking = asyncio.create_task(look_up(EndpointName(host="peer.example", port=1)))
    await asyncio.to_thread(asked.wait)
    looking.cancel()
asyncio.run(main())
print("ended")
"""


def test_a_process_can_end_while_the_resolver_is_silent() -> None:
    """`wgpy down` and systemd wait for a daemon that may be looking up a name."""
    ended = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=20, check=True)
    assert (ended.stdout, ended.stderr) == ("ended\n", "")


def test_few_lookups_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, lock, full = 0, 0, threading.Lock(), threading.Barrier(MAX_LOOKUPS)

    def ask(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait(20)
        with lock:
            running -= 1
        return [(0, 0, 0, "", ("192.0.2.1", 1))]

    async def main() -> None:
        await asyncio.gather(*(look_up(NAME) for _ in range(4 * MAX_LOOKUPS)))

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    asyncio.run(main())
    assert most == MAX_LOOKUPS
