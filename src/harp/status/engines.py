"""Engines as people see them: what `harp engine list` shows, and the admin listener answers at /engines."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from harp.engines.facts import EngineStatus


class TunnelOfEngine(Struct, frozen=True):
    """The tunnel in which an engine is reached."""

    name: str  # that its client has chosen
    address: str  # of the client
    hostname: str  # in the client's own words
    since: float  # Unix seconds
    round_trip: float | None  # seconds, None = not measured yet


class EngineLine(Struct, frozen=True, omit_defaults=True):
    """One engine."""

    port: int
    version: str  # of the engine, "" until it was asked
    api: str  # the versions it takes, as "1.12 to 1.41"
    podman: bool
    last_seen: float | None  # Unix seconds of its last answer about itself
    trouble: str  # why it could not be asked last time
    tunnel: TunnelOfEngine | None
    instance: str = ""  # whose engine it is, where there are several Nextclouds


def inventory(
    local: int,
    statuses: Iterable[EngineStatus],
    tunnels: Iterable[tuple[int, TunnelOfEngine]],
    instance: str = "",
) -> list[EngineLine]:
    """Return every engine that ever answered or has a tunnel now, by port; the local one in any case."""
    known = {status.port: status for status in statuses}
    seen = {port for port, status in known.items() if status.last_seen is not None}
    connected = dict(tunnels)
    ports = sorted({local, *seen, *connected})
    return [_line(port, known.get(port), connected.get(port), instance) for port in ports]


def _line(port: int, status: EngineStatus | None, tunnel: TunnelOfEngine | None, instance: str) -> EngineLine:
    facts = None if status is None else status.facts
    return EngineLine(
        port=port,
        version="" if facts is None else facts.version,
        api="" if facts is None else str(facts.api),
        podman=facts is not None and facts.podman,
        last_seen=None if status is None else status.last_seen,
        trouble="" if status is None else status.trouble,
        tunnel=tunnel,
        instance=instance,
    )
