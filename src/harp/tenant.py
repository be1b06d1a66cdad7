"""One Nextcloud, and everything in HaRP that serves it alone."""

from __future__ import annotations

import asyncio
from hmac import compare_digest
from typing import TYPE_CHECKING

from msgspec import Struct

from harp.engines.inventory import EngineInventory
from harp.frontend.access import AccessLog
from harp.frontend.books import Books, Tracer
from harp.frontend.gate import CONTROL, Gate
from harp.frontend.plans import Plans
from harp.lazy import load_module
from harp.logs import RareWarnings
from harp.net.deadlines import Deadlines
from harp.net.dial import Dialer
from harp.net.ports import PortTable, ProtocolFactory
from harp.net.resolve import Resolver
from harp.net.targets import exapp_target
from harp.net.tasks import Tasks
from harp.net.turns import Turns
from harp.nextcloud.http import SystemTrust
from harp.nextcloud.instance import Instance
from harp.policy.client_address import ban_key
from harp.policy.exapp import ExApp
from harp.proxy.upstreams import Upstreams
from harp.settings import Settings
from harp.state.engine_names import EngineKeys, EngineNames, engines_directory
from harp.tunnel.server.claim_check import ClaimCheck
from harp.tunnel.server.group import TunnelGroup
from harp.wire.frp import WRONG_TOKEN
from harp.wire.requests import RequestReader

if TYPE_CHECKING:
    from aiohttp import web

    from harp.engines.kubernetes.cluster import KubernetesCluster

SPREAD = 3.0  # seconds that a cluster may take to lead new connections to new pods
LAST_CALLS = 0.5  # seconds for control calls that still run after the drain, such as a wait for a container


class Commons(Struct, eq=False):
    """What all Nextclouds share; it is independent of all of them."""

    deadlines: Deadlines
    turns: Turns
    warnings: RareWarnings
    trust: SystemTrust
    access_log: AccessLog
    connections: int  # that the file descriptors allow
    tracer: Tracer | None = None
    reader: RequestReader | None = None  # of the reception, where there are several Nextclouds


class Tenant:
    """Records, sessions, bans, ports, tunnels, engines, connections to ExApps and counts of one Nextcloud.

    No two tenants share any of these, so two of them can use the same app id, port or user name.
    """

    def __init__(self, settings: Settings, commons: Commons) -> None:
        """Raises SettingsError when files of the engines cannot be used."""
        self.settings = settings
        self.warnings = commons.warnings
        loop = self._loop = asyncio.get_running_loop()
        if settings.instance:
            self.warnings = RareWarnings(loop.time, loop.call_later, settings.instance)
        self.ports = PortTable()
        self.cluster: KubernetesCluster | None = None
        self._runners: list[web.AppRunner] = []
        self._control: ProtocolFactory | None = None
        self._control_lock = asyncio.Lock()
        self._tasks = Tasks()
        now, deadlines, turns = loop.time, commons.deadlines, commons.turns
        self.instance = Instance(settings, now, deadlines, warnings=self.warnings, turns=turns, trust=commons.trust)
        directory = engines_directory(settings)
        names, keys = EngineNames(directory), EngineKeys(directory)
        self.claim_check = ClaimCheck(settings, self.instance, names, self.warnings, keys=keys)
        self.tunnels = TunnelGroup(settings, self.ports, deadlines, self.claim_check.objection, self.warnings)
        self._resolver = Resolver(now)  # its own: names that hang keep nobody else waiting
        self.dialer = Dialer(
            self.ports,
            self._resolver,
            connect=settings.timeouts.connect,
            hold=settings.tunnel.hold,
            targets=self.instance.rules.targets,
            is_exapp=self._is_exapp,
            strict=settings.tunnel.claims == "strict",
        )
        self.dialer.offer_inner(CONTROL.name, self._serve_control)
        self.upstreams = Upstreams(
            self.dialer, self.ports, deadlines, settings.timeouts, turns=turns, most_open=commons.connections
        )
        self.engines = EngineInventory(settings, self.dialer, self.ports, now)
        self.books = Books(commons.access_log, self.warnings, commons.tracer, settings.instance)
        self.plans = Plans(deadlines)
        self.gate = Gate(
            settings, self.instance, self.upstreams, deadlines, self.books, turns, self.plans, reader=commons.reader
        )

    async def find_cluster(self) -> None:
        """Read the Kubernetes cluster, if there is one: it knows the addresses of its ExApps."""
        if self.settings.kubernetes.enabled:
            module = await load_module("harp.engines.kubernetes.cluster")
            self.cluster = cluster = module.KubernetesCluster(self.settings, self._loop.time)
            self.instance.find_at(cluster.lookout)
            self.gate.replicas = cluster.lookout.replicas
            cluster.lookout.moved = self.instance.relocate
            cluster.lookout.spread = lambda base: self._loop.call_later(
                SPREAD, self._have_new_connections, cluster, base
            )
            self._tasks.start(cluster.lookout.run())

    def begin(self) -> None:
        """Find out whether Nextcloud answers."""
        self._tasks.start(self.instance.probe())

    def change(self, settings: Settings) -> None:
        """Apply what may change while running: hosts, shares and trusted proxies."""
        if settings.proxies != self.settings.proxies:
            self.gate.reload(settings)
        self.settings = settings

    async def end(self) -> None:
        """End everything, once its tunnels have ended."""
        await self.stop()
        await self.close_engines()
        await self.close()

    async def stop(self) -> None:
        """End what comes from clients: all of their requests have had the time of the drain."""
        await self._tasks.close()
        await self.gate.close()
        await self.upstreams.close()

    async def close(self) -> None:
        """End the rest, after the tunnels."""
        await self.claim_check.close()
        await self.instance.close()
        self._resolver.close()

    async def close_engines(self) -> None:
        """End control calls and what they use."""
        for runner in self._runners:
            await runner.cleanup()
        await self.engines.close()
        if self.cluster is not None:
            await self.cluster.close()

    def admit_tunnel(self, address: str, token: str) -> TunnelGroup | str:
        """Admit a tunnel client, also with an ExApp's own key, because its claims are checked."""
        if self.claim_check.knows(token):
            return self.tunnels
        refusal = self.authenticate(address, token)
        return self.tunnels if refusal is None else refusal

    def authenticate(self, address: str, token: str) -> str | None:
        """Return None when a client may log in, or the text that frpc shows (F 3.1). A right token is never banned."""
        key = self.settings.shared_key.encode("utf-8", "surrogateescape")
        if compare_digest(token.encode("utf-8", "surrogateescape"), key):
            return None
        key_of_bans = ban_key(address)
        if self.instance.banned(key_of_bans):
            return "banned"
        self.instance.strike(key_of_bans, "a tunnel login with a wrong token")
        return WRONG_TOKEN

    def _is_exapp(self, name: str) -> bool:
        return isinstance(self.instance.records.get(name), ExApp)

    async def _serve_control(self) -> ProtocolFactory:
        """Serve the control API, made at the first call: most of the memory and time it costs is its libraries'."""
        async with self._control_lock:
            if self._control is None:
                api = await load_module("harp.control.api")
                self._control = await self._serve(
                    api.application(self.instance, self.settings, self.authenticate, self.engines, self.cluster)
                )
            return self._control

    async def _serve(self, application: web.Application) -> ProtocolFactory:
        from aiohttp import web  # noqa: PLC0415 - costs a fifth of a second

        runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=LAST_CALLS)
        await runner.setup()
        self._runners.append(runner)
        assert runner.server is not None
        return runner.server

    def _have_new_connections(self, cluster: KubernetesCluster, base: str) -> None:
        """Drop idle connections to an ExApp of the cluster: its pods have changed, and new connections are spread."""
        targets = self.instance.rules.targets
        for record in self.instance.records.list():
            if cluster.lookout.is_base(record.app_id, base):
                self.upstreams.renew(exapp_target(record.app_id, record.host, record.port, targets))
