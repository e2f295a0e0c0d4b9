"""Who is let in, and who makes room: the rules, without a socket."""

from __future__ import annotations

import logging
import resource
from collections import Counter

import pytest

from wgpy.net.admission import ULIMIT, Admission, Admitted, client_of, descriptors


class Clients:
    """Clients of one Admission, and whose connections were closed, in order."""

    def __init__(self, capacity: int) -> None:
        self.now = 0.0
        self.admission = Admission(capacity, ULIMIT, clock=lambda: self.now)
        self.closed: list[str] = []

    def admit(self, client: str, name: str = "", cost: int = 1) -> Admitted:
        return self.admission.admit(client, cost, lambda: self.closed.append(name or client))


def test_many_listeners_leave_half_of_the_descriptors_for_connections() -> None:
    """Fifteen forwards with the usual limit of files had five connections together, and broke those in use."""
    admission = Clients(960).admission
    admission.reserve(65)
    assert admission.capacity == 895
    for _ in range(30):
        admission.reserve(65)
    assert admission.capacity == 480


def test_the_client_with_the_most_connections_makes_room_and_unused_ones_go_first() -> None:
    clients = Clients(6)
    used = [clients.admit("a", f"a{number}") for number in range(3)]
    for each in (used[1], used[0], used[2], used[1]):
        each.touch()
    clients.admit("a", "fresh")
    for _ in range(2):
        clients.admit("b")
    b = clients.admit("b")
    clients.admit("c")
    assert clients.closed == ["fresh", "a0"]
    b.release()
    clients.admit("c")
    used[1].touch()
    clients.admit("d")
    assert clients.closed[2:] == ["b"], "of clients that hold as many, the one idle for longest"
    assert clients.admission.used == 6


def test_one_client_cannot_block_others_or_be_counted_twice() -> None:
    clients = Clients(100)
    kept = [clients.admit(f"quiet {number}") for number in range(20)]
    for _ in range(1000):
        clients.admit("greedy", cost=3)
    assert set(clients.closed) == {"greedy"}
    for each in kept:
        each.release()
        each.release()
    assert clients.admission.used <= 80
    assert clients.admission.used % 3 == 0


def test_closed_connections_are_given_back_and_their_clients_forgotten() -> None:
    clients = Clients(50)
    held = [clients.admit(str(number % 7), cost=1 + number % 4) for number in range(500)]
    for each in held:
        each.touch()
        each.release()
        each.touch()
    assert clients.admission.used == 0
    assert not clients.admission._holdings
    assert not clients.admission._by_size


def test_making_room_takes_no_more_steps_for_ten_thousand_clients_than_for_ten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: Counter[int] = Counter()
    resize = Admission._resize

    def counted(self: Admission, client: str, change: int) -> None:
        steps[self.capacity] += 1
        resize(self, client, change)

    monkeypatch.setattr(Admission, "_resize", counted)
    for capacity in (10, 10_000):
        clients = Clients(capacity)
        for number in range(capacity):
            clients.admit(str(number))
        steps.clear()
        for number in range(100):
            clients.admit(f"new {number}")
        assert steps[capacity] == 200  # one in, one out


def test_being_full_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clients = Clients(1)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            clients.admit("a")
        assert len(caplog.records) == 1
        assert "ulimit -n" in caplog.text
        clients.now = 61
        clients.admit("a")
        assert len(caplog.records) == 2


@pytest.mark.parametrize(("soft", "capacity"), [(64, 16), (1024, 960), (1 << 20, 8128), (resource.RLIM_INFINITY, 8128)])
def test_the_capacity_follows_from_the_limit_of_files(
    soft: int, capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert descriptors() == capacity


@pytest.mark.parametrize(
    ("address", "client"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("2001:db8::1:2", 5, 0, 0), "2001:db8::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_client_is_a_host_or_a_network_of_64_bits(address: object, client: str) -> None:
    assert client_of(address) == client
