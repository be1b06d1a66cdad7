"""What a running HaRP knows about itself: collects the values of `status.snapshot` from the objects that have them."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harp import __version__
from harp.engines.facts import ClusterStatus
from harp.frontend.traffic import Traffic
from harp.gathering import (
    AllBooks,
    all_nextclouds,
    apps_of,
    ban_totals_of,
    bans_of,
    by_key,
    caches_of,
    cluster_of,
    engines_of,
    instances_of,
    nextcloud_of,
    refusals_of,
    strangers_of,
    total_of,
    tunnels_of,
)
from harp.lazy import load_module
from harp.logs import change_level, level
from harp.net.memory import resident
from harp.status.conditions import Condition
from harp.status.doors import Doors, Guest
from harp.status.engines import EngineLine
from harp.status.feed import RequestFeed, events, running_line
from harp.status.history import ALL, History
from harp.status.pages import Page
from harp.status.redaction import Redaction
from harp.status.snapshot import (
    AppLine,
    BanLine,
    CertificateLine,
    MemberLine,
    NextcloudLine,
    Process,
    RequestLines,
    RunningLine,
    SettingLine,
    Snapshot,
    TunnelLine,
    part_of,
)

if TYPE_CHECKING:
    from harp.app import Harp
    from harp.status.doctor.doctors import Doctors
    from harp.status.doctor.examined import Examined
    from harp.status.doctor.report import DoctorReport
    from harp.status.web.site import Site
    from harp.tenant import Tenant
    from harp.wire.requests import RequestHead

DESCRIPTORS = Path("/proc/self/fd")


class HarpFacts:
    """What the admin listener shows, and the few things it may change: many methods of a line or two each."""

    def __init__(self, harp: Harp) -> None:
        settings = harp.settings
        self._harp = harp
        self._started = time.time()
        self._doctors: Doctors | None = None
        self._site: Site | None = None
        keepers = harp.tenants.strangers or harp.instance
        self.doors = Doors(settings.admin_password or settings.shared_key, keepers, time.monotonic)
        self.books = AllBooks(harp.tenants)
        self.feed = RequestFeed(self.books, harp.gate, harp.deadlines, Redaction(settings.secrets))
        self.history = History(self.traffic, time.time, harp.deadlines.now)
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
        tenants = self._harp.tenants
        if not tenants.several:
            return nextcloud_of(tenants.first)
        return all_nextclouds([(tenant.settings.instance, nextcloud_of(tenant)) for tenant in tenants])

    def draining(self) -> bool:
        return self._harp.draining

    # Parts of the snapshot

    def _own_engines(self) -> list[EngineLine]:
        return [line for tenant in self._harp.tenants for line in engines_of(tenant)]

    def cluster(self) -> ClusterStatus | None:
        return next((one for tenant in self._harp.tenants if (one := cluster_of(tenant)) is not None), None)

    def _own_apps(self) -> list[AppLine]:
        return [line for tenant in self._harp.tenants for line in apps_of(tenant)]

    def _own_tunnels(self) -> list[TunnelLine]:
        return [line for tenant in self._harp.tenants for line in tunnels_of(tenant)]

    def _own_bans(self) -> list[BanLine]:
        return bans_of(self._harp.tenants)

    def certificates(self) -> list[CertificateLine]:
        return [CertificateLine(one.file, one.end) for one in self._harp.certificates]

    def _own_process(self) -> Process:
        harp = self._harp
        traffic = [one for books in self.books.books() for one in (*books.apps.values(), books.control, books.others)]
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
            access_log=harp.tenant.books.access_log.mode,
            number=os.getpid(),
        )

    def engines(self) -> Sequence[EngineLine]:
        return self.snapshot(bans=False).engines

    def apps(self) -> Sequence[AppLine]:
        return self.snapshot(bans=False).apps

    def tunnels(self) -> Sequence[TunnelLine]:
        return self.snapshot(bans=False).tunnels

    def bans(self) -> Sequence[BanLine]:
        return self.snapshot().bans

    def process(self) -> Process:
        return self.snapshot(bans=False).process

    def members(self) -> Sequence[MemberLine]:
        return self.snapshot(bans=False).members

    def snapshot(self, *, bans: bool = True) -> Snapshot:
        """Return the snapshot; without `bans` their list, which may be very long, is empty: plots do not need it."""
        return self.own_snapshot(bans=bans)

    def own_snapshot(self, *, bans: bool = True) -> Snapshot:
        """Return the same, of this process alone, where there are others."""
        harp = self._harp
        tenants, books = harp.tenants, self.books.books()
        instances = [tenant.instance for tenant in tenants]
        url = "" if tenants.several else harp.instance.url
        calls, failures = sum(one.calls for one in instances), sum(one.failures for one in instances)
        return Snapshot(
            process=self._own_process(),
            listeners=self.listeners(),
            nextcloud=NextcloudLine(url, self.nextcloud(), calls, failures),
            apps=tuple(self._own_apps()),
            control=total_of([one.control for one in books]),
            others=total_of([one.others for one in books]),
            refusals=refusals_of(books),
            tunnels=tuple(self._own_tunnels()),
            tunnels_lost=sum(tenant.tunnels.news.lost_count for tenant in tenants),
            engines=tuple(self._own_engines()),
            cluster=self.cluster(),
            bans=tuple(self._own_bans()) if bans else (),
            ban_totals=ban_totals_of(tenants),
            certificates=tuple(self.certificates()),
            caches=caches_of(tenants),
            instances=instances_of(tenants),
            strangers=strangers_of(tenants),
        )

    async def metrics(self) -> Page:
        """Return the page for Prometheus, rendered off the loop."""
        module = await load_module("harp.status.metrics")
        page: Page = await asyncio.to_thread(module.page, self.snapshot(bans=False))
        return page

    def snapshot_of(self, name: str) -> Snapshot:
        """Return the part of the snapshot that is about this Nextcloud."""
        snapshot = self.snapshot()
        line = next((line for line in snapshot.instances if line.instance == name), None)
        return snapshot if line is None else part_of(snapshot, line)

    async def examine(self, url: str, app: str, *, fresh: bool, instance: str = "") -> Page:
        """Return the report of the doctor, about one Nextcloud or all."""
        if instance and not self._of(instance):
            return Page(404, msgspec.json.encode({"error": f"there is no instance {instance}"}))
        doctors = await self._called_doctors()
        report = await doctors.report(url=url, app=app, fresh=fresh, instance=instance)
        return Page(200, msgspec.json.encode(report))

    async def examine_now(self) -> None:
        """Have the doctor make a report."""
        doctors = await self._called_doctors()
        await doctors.report(fresh=True)

    def report(self) -> DoctorReport | None:
        return None if self._doctors is None else self._doctors.last

    async def _called_doctors(self) -> Doctors:
        """Return the doctors, which are loaded on demand."""
        if self._doctors is None:
            examined = await load_module("harp.examined")
            module = await load_module("harp.status.doctor.doctors")
            harp = self._harp

            def all_of_them() -> dict[str, Examined]:
                names = [tenant.settings.instance for tenant in harp.tenants]
                return {name: examined.ExaminedHarp(harp, name) for name in names}

            self._doctors = self._doctors or module.Doctors(all_of_them)
        return self._doctors

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
        return self.own_running(app)

    def own_running(self, app: str) -> list[RunningLine]:
        """As `own_snapshot`."""
        now = time.monotonic()
        exchanges = [connection.running for connection in self._harp.gate.connections]
        lines = [running_line(exchange, now) for exchange in exchanges if exchange is not None]
        lines = [line for line in lines if not app or line.app.lower() == app.lower()]
        return sorted(lines, key=lambda line: -line.seconds)

    def traffic(self) -> Iterator[tuple[str, Traffic]]:
        """Yield every count of requests, by ExApp; for the plots."""
        books = self.books.books()
        yield from by_key(books)
        for one in books:
            yield ALL, one.control
            yield ALL, one.others

    # Changes

    def end_engine(self, name: str, instance: str = "") -> int:
        return sum(tenant.tunnels.end_engine(name) for tenant in self._of(instance))

    def lift(self, address: str, instance: str = "") -> bool:
        lifted = [tenant.instance.lift(address) for tenant in self._of(instance)]
        strangers = self._harp.tenants.strangers
        if strangers is not None and not instance:
            lifted.append(strangers.lift(address))
        return any(lifted)

    def _of(self, instance: str) -> list[Tenant]:
        """Return the tenant of this name; all for ""."""
        return [tenant for tenant in self._harp.tenants if instance in ("", tenant.settings.instance)]

    def change_logs(self, log_level: str | None, access_log: str | None) -> None:
        if log_level is not None:
            change_level(log_level)
        if access_log is not None:
            self._harp.tenant.books.access_log.choose(access_log)


def _open_descriptors() -> int:
    """Return their number; 0 if the system does not report it."""
    try:
        return DESCRIPTORS.stat().st_size or sum(1 for _ in DESCRIPTORS.iterdir())  # Linux before 6.2 knows no size
    except OSError:
        return 0
