"""Figures -> a table for people, in a terminal or in docs/performance.md, and JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.trial import OURS, Limit, Ratio, Row

MET, MISSED, UNKNOWN = "met", "not met", "not measured"


@dataclass(frozen=True, slots=True)
class Result:
    """A row with every figure of every contender, in the order measured; `error`: why figures are missing."""

    row: Row
    figures: Mapping[str, Sequence[float]]
    error: str = ""

    @property
    def medians(self) -> dict[str, float]:
        return {name: median(figures) for name, figures in self.figures.items() if figures}

    @property
    def reached(self) -> float | None:
        """What the goal looks at: a ratio, a difference or a figure. None without a goal, or without figures."""
        return self.row.goal.reached(self.medians) if self.row.goal else None

    @property
    def verdict(self) -> str:
        """MET, MISSED or UNKNOWN; "" without a goal."""
        if self.row.goal is None:
            return ""
        if self.reached is None:
            return UNKNOWN
        return MET if self.row.goal.met(self.reached) else MISSED

    @property
    def attained(self) -> str:
        """`reached` for people."""
        goal, reached = self.row.goal, self.reached
        if reached is None:
            return ""
        if isinstance(goal, Limit):
            return f"{reached:+.2g}" if goal.over else figure(reached)
        return f"{reached:.2f}"


def figure(value: float) -> str:
    """Three digits that matter, whole numbers from a hundred on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(results: Sequence[Result]) -> str:
    """One line a row: name, each contender's median, the goal and whether it was met."""
    width = max(len(result.row.name) for result in results)
    lines = []
    for result in results:
        figures = ", ".join(f"{name} {figure(value)}" for name, value in result.medians.items())
        goal = f"  {result.attained} (goal {result.row.goal}): {result.verdict}" if result.row.goal else ""
        error = f"  FAILED: {result.error}" if result.error else ""
        lines.append(f"{result.row.name:<{width}}  {figures} {result.row.unit}{goal}{error}")
    return "\n".join(lines)


def markdown(results: Sequence[Result]) -> str:
    """The same as a table of Markdown; a goal that was missed stands out."""
    lines = ["| row | ours | others | goal | reached | |", "|---|---|---|---|---|---|"]
    for result in results:
        figures = {name: figure(value) for name, value in result.medians.items()}
        ours = f"{figures.pop(OURS)} {result.row.unit}" if OURS in figures else "–"
        others = ", ".join(f"{name} {value}" for name, value in figures.items())
        goal = str(result.row.goal) if result.row.goal else ""
        verdict = f"**{result.verdict}**" if result.verdict in {MISSED, UNKNOWN} else result.verdict
        lines.append(f"| {result.row.name} | {ours} | {others} | {goal} | {result.attained} | {verdict} |")
    return "\n".join(lines)


def describe(results: Sequence[Result], **facts: object) -> dict[str, object]:
    """All figures, with where and when they were measured; fit for JSON."""
    machine = {"system": platform.platform(), "python": platform.python_version(), "processors": os.cpu_count()}
    return {
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine,
        **facts,
        "rows": [_row(result) for result in results],
    }


def _row(result: Result) -> dict[str, object]:
    goal = result.row.goal
    bound: dict[str, object] | None = None
    if isinstance(goal, Ratio):
        bound = {"least": goal.least, "of": goal.of}
    elif isinstance(goal, Limit):
        bound = {"most": goal.most, "over": goal.over}
    return {
        "name": result.row.name,
        "unit": result.row.unit,
        "median": result.medians,
        "figures": {name: list(figures) for name, figures in result.figures.items()},
        "goal": bound,
        "reached": result.reached,
        "verdict": result.verdict,
        "error": result.error,
    }


def write(path: Path, content: dict[str, object]) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
