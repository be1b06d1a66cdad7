"""How far several members go: a model of what was measured, as the table of docs/scaling.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.crowded import Crowd

PAGE = Path(__file__).parents[1] / "docs/scaling.md"
MARKED = re.compile(
    r"(<!-- model: written by `python -m benchmarks.members --publish` -->\n).*(<!-- end of model -->)", re.DOTALL
)
SIZES = (1, 2, 3, 4, 8, 12, 16)
PROBES = 2.0  # seconds between two questions over a link
KIB, MB = 1024, 1e6

# From docs/performance.md and docs/instances.md
IDLE_TUNNEL = 0.00167 / 100  # of a processor, for the pings of one that is idle
TUNNEL = 171 * KIB  # bytes of one that has served
INSTANCE = 45 * KIB  # bytes of an idle Nextcloud


@dataclass(frozen=True, slots=True)
class Costs:
    """Processor time of a small request through a tunnel, in seconds of all members, and the memory of an idle one."""

    local: float  # it comes to the member with the tunnel
    relayed: float  # to another worker
    apart: float  # to another replica: its link is TLS
    member: float  # bytes


@dataclass(frozen=True, slots=True)
class Forecast:
    """What this number of members comes to, a processor for each, when clients and tunnels are spread evenly."""

    members: int
    links: int
    relayed: float  # share of the requests
    request: float  # seconds of processor time, of workers
    rate: float  # requests per second of all workers
    request_apart: float  # the same of replicas
    rate_apart: float
    idle: float  # share of each one's processor for tunnels and links on which nothing happens
    memory: float  # bytes of each


def forecast(members: int, crowd: Crowd, costs: Costs) -> Forecast:
    """Return what the figures add up to with the Nextclouds and tunnels of a crowd."""
    relayed = (members - 1) / members
    request, apart = (costs.local + relayed * (there - costs.local) for there in (costs.relayed, costs.apart))
    own = crowd.tunnels / members
    others = members - 1
    idle = own * IDLE_TUNNEL + others * crowd.probe / PROBES
    return Forecast(
        members,
        members * others // 2,
        relayed,
        request,
        members * (1 - idle) / request,
        apart,
        members * (1 - idle) / apart,
        idle,
        costs.member + crowd.instances * INSTANCE + own * TUNNEL + crowd.tunnels * crowd.entry + others * crowd.link,
    )


def section(crowd: Crowd, costs: Costs) -> str:
    """Return the part of the page that is made of figures."""
    return "\n".join([*_model(crowd, costs), "", *_simulation(crowd)])


def replaced(page: str, text: str) -> str:
    """Return the page with another section between its marks. Raises ValueError when there are none."""
    page, times = MARKED.subn(lambda marks: f"{marks[1]}\n{text}\n\n{marks[2]}", page)
    if times != 1:
        raise ValueError("docs/scaling.md has lost the marks around its model")
    return page


def _model(crowd: Crowd, costs: Costs, sizes: Sequence[int] = SIZES) -> Iterator[str]:
    local, relayed, apart = (f"{seconds * 1e6:.0f} µs" for seconds in (costs.local, costs.relayed, costs.apart))
    yield (
        f"A small request through a tunnel takes {local} of a processor at the member with the tunnel, {relayed} of "
        f"two when it crosses the link of workers, and {apart} with that of replicas, which is TLS. With "
        f"{crowd.instances:,} Nextclouds and {crowd.tunnels:,} tunnels, clients and tunnels spread evenly, and a "
        "processor for each member:"
    )
    yield ""
    yield (
        "| members | links | relayed | workers: a request | per second | replicas: a request | per second "
        "| idle | memory of each |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    one = forecast(1, crowd, costs).rate
    for members in sizes:
        of = forecast(members, crowd, costs)
        rates = [f"{rate:,.0f} ({rate / one:.1f})" for rate in (of.rate, of.rate_apart)]
        yield (
            f"| {of.members} | {of.links} | {of.relayed:.0%} | {of.request * 1e6:.0f} µs | {rates[0]} "
            f"| {of.request_apart * 1e6:.0f} µs | {rates[1]} | {of.idle:.1%} | {of.memory / MB:,.0f} MB |"
        )


def _simulation(crowd: Crowd) -> Iterator[str]:
    yield (
        f"Simulated in one process on one processor with the program's own members, links and directories: "
        f"{crowd.members} members, {crowd.instances:,} Nextclouds, {crowd.tunnels:,} tunnels:"
    )
    each = crowd.members - 1
    rows = [
        ("a link, at each end", f"{crowd.link / KIB:.1f} KiB"),
        ("what a member remembers of a tunnel, wherever it is", f"{crowd.entry:,.0f} bytes"),
        ("a question whether a member answers, and the answer", f"{crowd.probe * 1e6:.0f} µs"),
        (
            "a tunnel that comes",
            f"3 messages, {crowd.change_bytes:.0f} bytes, to each of the others; {crowd.change * 1e6:.0f} µs at each",
        ),
        (
            "a fresh member receives everything",
            f"{crowd.greeting_bytes / MB:.1f} MB, {crowd.greeting:.2f} s with all {crowd.members} on this processor",
        ),
        (
            "a member is lost: the others have forgotten its tunnels",
            f"{crowd.forgotten:.2f} s of all {each}, {crowd.forgotten / each * 1000:.0f} ms of each",
        ),
        (
            f"its {crowd.tunnels // crowd.members:,} clients have come to others, and all know",
            f"{crowd.agreed:.2f} s of all {each}, {crowd.agreed / each * 1000:.0f} ms of each",
        ),
    ]
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {what} | {figure} |" for what, figure in rows)
