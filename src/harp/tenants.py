"""All Nextclouds that are served: one by the variables, or those of HP_INSTANCES_FILE, which may change at any time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextvars import copy_context
from typing import Any

import structlog
from msgspec.structs import replace

from harp.errors import HarpError
from harp.frontend.books import Books
from harp.frontend.gate import Gate
from harp.frontend.reception import Reception
from harp.logs import INSTANCE
from harp.nextcloud.banning import Banning
from harp.policy.client_address import ban_key
from harp.policy.instances import InstanceNames
from harp.policy.keys import engine_of, key_owner
from harp.settings import Settings
from harp.settings.instances import ALL
from harp.tenant import Commons, Tenant
from harp.tunnel.server.group import TunnelGroup
from harp.tunnel.server.listener import TunnelServer
from harp.wire.frp import WRONG_TOKEN

log = structlog.get_logger()


class Tenants:
    """Builds, finds, changes and ends tenants. `front` decides about the requests of all listeners.

    Without HP_INSTANCES_FILE there is one tenant, and its gate is the front.
    """

    def __init__(self, settings: Settings, commons: Commons) -> None:
        """Raises SettingsError when files that the settings name cannot be used."""
        self._settings = settings
        self._commons = commons
        self._seal = os.urandom(32)
        self._names = InstanceNames((), self._seal)
        self._changing = asyncio.Lock()
        self.several = bool(settings.instances)
        self.strangers: Banning | None = None  # who has tried keys that are those of no instance
        self.front: Gate | Reception
        self._tenants: dict[str, Tenant] = {}
        if not self.several:
            tenant = self._tenants[""] = Tenant(settings, commons)
            self.front = tenant.gate
            self.front.limit_connections(commons.connections)
            return
        now = asyncio.get_running_loop().time
        deadlines, warnings = commons.deadlines, commons.warnings
        self.strangers = Banning(settings.bans, now, warnings, _nothing, deadlines)
        self.others = Books(commons.access_log, warnings, commons.tracer)
        reception = Reception(settings, deadlines, commons.turns, self.others, self.strangers, warnings)
        reception.limit_connections(commons.connections)
        self.front = reception
        commons.reader = reception.reader
        self._take({one.instance: Tenant(one, commons) for one in settings.instances})

    def __iter__(self) -> Iterator[Tenant]:
        return iter(list(self._tenants.values()))

    def __len__(self) -> int:
        return len(self._tenants)

    @property
    def first(self) -> Tenant:
        """The only one, where there is one."""
        return next(iter(self._tenants.values()))

    @property
    def groups(self) -> list[TunnelGroup]:
        """Their tunnels."""
        return [tenant.tunnels for tenant in self._tenants.values()]

    def find(self, name: str) -> Tenant | None:
        """Return the tenant of this name."""
        return self._tenants.get(name)

    async def find_clusters(self) -> None:
        """Read the Kubernetes clusters, if there are any."""
        for tenant in self._tenants.values():
            await tenant.find_cluster()

    def begin(self) -> None:
        """Find out whether each Nextcloud answers."""
        for tenant in self._tenants.values():
            _as(tenant, tenant.begin)

    def admit_tunnel(self, address: str, token: str) -> TunnelGroup | str:
        """Return the group of a tunnel client: by its shared key, or by the own key of an ExApp or engine.

        A wrong key belongs to no instance, so it bans from logins, and from wrong keys, alone.
        """
        if not self.several:
            return self.first.admit_tunnel(address, token)
        assert self.strangers is not None
        name = self._names.by_key(token.encode("utf-8", "surrogateescape"))
        if name:
            return self._tenants[name].tunnels
        if key_owner(token) or engine_of(token):
            for tenant in self._tenants.values():
                if tenant.claim_check.knows(token):
                    return tenant.tunnels
        key = ban_key(address)
        if self.strangers.banned(key):
            return "banned"
        self.strangers.strike(key, "a tunnel login with a wrong token")
        return WRONG_TOKEN

    # Changes

    async def reload(self, settings: Settings, server: TunnelServer) -> None:
        """Apply the file as it is now. Unchanged entries continue undisturbed; if anything fails, nothing changes."""
        if not self.several:
            self.first.gate.reload(settings)
            return
        async with self._changing:
            fresh: dict[str, Tenant] = {}
            kept: dict[str, Settings] = {}
            try:
                for wanted in settings.instances:
                    known = self._tenants.get(wanted.instance)
                    if known is not None and _lasting(known.settings) == _lasting(wanted):
                        kept[wanted.instance] = wanted
                    else:
                        fresh[wanted.instance] = Tenant(wanted, self._commons)
            except HarpError as error:
                log.error("reload failed, everything stays as it was", reason=str(error))
                for tenant in fresh.values():
                    await tenant.end()
                return
            over = [tenant for name, tenant in self._tenants.items() if name not in kept]
            for name, wanted in kept.items():
                self._tenants[name].change(wanted)
            order = [one.instance for one in settings.instances]
            assert isinstance(self.front, Reception)
            self.front.reload(settings)
            self._take({name: fresh.get(name) or self._tenants[name] for name in order})
            server.groups[:] = self.groups
            for name, tenant in fresh.items():
                await tenant.find_cluster()
                _as(tenant, tenant.begin)
                log.warning("instance served", instance=name)
            for tenant in over:
                await server.end_group(tenant.tunnels, "this Nextcloud is served here no more")
                await tenant.end()
                if tenant.settings.instance not in self._tenants:
                    log.warning("instance removed", instance=tenant.settings.instance)

    def _take(self, tenants: dict[str, Tenant]) -> None:
        self._tenants = tenants
        assert isinstance(self.front, Reception)
        self.front.open({name: (tenant.settings, tenant.gate) for name, tenant in tenants.items()})
        self._names = InstanceNames([tenant.settings for tenant in tenants.values()], self._seal)
        half = max(self._settings.limits.tunnels // 2, 1) if len(tenants) > 1 else 0
        for tenant in tenants.values():
            tenant.tunnels.limit = tenant.settings.shares.tunnels or half

    # The end

    async def stop(self) -> None:
        """End what comes from clients."""
        if isinstance(self.front, Reception):
            await self.front.close()
        await self._all(tenant.stop() for tenant in self._tenants.values())

    async def close_engines(self) -> None:
        """End control calls and what they use."""
        await self._all(tenant.close_engines() for tenant in self._tenants.values())

    async def close(self) -> None:
        """End the rest, after the tunnels."""
        await self._all(tenant.close() for tenant in self._tenants.values())

    async def renew_tunnel_files(self) -> None:
        """Give all containers of all engines the tunnel's certificates as they are now."""
        await self._all(tenant.engines.renew_tunnel_files() for tenant in self._tenants.values())

    async def _all(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        await asyncio.gather(*work)


def _lasting(settings: Settings) -> Settings:
    """Return the part of an entry that cannot be changed in a tenant that runs."""
    return replace(settings, hosts=(), shares=ALL, public_url="", proxies=replace(settings.proxies, trusted=()))


def _as(tenant: Tenant, call: Callable[[], None]) -> None:
    """Call, and have the log of everything that comes of it name the instance."""
    context = copy_context()
    context.run(INSTANCE.set, tenant.settings.instance)
    context.run(call)


def _nothing() -> None:
    """Nobody keeps decisions about strangers."""
