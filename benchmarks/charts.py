"""Charts as plain SVG: bars and lines, readable in light and in dark, without a library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final, NamedTuple

Point = tuple[float, float]

# Colours that the colour-blind can tell apart (Okabe and Ito), on light and on dark; wgpy has the strongest.
COLOURS: Final = ("#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#999999", "#e69f00", "#8c7b00")
STYLE: Final = """\
text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:15px;font-weight:600}.faint{fill:#57606a}
.grid{stroke:#d0d7de}.axis{stroke:#57606a}.spread{stroke:#24292f}.line{fill:none;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.grid{stroke:#30363d}.axis{stroke:#9198a1}
.spread{stroke:#e6edf3}}"""
WIDTH: Final = 760  # pixels, as all numbers below
LABELS: Final = 280  # left of the bars
BAR: Final = 15
PLOT_HEIGHT: Final = 300


class Bar(NamedTuple):
    """A value, and the smallest and largest measurement."""

    series: str
    value: float
    low: float
    high: float


class Axis:
    """Maps values to pixels between `begin` and `end`, and chooses the values to label."""

    def __init__(self, values: Iterable[float], begin: float, end: float, *, log: bool = False) -> None:
        numbers = list(values)
        self._log, self._begin, self._end = log, begin, end
        if log:
            least, most = min(number for number in numbers if number > 0), max(numbers)
            self._low, self._high = float(floor(log10(least))), float(max(ceil(log10(most)), floor(log10(least)) + 1))
            self.ticks = [10.0**power for power in range(int(self._low), int(self._high) + 1)]
        else:
            step = _step(max(numbers, default=0.0) or 1.0)
            count = ceil((max(numbers, default=0.0) or 1.0) / step - 1e-9)
            self._low, self._high = 0.0, step * count
            self.ticks = [step * number for number in range(count + 1)]

    def __call__(self, value: float) -> float:
        place = (log10(max(value, 10**self._low)) if self._log else value) - self._low
        return self._begin + (self._end - self._begin) * place / (self._high - self._low)


def bars(title: str, unit: str, rows: Mapping[str, Sequence[Bar]], colours: Mapping[str, str]) -> str:
    """Horizontal bars, grouped by row; a thin line shows the spread."""
    axis = Axis((bar.high for group in rows.values() for bar in group), LABELS, WIDTH - 60)
    legend = [] if len(colours) < 2 else list(colours)
    body, top = _legend(legend, colours), 62.0 if legend else 44.0
    y = top
    for label, group in rows.items():
        middle = y + len(group) * BAR / 2
        body.append(_text(LABELS - 8, middle + 4, label, anchor="end"))
        for bar in group:
            body += _bar(bar, y, axis, colours[bar.series])
            y += BAR
        y += 10
    ticks = [_line(axis(tick), top - 6, axis(tick), y, "grid") for tick in axis.ticks]
    numbers = [_text(axis(tick), y + 16, _short(tick), anchor="middle", style="faint") for tick in axis.ticks]
    return _document(f"{title} ({unit})", y + 28, [*ticks, *body, *numbers])


def _bar(bar: Bar, y: float, axis: Axis, colour: str) -> list[str]:
    begin, end, middle = axis(0), axis(bar.value), y + BAR / 2
    tip = f"<title>{escape(bar.series)}: {_short(bar.value)}</title>"
    size = f'width="{end - begin:.1f}" height="{BAR - 2}"'
    box = f'<rect x="{begin:.1f}" y="{y + 1:.1f}" {size} fill="{colour}">{tip}</rect>'
    spread = _line(axis(bar.low), middle, axis(bar.high), middle, "spread")
    return [box, spread, _text(max(end, axis(bar.high)) + 5, middle + 4, _short(bar.value), style="faint")]


def lines(
    title: str,
    x_title: str,
    y_title: str,
    curves: Mapping[str, Sequence[Point]],
    colours: Mapping[str, str],
    *,
    log_x: bool = False,
    log_y: bool = False,
    x_ticks: Sequence[float] = (),
) -> str:
    """Curves over a common axis; either axis may be logarithmic."""
    top, left = 88.0, 64.0
    bottom = top + PLOT_HEIGHT
    points = [point for curve in curves.values() for point in curve]
    across = Axis((x for x, _ in points), left, WIDTH - 24, log=log_x)
    up = Axis((y for _, y in points), bottom, top, log=log_y)
    body = _legend(list(curves), colours)
    for tick in up.ticks:
        body.append(_line(left, up(tick), WIDTH - 24, up(tick), "grid"))
        body.append(_text(left - 6, up(tick) + 4, _short(tick), anchor="end", style="faint"))
    for tick in x_ticks or across.ticks:
        body.append(_line(across(tick), bottom, across(tick), bottom + 4, "axis"))
        body.append(_text(across(tick), bottom + 18, _short(tick), anchor="middle", style="faint"))
    body.append(_line(left, bottom, WIDTH - 24, bottom, "axis"))
    body.append(_text(WIDTH - 24, bottom + 36, x_title, anchor="end"))
    body.append(_text(8, top - 16, y_title))
    for name, curve in curves.items():
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in curve)
        tip = f"<title>{escape(name)}</title>"
        body.append(f'<polyline class="line" stroke="{colours[name]}" points="{path}">{tip}</polyline>')
        body += [
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colours[name]}">'
            f"<title>{escape(name)}: {_short(x)}, {_short(y)}</title></circle>"
            for x, y in curve
        ]
    return _document(title, bottom + 46, body)


def palette(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name."""
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}


def _legend(names: Sequence[str], colours: Mapping[str, str]) -> list[str]:
    parts, x = [], 8.0
    for name in names:
        parts.append(f'<rect x="{x:.0f}" y="34" width="12" height="12" rx="2" fill="{colours[name]}"/>')
        parts.append(_text(x + 17, 44, name))
        x += 34 + 6.6 * len(name)
    return parts


def _document(title: str, height: float, body: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img"'
    parts = [
        f'{head} aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        _text(8, 20, title, style="title"),
        *body,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _text(x: float, y: float, text: str, *, anchor: str = "start", style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def _step(most: float) -> float:
    """A round step that makes four to ten of `most`."""
    power: float = 10.0 ** floor(log10(most))
    return next(power * part for part in (0.2, 0.25, 0.5, 1.0) if most <= 10 * power * part)


def _short(value: float) -> str:
    if value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
