"""All rows of the table, in its order."""

from __future__ import annotations

from benchmarks import deploys, fleet, growth, latency, memory, neighbours, process, real, remote, throughput, watched
from benchmarks.peers import Peers
from benchmarks.trial import Effort, Trial


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """Whatever can be measured with what is there."""
    return [
        *real.trials(peers, effort),
        *neighbours.trials(peers, effort),
        *throughput.direct(peers, effort),
        *throughput.tunneled(peers, effort),
        *watched.trials(peers, effort),
        *remote.trials(peers, effort),
        *latency.trials(peers, effort),
        process.page(peers),
        *fleet.trials(peers, effort),
        *growth.trials(peers, effort),
        *deploys.trials(peers, effort),
        memory.trial(peers),
        process.first(peers),
        process.start(peers, effort),
        process.after_all(peers),
    ]
