"""The cluster of the settings: everything of it in one place, wired together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from msgspec import UNSET, Struct, UnsetType

from harp.engines.errors import EngineError, EngineRefused
from harp.engines.facts import ClusterExApp, ClusterStatus
from harp.engines.inventory import registries_of
from harp.engines.kubernetes.client import ClusterApi
from harp.engines.kubernetes.deploying import Deploying
from harp.engines.kubernetes.exposing import ExposeWait, Exposing
from harp.engines.kubernetes.lookout import Lookout
from harp.engines.kubernetes.objects import Namespace
from harp.engines.kubernetes.rights import Rights
from harp.engines.kubernetes.starting import Starting, StartPace, StartTools
from harp.policy.container import owner_from
from harp.policy.kubernetes_names import APP, PART_OF, ClusterNames, managed
from harp.policy.kubernetes_objects import ClusterPlan
from harp.policy.kubernetes_places import Exposure, Place, ServiceWish
from harp.policy.kubernetes_pods import PodOutcome
from harp.policy.kubernetes_shapes import Deployment
from harp.settings import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

PROBE = 3.0  # seconds: AppAPI waits 5 for /info

FIXES = {
    401: "the token is refused; check HP_K8S_BEARER_TOKEN or HP_K8S_BEARER_TOKEN_FILE",
    403: "the token is not allowed to ask; check the RBAC of its service account",
}


class ClusterInfo(Struct, frozen=True):
    """What /info says of the cluster (K 2)."""

    enabled: bool
    api_server: str
    reachable: bool
    error: str | UnsetType = UNSET
    missing_rights: dict[str, str] | UnsetType = UNSET  # by feature


class KubernetesCluster:
    """AppAPI's verbs, and what the rest of HaRP asks of the cluster."""

    def __init__(self, settings: Settings, now: Callable[[], float]) -> None:
        kubernetes = settings.kubernetes
        owner = owner_from(settings.nextcloud.url, settings.engines.instance)
        self.namespace = kubernetes.namespace
        self._api = ClusterApi(kubernetes, now)
        self._at = Namespace(self._api, kubernetes.namespace, owner)
        self.rights = Rights(self._api, kubernetes.namespace, now)
        self.lookout = Lookout(self._at, self.rights, now)
        self._deploying = Deploying(self._at, self.rights, kubernetes.pods, registries_of(settings.engines), now)
        pace = StartPace(kubernetes.start_patience, kubernetes.schedule_patience)
        self._starting = Starting(StartTools(self._at, self.rights, self._deploying, pace, now))
        self._exposing = Exposing(self._at, self.rights, now)

    async def close(self) -> None:
        """Drop all connections."""
        await self._api.close()

    # Verbs: all raise EngineError

    async def exists(self, names: ClusterNames) -> bool:
        """Return whether the ExApp has a Deployment."""
        return await self._deploying.exists(names)

    async def create(self, plan: ClusterPlan) -> str:
        """Create claim and Deployment, without pods; return the Deployment's name."""
        await self.rights.fresh()
        return await self._deploying.create(plan)

    async def start(self, names: ClusterNames) -> None:
        """Start pods."""
        await self._starting.start(names)

    async def stop(self, names: ClusterNames) -> None:
        """Stop all pods."""
        await self._starting.stop(names)

    async def wait_for_start(self, names: ClusterNames) -> PodOutcome:
        """Wait until a pod runs, or clearly will not."""
        return await self._starting.wait(names)

    async def remove(self, names: ClusterNames, *, data: bool) -> None:
        """Remove Deployment and Service, and the data with the last role if `data`."""
        await self._deploying.remove(names, data=data)
        self.lookout.forget(names)

    async def install_certificates(self, names: ClusterNames, bundle: str) -> bool:
        """Make the ExApp trust these authorities; return False if that is not possible."""
        await self.rights.fresh()
        return await self._deploying.install_certificates(names, bundle)

    async def expose(
        self, names: ClusterNames, exposure: Exposure, wish: ServiceWish, wait: ExposeWait | None = None
    ) -> Place:
        """Make the ExApp reachable, and store how."""
        place, service = await self._exposing.expose(names, exposure, wish, wait or ExposeWait())
        deployment = None
        try:
            deployment = await self._at.deployment(names)
        except EngineError:  # `manual` works without a cluster
            log.info("deployment not read", deployment=names.deployment)
        self.lookout.learn(names, exposure, deployment, service)
        return place

    # What people ask

    async def info(self) -> ClusterInfo:
        """Return whether the cluster answers, and which rights are missing."""
        error = await self._trouble()
        lacking = self.rights.lacking() or UNSET
        if not error:
            return ClusterInfo(True, self._api.server, True, missing_rights=lacking)
        # Of all this, AppAPI shows its admin the server alone.
        return ClusterInfo(True, f"{self._api.server} ({error[:300]})", False, error, lacking)

    async def _trouble(self) -> str:
        """Return why the cluster cannot be used, "" if it can."""
        try:
            await self._api.call("GET", "/api", limit=PROBE)
            await self.rights.fresh()
        except EngineRefused as error:
            return f"Status {error.status}: {FIXES.get(error.status, 'unexpected answer')}: {error.message[:200]}"
        except EngineError as error:
            return str(error)
        return self.rights.problem()

    def status(self) -> ClusterStatus:
        """Return every ExApp and everything that has lost its ExApp, as last seen.

        HaRP never removes any of it on its own.
        """
        lookout = self.lookout
        bases = {one.metadata.label(PART_OF) for one in lookout.deployments()}
        names = {one.metadata.name for one in lookout.deployments()}
        left = [
            ClusterExApp(one.metadata.name, one.metadata.annotation(APP), 0, 0, "", "a Service without Deployment")
            for one in lookout.services()
            if one.metadata.name not in names and managed(one.metadata.labels)
        ]
        left += [
            ClusterExApp(one.metadata.name, one.metadata.annotation(APP), 0, 0, "", "a claim without Deployment")
            for one in lookout.claims
            if one.metadata.label(PART_OF) not in bases
        ]
        return ClusterStatus(
            self._api.server,
            self.namespace,
            lookout.trouble or self.rights.problem(),
            self.rights.lacking(),
            (*(self._exapp(one) for one in lookout.deployments()), *left),
        )

    def _exapp(self, one: Deployment) -> ClusterExApp:
        place = self.lookout.place(one.metadata.label(PART_OF))
        return ClusterExApp(
            one.metadata.name,
            one.metadata.annotation(APP),
            one.spec.replicas,
            one.status.ready_replicas,
            f"{place.host}:{place.port}" if place and place.host else "",
            place.trouble if place else "not exposed",
        )


async def info_of(settings: Settings) -> ClusterInfo:
    """Ask a cluster once."""
    cluster = KubernetesCluster(settings, asyncio.get_running_loop().time)
    try:
        return await cluster.info()
    finally:
        await cluster.close()
