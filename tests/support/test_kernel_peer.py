"""The virtual machine: whatever a test does to it, the next one finds a machine that answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import kernel_peer
from tests.support.kernel_peer import CARD, Guest
from tests.support.netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("kernel")]


# The first is none, so every boot of these tests goes past it.
ACCELERATORS = {"none-such": 20.0, **kernel_peer.ACCELERATORS}


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with pytest.MonkeyPatch.context() as patch, Namespace() as namespace:
        patch.setattr(kernel_peer, "ACCELERATORS", ACCELERATORS)
        with Guest(namespace) as guest:
            yield guest


def test_an_accelerator_that_does_not_work_is_skipped(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    guest.run("true")
    monkeypatch.setattr(kernel_peer, "ACCELERATORS", {"none-such": 20.0})
    with Namespace() as namespace, pytest.raises(AssertionError, match="invalid accelerator none-such"):
        Guest(namespace)


def test_a_guest_that_hangs_is_booted_again(guest: Guest) -> None:
    guest.run("ip", "link", "add", "wg0", "type", "wireguard")
    with pytest.raises(AssertionError, match="says nothing to sleep 60 within 1 s"):
        guest.run("sleep", "60", timeout=1)
    assert "wg0" not in guest.run("ip", "link")


def test_a_guest_that_crashes_is_booted_again(guest: Guest) -> None:
    with pytest.raises(AssertionError, match="says nothing"):
        guest.run("poweroff", "-f")
    assert f"{CARD}: " in guest.run("ip", "link")


def test_a_command_that_fails_in_a_guest_is_reported(guest: Guest) -> None:
    with pytest.raises(AssertionError, match="exited with 1 in the guest"):
        guest.run("false")
