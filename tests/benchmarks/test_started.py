"""What is measured was started as users start it, not forked from a server that has loaded it already."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_measured_program_is_forked(module: Path) -> None:
    assert re.findall(r"\bWgpy\b|\bforked", (ROOT / module).read_text()) == []
