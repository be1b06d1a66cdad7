"""What a running HaRP knows about itself: gathers the values of `status.snapshot` from the objects that have them."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harp import __version__
from harp.engines.facts import ClusterStatus
from harp.frontend.traffic import CLASSES, Durations, Traffic
from harp.lazy import load_module
from harp.logs import change_level, level
from harp.net.memory import resident
from harp.net.targets import ExAppTunnel, exapp_target
from harp.policy.exapp import ExApp
from harp.policy.ports import LOCAL_ENGINE_PORT
from harp.status.conditions import Condition
from harp.status.doors import Doors, Guest
from harp.status.engines import EngineLine, TunnelOfEngine, inventory
from harp.status.feed import RequestFeed, events, running_line
from harp.status.history import ALL, History
from harp.status.pages import Page
from harp.status.redaction import Redaction
from harp.status.snapshot import (
    AppLine,
    BanLine,
    BanTotals,
    CertificateLine,
    DurationsLine,
    NextcloudLine,
    Process,
    RequestLines,
    RouteLine,
    RunningLine,
    SettingLine,
    Snapshot,
    TrafficLine,
    TunnelLine,
)

if TYPE_CHECKING:
    from harp.app import Harp
    from harp.status.doctor.doctor import Doctor
    from harp.status.doctor.report import DoctorReport
    from harp.status.web.site import Site
    from harp.wire.requests import RequestHead

NO_TRAFFIC = Traffic()
DESCRIPTORS = Path("/proc/self/fd")


class HarpFacts:
    """What the admin listener asks about, and the few things it may change: many methods, each of a line or two."""

    def __init__(self, harp: Harp) -> None:
        settings = harp.settings
        self._harp = harp
        self._started = time.time()
        self._doctor: Doctor | None = None
        self._site: Site | None = None
        self.doors = Doors(settings.admin_password or settings.shared_key, harp.instance, time.monotonic)
        self.feed = RequestFeed(harp.tenant.books, harp.gate, harp.deadlines, Redaction([settings.shared_key]))
        self.history = History(self._traffic, time.time, harp.deadlines.now)
        harp.deadlines.watch(self.history)

    # For health and readiness

    def listeners(self) -> dict[str, Condition]:
        harp = self._harp
        ports = {"http": harp.http_ports, "https": harp.https_ports, "frp": harp.frp_ports}
        up = harp.ready and not harp.draining
        return {
            name: Condition(up, f"port {', '.join(map(str, bound))}" if up else "not accepting")
            for name, bound in ports.items()
            if bound
        }

    def nextcloud(self) -> Condition | None:
        instance = self._harp.instance
        instance.keep_probed()
        if instance.reachable is None:
            return None
        return Condition(instance.reachable, instance.last_error or "answers")

    def draining(self) -> bool:
        return self._harp.draining

    # Parts of the snapshot

    def engines(self) -> list[EngineLine]:
        engines = self._harp.tenant.engines
        tunnels = [
            (port, TunnelOfEngine(name, tunnel.address, tunnel.hostname, tunnel.since, tunnel.round_trip))
            for tunnel in self._harp.tunnel.facts()
            for name, port in tunnel.proxies
            if port in engines.ports
        ]
        return inventory(LOCAL_ENGINE_PORT, engines.statuses(), tunnels)

    def cluster(self) -> ClusterStatus | None:
        cluster = self._harp.tenant.cluster
        return None if cluster is None else cluster.status()

    def apps(self) -> list[AppLine]:
        traffic = self._harp.tenant.books.apps
        records = self._harp.instance.records.list()
        return [self._app(record, traffic.get(record.app_id, NO_TRAFFIC)) for record in records]

    def _app(self, record: ExApp, traffic: Traffic) -> AppLine:
        harp = self._harp
        target = exapp_target(record.app_id, record.host, record.port, harp.instance.rules.targets)
        tunnel = ""
        if isinstance(target, ExAppTunnel):
            tunnel = "connected" if harp.ports.get(target.port) is not None else "not connected"
        routes = tuple(RouteLine(route.url, route.access_level.name) for route in record.routes)
        return AppLine(record.app_id, record.version, record.host, record.port, tunnel, routes, _line(traffic))

    def tunnels(self) -> list[TunnelLine]:
        return [
            TunnelLine(
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
            )
            for tunnel in self._harp.tunnel.facts()
        ]

    def bans(self) -> list[BanLine]:
        return [BanLine(ban.address, ban.seconds, ban.reason) for ban in self._harp.instance.bans.list()]

    def certificates(self) -> list[CertificateLine]:
        return [CertificateLine(one.file, one.end) for one in self._harp.certificates]

    def process(self) -> Process:
        harp = self._harp
        books = harp.tenant.books
        traffic = [*books.apps.values(), books.control, books.others]
        return Process(
            version=__version__,
            started=self._started,
            cpu=time.process_time(),
            memory=resident(),
            descriptors=_open_descriptors(),
            most_descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            connections=len(harp.gate.connections),
            requests=sum(one.requests for one in traffic),
            loop_lag=harp.deadlines.lag,
            log_level=level(),
            access_log=books.access_log.mode,
        )

    def snapshot(self, *, bans: bool = True) -> Snapshot:
        """Without `bans` their list is empty: it may be very long, and is not what a plot needs."""
        harp = self._harp
        instance, books = harp.instance, harp.tenant.books
        return Snapshot(
            process=self.process(),
            listeners=self.listeners(),
            nextcloud=NextcloudLine(instance.url, self.nextcloud(), instance.calls, instance.failures),
            apps=tuple(self.apps()),
            control=_line(books.control),
            others=_line(books.others),
            refusals=dict(books.refusals),
            tunnels=tuple(self.tunnels()),
            tunnels_lost=harp.tenant.tunnels.news.lost_count,
            engines=tuple(self.engines()),
            cluster=self.cluster(),
            bans=tuple(self.bans()) if bans else (),
            ban_totals=BanTotals(instance.banning.strikes, instance.banning.begun, instance.bans.banned),
            certificates=tuple(self.certificates()),
        )

    async def metrics(self) -> Page:
        """The page for Prometheus, rendered beside the loop."""
        module = await load_module("harp.status.metrics")
        page: Page = await asyncio.to_thread(module.page, self.snapshot(bans=False))
        return page

    async def examine(self, url: str, app: str, *, fresh: bool) -> Page:
        """The report of the doctor."""
        doctor = await self._called_doctor()
        return Page(200, msgspec.json.encode(await doctor.report(url=url, app=app, fresh=fresh)))

    async def examine_now(self) -> None:
        """Have the doctor make a report."""
        doctor = await self._called_doctor()
        await doctor.report(fresh=True)

    def report(self) -> DoctorReport | None:
        return None if self._doctor is None else self._doctor.last

    async def _called_doctor(self) -> Doctor:
        """The doctor, who is loaded when somebody asks."""
        if self._doctor is None:
            examined = await load_module("harp.examined")
            doctor = await load_module("harp.status.doctor.doctor")
            self._doctor = self._doctor or doctor.Doctor(examined.ExaminedHarp(self._harp))
        return self._doctor

    async def site(self, head: RequestHead, guest: Guest, body: bytes) -> Page:
        """Answer a request for the status page, whose parts are loaded at the first visit."""
        if self._site is None:
            module = await load_module("harp.status.web.site")
            self._site = module.Site(self, self.doors)
        return await self._site.answer(head, guest, body)

    def settings(self) -> list[SettingLine]:
        values = self._harp.settings.values
        return [SettingLine(one.name, "set, not shown" if one.secret else one.text, one.given) for one in values]

    def requests(self, app: str) -> RequestLines:
        feed = self.feed
        return RequestLines(tuple(feed.recent(app)), tuple(feed.failures(app)), tuple(self.running(app)))

    def follow(self, app: str) -> AsyncIterator[bytes]:
        return events(self.feed, app)

    def running(self, app: str) -> list[RunningLine]:
        now = time.monotonic()
        exchanges = [connection.running for connection in self._harp.gate.connections]
        lines = [running_line(exchange, now) for exchange in exchanges if exchange is not None]
        lines = [line for line in lines if not app or line.app.lower() == app.lower()]
        return sorted(lines, key=lambda line: -line.seconds)

    def _traffic(self) -> Iterator[tuple[str, Traffic]]:
        books = self._harp.tenant.books
        yield from books.apps.items()
        yield ALL, books.control
        yield ALL, books.others

    # Changes

    def end_engine(self, name: str) -> int:
        return self._harp.tenant.tunnels.end_engine(name)

    def lift(self, address: str) -> bool:
        return self._harp.instance.lift(address)

    def change_logs(self, log_level: str | None, access_log: str | None) -> None:
        if log_level is not None:
            change_level(log_level)
        if access_log is not None:
            self._harp.tenant.books.access_log.choose(access_log)


def _open_descriptors() -> int:
    """How many there are; 0 where the system does not say."""
    try:
        return DESCRIPTORS.stat().st_size or sum(1 for _ in DESCRIPTORS.iterdir())  # Linux before 6.2 knows no size
    except OSError:
        return 0


def _line(traffic: Traffic) -> TrafficLine:
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
