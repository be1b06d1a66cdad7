"""Print the coverage of each package, with branches; fail far below the goal: coverage_gate.py REPORT.json"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

GOAL = 95.0  # per cent of statements and branches
GATE = 93.0  # what fails: which waits and races happen differs a little from run to run
LEAST = 90.0  # files below are named


def percent(summaries: list[dict[str, float]]) -> float:
    """Return how much of all statements and branches was run."""
    there = sum(one["num_statements"] + one["num_branches"] for one in summaries)
    run = sum(one["covered_lines"] + one["covered_branches"] for one in summaries)
    return 100.0 * run / there if there else 100.0


def main(report: Path) -> int:
    """Return the exit code."""
    packages: dict[str, list[dict[str, float]]] = defaultdict(list)
    weak: list[tuple[float, str]] = []
    for name, file in json.loads(report.read_text("utf-8"))["files"].items():
        inside = name.partition("src/harp/")[2]
        packages[inside.partition("/")[0] if "/" in inside else "harp"].append(file["summary"])
        if (share := percent([file["summary"]])) < LEAST:
            missing = ",".join(map(str, file["missing_lines"][:40]))
            weak.append((share, f"{name}: {missing}"))
    shares = {package: percent(summaries) for package, summaries in packages.items()}
    for share, where in sorted(weak):
        print(f"  {share:5.1f} %  {where}")
    for package, share in sorted(shares.items(), key=lambda item: item[1]):
        print(f"{share:7.1f} %  {package}{'' if share >= GOAL else f'  below {GOAL:g} %'}")
    print(f"{percent([one for ones in packages.values() for one in ones]):7.1f} %  in all")
    return int(min(shares.values()) < GATE)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
