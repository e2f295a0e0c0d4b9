"""What `python -m tests.interop` was asked for: the program under test, what it runs against, and which scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.interop.programs import KINDS, judged, others
from tests.support.peers import StockTools, Wgpy

FAILED = pytest.StashKey[bool]()  # on an item: its test has failed
PACKETS = pytest.StashKey[Path]()  # on an item: where its packets are recorded


@dataclass(frozen=True)
class Kit:
    """The suite's own choice unless told otherwise: wgpy, every scenario, against the usual programs.

    `only` are patterns of scenarios' names. `packets` is the directory that keeps the packets of what fails.
    """

    name: str = "wgpy"
    tested: type[Wgpy | StockTools] = Wgpy
    against: Sequence[str] = ()
    only: Sequence[str] = ("*",)
    slow: bool = False
    packets: Path | None = None

    @property
    def tests_another(self) -> bool:
        return self.tested is not Wgpy

    def kind(self, program: str) -> type[Wgpy | StockTools]:
        return self.tested if program == self.name else KINDS[program]

    def programs(self, *, on_the_wire: bool = False, without_wgpy: bool = False) -> Sequence[str]:
        """Those a test runs against; of a test on the wire those that it judges."""
        if self.tests_another and on_the_wire:
            return [self.name]
        if self.against:
            return self.against
        if on_the_wire:
            return judged()
        return others() if without_wgpy else ["wgpy", *others()]

    def refusal(self, scenario: str, program: str | None) -> str | None:
        """Why this scenario is not run: what the program under test, or the one on the other side, cannot."""
        for kind in (self.tested, self.kind(program or self.name)):
            for pattern, reason in kind.cannot.items():
                if fnmatchcase(scenario, pattern):
                    return reason
        return None

    def wants(self, item: pytest.Item) -> bool:
        """Whether a test is run. One that only concerns wgpy says nothing about another program."""
        if self.tests_another and item.get_closest_marker("scenario") is None:
            return False
        if item.get_closest_marker("slow") is not None and not self.slow:
            return False
        return any(fnmatchcase(scenario_of(item), pattern) for pattern in self.only)


def scenario_of(item: pytest.Item) -> str:
    """Its name, as `--list` and the record have it."""
    return getattr(item, "originalname", item.name).removeprefix("test_")


def program_of(item: pytest.Item) -> str | None:
    """The program on the other side, or on the wire the one that is judged; None for what concerns our end alone."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("program") if callspec is not None else None


def variant_of(item: pytest.Item) -> str:
    """The parameters besides the program."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return ""
    words = [f"{name}={value}" for name, value in callspec.params.items() if name != "program"]
    return ", ".join(words)
