"""The comparison as a picture: bars for each workload, readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from benchmarks.contenders import ROOT
from benchmarks.results import Results
from benchmarks.workloads import WORKLOADS

FILE = ROOT / "docs" / "benchmarks.svg"
IN_FLIGHT = 64

# Okabe and Ito's colours, told apart also by those who see red and green alike.
COLOURS = {
    "fleetbus": ("fleetbus", "#0072b2"),
    "by_hand": ("by hand", "#e69f00"),
    "by_hand_promises": ("by hand + promises", "#cc79a7"),
    "http": ("FastAPI + ORM", "#009e73"),
    "tutorial": ("FastStream + ORM", "#d55e00"),
}

WIDTH, PANEL, BAR, GAP = 860, 34, 14, 3
LEFT, RIGHT = 210, 90

_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .value { font-size: 11px }
  line { stroke: #8c959f; stroke-width: 1 }
  @media (prefers-color-scheme: dark) { text { fill: #d0d7de } line { stroke: #6e7681 } }
"""


def draw(results: Results, path: Path = FILE) -> None:
    """Write the picture of the comparison."""
    path.write_text(picture(results), encoding="utf-8")


def picture(results: Results) -> str:
    """Operations per second, one scale from zero for each workload."""
    parts: list[str] = []
    top = 56
    for workload in results.measured("workload"):
        bars = [
            (name, spread)
            for name in COLOURS
            if (spread := results.spread("throughput", name, workload, IN_FLIGHT))
        ]
        if bars:
            parts += _panel(WORKLOADS[workload].title, top, bars)
            top += len(bars) * (BAR + GAP) + PANEL
    heading = f"Operations per second, {IN_FLIGHT} requests in flight"
    explained = f"{heading}: median of the rounds, lowest to highest as a line"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img">',
            f"<title>{heading}</title>",
            f"<style>{_STYLE}</style>",
            f'<text class="title" x="8" y="20">{explained}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def _panel(
    title: str, top: int, bars: Sequence[tuple[str, tuple[float, float, float]]]
) -> Iterator[str]:
    scale = (WIDTH - LEFT - RIGHT) / max(high for _, (_, _, high) in bars)
    yield f'<text class="title" x="8" y="{top - 6}">{escape(title)}</text>'
    for number, (name, (median, low, high)) in enumerate(bars):
        label, colour = COLOURS[name]
        y = top + number * (BAR + GAP)
        middle = y + BAR / 2
        yield f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(label)}</text>'
        yield (
            f'<rect x="{LEFT}" y="{y}" width="{median * scale:.1f}" height="{BAR}" '
            f'fill="{colour}"/>'
        )
        yield (
            f'<line x1="{LEFT + low * scale:.1f}" x2="{LEFT + high * scale:.1f}" '
            f'y1="{middle}" y2="{middle}"/>'
        )
        beyond = LEFT + max(median, high) * scale + 6
        yield f'<text class="value" x="{beyond:.1f}" y="{y + 11}">{median:,.0f}</text>'
