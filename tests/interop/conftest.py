"""Two namespaces and a cable, for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.netns import Namespace, veth_pair
from tests.support.peers import Side

OUTER4 = ("192.0.2.1", "192.0.2.2")
OUTER6 = ("2001:db8::1", "2001:db8::2")


@dataclass
class Cable:
    """Two sides that can reach each other; what a test opens is closed in reverse."""

    left: Side
    right: Side
    directory: Path
    cleanup: ExitStack

    def over_ipv6(self) -> None:
        self.left.outer, self.right.outer = OUTER6


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Cable]:
    with ExitStack() as cleanup:
        a, b = cleanup.enter_context(Namespace()), cleanup.enter_context(Namespace())
        veth_pair(a, b, ((f"{OUTER4[0]}/24", f"{OUTER6[0]}/64"), (f"{OUTER4[1]}/24", f"{OUTER6[1]}/64")))
        left = Side(a, OUTER4[0], "10.8.0.1", "fd08::1")
        right = Side(b, OUTER4[1], "10.8.0.2", "fd08::2", port=51821)
        yield Cable(left, right, tmp_path, cleanup)
