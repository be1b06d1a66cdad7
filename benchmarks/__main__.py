"""`python -m benchmarks [--quick]`: every contender in turns, medians and ratios in a table, JSON in results/."""

from __future__ import annotations

import argparse
import pstats
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.live.peers import find
from tests.live.product import HARP

from benchmarks.peers import Peers
from benchmarks.report import Result, figure, table, write
from benchmarks.rows import FULL, QUICK, Effort, Row, rows

RESULTS = Path(__file__).parent / "results"
PROFILE, FLAMES = RESULTS / "harp.prof", RESULTS / "flames.svg"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help="how often each contender has its turn")
    parser.add_argument("--seconds", type=float, help="how long wrk runs in each turn")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the rows whose name contains TEXT")
    parser.add_argument("--profile", choices=["cprofile", "py-spy"], help="watch our process; its figures get worse")
    return parser.parse_args()


def command(profile: str | None) -> list[str]:
    """How `harp` is started, profiled or not."""
    if profile == "cprofile":
        return [sys.executable, "-m", "cProfile", "-o", str(PROFILE), "-m", "harp"]
    if profile == "py-spy":
        program = find("py-spy") or find(str(Path(sys.executable).with_name("py-spy")))
        if program is None:
            raise SystemExit("py-spy is not installed: .venv/bin/pip install py-spy")
        return [program, "record", "--output", str(FLAMES), "--", *HARP]
    return list(HARP)


def measure(row: Row, rounds: int) -> Result:
    """Every contender once a round, in turns."""
    figures: dict[str, list[float]] = {name: [] for name in row.contenders}
    for _ in range(rounds if row.repeats else 1):
        for name, run in row.contenders.items():
            figures[name].append(run())
            print(f"  {row.name}: {name} {figure(figures[name][-1])} {row.unit}", file=sys.stderr, flush=True)
    return Result(row, figures)


def effort(chosen: argparse.Namespace) -> Effort:
    default = QUICK if chosen.quick else FULL
    return replace(default, rounds=chosen.rounds or default.rounds, seconds=chosen.seconds or default.seconds)


def main() -> None:
    chosen = options()
    wanted = effort(chosen)
    RESULTS.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="harp-bench-") as directory,
        Peers(Path(directory), command(chosen.profile)) as peers,
    ):
        for peer, programs in peers.missing.items():
            print(f"left out: {peer}; missing: {programs}", file=sys.stderr)
        table_rows = [row for row in rows(peers, wanted) if chosen.only in row.name]
        if not table_rows:
            raise SystemExit(f"no row has {chosen.only!r} in its name, or its peers are missing")
        results = [measure(row, wanted.rounds) for row in table_rows]
        facts = {"rounds": wanted.rounds, "seconds": wanted.seconds, "frp": peers.frp_version}
    print("\n" + table(results))
    write(RESULTS / "latest.json", results, profile=chosen.profile, **facts)
    if chosen.profile == "cprofile":
        pstats.Stats(str(PROFILE)).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
