"""How many files and sockets this process may have open, and what that means for connections."""

from __future__ import annotations

import resource

import structlog

from harp.settings import Limits

FDS_OF_OUR_OWN = 192  # file descriptors for listeners, logs, Nextcloud, engines, control calls and the admin listener

log = structlog.get_logger()


def connections_allowed(limits: Limits, processes: int) -> int:
    """Raise the limit of open files as far as we may, and say how many client connections it carries.

    A connection takes two: the client's and the ExApp's. What is set aside for listeners, the admin listener, control
    calls and tunnels is never theirs, so no crowd of clients keeps an operator or a tunnel out.
    """
    wanted = limits.connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = descriptors_for(limits)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < need:
        soft = need if hard == unlimited else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= need:
        return wanted
    allowed = max((soft - FDS_OF_OUR_OWN - min(limits.tunnels, soft // 8)) // 2, 8)
    log.warning(
        "few file descriptors",
        limit=soft,
        connections=allowed,
        wanted=wanted,
        fix=f"raise the limit of open files (ulimit -n) to {need}, or set HP_MAX_CONNECTIONS={allowed * processes}",
    )
    return allowed


def descriptors_for(limits: Limits) -> int:
    """Return how many open files all connections take that the settings allow."""
    return 2 * limits.connections + FDS_OF_OUR_OWN + limits.tunnels
