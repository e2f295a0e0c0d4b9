"""Indices: random, in use once at a time, and free again after removal."""

from __future__ import annotations

from functools import partial
from random import Random

from wgpy.device.indextable import IndexTable, random_index
from wgpy.device.keypair import Keypair
from wgpy.noise.handshake import SessionKeys


def scripted(*draws: int) -> IndexTable[str]:
    """A table that draws these indices, and fails the test when it asks for more."""
    return IndexTable(partial(next, iter(draws)))


def test_an_index_is_four_random_bytes() -> None:
    assert random_index(lambda size: b"\xef\xbe\xad\xde"[:size]) == 0xDEADBEEF


def test_an_index_is_the_one_drawn() -> None:
    indices = scripted(0xDEADBEEF)
    assert indices.insert("a") == 0xDEADBEEF
    assert indices.get(0xDEADBEEF) == ("a", None)


def test_an_index_in_use_is_drawn_again() -> None:
    indices = scripted(7, 7, 7, 9)
    assert [indices.insert("a"), indices.insert("b")] == [7, 9]
    assert [indices.get(7), indices.get(9)] == [("a", None), ("b", None)]


def test_a_removed_index_is_unknown_and_can_be_drawn_again() -> None:
    indices = scripted(7, 7)
    indices.insert("a")
    indices.remove(7)
    assert indices.get(7) is None
    assert len(indices) == 0
    assert indices.insert("b") == 7


def test_removing_a_free_index_does_nothing() -> None:
    indices = scripted(7)
    indices.insert("a")
    indices.remove(8)
    indices.remove(8)
    assert len(indices) == 1


def test_a_session_keeps_the_index_of_its_handshake() -> None:
    indices = scripted(7)
    indices.insert("a")
    keypair = Keypair(SessionKeys(bytes(32), bytes(32), 7, 8, is_initiator=True), 0.0)
    indices.establish(keypair)
    assert indices.get(7) == ("a", keypair)
    assert len(indices) == 1


def test_many_entries_all_get_different_indices() -> None:
    indices: IndexTable[int] = IndexTable(partial(random_index, Random(1).randbytes))
    drawn = [indices.insert(entry) for entry in range(50)]
    assert len(set(drawn)) == len(indices) == 50
    assert all(0 <= index < 1 << 32 for index in drawn)
    assert [indices.get(index) for index in drawn] == [(entry, None) for entry in range(50)]
