"""`python -m benchmarks [--quick]`: every contender in turns, medians and goals in a table, JSON in results/."""

from __future__ import annotations

import argparse
import pstats
import sys
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tests.live.peers import find
from tests.live.product import HARP

from benchmarks import publication
from benchmarks.peers import Peers
from benchmarks.report import Result, describe, figure, table, write
from benchmarks.rows import trials
from benchmarks.trial import FULL, QUICK, Effort, Trial

T = TypeVar("T")

RESULTS = Path(__file__).parent / "results"
PROFILE, FLAMES = RESULTS / "harp.prof", RESULTS / "flames.svg"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help="how often each contender has its turn")
    parser.add_argument("--seconds", type=int, help="how long the load lasts in each turn")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the trials with TEXT in the name of a row")
    parser.add_argument("--profile", choices=["cprofile", "py-spy"], help="watch our process; its figures get worse")
    parser.add_argument("--publish", action="store_true", help="write table, picture and figures of all rows to docs/")
    chosen = parser.parse_args()
    if chosen.publish and (chosen.only or chosen.profile):
        parser.error("--publish is for all rows, as they are without a profiler")
    return chosen


def command(profile: str | None) -> list[str]:
    """How `harp` is started, profiled or not."""
    if profile == "cprofile":
        return [sys.executable, "-m", "benchmarks.profiled", str(PROFILE)]
    if profile == "py-spy":
        program = find("py-spy") or find(str(Path(sys.executable).with_name("py-spy")))
        if program is None:
            raise SystemExit("py-spy is not installed: .venv/bin/pip install py-spy")
        return [program, "record", "--output", str(FLAMES), "--", *HARP]
    return list(HARP)


def measure(trial: Trial) -> list[Result]:
    """Every contender's turns, one after the other. A failure ends this trial, but not the benchmark."""
    figures: dict[str, dict[str, list[float]]] = {row.name: {} for row in trial.rows}
    error = ""
    try:
        with trial.prepare() as contenders:
            for turn in range(trial.turns):
                for name, run in rotated(list(contenders.items()), turn):
                    for row, value in zip(trial.rows, run(), strict=True):
                        figures[row.name].setdefault(name, []).append(value)
                        print(f"  {row.name}: {name} {figure(value)} {row.unit}", file=sys.stderr, flush=True)
    except Exception as problem:
        traceback.print_exc()
        error = f"{type(problem).__name__}: {problem}".partition("\n")[0]
    return [Result(row, figures[row.name], error) for row in trial.rows]


def rotated(contenders: list[T], turns: int) -> list[T]:
    """Another one begins each round, because to be first may be good or bad."""
    first = turns % len(contenders)
    return contenders[first:] + contenders[:first]


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
        selected = [t for t in trials(peers, wanted) if any(chosen.only in row.name for row in t.rows)]
        if not selected:
            raise SystemExit(f"no row has {chosen.only!r} in its name, or its peers are missing")
        results: list[Result] = []
        for trial in selected:
            results += measure(trial)
            print(f"  (memory of our process now: {peers.product.process.rss() / 1e6:.1f} MB)", file=sys.stderr)
        facts = {"rounds": wanted.rounds, "seconds": wanted.seconds, "peers": peers.versions()}
    print("\n" + table(results))
    content = describe(results, profile=chosen.profile, **facts)
    write(RESULTS / "latest.json", content)
    if chosen.publish:
        publication.publish(results, content)
    if chosen.profile == "cprofile":
        pstats.Stats(str(PROFILE)).sort_stats("tottime").print_stats(40)
    if any(result.error for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
