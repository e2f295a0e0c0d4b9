"""Tickets that browsers keep for the gateway."""

from __future__ import annotations

import pytest

from wgpy.gateway.identity import tickets
from wgpy.gateway.store.vault import Vault

VAULT = Vault(b"k" * 32)


def test_a_ticket_is_read_back_within_its_time_for_its_purpose() -> None:
    text = tickets.issue(VAULT, "go on", 1000.0, user="alice")
    assert "alice" not in text
    assert tickets.read(VAULT, "go on", text, 1059.0, 60.0) == ({"user": "alice"}, 1000.0)
    assert tickets.read(VAULT, "go on", text, 1060.0, 60.0) is None
    assert tickets.read(VAULT, "go on", text, 999.0, 60.0) is None, "the clock was set back"
    assert tickets.read(VAULT, "do something else", text, 1000.0, 60.0) is None
    assert tickets.read(Vault(b"j" * 32), "go on", text, 1000.0, 60.0) is None


@pytest.mark.parametrize("text", ["", "a", "abcd", "\udcff", "é", "A" * 100, "=" * 100])
def test_what_is_no_ticket_is_refused(text: str) -> None:
    assert tickets.read(VAULT, "go on", text, 1000.0, 60.0) is None


def test_a_changed_ticket_is_refused() -> None:
    text = tickets.issue(VAULT, "go on", 1000.0, user="alice")
    for place in range(0, len(text), 7):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        assert tickets.read(VAULT, "go on", changed, 1000.0, 60.0) is None
