"""The goals as a picture: an SVG that can be read on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.report import MISSED, Result
from benchmarks.trial import OURS, Limit, Ratio

WIDTH, LABEL, NOTE = 960, 330, 240  # pixels: all, the names on the left, the notes on the right
BAR, SPACE, HEADING = 14, 8, 34  # heights
FULL_SCALE = 1.5  # the end of the scale; a longer bar is cut
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.heading { font-weight: 600; font-size: 14px }
.ours { fill: #0969da } .missed { fill: #cf222e } .other { fill: #afb8c1 }
.goal { stroke: #24292f; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ours { fill: #4493f8 } .missed { fill: #f85149 } .other { fill: #545d68 }
  .goal { stroke: #e6edf3 }
}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """`length` 1.0 is what we are compared with, or all that is allowed."""

    kind: str  # "ours", "missed" or "other"
    length: float
    note: str


def draw(results: Sequence[Result]) -> str:
    """Ratios beside all contenders, then limits and how much of them is used."""
    lines: list[str] = []
    y = 0
    for heading, kind in (
        ("Throughput, in relation to the peer that counts (1.0); | is the goal", Ratio),
        ("Latency, memory, time: used of what is allowed (|)", Limit),
    ):
        shown = [result for result in results if isinstance(result.row.goal, kind) and result.reached is not None]
        if not shown:
            continue
        lines.append(f'<text class="heading" x="8" y="{y + 22}">{heading}</text>')
        y += HEADING
        for result in shown:
            bars = list(_bars(result))
            lines += _group(result, bars, y)
            y += BAR * len(bars) + SPACE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">\n'
        f"<style>{STYLE}\n</style>\n" + "\n".join(lines) + "\n</svg>\n"
    )


def _bars(result: Result) -> Iterator[Bar]:
    """Ours first."""
    goal, reached, medians = result.row.goal, result.reached, result.medians
    kind = "missed" if result.verdict == MISSED else "ours"
    if isinstance(goal, Ratio):
        for name in sorted(medians, key=lambda name: name != OURS):
            ratio = medians[name] / medians[goal.of]
            yield Bar(kind if name == OURS else "other", ratio, f"{name} {ratio:.2f}")
    elif goal is not None and reached is not None:
        yield Bar(kind, reached / goal.most, f"{result.attained} {result.row.unit} ({goal})")


def _group(result: Result, bars: Sequence[Bar], y: int) -> Iterator[str]:
    """The bars of one row, with the goal across them."""
    yield f'<text x="8" y="{y + 11}">{escape(result.row.name)}</text>'
    scale = (WIDTH - LABEL - NOTE) / FULL_SCALE
    for number, bar in enumerate(bars):
        top, width = y + number * BAR, min(max(bar.length, 0.0), FULL_SCALE) * scale
        yield f'<rect class="{bar.kind}" x="{LABEL}" y="{top}" width="{width:.1f}" height="{BAR - 2}"/>'
        yield f'<text x="{WIDTH - NOTE + 8}" y="{top + 11}">{escape(bar.note)}</text>'
    goal = result.row.goal
    across = LABEL + scale * (goal.least if isinstance(goal, Ratio) else 1.0)
    bottom = y + BAR * len(bars) - 1
    yield f'<line class="goal" x1="{across:.1f}" x2="{across:.1f}" y1="{y - 1}" y2="{bottom}"/>'
