"""/k8s/exapp/...: AppAPI deploys, exposes, starts, updates and removes ExApps in a Kubernetes cluster (K 4).

Loaded only when HP_K8S_ENABLED is on. AppAPI looks at statuses and JSON; texts are for people.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, TypeVar

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta, Struct, field

from harp.control.docker import CertificatesBody, MountBody, NamesBody, RemoveBody, checked
from harp.control.failures import InvalidPayload
from harp.control.payloads import decode
from harp.engines.errors import EngineError, NotThere
from harp.engines.kubernetes.cluster import KubernetesCluster
from harp.engines.kubernetes.exposing import ExposeWait
from harp.policy.exapp import RecordFact, Trouble, UnknownApp
from harp.policy.exapp_target import ExAppTargets
from harp.policy.kubernetes_names import ClusterNames
from harp.policy.kubernetes_objects import ClusterPlan, amounts
from harp.policy.kubernetes_places import Exposure, ServiceWish
from harp.settings import Kubernetes

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

Port = Annotated[int, Meta(ge=1, le=65535)]
NodePort = Annotated[int, Meta(ge=30000, le=32767)]


class KnownRecords(Protocol):
    """Who knows the records of ExApps: the instance."""

    async def fetch(self, app_id: str) -> RecordFact:
        """Ask Nextcloud now for the record of the lower-cased id."""
        ...


class DeploymentBody(NamesBody, frozen=True):
    """A Deployment to make. AppAPI says `image_id` or `image`."""

    image_id: str = ""
    image: str = ""
    network_mode: str = "bridge"
    environment_variables: list[str] = field(default_factory=list)
    restart_policy: Literal["", "no", "always", "unless-stopped", "on-failure"] = "unless-stopped"
    compute_device: Literal["cpu", "cuda", "rocm"] = "cpu"
    mount_points: list[MountBody] = field(default_factory=list)
    resource_limits: dict[str, object] | list[object] = field(default_factory=dict)  # PHP writes an empty object as []
    image_pull_policy: Literal["IfNotPresent", "Never", "Always"] = "IfNotPresent"

    def plan(self) -> ClusterPlan:
        """Return the checked plan. Raises InvalidPayload."""
        if self.mount_points:
            raise InvalidPayload("Payload validation error: mount_points: a cluster has no directories to mount")
        limits = self.resource_limits
        if isinstance(limits, list):
            if limits:
                raise InvalidPayload("Payload validation error: resource_limits: Expected object, got array")
            limits = {}
        plan = ClusterPlan(
            self.names(),
            self.image_id or self.image,
            tuple(self.environment_variables),
            self.compute_device,
            amounts(limits.get("memory"), limits.get("nanoCPUs"), limits.get("cpu")),
            self.image_pull_policy,
        )
        return checked(plan.checked)

    def __repr__(self) -> str:  # the environment holds secrets
        return f"DeploymentBody({self.name!r})"


class ExposeBody(NamesBody, frozen=True, kw_only=True):
    """How to reach an ExApp."""

    port: Port
    expose_type: Literal["nodeport", "clusterip", "loadbalancer", "manual"] = "clusterip"
    upstream_host: str | None = None
    upstream_port: Port | None = None
    service_port: Port | None = None
    node_port: NodePort | None = None
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    load_balancer_ip: str | None = None
    service_annotations: dict[str, str] | list[object] = field(default_factory=dict)
    service_labels: dict[str, str] | list[object] = field(default_factory=dict)
    wait_timeout_seconds: Annotated[float, Meta(ge=0, le=600)] = 60.0
    wait_interval_seconds: Annotated[float, Meta(ge=0.1, le=10)] = 1.0
    node_address_type: Literal["InternalIP", "ExternalIP"] = "InternalIP"
    node_name: str | None = None
    node_label_selector: str | None = None

    def exposure(self) -> Exposure:
        """Return what has to be stored. Raises InvalidPayload."""
        host = (self.upstream_host or "").strip()
        manual = self.expose_type == "manual"
        if manual and not host:
            raise InvalidPayload("Payload validation error: upstream_host: required when expose_type is manual")
        if any(c.isspace() or not c.isprintable() for c in host):
            raise InvalidPayload("Payload validation error: upstream_host: not a host")
        return Exposure(
            self.expose_type,
            host.strip("[]"),
            (self.upstream_port or self.port) if manual else 0,
            self.node_address_type,
            self.node_name or "",
            self.node_label_selector or "",
        )

    def wish(self, annotations: tuple[tuple[str, str], ...]) -> ServiceWish:
        """Return the Service to have; `annotations` are the admin's own."""
        return ServiceWish(
            self.expose_type,
            self.port,
            self.service_port,
            self.node_port,
            self.external_traffic_policy,
            self.load_balancer_ip or None,
            {**dict(annotations), **_mapping(self.service_annotations)},
            _mapping(self.service_labels),
        )


B = TypeVar("B", bound=Struct)


def register(
    app: web.Application,
    cluster: KubernetesCluster,
    records: KnownRecords,
    settings: Kubernetes,
    targets: ExAppTargets,
) -> None:
    """Add the endpoints to the control API."""
    kubernetes = KubernetesVerbs(cluster, records, settings, targets)
    for verb in (
        kubernetes.exists,
        kubernetes.create,
        kubernetes.start,
        kubernetes.stop,
        kubernetes.wait_for_start,
        kubernetes.remove,
        kubernetes.install_certificates,
        kubernetes.expose,
    ):
        app.router.add_post(f"/k8s/exapp/{verb.__name__}", verb)


class KubernetesVerbs:
    """The endpoints. Faulty requests are refused before the cluster is called."""

    def __init__(
        self, cluster: KubernetesCluster, records: KnownRecords, settings: Kubernetes, targets: ExAppTargets
    ) -> None:
        self._cluster = cluster
        self._records = records
        self._settings = settings
        self._targets = targets

    async def exists(self, request: web.Request) -> web.Response:
        """Say whether there is a Deployment (K 4.1)."""
        names = ClusterNames((await _read(request, NamesBody)).names())
        return _json({"exists": await self._cluster.exists(names)})

    async def create(self, request: web.Request) -> web.Response:
        """Create claim and Deployment (K 4.2)."""
        plan = (await _read(request, DeploymentBody)).plan()
        return _json({"name": await self._cluster.create(plan)}, status=201)

    async def start(self, request: web.Request) -> web.Response:
        """Start pods: always 204, whether or not they were running (K 4.3)."""
        await self._cluster.start(ClusterNames((await _read(request, NamesBody)).names()))
        return web.Response(status=204)

    async def stop(self, request: web.Request) -> web.Response:
        """Stop all pods (K 4.3)."""
        await self._cluster.stop(ClusterNames((await _read(request, NamesBody)).names()))
        return web.Response(status=204)

    async def wait_for_start(self, request: web.Request) -> web.Response:
        """Wait until a pod runs; a failure is reported with status 200 (K 4.4)."""
        names = ClusterNames((await _read(request, NamesBody)).names())
        return _json(await self._cluster.wait_for_start(names))

    async def remove(self, request: web.Request) -> web.Response:
        """Remove Deployment and Service and, if asked to, the data (K 4.5)."""
        body = await _read(request, RemoveBody)
        await self._cluster.remove(ClusterNames(body.names()), data=body.remove_data)
        return web.Response(status=204)

    async def install_certificates(self, request: web.Request) -> web.Response:
        """Give the ExApp the authorities that Nextcloud trusts, where that is allowed (K 4.6)."""
        body = await _read(request, CertificatesBody)
        names = ClusterNames(body.names())
        if body.system_certs_bundle:
            try:
                done = await self._cluster.install_certificates(names, body.system_certs_bundle)
            except EngineError as error:
                log.warning("certificate authorities not installed", app=body.name, reason=str(error))
            else:
                log.info("certificate authorities received", app=body.name, installed=done)
        return web.Response(status=204)

    async def expose(self, request: web.Request) -> web.Response:
        """Make the ExApp reachable, and point its record there (K 4.7)."""
        body = await _read(request, ExposeBody)
        names, exposure = ClusterNames(body.names()), body.exposure()
        if exposure.host:
            objection = self._targets.objection(exposure.host, exposure.port or body.port)
            if objection is not None:
                raise InvalidPayload(f"Payload validation error: upstream_host: {objection}")
        wait = ExposeWait(body.wait_timeout_seconds, body.wait_interval_seconds)
        place = await self._cluster.expose(names, exposure, body.wish(self._settings.pods.service_annotations), wait)
        app_id = body.name.lower()
        fact = await self._records.fetch(app_id)
        if isinstance(fact, UnknownApp):
            raise NotThere(f"No ExApp metadata for '{app_id}'")
        if isinstance(fact, Trouble):
            raise EngineError(fact.reason)
        log.info("exapp exposed", app=app_id, type=exposure.type, host=place.host, port=place.port)
        return _json(
            {
                "appId": app_id,
                "host": place.host,
                "port": place.port,
                "exposeType": exposure.type,
                "serviceName": names.deployment,
                "namespace": self._cluster.namespace,
            }
        )


async def _read(request: web.Request, shape: type[B]) -> B:
    return decode(await request.read(), shape)


def _mapping(pairs: dict[str, str] | list[object]) -> dict[str, str]:
    return pairs if isinstance(pairs, dict) else {}


def _json(value: object, status: int = 200) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(status=status, body=body, content_type="application/json", charset="utf-8")
