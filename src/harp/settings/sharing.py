"""What each of several processes may take of the limits that hold for all of them together (HP_WORKERS)."""

from __future__ import annotations

from msgspec.structs import replace

from harp.settings.model import Settings

LEAST = 16  # of a limit: the system spreads connections by chance, so few of them may well come to one process


def share(settings: Settings, processes: int) -> Settings:
    """Return the settings of one of N processes. Tunnels are counted together, so their limits stay."""
    limits = replace(
        settings.limits,
        connections=_part(settings.limits.connections, processes),
        connections_per_address=_part(settings.limits.connections_per_address, processes),
    )
    shares = replace(
        settings.shares,
        connections=_part(settings.shares.connections, processes),
        requests=_part(settings.shares.requests, processes),
    )
    instances = tuple(share(one, processes) for one in settings.instances)
    return replace(settings, limits=limits, shares=shares, instances=instances, processes=processes)


def _part(limit: int, processes: int) -> int:
    return max(-(-limit // processes), min(limit, LEAST))
