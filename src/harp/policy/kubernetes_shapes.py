"""The parts of a cluster's objects that we read (K 5). Absent and unknown keys are fine."""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct, field

T = TypeVar("T")


class Shape(Struct, frozen=True, rename="camel"):
    """Base of the JSON that clusters send."""


class Metadata(Shape, frozen=True):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    def label(self, key: str) -> str:
        """Return the value of a label, "" without one."""
        return (self.labels or {}).get(key, "")

    def annotation(self, key: str) -> str:
        """Return the value of an annotation, "" without one."""
        return (self.annotations or {}).get(key, "")


class ListMetadata(Shape, frozen=True):
    resource_version: str = ""


class ObjectList(Shape, Generic[T], frozen=True):
    """Objects of one kind, and the version of the cluster's state that they show."""

    items: list[T] = []
    metadata: ListMetadata = ListMetadata()


class StatusReply(Shape, frozen=True):
    """What a cluster says when it does not do what was asked."""

    message: str = ""
    reason: str = ""
    code: int = 0


class ObjectCondition(Shape, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


# Deployments and claims


class EnvVariable(Shape, frozen=True):
    name: str = ""


class PodContainer(Shape, frozen=True):
    name: str = ""
    image: str = ""
    env: list[EnvVariable] | None = None
    startup_probe: dict[str, object] | None = None
    readiness_probe: dict[str, object] | None = None


class ConfigMapVolume(Shape, frozen=True):
    name: str = ""


class PodVolume(Shape, frozen=True):
    name: str = ""
    config_map: ConfigMapVolume | None = None


class PodSpec(Shape, frozen=True):
    containers: list[PodContainer] = []
    volumes: list[PodVolume] | None = None


class PodTemplate(Shape, frozen=True):
    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()


class DeploymentSpec(Shape, frozen=True):
    replicas: int = 1
    template: PodTemplate = PodTemplate()


class DeploymentStatus(Shape, frozen=True):
    ready_replicas: int = 0
    conditions: list[ObjectCondition] | None = None


class Deployment(Shape, frozen=True):
    metadata: Metadata = Metadata()
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class Bare(Shape, frozen=True):
    """An object of which we look at nothing but the metadata: a claim, a ConfigMap."""

    metadata: Metadata = Metadata()


# Pods


class Waiting(Shape, frozen=True):
    reason: str = ""
    message: str = ""


class Running(Shape, frozen=True):
    started_at: str = ""


class Terminated(Shape, frozen=True):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""


class ContainerPhase(Shape, frozen=True):
    """What a container does: one of these."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Shape, frozen=True):
    restart_count: int = 0
    state: ContainerPhase = ContainerPhase()
    last_state: ContainerPhase = ContainerPhase()


class PodStatus(Shape, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[ObjectCondition] | None = None
    container_statuses: list[ContainerStatus] | None = None


class Pod(Shape, frozen=True):
    metadata: Metadata = Metadata()
    status: PodStatus = PodStatus()

    def condition(self, kind: str) -> ObjectCondition:
        """Return the condition of that type, an empty one without it."""
        return next((one for one in self.status.conditions or () if one.type == kind), ObjectCondition())


class ClusterEvent(Shape, frozen=True):
    message: str = ""


# Services and nodes


class ServicePort(Shape, frozen=True):
    name: str = ""
    port: int = 0
    target_port: int | str = 0
    node_port: int = 0


class ServiceSpec(Shape, frozen=True):
    type: str = "ClusterIP"
    selector: dict[str, str] | None = None
    ports: list[ServicePort] | None = None
    cluster_ip: str = field(default="", name="clusterIP")
    external_traffic_policy: str = ""
    load_balancer_ip: str = field(default="", name="loadBalancerIP")


class Ingress(Shape, frozen=True):
    ip: str = ""
    hostname: str = ""


class LoadBalancer(Shape, frozen=True):
    ingress: list[Ingress] | None = None


class ServiceStatus(Shape, frozen=True):
    load_balancer: LoadBalancer = LoadBalancer()


class ClusterService(Shape, frozen=True):
    metadata: Metadata = Metadata()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointPort(Shape, frozen=True):
    port: int | None = None


class EndpointConditions(Shape, frozen=True):
    ready: bool | None = None


class EndpointPod(Shape, frozen=True):
    uid: str = ""


class SliceEndpoint(Shape, frozen=True):
    addresses: list[str] = []
    conditions: EndpointConditions = EndpointConditions()
    target_ref: EndpointPod = EndpointPod()


class EndpointSlice(Shape, frozen=True):
    """Some of the pods behind a Service."""

    metadata: Metadata = Metadata()
    address_type: str = ""
    endpoints: list[SliceEndpoint] | None = None
    ports: list[EndpointPort] | None = None


class NodeAddress(Shape, frozen=True):
    type: str = ""
    address: str = ""


class NodeStatus(Shape, frozen=True):
    addresses: list[NodeAddress] | None = None
    conditions: list[ObjectCondition] | None = None


class Node(Shape, frozen=True):
    metadata: Metadata = Metadata()
    status: NodeStatus = NodeStatus()

    @property
    def ready(self) -> bool:
        """Return whether it runs pods."""
        return any(one.type == "Ready" and one.status == "True" for one in self.status.conditions or ())
