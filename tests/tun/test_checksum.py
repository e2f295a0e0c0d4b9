"""The checksum against RFC 1071's own example and against the slow twin."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.support import reference
from wgpy.tun.checksum import WORD, Rows, checksum, complement, ones_sum, pseudo_header_sum


def test_the_example_of_rfc_1071() -> None:
    assert ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF


@pytest.mark.parametrize("length", [1, 2, 3, 20, 39, 40, 599, 600, 601, 1419, 1420, 65535])
def test_agrees_with_adding_words_one_by_one(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert checksum(data) == reference.internet_checksum(data)
    assert checksum(memoryview(data)) == reference.internet_checksum(data)


def test_zero_is_stored_as_all_ones() -> None:
    assert checksum(b"\xff\xff" * 10) == checksum(b"\xff\xff" * 400) == complement(0) == 0xFFFF


@pytest.mark.parametrize(("a", "b"), [("10.0.0.1", "192.168.255.254"), ("2001:db8::1", "fe80::ffff")])
def test_pseudo_header(a: str, b: str) -> None:
    header = reference.pseudo_header(a, b, 17, 1234)
    addresses = header[:8] if len(header) == 12 else header[:32]
    assert complement(pseudo_header_sum(addresses, 17, 1234)) == reference.internet_checksum(header)


@pytest.mark.parametrize("length", [1, 2, 33, 1420])
@pytest.mark.parametrize("gap", [0, 1, 36])
def test_rows_with_gaps_between_them(length: int, gap: int) -> None:
    data = bytearray(random.Random(length).randbytes((length + gap) * 5))
    rows = Rows(data, 0, length + gap, 5, length)
    alone = [bytes(data[i * (length + gap) :][:length]) for i in range(5)]
    for initial in (0, 1, 0xFFFE, 123456):
        stored = np.zeros(5, WORD)
        rows.store_checksums(stored, initial)
        assert stored.tobytes() == b"".join(checksum(row, initial).to_bytes(2, "big") for row in alone)
    for total in (ones_sum(alone[3]), ones_sum(alone[3]) - 0xFFFF, 5):
        assert [not difference for difference in rows.differences(total)] == [
            ones_sum(row) == total % 0xFFFF for row in alone
        ]
