"""Draws docs/layers.svg, the picture of ARCHITECTURE.md, from the imports: python -m tests.support.layers.

A box is a package, or modules that belong together. Each box stands above all that it imports. An arrow is left out if
other arrows lead to the same box (the transitive reduction).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Final

from tests.test_layers import MODULES, imports, is_pure

PICTURE: Final = Path(__file__).parents[2] / "docs" / "layers.svg"
_VALUES: Final = ("constants", "errors", "keys", "burst", "endpoint", "fields", "config.redact")
_SEGMENTS: Final = ("tun.checksum", "tun.layout", "tun.virtio", "tun.splitting", "tun.merging")
_TOGETHER: Final = {
    **dict.fromkeys((f"wgpy.{name}" for name in _VALUES), "values"),
    **dict.fromkeys((f"wgpy.{name}" for name in _SEGMENTS), "tun: segments"),
    **dict.fromkeys(("wgpy.tunnel", "wgpy.configured", "wgpy.events", "wgpy.datapath"), "tunnel"),
    "wgpy.tun": "tun: devices",
    "wgpy.rootless.connect": "rootless.connect",
    **{
        f"wgpy.gateway.{name}": f"gateway.{name}"
        for name in ("policy", "store", "identity", "enforcement", "service", "web", "cli")
    },
}
_LEFT_OUT: Final = {"wgpy", "wgpy.__main__", "wgpy.config", "wgpy.tun", "wgpy.gateway"}  # pass names on
_STYLE: Final = """\
text{font:13px system-ui,sans-serif;fill:#24292f;text-anchor:middle}.pure{fill:#d8f3dc;stroke:#2d6a4f}
.impure{fill:#dbeafe;stroke:#1d4e89}path{fill:none;stroke:#8b949e;stroke-width:1.2}.note{text-anchor:start}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.pure{fill:#1b4332}.impure{fill:#1e3a5f}}"""
WIDTH, ROW, HEIGHT, SHIFT = 860, 64, 28, 46  # pixels


def room(module: str) -> str:
    """The box a module is drawn in: the longest prefix of its name that is named above, or its package."""
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        if found := _TOGETHER.get(".".join(parts[:length])):
            return found
    return parts[1]


def graph() -> dict[str, set[str]]:
    """What each box imports."""
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module not in _LEFT_OUT:
            used = (name for name in imports(path.read_text()) if name in MODULES and name not in _LEFT_OUT)
            found.setdefault(room(module), set()).update(room(name) for name in used)
    return {box: used - {box} for box, used in found.items()}


def reduced(used: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows beside which a longer way leads to the same box."""

    def reach(box: str) -> set[str]:
        return used[box].union(*(reach(below) for below in used[box]))

    return {box: below - set().union(*(reach(each) for each in below)) for box, below in used.items()}


def ranks(used: Mapping[str, set[str]]) -> dict[str, int]:
    """How high each box stands: one above the highest that it uses. Raises RecursionError if boxes use each other."""

    def rank(box: str) -> int:
        return max((rank(below) + 1 for below in used[box]), default=0)

    return {box: rank(box) for box in used}


def draw() -> str:
    """The picture."""
    used = graph()
    arrows, height = reduced(used), ranks(used)
    top = max(height.values())
    rows = [sorted(box for box in used if height[box] == top - number) for number in range(top + 1)]
    x: dict[str, float] = {}
    for up, row in enumerate(reversed(rows)):  # from the bottom, each box near those that it uses
        row.sort(key=lambda box: _mean(x[below] for below in arrows[box]))
        aside = SHIFT if up % 2 else -SHIFT  # long arrows pass beside boxes, and not behind them
        for number, box in enumerate(row):
            x[box] = WIDTH * (number + 0.5) / len(row) + aside
    y = {box: 20 + ROW * (top - height[box]) for box in used}
    pure = {room(module) for module in MODULES if module not in _LEFT_OUT and is_pure(module)}
    lines = [
        f'<path d="M{x[box]:.0f} {y[box] + HEIGHT} C{x[box]:.0f} {(y[box] + HEIGHT + y[below]) / 2:.0f} '
        f'{x[below]:.0f} {(y[box] + HEIGHT + y[below]) / 2:.0f} {x[below]:.0f} {y[below]}" marker-end="url(#tip)"/>'
        for box in sorted(arrows)
        for below in sorted(arrows[box])
    ]
    boxes = []
    for box in sorted(used):
        width = 24 + 7.5 * len(box)
        kind = "pure" if box in pure else "impure"
        corner = f'x="{x[box] - width / 2:.0f}" y="{y[box]}" width="{width:.0f}" height="{HEIGHT}" rx="5"'
        boxes.append(f'<rect class="{kind}" {corner}/>')
        boxes.append(f'<text x="{x[box]:.0f}" y="{y[box] + 19}">{escape(box)}</text>')
    bottom = 20 + ROW * (top + 1)
    note = "blue: talks to the system; green: pure, without clock, randomness, input or output"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 20}" width="{WIDTH}" role="img" '
            'aria-label="The packages of wgpy; each imports those that its arrows lead to">',
            f"<style>{_STYLE}</style>",
            '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0 L8 4 L0 8" style="fill:#8b949e"/></marker>',
            *lines,
            *boxes,
            f'<text class="note" x="8" y="{bottom + 8}">{note}</text>',
            "</svg>\n",
        ]
    )


def _mean(numbers: Iterable[float]) -> float:
    found = list(numbers)
    return sum(found) / len(found) if found else WIDTH / 2


if __name__ == "__main__":
    PICTURE.write_text(draw())
