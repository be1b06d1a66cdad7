"""Figures -> a table for people and JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.rows import OURS, Row


@dataclass(frozen=True, slots=True)
class Result:
    """A row with every figure of every contender, in the order measured."""

    row: Row
    figures: Mapping[str, Sequence[float]]

    def median(self, contender: str) -> float:
        return median(self.figures[contender])

    @property
    def ratio(self) -> float | None:
        """Ours / the peer we compare with; None where there is none."""
        if self.row.against not in self.figures:
            return None
        return self.median(OURS) / self.median(self.row.against)

    @property
    def verdict(self) -> str:
        """How far from the goal, in few words."""
        row = self.row
        if self.ratio is not None:
            return f"{self.ratio:.2f} of {row.against} (goal {row.goal:.2f})"
        return f"(goal below {row.goal:g})" if row.goal else ""


def table(results: Sequence[Result]) -> str:
    """One line a row: name, each contender's median, the ratio."""
    width = max(len(result.row.name) for result in results)
    lines = []
    for result in results:
        figures = ", ".join(f"{name} {figure(result.median(name))}" for name in result.figures)
        lines.append(f"{result.row.name:<{width}}  {figures} {result.row.unit}  {result.verdict}".rstrip())
    return "\n".join(lines)


def figure(value: float) -> str:
    """Three digits that matter, whole numbers from a hundred on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(path: Path, results: Sequence[Result], **facts: object) -> None:
    """All figures, with where and when they were measured."""
    content = {
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"system": platform.platform(), "python": platform.python_version(), "processors": os.cpu_count()},
        **facts,
        "rows": [
            {
                "name": result.row.name,
                "unit": result.row.unit,
                "median": {name: result.median(name) for name in result.figures},
                "figures": {name: list(figures) for name, figures in result.figures.items()},
                "against": result.row.against,
                "ratio": result.ratio,
                "goal": result.row.goal,
            }
            for result in results
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
