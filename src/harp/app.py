"""Builds every object and wires them: the only place that knows them all."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from harp.errors import HarpError, words_of
from harp.facts import HarpFacts
from harp.frontend.access import AccessLog
from harp.frontend.connection import serving
from harp.lazy import load_module
from harp.logs import RareWarnings, hide
from harp.membership import Membership
from harp.net import certificates
from harp.net.certificate_dates import CertificateEnd, certificate_ends, warn_of
from harp.net.deadlines import Deadlines
from harp.net.descriptors import connections_allowed, descriptors_for
from harp.net.listen import (
    Bind,
    Listener,
    bound_sockets,
    https_context,
    listen,
    listen_tls,
    load_certificate,
    ports_of,
)
from harp.net.memory import Memory, glibc, resident
from harp.net.ports import PortTable
from harp.net.tasks import Tasks
from harp.net.turns import Turns
from harp.nextcloud.http import SystemTrust
from harp.nextcloud.instance import Instance
from harp.settings import Settings, load
from harp.settings.sharing import share
from harp.status.admin import AdminGate
from harp.status.api import StatusApi
from harp.status.pages import Pages
from harp.tenant import Commons, Tenant
from harp.tenants import Tenants
from harp.tunnel.server.listener import TunnelServer

if TYPE_CHECKING:
    from harp.kin import Kin
    from harp.status.traces import Traces

log = structlog.get_logger()

RENEWAL_CHECK = 12 * 3600.0  # seconds
DRAIN_STEP = 0.05  # seconds
GRACE = 2.0  # seconds that idle clients have for another request before their connection is closed


class Harp:
    """One gateway. `start` returns when it serves; `stop` drains and ends it. More than 25 methods: it builds all."""

    def __init__(self, settings: Settings, bind: Bind = bound_sockets, member: Membership | None = None) -> None:
        """`bind` gives the sockets to listen on. A `member` of several has its admin listener opened and closed."""
        self.settings = settings
        self._bind = bind
        self._member = member
        self.ready = False
        self.draining = False
        self.succeeded = False  # another process serves in our place
        self._moving = False  # so does somebody: tunnels move there, and idle clients get the time to notice
        self.told = asyncio.Event()  # to stop
        self.http_ports: list[int] = []
        self.https_ports: list[int] = []
        self.admin_ports: list[int] = []
        self._http_servers: list[Listener] = []
        self._https_servers: list[Listener] = []
        self._admin_servers: list[Listener] = []
        self._hurry = False
        self._certificates_made = False
        self.certificates: list[CertificateEnd] = []  # as they were last looked at
        self._tasks = Tasks()
        self._https: ssl.SSLContext | None = None

    async def start(self) -> None:
        """Listen on everything. Raises HarpError when an address or certificate cannot be used."""
        settings = self.settings
        loop = asyncio.get_running_loop()
        for warning in settings.warnings:
            log.warning("doubtful setting", note=warning)
        if self._member is not None:
            await self._member.prepare()
        tunnel_tls = await asyncio.to_thread(self._tunnel_context)  # first, while there is nothing to stop yet
        self.deadlines = Deadlines()
        self.deadlines.watch(Memory(self.deadlines, resident, glibc))
        self.turns = Turns()
        self.warnings = RareWarnings(loop.time, loop.call_later)
        connections = connections_allowed(settings.limits, settings.processes)
        access_log = AccessLog(settings.logs.access, json=settings.logs.format == "json")
        self._traces = await _start_traces(settings.traces, self.warnings)
        commons = Commons(
            self.deadlines, self.turns, self.warnings, SystemTrust(), access_log, connections, self._traces
        )
        self.tenants = tenants = Tenants(settings, commons)
        await tenants.find_clusters()
        self.gate = tenants.front
        self.facts = HarpFacts(self) if self._member is None else self._member.facts(self)
        self._admin = self._admin_gate(self.facts)
        self.tunnel = self._tunnel_server(tunnel_tls)
        try:
            if self._member is not None:
                await self._member.join(self)
            await self.tunnel.start(self._bind)
            if self._member is not None:
                await self._member.meet()
            else:
                await self.open_admin()  # once HaRP serves, it can be asked about itself
            await self._start_frontends()
        except BaseException:
            await self.stop(drain=0)
            raise
        self.ready = True
        tenants.begin()
        self._spawn(self._renew_certificates())
        self._spawn(self._look_at_certificates())
        if self._certificates_made:  # ExApps from before have the old ones
            self._spawn(tenants.renew_tunnel_files())
        if self._member is not None:
            self._member.begin()
        log.info("serving", http=self.http_ports, https=self.https_ports, frp=self.frp_ports)

    async def stop(self, drain: float | None = None) -> None:
        """Drain for up to `drain` seconds (default HP_TIMEOUT_DRAIN), then end everything; tunnels go last.

        They move during the drain when others serve in our place, and the default is HP_TIMEOUT_UPGRADE then.
        """
        self.draining = True
        self._moving = self.succeeded
        if self._member is not None:
            self._moving = self._member.stop_accepting() or self.succeeded
        for server in (*self._http_servers, *self._https_servers):
            server.close()
        self.tunnel.stop_accepting()
        timeouts = self.settings.timeouts
        if self.succeeded:
            self.close_admin()
        if self._moving:
            self._spawn((await load_module("harp.tunnel.server.hand_over")).hand_over(self.tunnel.groups))
        await self._drain((timeouts.upgrade if self.succeeded else timeouts.drain) if drain is None else drain)
        await self._tasks.close()
        await self.tenants.stop()
        self.close_admin()
        await self._admin.close()
        await self.tenants.close_engines()
        await self.tunnel.close()
        if self._member is not None:
            await self._member.leave()
        await self.tenants.close()
        if self._traces is not None:
            await self._traces.close()
        self.deadlines.close()

    def hurry(self) -> None:
        """Cut a running drain short."""
        self._hurry = True

    def reload(self) -> None:
        """Take over renewed certificates and changed trusted proxies, or report what cannot be used."""
        try:
            settings = share(load(os.environ), self.settings.processes)
            tunnel_tls = certificates.server_context(self._frp_directory) if self.settings.tunnel.tls else None
            if self._https is not None:
                load_certificate(self._https, settings.certs / "cert.pem")
        except HarpError as error:
            log.error("reload failed, everything stays as it was", reason=str(error))
            return
        if tunnel_tls is not None:
            self.tunnel.set_tls(tunnel_tls)
        self._spawn(self._reload_tenants(settings))
        self._spawn(self._look_at_certificates(once=True))
        log.warning("reloaded certificates and trusted proxies")

    async def _reload_tenants(self, settings: Settings) -> None:
        hide(settings.secrets)
        await self.tenants.reload(settings, self.tunnel)
        if self._member is not None:
            await self._member.tenants_changed()
        self.facts.books.renew()

    @property
    def descriptors_wanted(self) -> int:
        """How many open files all connections take that the settings allow."""
        return descriptors_for(self.settings.limits)

    @property
    def frp_ports(self) -> list[int]:
        """The ports of the tunnel server, one per address."""
        return self.tunnel.bound_ports

    @property
    def tenant(self) -> Tenant:
        """What serves the only Nextcloud; of several, the first."""
        return self.tenants.first

    @property
    def instance(self) -> Instance:
        """What is known of its Nextcloud."""
        return self.tenant.instance

    @property
    def ports(self) -> PortTable:
        """Its tunnel ports."""
        return self.tenant.ports

    # Starting

    def _admin_gate(self, facts: HarpFacts) -> AdminGate:
        return AdminGate(
            self.settings,
            Pages(facts),
            self.deadlines,
            StatusApi(facts),
            facts.metrics,
            facts.examine,
            facts.doors,
            facts.site,
            None if self._member is None else self._member.refresh,
            self.upgrade,
        )

    def _tunnel_server(self, tls: ssl.SSLContext | None) -> TunnelServer:
        return TunnelServer(
            self.settings,
            self.tenants.groups,
            self.deadlines,
            self.tenants.admit_tunnel,
            tls,
            warnings=self.warnings,
            turns=self.turns,
        )

    @property
    def _frp_directory(self) -> Path:
        return self.settings.certs / "frp"

    @property
    def _member_tls(self) -> bool:
        return self._member is not None and self._member.over_tls

    def _tunnel_context(self) -> ssl.SSLContext | None:
        tls = self.settings.tunnel.tls
        if tls or self._member_tls:
            self._certificates_made = bool(self._ensure_certificates().made) and tls
        return certificates.server_context(self._frp_directory) if tls else None

    async def _start_frontends(self) -> None:
        certificate = self.settings.certs / "cert.pem"
        if await asyncio.to_thread(certificate.exists):
            self._https = https_context(certificate)
        self._http_servers = await self.open_http(self._bind)
        self.http_ports = ports_of(self._http_servers)
        self._https_servers = await self.open_https(self._bind)
        self.https_ports = ports_of(self._https_servers)

    async def open_http(self, bind: Bind) -> list[Listener]:
        """Serve clients on more sockets."""
        gate = self.gate
        return listen(bind(self.settings.listen.http), serving(gate, secure=False))

    async def open_https(self, bind: Bind) -> list[Listener]:
        """Listen over TLS, if there is a certificate."""
        gate, addresses = self.gate, self.settings.listen.https
        if self._https is None:
            return []
        return listen_tls(bind(addresses), serving(gate, secure=True), self._https, gate, self.turns)

    async def open_admin(self) -> None:
        """Serve the admin listener, once."""
        admin = self._admin
        if not self._admin_servers:
            sockets = self._bind(self.settings.listen.admin)
            self._admin_servers = listen(sockets, serving(admin, secure=False))
            self.admin_ports = ports_of(self._admin_servers)

    def close_admin(self) -> None:
        """Leave it to another."""
        for server in self._admin_servers:
            server.close()
        self._admin_servers = []

    def sockets(self) -> list[tuple[str, int]]:
        """Return the address and the descriptor of everything that is listened on."""
        listen = self.settings.listen
        pairs = (
            (listen.http, _sockets_of(self._http_servers)),
            (listen.https, _sockets_of(self._https_servers)),
            (listen.frp, self.tunnel.sockets),
            (listen.admin, _sockets_of(self._admin_servers)),
        )
        return [
            (str(at), sock.fileno()) for addresses, socks in pairs for at, sock in zip(addresses, socks, strict=False)
        ]

    # Running

    async def upgrade(self) -> int:
        """Have a new version serve in our place; its process id. Raises UpgradeFailed, and we go on."""
        try:
            if self._member is None:
                kin = await _load_kin()
                kin.adopt(self, fresh=False)
                self._member = kin
            process: int = await self._member.upgrade()
        except HarpError as error:
            log.error("upgrade failed, this version goes on", reason=str(error))
            raise
        log.warning("another process serves, this one finishes its requests", process=process)
        self.succeeded = True
        self.told.set()
        return process

    def failed(self, reason: str) -> None:
        """Report why we could not start to whoever waits for it."""
        if self._member is not None:
            self._member.failed(reason)

    async def _upgrade_quietly(self) -> None:
        with suppress(HarpError):  # which the log has
            await self.upgrade()

    def upgrade_by_signal(self) -> None:
        """As `upgrade`; the log says what comes of it."""
        self._spawn(self._upgrade_quietly())

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        self._tasks.start(work)

    async def _renew_certificates(self) -> None:
        """Look after the tunnel's certificates; running sessions keep theirs, new ones get the new."""
        while self.settings.tunnel.tls or self._member_tls:
            await asyncio.sleep(RENEWAL_CHECK)
            try:
                report = await asyncio.to_thread(self._ensure_certificates)
                if report.made:
                    self.reload_tunnel_certificates()
                    if self._member is not None:
                        self._member.renewed_here()
                    await self.tenants.renew_tunnel_files()
            except HarpError as error:
                log.error("tunnel certificates not renewed", problem=str(error))

    async def _look_at_certificates(self, *, once: bool = False) -> None:
        """Warn of certificates that end soon, twice a day."""
        while True:
            tls = self.settings.tunnel.tls
            self.certificates = await asyncio.to_thread(certificate_ends, self.settings.certs, tunnel=tls)
            warn_of(self.certificates, datetime.now(UTC))
            if once:
                return
            await asyncio.sleep(RENEWAL_CHECK)

    def _ensure_certificates(self) -> certificates.Report:
        days, now = self.settings.tunnel.validity_days, datetime.now(UTC)
        report = certificates.ensure(self._frp_directory, days, now, member=self._member_tls)
        for made in report.made:
            log.info("tunnel certificate created", made=made)
        for warning in report.warnings:
            log.warning("doubtful tunnel certificate", note=warning)
        return report

    def reload_tunnel_certificates(self) -> None:
        """Use new certificates for tunnels from now on."""
        if self.settings.tunnel.tls:
            self.tunnel.set_tls(certificates.server_context(self._frp_directory))

    async def _drain(self, seconds: float) -> None:
        """Let running exchanges end; WebSockets are closed as soon as a frame has ended."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        grace = loop.time() + (min(GRACE, seconds) if self._moving else 0)
        self.gate.drain(idle=not self._moving)
        while not self._is_drained() and not self._hurry and loop.time() < until:
            await asyncio.sleep(DRAIN_STEP)
            self.gate.drain(idle=loop.time() >= grace)

    def _is_drained(self) -> bool:
        if self.gate.connections or (self._moving and any(group.tunnels for group in self.tunnel.groups)):
            return False
        return self._member is None or self._member.others_drained()


async def _load_kin() -> Kin:
    """Return what makes this process and its new version members of one HaRP. Raises HarpError."""
    try:
        kin: Kin = (await load_module("harp.kin")).Kin()
    except OSError as error:  # no descriptor is left to read it with
        raise HarpError(words_of(error)) from error
    return kin


def _sockets_of(servers: Sequence[Listener]) -> list[Any]:
    return [sock for server in servers for sock in server.sockets]


async def _start_traces(endpoint: str, warnings: RareWarnings) -> Traces | None:
    """Send traces, if there is somewhere to send them."""
    if not endpoint:
        return None
    try:
        module = await load_module("harp.status.traces")
    except ModuleNotFoundError as error:
        fix = "pip install 'appapi-harp[otel]', or remove OTEL_EXPORTER_OTLP_ENDPOINT"
        log.warning("traces not sent", reason=f"OpenTelemetry is not installed: {error}", fix=fix)
        return None
    traces: Traces = module.Traces(endpoint, warnings)
    return traces
