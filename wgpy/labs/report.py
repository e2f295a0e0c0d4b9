"""The results of labs, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a lab: `measured` is the figure, or what was observed."""

    lab: str
    what: str
    passed: bool
    measured: str

    def json(self) -> dict[str, Any]:
        return asdict(self)


def table(checks: Iterable[Check]) -> str:
    """A table with one row for each check. Long errors are shortened; they were printed in full when they happened."""
    rows = [("", "lab", "checked", "measured")]
    rows += [
        ("ok" if check.passed else "FAIL", check.lab, check.what, shorten(check.measured, 100, placeholder=" …"))
        for check in checks
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)
