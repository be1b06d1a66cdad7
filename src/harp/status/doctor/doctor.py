"""The doctor: makes the report, one at a time, and logs what is news in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence

import structlog

from harp import __version__
from harp.engines.facts import ClusterStatus
from harp.errors import HarpError
from harp.status.doctor import fixes
from harp.status.doctor.examined import Examined
from harp.status.doctor.inside import (
    ban_findings,
    certificate_findings,
    member_findings,
    missing_tunnels,
    process_findings,
    setting_findings,
    tunnel_findings,
)
from harp.status.doctor.peers import (
    RECENT,
    engine_findings,
    exapp_findings,
    nextcloud_findings,
    tunnel_port_findings,
)
from harp.status.doctor.report import DoctorReport, Finding, failed, ok, skipped, worst
from harp.status.doctor.walk import walk

LIMIT = 50.0  # seconds for each part
FRESH = 30.0  # seconds for which a report is shown again

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


CLUSTER = "Kubernetes allows what HaRP needs"


def cluster_finding(cluster: ClusterStatus | None) -> Finding:
    """Return what the cluster allows."""
    if cluster is None:
        return skipped("kubernetes", CLUSTER, "HP_K8S_ENABLED is not set")
    if cluster.trouble:
        return failed("kubernetes", CLUSTER, cluster.trouble, fixes.CLUSTER)
    without = ", ".join(cluster.missing_rights)
    return ok("kubernetes", CLUSTER, f"not allowed, and done without: {without}" if without else "")


class Doctor:
    """Examines one running HaRP."""

    def __init__(self, examined: Examined) -> None:
        self._examined = examined
        self._turn = asyncio.Lock()
        self._last: DoctorReport | None = None
        self._known: set[str] = set()  # checks that failed the last time

    @property
    def last(self) -> DoctorReport | None:
        """The last report, None before the first."""
        return self._last

    async def report(self, *, url: str = "", app: str = "", fresh: bool = False) -> DoctorReport:
        """Return the last report, or make one when it is older than FRESH or has to be `fresh`.

        `url` is walked through instead of HP_PUBLIC_URL; `app` is an ExApp that is known to be installed.
        """
        asked = time.time()
        async with self._turn:
            last = self._last
            made_meanwhile = last is not None and last.made >= asked
            if last is not None and not (url or app) and (made_meanwhile or not (fresh or last.made < asked - FRESH)):
                return last
            report = await self._examine(url or self._examined.settings.public_url, app)
            self._last = report
            self._log(report.findings)
            return report

    async def _examine(self, url: str, app: str) -> DoctorReport:
        began, examined = time.monotonic(), self._examined
        snapshot, settings = examined.snapshot(), examined.settings
        named, findings = await self._named_engines()
        tunnels = tunnel_findings(snapshot, named, examined.recent_warnings(RECENT))
        wanted = missing_tunnels(tunnels)
        parts = await asyncio.gather(
            self._limited("road", self._walked(url)),
            self._limited("nextcloud", nextcloud_findings(examined, app)),
            self._limited("engines", engine_findings(examined, named)),
            self._limited("exapps", exapp_findings(examined, snapshot.apps)),
            self._limited("tunnel port", asyncio.to_thread(tunnel_port_findings, settings, wanted=wanted)),
        )
        road, nextcloud, engines, exapps, port = parts
        certificates = certificate_findings(snapshot.certificates, time.time(), examined.certificate_fixes())
        own = [
            *process_findings(snapshot, examined.room),
            *member_findings(snapshot.members),
            *certificates,
            ban_findings(snapshot.bans, examined.private_bans()),
            *setting_findings(settings),
        ]
        findings = [*road, *nextcloud, *port, *tunnels, *exapps, *engines, *findings, *own]
        findings.append(cluster_finding(snapshot.cluster))
        state = worst(findings)
        seconds = time.monotonic() - began
        return DoctorReport(time.time(), seconds, __version__, url, state, tuple(findings))

    async def _walked(self, url: str) -> Sequence[Finding]:
        nonce = self._examined.begin_walk()
        try:
            return await asyncio.to_thread(walk, url, nonce, self._examined.settings.proxies)
        finally:
            self._examined.end_walk(nonce)

    async def _named_engines(self) -> tuple[dict[int, str], list[Finding]]:
        try:
            return dict(await asyncio.to_thread(self._examined.named_engines)), []
        except HarpError as error:
            return {}, [failed("engine names", "the engines' names can be read", str(error), fixes.SETTING)]

    async def _limited(self, part: str, work: Awaitable[Sequence[Finding]]) -> Sequence[Finding]:
        """Wait for one part of the examination; what breaks does not spoil the others."""
        try:
            async with asyncio.timeout(LIMIT):
                return await work
        except TimeoutError:
            return [skipped(part, f"{part} examined", f"it took longer than {LIMIT:g} s")]
        except Exception as error:
            log.exception("doctor failed", part=part)
            return [skipped(part, f"{part} examined", f"the doctor itself failed: {type(error).__name__}")]

    def _log(self, findings: Sequence[Finding]) -> None:
        """One line for each thing that has begun to fail."""
        failing = {finding.check: finding for finding in findings if finding.state == "failed"}
        for check, finding in failing.items():
            if check not in self._known:
                log.warning("doctor found", check=check, reason=finding.cause, fix=finding.fix)
        self._known = set(failing)
