"""Snapshots of several processes that are one HaRP, added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from harp.status.engines import EngineLine
from harp.status.snapshot import (
    AppLine,
    BanLine,
    BanTotals,
    DurationsLine,
    InstanceLine,
    NextcloudLine,
    Process,
    Snapshot,
    TrafficLine,
)

K = TypeVar("K", str, int)


def merged(own: Snapshot, others: Sequence[Snapshot]) -> Snapshot:
    """Return what all of them come to. Where there is nothing to add, what `own` says holds."""
    if not others:
        return own
    every = (own, *others)
    return replace(
        own,
        process=_process([one.process for one in every]),
        nextcloud=_nextcloud([one.nextcloud for one in every]),
        apps=_apps(every),
        control=_traffic([one.control for one in every]),
        others=_traffic([one.others for one in every]),
        refusals=_sums(one.refusals for one in every),
        tunnels=tuple(line for one in every for line in one.tunnels),
        tunnels_lost=sum(one.tunnels_lost for one in every),
        engines=_engines(every),
        bans=_bans(every),
        ban_totals=_ban_totals([one.ban_totals for one in every]),
        caches=_sums(one.caches for one in every),
        instances=_instances(every),
        strangers=_instance(strangers) if (strangers := [one.strangers for one in every if one.strangers]) else None,
    )


def ended(last: Snapshot) -> Snapshot:
    """Return what is left of a process that is no more: what it has counted."""
    process = replace(last.process, memory=0, descriptors=0, connections=0, loop_lag=0.0)
    return replace(
        last,
        process=process,
        apps=tuple(replace(line, tunnel="") for line in last.apps),
        tunnels=(),
        caches={},
        engines=(),
        bans=(),
        ban_totals=replace(last.ban_totals, now=0),
        nextcloud=replace(last.nextcloud, condition=None),
        instances=tuple(_ended_instance(line) for line in last.instances),
        strangers=_ended_instance(last.strangers) if last.strangers else None,
    )


def _ended_instance(line: InstanceLine) -> InstanceLine:
    totals = replace(line.ban_totals, now=0)
    nextcloud = replace(line.nextcloud, condition=None)
    return replace(line, nextcloud=nextcloud, connections=0, running=0, waiting=0, ban_totals=totals)


def _instances(every: Sequence[Snapshot]) -> tuple[InstanceLine, ...]:
    lines: dict[str, list[InstanceLine]] = {}
    for one in every:
        for line in one.instances:
            lines.setdefault(line.instance, []).append(line)
    return tuple(_instance(of_instance) for of_instance in lines.values())


def _instance(every: Sequence[InstanceLine]) -> InstanceLine:
    return replace(
        every[0],
        nextcloud=_nextcloud([one.nextcloud for one in every]),
        connections=sum(one.connections for one in every),
        running=sum(one.running for one in every),
        waiting=sum(one.waiting for one in every),
        control=_traffic([one.control for one in every]),
        others=_traffic([one.others for one in every]),
        refusals=_sums(one.refusals for one in every),
        tunnels_lost=sum(one.tunnels_lost for one in every),
        ban_totals=_ban_totals([one.ban_totals for one in every]),
    )


def _ban_totals(every: Sequence[BanTotals]) -> BanTotals:
    return BanTotals(
        strikes=sum(one.strikes for one in every),
        begun=sum(one.begun for one in every),
        now=max(one.now for one in every),
    )


def _process(every: Sequence[Process]) -> Process:
    return replace(
        every[0],
        started=min(one.started for one in every),
        cpu=sum(one.cpu for one in every),
        memory=sum(one.memory for one in every),
        descriptors=max(one.descriptors for one in every),  # the limit is that of one process
        connections=sum(one.connections for one in every),
        requests=sum(one.requests for one in every),
        loop_lag=max(one.loop_lag for one in every),
    )


def _nextcloud(every: Sequence[NextcloudLine]) -> NextcloudLine:
    conditions = [one.condition for one in every if one.condition is not None]
    return replace(
        every[0],
        condition=next((one for one in conditions if not one.ok), conditions[0] if conditions else None),
        calls=sum(one.calls for one in every),
        failures=sum(one.failures for one in every),
    )


def _apps(every: Sequence[Snapshot]) -> tuple[AppLine, ...]:
    """Merge the ExApps: one is connected where any of them says so, of its own tunnels or of what it has heard."""
    lines: dict[tuple[str, str], list[AppLine]] = {}
    for one in every:
        for line in one.apps:
            lines.setdefault((line.instance, line.app), []).append(line)
    return tuple(
        replace(
            of_app[0],
            tunnel=next((line.tunnel for line in of_app if line.tunnel == "connected"), of_app[0].tunnel),
            traffic=_traffic([line.traffic for line in of_app]),
            answered=max((line.answered for line in of_app if line.answered is not None), default=None),
        )
        for _, of_app in sorted(lines.items())
    )


def _traffic(every: Sequence[TrafficLine]) -> TrafficLine:
    waits: dict[str, list[DurationsLine]] = {}
    for one in every:
        for what, line in one.waits.items():
            waits.setdefault(what, []).append(line)
    first_bytes = [one.first_bytes for one in every if one.first_bytes is not None]
    return TrafficLine(
        statuses=_sums(one.statuses for one in every),
        received=sum(one.received for one in every),
        sent=sum(one.sent for one in every),
        seconds=sum(one.seconds for one in every),
        buckets=_added([one.buckets for one in every]),
        first_bytes=_durations(first_bytes) if first_bytes else None,
        waits={what: _durations(lines) for what, lines in waits.items()},
    )


def _durations(every: Sequence[DurationsLine]) -> DurationsLine:
    return DurationsLine(sum(one.seconds for one in every), _added([one.buckets for one in every]))


def _added(every: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*every, strict=True)))


def _sums(every: Iterable[dict[K, int]]) -> dict[K, int]:
    total: Counter[K] = Counter()
    for one in every:
        for name, count in one.items():
            total[name] += count
    return dict(total)


def _engines(every: Sequence[Snapshot]) -> tuple[EngineLine, ...]:
    """Return the latest word on each engine, with the tunnel of whoever has it."""
    lines: dict[tuple[str, int], list[EngineLine]] = {}
    for one in every:
        for line in one.engines:
            lines.setdefault((line.instance, line.port), []).append(line)
    return tuple(
        replace(
            max(of_port, key=lambda line: line.last_seen or 0.0),
            tunnel=next((line.tunnel for line in of_port if line.tunnel is not None), None),
        )
        for _, of_port in sorted(lines.items())
    )


def _bans(every: Sequence[Snapshot]) -> tuple[BanLine, ...]:
    """Return the bans: all have the same, or will have in a moment."""
    longest: dict[tuple[str, str], BanLine] = {}
    for one in every:
        for ban in one.bans:
            known = longest.get((ban.instance, ban.address))
            if known is None or ban.seconds > known.seconds:
                longest[ban.instance, ban.address] = ban
    return tuple(sorted(longest.values(), key=lambda ban: ban.seconds))
