"""Where the cluster's ExApps are: listed once, then watched, and kept while the cluster is unreachable (K 6).

Requests never ask the cluster: they find what is known here. Without the right to watch, the lists are read again
every half minute, and soon after an address did not answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import structlog
from msgspec import Struct

from harp.engines.errors import EngineError
from harp.engines.kubernetes.objects import EXAPPS, Namespace
from harp.engines.kubernetes.rights import Rights
from harp.policy.exapp import ExApp
from harp.policy.kubernetes_endpoints import endpoints_of
from harp.policy.kubernetes_names import INSTANCE, PART_OF, ClusterNames, base_of, label_value
from harp.policy.kubernetes_places import MANUAL, Exposure, Found, Place, exposed, place_of
from harp.policy.kubernetes_rights import CLAIMS, ENDPOINTS, WATCH
from harp.policy.kubernetes_shapes import Bare, ClusterService, Deployment, EndpointSlice, Node, ObjectList
from harp.proxy.replicas import Replicas
from harp.wire.decoding import decoded

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

T = TypeVar("T", Deployment, ClusterService, EndpointSlice)

FIRST = 3.0  # seconds that requests wait for the first list after we have started


class LookoutPace(Struct, frozen=True):
    """How often the cluster is asked, in seconds."""

    again: float = 30.0  # between lists without watching, and between looks at nodes
    soon: float = 2.0  # after a doubt
    retry: float = 1.0  # after the first failure, twice that after the next
    longest: float = 30.0
    whole: float = 600.0  # between lists beside watching
    watch: int = 60  # one watch


class Lookout:
    """The addresses of ExApps in the cluster."""

    def __init__(
        self,
        namespace: Namespace,
        rights: Rights,
        now: Callable[[], float],
        pace: LookoutPace | None = None,
    ) -> None:
        self.moved: Callable[[], None] = lambda: None  # called when an address has changed
        self.claims: list[Bare] = []  # of ExApps of this instance, as last listed
        self.spread: Callable[[str], object] = lambda base: None  # called when an ExApp has got or lost pods
        self.trouble = ""  # why the cluster was not read last time
        self._at = namespace
        self._rights = rights
        self._now = now
        self._pace = pace or LookoutPace()
        self._mine = label_value(namespace.owner.instance)
        self._deployments: dict[str, Deployment] = {}
        self._services: dict[str, ClusterService] = {}
        self._slices: dict[str, EndpointSlice] = {}
        self._nodes: list[Node] = []
        self._pinned: dict[str, Found] = {}  # exposed as `manual`, without a Deployment
        self._found: dict[str, Found] = {}
        self._places: dict[str, Place] = {}
        self._ready: dict[str, int] = {}  # pods that are ready, by base
        self._replicas: dict[str, Replicas] = {}  # of ExApps that have had several, by base
        self._versions = ("", "", "")  # of the lists of Deployments, Services and EndpointSlices
        self._listed = asyncio.Event()
        self._doubted = asyncio.Event()

    # What the rest of HaRP asks

    def placed(self, record: ExApp) -> ExApp:
        """Return the record with the address that its ExApp has in the cluster; unchanged if it has none."""
        base = base_of(record.app_id)
        place, found = self._places.get(base), self._found.get(base)
        if place is None or found is None or place.trouble or found.app.lower() not in ("", record.app_id):
            return record
        return record.at(place.host, place.port)

    def replicas(self, app_id: str) -> Replicas | None:
        """Return the pods of an ExApp, if there may be several and the cluster lists them."""
        base = base_of(app_id)
        found = self._found.get(base)
        return self._replicas.get(base) if found is not None and found.app.lower() in ("", app_id) else None

    async def known(self) -> None:
        """Wait until the cluster was read once, but not for long."""
        if not self._listed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST):
                    await self._listed.wait()

    def is_base(self, app_id: str, base: str) -> bool:
        """Return whether the objects of this ExApp have this base of their names."""
        return base_of(app_id) == base

    def doubt(self, app_id: str) -> None:
        """The address of an ExApp did not answer: look again soon, if it is in the cluster."""
        if base_of(app_id) in self._places:
            self._doubted.set()

    def learn(
        self, names: ClusterNames, exposure: Exposure, deployment: Deployment | None, service: ClusterService | None
    ) -> None:
        """Store what a verb has just seen, before a watch or list reports it."""
        self._pinned.pop(names.base, None)
        if deployment is None and exposure.type == MANUAL:  # nothing in the cluster can remember it
            self._pinned[names.base] = Found(exposure, None, names.names.name)
        if deployment is not None:
            self._deployments[deployment.metadata.name] = deployment
        if service is not None:
            self._services[service.metadata.name] = service
        self._settle()

    def forget(self, names: ClusterNames) -> None:
        """Note that a verb has removed Deployment and Service."""
        self._deployments.pop(names.deployment, None)
        self._services.pop(names.deployment, None)
        self._pinned.pop(names.base, None)
        self._settle()

    def deployments(self) -> Sequence[Deployment]:
        """Return every Deployment of an ExApp of this instance, by name."""
        return [self._deployments[name] for name in sorted(self._deployments)]

    def services(self) -> Sequence[ClusterService]:
        """Return every Service of an ExApp of this instance, by name."""
        return [self._services[name] for name in sorted(self._services)]

    def place(self, base: str) -> Place | None:
        """Return the address of the ExApp whose names have this base."""
        return self._places.get(base)

    # The work

    async def run(self) -> None:
        """Keep reading the cluster until cancelled."""
        pause = self._pace.retry
        while True:
            try:
                await self._rights.fresh()
                await self._list()
                pause = self._pace.retry
                await self._stay()
            except EngineError as error:
                if self.trouble != str(error):
                    log.warning("cluster not read; the addresses known so far are used", reason=str(error))
                self.trouble = str(error)
                await self._rest(pause * random.uniform(0.7, 1.3))  # noqa: S311
                pause = min(pause * 2, self._pace.longest)
            except Exception:
                log.exception("cluster not read")
                await self._rest(self._pace.longest)

    async def _rest(self, seconds: float) -> None:
        """Wait, or be woken by a doubt, but not at once."""
        await asyncio.sleep(min(seconds, self._pace.soon))
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds - self._pace.soon, 0)):
                await self._doubted.wait()
        self._doubted.clear()

    async def _list(self) -> None:
        deployments = await self._at.exapp_deployments()
        services = await self._at.exapp_services()
        slices = await self._at.exapp_slices() if self._sees_endpoints else ObjectList[EndpointSlice]()
        first, second, third = (one.metadata.resource_version for one in (deployments, services, slices))
        self._versions = first, second, third
        self._deployments = {one.metadata.name: one for one in deployments.items if self._ours(one)}
        self._services = {one.metadata.name: one for one in services.items if self._ours(one)}
        self._slices = {one.metadata.name: one for one in slices.items if self._ours(one)}
        if self._rights.may(CLAIMS):
            self.claims = [one for one in await self._at.exapp_claims() if self._ours(one)]
        await self._look_at_nodes()
        self._settle()
        if self.trouble:
            log.info("cluster available again")
        self.trouble = ""
        self._listed.set()

    @property
    def _sees_endpoints(self) -> bool:
        """Whether pods are followed: a list of half a minute ago would name those that are gone."""
        return self._rights.may(ENDPOINTS) and self._rights.may(WATCH)

    async def _look_at_nodes(self) -> None:
        wanted = exposed(self._deployments.values(), self._services.values()).values()
        if any(one.service and one.service.spec.type == "NodePort" and not one.exposure.host for one in wanted):
            try:
                self._nodes = await self._at.nodes()
            except EngineError as error:
                log.warning("nodes not listed", reason=str(error))

    async def _stay(self) -> None:
        """Return when it is time for the next lists. Raises EngineError."""
        if not self._rights.may(WATCH):
            await self._rest(self._pace.again)
            return
        began = self._now()
        tasks = [
            asyncio.create_task(self._follow(self._at.deployments, self._versions[0], Deployment, self._deployments)),
            asyncio.create_task(self._follow(self._at.services, self._versions[1], ClusterService, self._services)),
            asyncio.create_task(self._doubt()),
        ]
        if self._sees_endpoints:
            following = self._follow(self._at.slices, self._versions[2], EndpointSlice, self._slices)
            tasks.append(asyncio.create_task(following))
        try:
            done: set[asyncio.Task[None]] = set()
            while not done and self._now() - began < self._pace.whole:
                done, _ = await asyncio.wait(tasks, timeout=self._pace.again, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    await self._look_at_nodes()
                    self._settle()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        await asyncio.sleep(max(self._pace.soon - (self._now() - began), 0))

    async def _doubt(self) -> None:
        await self._doubted.wait()
        self._doubted.clear()

    async def _follow(self, path: str, version: str, shape: type[T], table: dict[str, T]) -> None:
        """Apply changes to a table until the API server has no more of them. Raises EngineError."""
        while True:
            query = {**EXAPPS, "resourceVersion": version}
            changes = self._at.api.watch(path, query, seconds=self._pace.watch, silence=self._pace.watch + 15.0)
            async for change in changes:
                if change.type == "ERROR":  # too old a version: list again
                    return
                found = decoded(bytes(change.object), shape, _unreadable)
                version = found.metadata.resource_version
                if change.type != "BOOKMARK" and self._ours(found):
                    self._change(change.type, found, table)

    def _change(self, kind: str, found: T, table: dict[str, T]) -> None:
        if kind == "DELETED":
            table.pop(found.metadata.name, None)
        else:
            table[found.metadata.name] = found
        self._settle()

    def _ours(self, found: Deployment | ClusterService | EndpointSlice | Bare) -> bool:
        return found.metadata.label(INSTANCE) in ("", self._mine)

    def _settle(self) -> None:
        """Work out all addresses again, and report when one has changed."""
        self._found = self._pinned | exposed(self._deployments.values(), self._services.values())
        places = {
            base: place_of(one.exposure, one.service, self._nodes, self._at.name) for base, one in self._found.items()
        }
        for base, place in places.items():
            known = self._places.get(base)
            if place.trouble and known is not None and not known.trouble:
                log.warning("address of an ExApp is gone; the last one is used", exapp=base, reason=place.trouble)
                places[base] = known
        self._settle_replicas()
        ready = {one.metadata.label(PART_OF): one.status.ready_replicas for one in self._deployments.values()}
        changed = [base for base, count in ready.items() if self._ready.get(base, count) != count]
        self._ready = ready
        if places != self._places:
            self._places = places
            self.moved()
        for base in changed:
            self.spread(base)

    def _settle_replicas(self) -> None:
        for base in {*self._found, *self._replicas}:
            found = self._found.get(base)
            endpoints = () if found is None else endpoints_of(found, self._slices.values())
            if len(endpoints) > 1 and base not in self._replicas:
                self._replicas[base] = Replicas(base)
            if base in self._replicas:
                self._replicas[base].update(endpoints, sticky=found is not None and found.sticky)


def _unreadable(error: Exception) -> EngineError:
    return EngineError(f"a change in the cluster is not what its API promises: {error}")
