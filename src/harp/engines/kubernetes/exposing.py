"""Making an ExApp reachable: its Service, and the address that follows from it (K 4.7)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from msgspec import Struct
from msgspec.structs import replace

from harp.engines.errors import EngineConflict, EngineError, EngineMissing, EngineRefused, ForeignOwner
from harp.engines.kubernetes.client import MERGE
from harp.engines.kubernetes.objects import Namespace, status_words
from harp.engines.kubernetes.rights import Rights
from harp.policy.kubernetes_names import ClusterNames
from harp.policy.kubernetes_objects import Json
from harp.policy.kubernetes_places import (
    LOAD_BALANCER,
    MANUAL,
    NODE_PORT,
    Exposure,
    Place,
    ServiceWish,
    foreign,
    place_of,
)
from harp.policy.kubernetes_rights import SERVICES
from harp.policy.kubernetes_shapes import ClusterService, Node

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

ATTEMPTS = 20  # to make a Service whose predecessor is being deleted
POLL = 0.25  # seconds
BALANCED = 10.0  # seconds after which the new address of a load balancer is given out even if nothing answers there
KNOCK = (
    1.0  # seconds for one connection to it; a lost packet would make an ExApp's first request wait for half a minute
)


class ExposeWait(Struct, frozen=True):
    """How long a load balancer may take for its address, in seconds."""

    limit: float = 60.0
    interval: float = 1.0


class Exposing:
    """The verb that exposes."""

    def __init__(self, namespace: Namespace, rights: Rights, now: Callable[[], float]) -> None:
        self._at = namespace
        self._rights = rights
        self._now = now

    async def expose(
        self, names: ClusterNames, exposure: Exposure, wish: ServiceWish, wait: ExposeWait
    ) -> tuple[Place, ClusterService | None]:
        """Make the ExApp reachable as wished, and store how. Raises EngineError if that is impossible."""
        exposure = replace(exposure, at=time.time())
        if exposure.type == MANUAL:
            try:
                await self._remember(names, exposure)
            except EngineError as error:
                log.warning("address not remembered in the cluster", deployment=names.deployment, reason=str(error))
            return Place(exposure.host, exposure.port), None
        service = await self._service(names, wish)
        nodes: list[Node] = []
        if exposure.type == NODE_PORT and not exposure.host:
            nodes = await self._nodes(exposure)
        place = place_of(exposure, service, nodes, self._at.name)
        if exposure.type == LOAD_BALANCER and place.trouble:
            place, service = await self._balanced(names, exposure, service, wait)
            await self._answering(place, min(BALANCED, wait.limit))
        if place.trouble:
            raise EngineError(place.trouble)
        if nodes:
            exposure = replace(exposure, node=place.host)
        try:
            await self._remember(names, exposure)
        except EngineMissing:  # an ExApp without a Deployment of ours
            log.warning("address not remembered in the cluster", deployment=names.deployment, reason="no Deployment")
        return place, service

    # Parts

    async def _remember(self, names: ClusterNames, exposure: Exposure) -> None:
        if await self._at.deployment(names) is not None:
            await self._at.patch_deployment(names, {"metadata": {"annotations": exposure.annotations()}})

    async def _nodes(self, exposure: Exposure) -> list[Node]:
        try:
            return await self._at.nodes(exposure.node_labels)
        except EngineRefused as error:
            raise EngineError(f"Failed to list K8s nodes: {status_words(error)}") from error

    async def _service(self, names: ClusterNames, wish: ServiceWish) -> ClusterService:
        """Return the Service as wished: created, unchanged, changed, or created again where we may not change it."""
        for _ in range(ATTEMPTS):
            found = await self._read(names)
            if found is None:
                try:
                    await self._create(names, wish)
                except EngineConflict:  # made meanwhile, or its predecessor is being deleted
                    await asyncio.sleep(POLL)
                continue
            if found.metadata.deletion_timestamp is not None:
                await asyncio.sleep(POLL)
                continue
            self._check_owner(names, found)
            different = wish.differences(found, names, self._at.owner)
            if not different:
                return found
            await self._change(names, wish, found, different)
        raise EngineError(f"Failed to create Service '{names.deployment}': another one of that name keeps reappearing")

    def _check_owner(self, names: ClusterNames, found: ClusterService) -> None:
        if foreign(found):
            raise ForeignOwner(
                f"Service '{names.deployment}' was not made by HaRP (no label managed-by=harp): "
                "remove or rename it, or expose this daemon's ExApps as manual"
            )
        objection = names.objection(f"Service '{names.deployment}'", found.metadata, self._at.owner)
        if objection:
            raise ForeignOwner(objection)

    async def _read(self, names: ClusterNames) -> ClusterService | None:
        try:
            return await self._at.service(names)
        except EngineRefused as error:
            raise EngineError(f"Failed to read Service '{names.deployment}': {status_words(error)}") from error

    async def _create(self, names: ClusterNames, wish: ServiceWish) -> None:
        try:
            await self._at.api.call("POST", self._at.services, body=wish.body(names, self._at.owner))
        except EngineConflict:
            raise
        except EngineRefused as error:
            raise EngineError(self._not_created(names, wish, error)) from error

    def _not_created(self, names: ClusterNames, wish: ServiceWish, error: EngineRefused) -> str:
        text = f"Failed to create Service '{names.deployment}': {status_words(error)}"
        if "already allocated" in error.message and wish.node_port:
            text = (
                f"Failed to create Service '{names.deployment}': node port {wish.node_port} is another Service's "
                "(one fixed node port serves one ExApp; register the daemon without --k8s_node_port)"
            )
        return text

    async def _change(
        self, names: ClusterNames, wish: ServiceWish, found: ClusterService, different: list[str]
    ) -> None:
        path = f"{self._at.services}/{names.deployment}"
        log.info("service updated", service=names.deployment, different=different)
        try:
            if self._rights.may(SERVICES):
                await self._at.api.call("PATCH", path, body=wish.patch(names, self._at.owner), kind=MERGE)
                return
            body: Json = {"preconditions": {"uid": found.metadata.uid}}
            await self._at.api.call("DELETE", path, body=body)
        except (EngineMissing, EngineConflict):
            return  # somebody was faster: look again
        except EngineRefused as error:
            raise EngineError(self._not_created(names, wish, error)) from error

    async def _balanced(
        self, names: ClusterNames, exposure: Exposure, service: ClusterService, wait: ExposeWait
    ) -> tuple[Place, ClusterService]:
        """Wait for the address of a load balancer."""
        until = self._now() + wait.limit
        while True:
            place = place_of(exposure, service, (), self._at.name)
            if not place.trouble:
                return place, service
            if self._now() >= until:
                raise EngineError(f"Timed out waiting for LoadBalancer address of Service '{names.deployment}'")
            await asyncio.sleep(wait.interval)
            found = await self._read(names)
            if found is None:
                raise EngineError(f"Service '{names.deployment}' was removed while HaRP waited for its address")
            service = found

    async def _answering(self, place: Place, seconds: float) -> None:
        """Wait until something accepts connections at a new address: it is often known before it works."""
        until = self._now() + seconds
        while self._now() < until:
            try:
                async with asyncio.timeout(KNOCK):
                    _, writer = await asyncio.open_connection(place.host, place.port)
            except OSError:  # TimeoutError is one
                await asyncio.sleep(POLL)
            else:
                writer.close()
                return
        log.info("load balancer not answering yet", host=place.host, port=place.port)
