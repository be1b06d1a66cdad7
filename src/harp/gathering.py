"""The facts of each Nextcloud, as lines of the snapshot; and the sums of all, if there are several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from harp.engines.facts import ClusterStatus
from harp.frontend.books import Books
from harp.frontend.exchange import Exchange
from harp.frontend.reception import Reception
from harp.frontend.traffic import BOUNDS, CLASSES, Durations, Traffic
from harp.net.targets import ExAppTunnel, exapp_target
from harp.policy.exapp import ExApp
from harp.policy.ports import LOCAL_ENGINE_PORT
from harp.status.conditions import Condition
from harp.status.engines import EngineLine, TunnelOfEngine, inventory
from harp.status.snapshot import (
    AppLine,
    BanLine,
    BanTotals,
    DurationsLine,
    InstanceLine,
    NextcloudLine,
    RouteLine,
    TrafficLine,
    TunnelLine,
    key_of,
)
from harp.tenant import Tenant
from harp.tenants import Tenants

NO_TRAFFIC = Traffic()
Watch = Callable[[Exchange, float], None]


class AllBooks(Struct, eq=False):
    """The books of all tenants as one, for watchers of requests."""

    tenants: Tenants
    _watcher: Watch | None = None
    _failed: Watch | None = None

    def books(self) -> list[Books]:
        """Return those of every tenant, and of requests that are for none."""
        tenants = self.tenants
        return [*(tenant.books for tenant in tenants), *([tenants.others] if tenants.several else [])]

    def renew(self) -> None:
        """Also watch tenants that were added since."""
        self.watcher, self.failed = self._watcher, self._failed

    @property
    def watcher(self) -> Watch | None:
        """Who sees every request."""
        return self._watcher

    @watcher.setter
    def watcher(self, watcher: Watch | None) -> None:
        self._watcher = watcher
        for books in self.books():
            books.watcher = watcher

    @property
    def failed(self) -> Watch | None:
        """Who sees those that failed."""
        return self._failed

    @failed.setter
    def failed(self, failed: Watch | None) -> None:
        self._failed = failed
        for books in self.books():
            books.failed = failed


def nextcloud_of(tenant: Tenant) -> Condition | None:
    """Return how the last call to a Nextcloud ended, after refreshing an old result."""
    instance = tenant.instance
    instance.keep_probed()
    if instance.reachable is None:
        return None
    return Condition(instance.reachable, instance.last_error or "answers")


def all_nextclouds(conditions: Iterable[tuple[str, Condition | None]]) -> Condition | None:
    """Return one condition for several: None until every one was asked."""
    known = dict(conditions)
    bad = [f"{name}: {one.detail}" for name, one in known.items() if one is not None and not one.ok]
    if bad:
        return Condition(False, f"{len(bad)} of {len(known)} do not answer as they should: {'; '.join(bad[:3])}")
    return None if None in known.values() else Condition(True, f"all {len(known)} answer")


def engines_of(tenant: Tenant) -> list[EngineLine]:
    """Return the Docker engines of a Nextcloud, each with its tunnel."""
    engines = tenant.engines
    tunnels = [
        (port, TunnelOfEngine(name, tunnel.address, tunnel.hostname, tunnel.since, tunnel.round_trip))
        for tunnel in tenant.tunnels.facts()
        for name, port in tunnel.proxies
        if port in engines.ports
    ]
    return inventory(LOCAL_ENGINE_PORT, engines.statuses(), tunnels, tenant.settings.instance)


def cluster_of(tenant: Tenant) -> ClusterStatus | None:
    """Return the facts about its Kubernetes cluster, None without one."""
    return None if tenant.cluster is None else tenant.cluster.status()


def apps_of(tenant: Tenant) -> Iterator[AppLine]:
    """Yield the ExApps that it has, with what they have served."""
    traffic = tenant.books.apps
    for record in tenant.instance.records.list():
        yield _app(tenant, record, traffic.get(record.app_id, NO_TRAFFIC))


def _app(tenant: Tenant, record: ExApp, traffic: Traffic) -> AppLine:
    target = exapp_target(record.app_id, record.host, record.port, tenant.instance.rules.targets)
    tunnel = ""
    if isinstance(target, ExAppTunnel):
        tunnel = "connected" if tenant.ports.get(target.port) is not None else "not connected"
    return AppLine(
        record.app_id,
        record.version,
        record.host,
        record.port,
        tunnel,
        tuple(RouteLine(route.url, route.access_level.name) for route in record.routes),
        line_of(traffic),
        time.time() - (time.monotonic() - traffic.answered) if traffic.answered else None,
        tenant.settings.instance,
    )


def caches_of(tenants: Tenants) -> dict[str, int]:
    """Return the sizes of the caches, of all Nextclouds together."""
    return {
        "records": sum(len(tenant.instance.records) for tenant in tenants),
        "sessions": sum(len(tenant.instance.sessions) for tenant in tenants),
        "decisions": sum(len(tenant.plans) for tenant in tenants),
    }


def tunnels_of(tenant: Tenant) -> Iterator[TunnelLine]:
    """Yield the tunnel clients that are connected for it."""
    for tunnel in tenant.tunnels.facts():
        yield TunnelLine(
            names=tuple(name for name, _ in tunnel.proxies),
            ports=tuple(port for _, port in tunnel.proxies),
            address=tunnel.address,
            hostname=tunnel.hostname,
            client=tunnel.version,
            system=tunnel.system,
            since=tunnel.since,
            round_trip=tunnel.round_trip,
            streams=tunnel.streams,
            mux=tunnel.mux,
            wire=tunnel.wire,
            received=tunnel.received,
            sent=tunnel.sent,
            instance=tenant.settings.instance,
        )


def bans_of(tenants: Tenants) -> list[BanLine]:
    """Return every ban of every instance; those of unknown clients belong to none."""
    lines = [
        BanLine(ban.address, ban.seconds, ban.reason, tenant.settings.instance)
        for tenant in tenants
        for ban in tenant.instance.bans.list()
    ]
    if tenants.strangers is not None:
        lines += [BanLine(ban.address, ban.seconds, ban.reason) for ban in tenants.strangers.list.list()]
    return lines


def ban_totals_of(tenants: Tenants) -> BanTotals:
    """Return strikes and bans of all Nextclouds, and of strangers, as sums."""
    banning = [tenant.instance.banning for tenant in tenants]
    if tenants.strangers is not None:
        banning.append(tenants.strangers)
    return BanTotals(
        sum(one.strikes for one in banning), sum(one.begun for one in banning), sum(one.list.banned for one in banning)
    )


def instances_of(tenants: Tenants) -> tuple[InstanceLine, ...]:
    """Return a line for each, where there are several."""
    front = tenants.front
    if not isinstance(front, Reception):
        return ()
    return tuple(_instance(tenant, *front.load(tenant.settings.instance)) for tenant in tenants)


def _instance(tenant: Tenant, connections: int, running: int, waiting: int) -> InstanceLine:
    instance, books = tenant.instance, tenant.books
    return InstanceLine(
        instance=tenant.settings.instance,
        hosts=tenant.settings.hosts,
        nextcloud=NextcloudLine(instance.url, nextcloud_of(tenant), instance.calls, instance.failures),
        connections=connections,
        running=running,
        waiting=waiting,
        control=line_of(books.control),
        others=line_of(books.others),
        refusals=dict(books.refusals),
        tunnels_lost=tenant.tunnels.news.lost_count,
        ban_totals=BanTotals(instance.banning.strikes, instance.banning.begun, instance.bans.banned),
    )


def strangers_of(tenants: Tenants) -> InstanceLine | None:
    """Return what belongs to no instance, if there are several."""
    if tenants.strangers is None:
        return None
    books, banning = tenants.others, tenants.strangers
    return InstanceLine(
        *("", (), NextcloudLine("", None, 0, 0), 0, 0, 0, line_of(books.control), line_of(books.others)),
        refusals=dict(books.refusals),
        tunnels_lost=0,
        ban_totals=BanTotals(banning.strikes, banning.begun, banning.list.banned),
    )


def refusals_of(books: Iterable[Books]) -> dict[int, int]:
    """Answers of our own, by status."""
    total: dict[int, int] = {}
    for one in books:
        for status, times in one.refusals.items():
            total[status] = total.get(status, 0) + times
    return total


def by_key(books: Iterable[Books]) -> Iterator[tuple[str, Traffic]]:
    """Yield the counts of every ExApp."""
    for one in books:
        for app, traffic in one.apps.items():
            yield key_of(app, one.instance), traffic


def total_of(traffics: Sequence[Traffic]) -> TrafficLine:
    """Return the sum of several."""
    return line_of(_sum(traffics))


def _sum(traffics: Sequence[Traffic]) -> Traffic:
    if len(traffics) == 1:
        return traffics[0]
    total = Traffic()
    early = Durations()
    for one in traffics:
        total.classes = [a + b for a, b in zip(total.classes, one.classes, strict=True)]
        total.received += one.received
        total.sent += one.sent
        total.seconds += one.seconds
        total.buckets = [a + b for a, b in zip(total.buckets, one.buckets, strict=True)]
        _add(early, one.early)
        for what, durations in one.waits.items():
            _add(total.waits.setdefault(what, Durations()), durations)
    total.early = early
    return total


def _add(total: Durations, more: Durations | None) -> None:
    if more is not None:
        total.seconds += more.seconds
        for index in range(len(BOUNDS) + 1):
            total.buckets[index] += more.buckets[index]


def line_of(traffic: Traffic) -> TrafficLine:
    return TrafficLine(
        statuses=dict(zip(CLASSES, traffic.classes, strict=True)),
        received=traffic.received,
        sent=traffic.sent,
        seconds=traffic.seconds,
        buckets=tuple(traffic.buckets),
        first_bytes=_durations(traffic.first_bytes),
        waits={what: _durations(durations) for what, durations in traffic.waits.items()},
    )


def _durations(durations: Durations) -> DurationsLine:
    return DurationsLine(durations.seconds, tuple(durations.buckets))
