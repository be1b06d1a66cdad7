"""How an ExApp is exposed in a cluster, and its resulting address (K 4.7, K 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from harp.policy.container import Owner
from harp.policy.kubernetes_names import APP, EXPOSED, PART_OF, STICKY, ClusterNames, managed
from harp.policy.kubernetes_objects import Json
from harp.policy.kubernetes_shapes import ClusterService, Deployment, Metadata, Node

MANUAL = "manual"
CLUSTER_IP = "clusterip"
NODE_PORT = "nodeport"
LOAD_BALANCER = "loadbalancer"
SERVICE_TYPES = {CLUSTER_IP: "ClusterIP", NODE_PORT: "NodePort", LOAD_BALANCER: "LoadBalancer"}
EXPOSE_TYPES = {kind: name for name, kind in SERVICE_TYPES.items()}

OTHERS = "appapi.nextcloud.com/"  # prefix of the annotations that the existing HaRP writes for `manual`
TYPE, HOST, PORT = OTHERS + "expose-type", OTHERS + "upstream-host", OTHERS + "upstream-port"


class Exposure(Struct, frozen=True, omit_defaults=True):
    """How an ExApp is exposed: AppAPI's wish, stored in an annotation of its Deployment."""

    type: str = CLUSTER_IP
    host: str = ""  # that AppAPI names instead of the cluster's
    port: int = 0  # of `manual`
    node_address_type: str = "InternalIP"
    node_name: str = ""
    node_labels: str = ""  # selector
    at: float = 0.0  # Unix seconds, for ExApps with several roles
    node: str = ""  # the address that was chosen

    def annotations(self) -> dict[str, str | None]:
        """Return what the Deployment remembers; None takes an annotation away."""
        manual = self.type == MANUAL
        return {
            EXPOSED: msgspec.json.encode(self).decode(),
            TYPE: MANUAL if manual else None,
            HOST: self.host if manual else None,
            PORT: str(self.port) if manual else None,
        }


def remembered(metadata: Metadata) -> Exposure | None:
    """Return how a Deployment was exposed, in our words or in those of the existing HaRP."""
    text = metadata.annotation(EXPOSED)
    if text:
        try:
            return msgspec.json.decode(text, type=Exposure)
        except (ValueError, RecursionError):
            return None
    host, port = metadata.annotation(HOST), metadata.annotation(PORT)
    if metadata.annotation(TYPE) == MANUAL and host and port.isdecimal() and 0 < int(port[:6]) < 65536:
        return Exposure(MANUAL, host, int(port))
    return None


# Services


class ServiceWish(Struct, frozen=True):
    """A Service to be made."""

    type: str  # of SERVICE_TYPES
    port: int
    service_port: int | None = None
    node_port: int | None = None
    external_traffic_policy: str | None = None
    load_balancer_ip: str | None = None
    annotations: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}

    def body(self, names: ClusterNames, owner: Owner) -> Json:
        """Return the Service."""
        port: Json = {
            "name": "http",
            "protocol": "TCP",
            "port": self.service_port or self.port,
            "targetPort": self.port,
        }
        spec: Json = {
            "type": SERVICE_TYPES[self.type],
            "selector": {"app": names.deployment},
            "ports": [port],
        }
        if self.type == NODE_PORT and self.node_port:
            port["nodePort"] = self.node_port
        if self.type != CLUSTER_IP and self.external_traffic_policy:
            spec["externalTrafficPolicy"] = self.external_traffic_policy
        if self.type == LOAD_BALANCER and self.load_balancer_ip:
            spec["loadBalancerIP"] = self.load_balancer_ip
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": names.deployment,
                "labels": {**self.labels, **names.labels(owner)},
                "annotations": {**self.annotations, **names.annotations()},
            },
            "spec": spec,
        }

    def patch(self, names: ClusterNames, owner: Owner) -> Json:
        """Return a merge patch that makes an existing Service the same; what belongs to other types goes."""
        body = self.body(names, owner)
        spec = body["spec"]
        assert isinstance(spec, dict)
        unwanted: Json = {}
        if self.type == CLUSTER_IP:
            unwanted |= {"externalTrafficPolicy": None, "healthCheckNodePort": None}
        if self.type != LOAD_BALANCER:
            unwanted |= {"loadBalancerIP": None, "loadBalancerClass": None, "allocateLoadBalancerNodePorts": None}
        return {"metadata": body["metadata"], "spec": {**unwanted, **spec}}

    def differences(self, found: ClusterService, names: ClusterNames, owner: Owner) -> list[str]:
        """Return the parts of an existing Service that are not as wished."""
        port = found.spec.ports[0] if found.spec.ports else None
        body = self.body(names, owner)
        metadata = body["metadata"]
        assert isinstance(metadata, dict)
        wrong = {
            "type": found.spec.type != SERVICE_TYPES[self.type],
            "port": port is None or port.port != (self.service_port or self.port) or port.target_port != self.port,
            "node port": self.type == NODE_PORT
            and bool(self.node_port)
            and (port is None or port.node_port != self.node_port),
            "selector": found.spec.selector != {"app": names.deployment},
            "traffic policy": self.type != CLUSTER_IP
            and bool(self.external_traffic_policy)
            and found.spec.external_traffic_policy != self.external_traffic_policy,
            "address": self.type == LOAD_BALANCER
            and bool(self.load_balancer_ip)
            and found.spec.load_balancer_ip != self.load_balancer_ip,
            "labels": not metadata["labels"].items() <= (found.metadata.labels or {}).items(),
            "annotations": not metadata["annotations"].items() <= (found.metadata.annotations or {}).items(),
        }
        return [part for part, is_wrong in wrong.items() if is_wrong]


# Addresses


class Place(Struct, frozen=True):
    """Where an ExApp is, or why that is not known."""

    host: str = ""
    port: int = 0
    trouble: str = ""


def place_of(exposure: Exposure, service: ClusterService | None, nodes: Sequence[Node], namespace: str) -> Place:
    """Return the address of an ExApp that is exposed like that."""
    if exposure.type == MANUAL:
        return Place(exposure.host, exposure.port)
    if service is None:
        return Place(trouble="its Service is not there")
    port = service.spec.ports[0] if service.spec.ports else None
    name = service.metadata.name
    match service.spec.type:
        case "NodePort":
            if port is None or not port.node_port:
                return Place(trouble="Service has no nodePort assigned.")
            found = Place(exposure.host) if exposure.host else node_address(exposure, nodes)
            return Place(found.host, port.node_port if found.host else 0, found.trouble)
        case "ClusterIP" if port is not None:
            address = service.spec.cluster_ip
            own = address if address and address != "None" else f"{name}.{namespace}.svc"
            return Place(exposure.host or own, port.port)
        case "LoadBalancer" if port is not None:
            ingress = service.status.load_balancer.ingress or ()
            given = [one.ip or one.hostname for one in ingress if one.ip or one.hostname]
            if not exposure.host and not given:
                return Place(trouble=f"the load balancer of Service '{name}' has no address yet")
            return Place(exposure.host or given[0], port.port)
    return Place(trouble=f"Service '{name}' is of type {service.spec.type} and has no port")


def node_address(exposure: Exposure, nodes: Sequence[Node]) -> Place:
    """Return the address of a node by which node ports are reached.

    The one chosen before stays while its node is ready.
    """
    fitting = [node for node in nodes if exposure.node_name in ("", node.metadata.name)]
    if not fitting:
        return Place(trouble="No Kubernetes nodes found (after filtering).")
    fitting = [node for node in fitting if node.ready] or fitting
    wanted = exposure.node_address_type
    kinds = (wanted, "ExternalIP" if wanted == "InternalIP" else "InternalIP", "Hostname")
    for kind in kinds:
        found = [
            one.address for node in fitting for one in node.status.addresses or () if one.type == kind and one.address
        ]
        if exposure.node in found:
            return Place(exposure.node)
    for node in fitting:
        for kind in kinds:
            for one in node.status.addresses or ():
                if one.type == kind and one.address:
                    return Place(one.address)
    return Place(trouble=f"Could not determine a node address of type {wanted}.")


class Found(Struct, frozen=True):
    """What a cluster has of one ExApp, as far as addresses are concerned."""

    exposure: Exposure
    service: ClusterService | None
    app: str  # its id as the annotation has it, "" = made by the existing HaRP
    sticky: bool = False  # a client's requests are to go to the same replica


def exposed(deployments: Iterable[Deployment], services: Iterable[ClusterService]) -> dict[str, Found]:
    """Return what leads to each ExApp, by the base of its names.

    Of several roles it is the one that was exposed last; of Services that the existing HaRP made, one whose pods exist.
    """
    found: dict[str, tuple[tuple[bool, float, bool], Found]] = {}
    by_name = {deployment.metadata.name: deployment for deployment in deployments}
    services_by_name = {service.metadata.name: service for service in services}
    for name in sorted({*by_name, *services_by_name}):
        deployment, service = by_name.get(name), services_by_name.get(name)
        metadata = service.metadata if deployment is None and service is not None else None
        metadata = deployment.metadata if deployment is not None else metadata
        assert metadata is not None
        exposure = remembered(metadata)
        if exposure is None:
            if service is None or service.spec.type not in EXPOSE_TYPES:
                continue
            exposure = Exposure(EXPOSE_TYPES[service.spec.type])
        base = metadata.label(PART_OF)
        if not base:
            continue
        rank = (deployment is not None, exposure.at, name == base)
        if base not in found or rank > found[base][0]:
            sticky = any(one is not None and one.metadata.annotation(STICKY) == "true" for one in (deployment, service))
            found[base] = (rank, Found(exposure, service, metadata.annotation(APP), sticky))
    return {base: entry for base, (_, entry) in found.items()}


def foreign(service: ClusterService) -> bool:
    """Return whether this Service was not created by HaRP, and is left alone."""
    return not managed(service.metadata.labels)
