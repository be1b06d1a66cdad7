"""`harp status`: is the running HaRP all right, and what does it serve? The status page's overview, for a terminal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

import msgspec

from harp.commands.admin import of_environment
from harp.commands.arguments import asks_harp
from harp.commands.tables import ago, span
from harp.status.engines import EngineLine
from harp.status.problems import ERROR, Problem, problems_of
from harp.status.snapshot import CertificateLine, Snapshot

VERDICTS = {"": "Everything works.", ERROR: "Something is broken."}
ATTENTION = "It works, and something needs attention."
WIDTH = 13  # of the first column


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    asks_harp(parser)
    text = "print what is wrong, and all that the admin API answers (/api/v1/snapshot)"
    parser.add_argument("--json", action="store_true", help=text)


def main(options: argparse.Namespace) -> int:
    """Print it; return the exit code, 1 if something is broken."""
    snapshot = of_environment().read("snapshot", Snapshot)
    problems = problems_of(snapshot, time.time())
    worst = problems[0].level if problems else ""
    if options.json:
        print(msgspec.json.encode({"problems": problems, "snapshot": snapshot}).decode())
    else:
        print("\n".join(lines_of(snapshot, problems)))
    return 1 if worst == ERROR else 0


def lines_of(snapshot: Snapshot, problems: Sequence[Problem]) -> Iterator[str]:
    """Return the text, line by line."""
    yield VERDICTS.get(problems[0].level if problems else "", ATTENTION)
    for problem in problems:
        yield f"  {problem.level}: {problem.what}"
        yield f"    {problem.fix}"
    yield ""
    for name, text in _facts(snapshot):
        yield f"{name:<{WIDTH}}{text}"


def _facts(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    process = snapshot.process
    kinds = [*(line.traffic for line in snapshot.apps), snapshot.control, snapshot.others]
    failed = sum(traffic.statuses["5xx"] for traffic in kinds)
    away = sum(line.tunnel == "not connected" for line in snapshot.apps)
    lost = f", {snapshot.tunnels_lost} lost since the start" if snapshot.tunnels_lost else ""
    yield "HaRP", f"{process.version}, up for {ago(process.started)}, {process.memory / 1e6:.0f} MB"
    yield "Requests", f"{process.requests}, {failed} of them 5xx; {process.connections} connections open"
    yield "Listeners", ", ".join(f"{name} {condition.detail}" for name, condition in snapshot.listeners.items())
    for nextcloud in [one.nextcloud for one in snapshot.instances] or [snapshot.nextcloud]:
        state = "not asked yet" if nextcloud.condition is None else nextcloud.condition.detail
        yield "Nextcloud", f"{nextcloud.url}: {state}"
    yield "ExApps", f"{len(snapshot.apps)}{f', {away} without their tunnel' if away else ''}"
    yield "Tunnels", f"{len(snapshot.tunnels)}{lost}"
    yield "Engines", ", ".join(f"{engine.port} {_state(engine)}" for engine in snapshot.engines) or "none"
    if snapshot.cluster is not None:
        yield "Kubernetes", f"{snapshot.cluster.api_server}: {snapshot.cluster.trouble or 'answers'}"
    yield "Bans", str(snapshot.ban_totals.now)
    yield "Certificates", _ends(snapshot.certificates)


def _state(engine: EngineLine) -> str:
    """Describe an engine: that of this host is always listed, and many hosts have none."""
    if engine.last_seen is None:
        return "has not answered yet"
    return engine.trouble or f"{'podman' if engine.podman else 'Docker'} {engine.version}"


def _ends(certificates: Sequence[CertificateLine]) -> str:
    if not certificates:
        return "none"
    first = min(certificates, key=lambda certificate: certificate.end)
    left = first.end - time.time()
    return f"{len(certificates)}; {first.file} {f'ends in {span(left)}' if left > 0 else 'has ended'}"
