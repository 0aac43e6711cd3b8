"""How figures look: marks, style, and SVG whose colours are CSS variables, so that they follow dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffcern.report.summary import SOURCE

# matplotlib draws with these placeholder colours; `to_svg` puts the CSS variables in their place.
INK, MUTED, LINE = "#0c0c0c", "#0b0b0b", "#0a0a0a"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)"}
SHAPES = [("o", "●"), ("s", "■"), ("D", "◆"), ("^", "▲"), ("v", "▼"), ("P", "✚"), ("X", "✖"), ("<", "◀")]
COLOURS = 7  # --e1 ... --e7 of the style sheet, one fewer than shapes: pairs recur late; source has its own grey
WIDTH, HEIGHT = 5.4, 3.4  # inches
FRAME = 1.35  # what a figure's title, caption and padding add to its height
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: crisp, searchable, in the page's font
    "text.parse_math": False,  # a "$" in a name is a dollar
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "text.color": INK,
}


@dataclass(frozen=True)
class Mark:
    """How an entry looks in every figure and table: colour and shape, so that neither is needed alone."""

    css: str
    marker: str
    glyph: str
    placeholder: str


def marks(entries: Sequence[str]) -> dict[str, Mark]:
    """A mark for each entry, stable under the order given."""
    others = [entry for entry in entries if entry != SOURCE]
    numbers = {SOURCE: 0, **{entry: i + 1 for i, entry in enumerate(others)}}
    found = {}
    for entry in entries:
        i = numbers[entry]
        css = f"var(--e{(i - 1) % COLOURS + 1})" if i else "var(--source)"
        marker, glyph = SHAPES[i % len(SHAPES)]
        found[entry] = Mark(css, marker, glyph, f"#0e{i:04x}")
    return found


@dataclass(frozen=True)
class Plot:
    """A figure of the report."""

    title: str
    caption: str
    svg: str
    tall: bool = False


@contextmanager
def new_figure(height: float) -> Iterator[tuple[Figure, Axes]]:
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.add_subplot()


def to_svg(figure: Figure, name: str, entries: Sequence[str]) -> str:
    """The figure as an SVG element: deterministic, transparent, its ids unique on the page."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)  # HTML knows both
    svg = re.sub(r'(?<=[ :])(id="|href="#)', rf"\g<1>{name}-", svg).replace("url(#", f"url(#{name}-")
    colours = VARIABLES | {mark.placeholder: mark.css for mark in marks(entries).values()}
    svg = re.sub(r"#0[0-9a-f]{5}\b", lambda match: colours.get(match[0], match[0]), svg)
    return re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", svg).strip()
