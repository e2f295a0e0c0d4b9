"""The virtual machine: whatever a test does to it, the next one finds a machine that answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import kernel_peer
from tests.support.kernel_peer import CARD, Guest
from tests.support.netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("kernel")]


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


def test_a_guest_that_hangs_or_crashes_is_booted_again(namespace: Namespace) -> None:
    with Guest(namespace) as guest:
        guest.run("ip", "link", "add", "wg0", "type", "wireguard")
        with pytest.raises(AssertionError, match="says nothing to sleep 60 within 1 s"):
            guest.run("sleep", "60", timeout=1)
        assert "wg0" not in guest.run("ip", "link")
        with pytest.raises(AssertionError, match="says nothing"):
            guest.run("poweroff", "-f")
        assert f"{CARD}: " in guest.run("ip", "link")
        with pytest.raises(AssertionError, match="exited with 1 in the guest"):
            guest.run("false")


def test_an_accelerator_that_does_not_work_is_skipped(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_peer, "ACCELERATORS", {"none-such": 20.0, "tcg": 300.0})
    with Guest(namespace) as guest:
        guest.run("true")
    monkeypatch.setattr(kernel_peer, "ACCELERATORS", {"none-such": 20.0})
    with pytest.raises(AssertionError, match="invalid accelerator none-such"):
        Guest(namespace)
