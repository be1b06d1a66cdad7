"""The objects of an ExApp in a cluster, made from what AppAPI asks for (K 4.2, K 5, K 10)."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

import msgspec
from msgspec import Struct

from harp.policy.container import Names, Owner, Refused, image_reference
from harp.policy.kubernetes_names import COMPONENT, PART_OF, STICKY, TEMPLATE, ClusterNames
from harp.policy.kubernetes_shapes import Bare
from harp.settings import ExAppPods, Toleration

Json = dict[str, object]

PULL_POLICIES = ("IfNotPresent", "Never", "Always")
GPU = {"cuda": "nvidia.com/gpu", "rocm": "amd.com/gpu"}
SECRET_VARIABLE = "APP_SECRET"
PORT_VARIABLE = "APP_PORT"
STICKY_VARIABLE = "APP_STICKY_SESSIONS"
CONTAINER = "app"

MIB = 1 << 20
GRACE = 10  # seconds a container has to end, as Docker gives it
STARTUP_PERIOD = 1  # seconds between looks whether it listens
STARTUP_LOOKS = 900  # after which the container is restarted; AppAPI gives up earlier
READY_PERIOD = 5  # seconds

CA_DIRECTORY = "/etc/nextcloud-ca"
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


class Amounts(Struct, frozen=True):
    """Memory and processors as quantities of Kubernetes, "" = no limit."""

    memory: str = ""
    cpu: str = ""


def amounts(memory: object, nano_cpus: object, cpu: object) -> Amounts:
    """Return AppAPI's resource limits; values that are not amounts count as none.

    Its page computes in floating point.
    """
    processors = _count(nano_cpus)
    return Amounts(
        _text(memory) or _scaled(_count(memory), MIB, "Mi"),
        _scaled(processors, 1_000_000, "m") or _text(cpu),
    )


def _count(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value >= 1 << 62:
        return 0
    return max(value, 0)


def _scaled(value: float, unit: int, suffix: str) -> str:
    return f"{math.ceil(value / unit)}{suffix}" if value > 0 else ""


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


class CaFile(Struct, frozen=True):
    """A key of a ConfigMap that has certificate authorities."""

    config_map: str
    key: str


class ClusterPlan(Struct, frozen=True):
    """An ExApp to be deployed. Use `checked`."""

    names: Names
    image: str
    environment: tuple[str, ...] = ()
    device: str = "cpu"  # "cpu", "cuda" or "rocm"
    amounts: Amounts = Amounts()
    pull_policy: str = "IfNotPresent"

    def checked(self) -> ClusterPlan:
        """Return the same, checked. Raises Refused."""
        self.names.checked()
        image_reference(self.image, "image_id")
        if any("\0" in variable for variable in self.environment):
            raise Refused("environment_variables: must not contain NUL")
        if self.pull_policy not in PULL_POLICIES:
            raise Refused(f"image_pull_policy: must be one of {', '.join(PULL_POLICIES)}")
        return self

    def __repr__(self) -> str:  # the environment holds secrets
        return f"ClusterPlan({self.names.container!r}, {self.image!r})"

    @property
    def variables(self) -> dict[str, str]:
        """The environment in AppAPI's order; the last of one name wins."""
        parted = (text.partition("=") for text in self.environment)
        return {name: value for name, _, value in parted if name}

    @property
    def secret(self) -> str:
        """What ExApp and Nextcloud sign with, "" without it."""
        return self.variables.get(SECRET_VARIABLE, "")

    @property
    def sticky(self) -> bool:
        """Whether the ExApp wants all requests of a client at the same replica."""
        return self.variables.get(STICKY_VARIABLE, "").lower() in ("1", "true", "yes")

    @property
    def port(self) -> int:
        """The port on which the ExApp will listen; 0 = not known."""
        text = self.variables.get(PORT_VARIABLE, "")
        return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and int(text) < 65536 else 0


def claim(names: ClusterNames, owner: Owner, pods: ExAppPods) -> Json:
    """Return the volume claim."""
    spec: Json = {"accessModes": [pods.access_mode], "resources": {"requests": {"storage": pods.storage_size}}}
    if pods.storage_class:
        spec["storageClassName"] = pods.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": names.claim,
            "labels": {**dict(pods.labels), **names.claim_labels(owner)},
            "annotations": names.annotations(role=False),
        },
        "spec": spec,
    }


def deployment(
    plan: ClusterPlan, owner: Owner, pods: ExAppPods, template: str, *, secret: bool = False, ca: CaFile | None = None
) -> Json:
    """Return the Deployment, with no pods yet.

    `template` is a text that no earlier Deployment of this name had. With `secret`, a Secret of the same name has
    APP_SECRET.
    """
    names = ClusterNames(plan.names)
    labels = {**dict(pods.labels), **names.labels(owner)}
    spec: Json = {
        "replicas": 0,
        "selector": {"matchLabels": {"app": names.deployment}},
        "template": {
            "metadata": {
                "labels": labels,
                "annotations": {**dict(pods.annotations), **names.annotations(), TEMPLATE: template},
            },
            "spec": _pod(plan, pods, secret=secret, ca=ca),
        },
    }
    if _one_node(pods):
        spec["strategy"] = {"type": "Recreate"}  # two pods on two nodes cannot have the volume at the same time
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names.deployment,
            "labels": labels,
            "annotations": names.annotations() | ({STICKY: "true"} if plan.sticky else {}),
        },
        "spec": spec,
    }


def secret_object(plan: ClusterPlan, owner: Owner, deployment_uid: str) -> Json:
    """Return the Secret with APP_SECRET; it goes when the Deployment does."""
    names = ClusterNames(plan.names)
    parent = {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.deployment, "uid": deployment_uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.deployment,
            "labels": names.labels(owner),
            "annotations": names.annotations(),
            "ownerReferences": [parent],
        },
        "stringData": {SECRET_VARIABLE: plan.secret},
    }


def _one_node(pods: ExAppPods) -> bool:
    return pods.access_mode != "ReadWriteMany"


def _pod(plan: ClusterPlan, pods: ExAppPods, *, secret: bool, ca: CaFile | None) -> Json:
    names = ClusterNames(plan.names)
    volumes: list[Json] = [{"name": "data", "persistentVolumeClaim": {"claimName": names.claim}}]
    if ca is not None:
        volumes.append(ca_volume(ca))
    optional: Json = {
        "hostAliases": [{"ip": ip, "hostnames": list(hosts)} for ip, hosts in pods.host_aliases],
        "nodeSelector": dict(pods.node_selector),
        "tolerations": [_toleration(one) for one in pods.tolerations],
        "imagePullSecrets": [{"name": name} for name in pods.pull_secrets],
        "runtimeClassName": pods.runtime_class,
        "priorityClassName": pods.priority_class,
        "securityContext": _pod_security(pods),
        "affinity": _affinity(names) if plan.names.role_suffix and _one_node(pods) else {},
    }
    if pods.service_account:
        optional["serviceAccountName"] = pods.service_account
    else:
        optional["automountServiceAccountToken"] = False  # ExApps do not need access to the cluster
    return {
        **{key: value for key, value in optional.items() if value not in ("", [], {})},
        "terminationGracePeriodSeconds": GRACE,
        "volumes": volumes,
        "containers": [_container(plan, pods, secret=secret, ca=ca)],
    }


def _container(plan: ClusterPlan, pods: ExAppPods, *, secret: bool, ca: CaFile | None) -> Json:
    names = ClusterNames(plan.names)
    environment = [_variable(name, value, names.deployment if secret else "") for name, value in plan.variables.items()]
    mounts: list[Json] = [{"name": "data", "mountPath": names.mount_path}]
    if ca is not None:
        environment += ca_variables(ca, plan.variables)
        mounts.append(CA_MOUNT)
    container: Json = {
        "name": CONTAINER,
        "image": plan.image,
        "imagePullPolicy": plan.pull_policy,
        "env": environment,
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",  # its last lines, without the right to read logs
    }
    resources = _resources(plan, pods)
    if resources:
        container["resources"] = resources
    if pods.security != "none":
        container["securityContext"] = _container_security(pods)
    if pods.probes and plan.port and not plan.names.role_suffix:  # a role need not listen anywhere
        check: Json = {"tcpSocket": {"port": plan.port}, "timeoutSeconds": 3}
        container["startupProbe"] = {**check, "periodSeconds": STARTUP_PERIOD, "failureThreshold": STARTUP_LOOKS}
        container["readinessProbe"] = {**check, "periodSeconds": READY_PERIOD}
    return container


def _variable(name: str, value: str, secret: str) -> Json:
    if name == SECRET_VARIABLE and secret:
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": SECRET_VARIABLE}}}
    return {"name": name, "value": value.replace("$(", "$$(")}  # the kubelet would put other variables there


def _resources(plan: ClusterPlan, pods: ExAppPods) -> Json:
    both = {"memory": plan.amounts.memory, "cpu": plan.amounts.cpu}
    requests = {name: amount for name, amount in both.items() if amount}
    limits = dict(requests)
    if plan.device in GPU:
        limits[pods.gpu_resource or GPU[plan.device]] = "1"
    resources: Json = {}
    if limits:
        resources["limits"] = limits
    if requests:
        resources["requests"] = requests
    return resources


def _toleration(one: Toleration) -> Json:
    toleration: Json = {"key": one.key, "operator": "Exists" if one.value is None else "Equal"}
    if one.value is not None:
        toleration["value"] = one.value
    if one.effect:
        toleration["effect"] = one.effect
    return toleration


def _affinity(names: ClusterNames) -> Json:
    """Keep all roles on one node, where they share a volume."""
    term = {"labelSelector": {"matchLabels": {PART_OF: names.base}}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _pod_security(pods: ExAppPods) -> Json:
    security: Json = {}
    if pods.security != "none":
        security["seccompProfile"] = {"type": "RuntimeDefault"}
    if pods.run_as is not None:
        user, group = pods.run_as
        security |= {"runAsUser": user, "runAsGroup": group, "fsGroup": group}
    return security


def _container_security(pods: ExAppPods) -> Json:
    security: Json = {"allowPrivilegeEscalation": False}
    if pods.security == "restricted":
        security |= {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
    return security


# Certificate authorities

CA_MOUNT: Json = {"name": "ca", "mountPath": CA_DIRECTORY, "readOnly": True}


def ca_volume(ca: CaFile) -> Json:
    """Return the volume of a pod that has the file."""
    return {"name": "ca", "configMap": {"name": ca.config_map}}


def ca_variables(ca: CaFile, given: Collection[str]) -> list[Json]:
    """Return the variables by which programs find it, except those that the ExApp sets itself."""
    path = f"{CA_DIRECTORY}/{ca.key}"
    return [{"name": name, "value": path} for name in CA_VARIABLES if name not in given]


def ca_object(name: str, key: str, bundle: str, labels: Mapping[str, str]) -> Json:
    """Return the ConfigMap with the authorities that Nextcloud trusts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {**labels, COMPONENT: "exapp-ca"}},
        "data": {key: bundle},
    }


def ca_patch(ca: CaFile, given: Collection[str], template: str) -> Json:
    """Return a strategic merge patch that has a Deployment's pods use the file.

    `given` are variables that they have.
    """
    container = {"name": CONTAINER, "env": ca_variables(ca, given), "volumeMounts": [CA_MOUNT]}
    pod = {"volumes": [ca_volume(ca)], "containers": [container]}
    return {"spec": {"template": {"metadata": {"annotations": {TEMPLATE: template}}, "spec": pod}}}


def replicas_patch(count: int, annotations: Mapping[str, str | None]) -> Json:
    """Return a merge patch of how many pods there are; None removes an annotation."""
    patch: Json = {"spec": {"replicas": count}}
    if annotations:
        patch["metadata"] = {"annotations": dict(annotations)}
    return patch


def uid_of(answer: bytes) -> str:
    """Return the uid of an object that was made, "" where the answer does not say."""
    try:
        return msgspec.json.decode(answer, type=Bare).metadata.uid
    except (ValueError, RecursionError):
        return ""
