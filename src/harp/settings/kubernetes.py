"""HP_K8S_*: the cluster, and what ExApps get there beyond AppAPI's wishes (K 1)."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from harp.settings import parsers as v
from harp.settings.parsers import shown
from harp.settings.reader import Fault, Note, VariableReader

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
ACCESS_MODES = ("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

Pairs = tuple[tuple[str, str], ...]


class Toleration(Struct, frozen=True):
    """A taint of nodes that does not keep ExApps away."""

    key: str
    value: str | None  # None = any
    effect: str  # "" = any


class ExAppPods(Struct, frozen=True):
    """What the pods of ExApps get, and their volume claims and Services."""

    labels: Pairs  # HP_K8S_LABELS
    annotations: Pairs  # HP_K8S_ANNOTATIONS: of pods
    service_annotations: Pairs  # HP_K8S_SERVICE_ANNOTATIONS
    node_selector: Pairs  # HP_K8S_NODE_SELECTOR
    tolerations: tuple[Toleration, ...]  # HP_K8S_TOLERATIONS
    pull_secrets: tuple[str, ...]  # HP_K8S_PULL_SECRETS
    service_account: str  # HP_K8S_SERVICE_ACCOUNT; "" = the namespace's default, whose token is not mounted
    security: str  # HP_K8S_SECURITY_CONTEXT: "none", "baseline" or "restricted"
    run_as: tuple[int, int] | None  # HP_K8S_RUN_AS: user and group
    runtime_class: str  # HP_K8S_RUNTIME_CLASS
    priority_class: str  # HP_K8S_PRIORITY_CLASS
    gpu_resource: str  # HP_K8S_GPU_RESOURCE; "" = by the kind of GPU
    ca_config_map: tuple[str, str] | None  # HP_K8S_CA_CONFIGMAP: name and key of the admin's own CAs
    probes: bool  # HP_K8S_PROBES
    storage_class: str  # HP_K8S_STORAGE_CLASS
    storage_size: str  # HP_K8S_DEFAULT_STORAGE_SIZE
    access_mode: str  # HP_K8S_ACCESS_MODE
    host_aliases: tuple[tuple[str, tuple[str, ...]], ...]  # HP_K8S_HOST_ALIASES: (ip, names)


class Kubernetes(Struct, frozen=True):
    """The cluster, and how to log in there."""

    enabled: bool
    namespace: str
    api_server: str
    token: str
    token_file: Path
    ca_file: Path
    verify: bool
    schedule_patience: float  # seconds a pod may be unschedulable; HP_K8S_SCHEDULE_PATIENCE
    start_patience: float  # seconds a start may take, images included; HP_K8S_START_PATIENCE
    pods: ExAppPods

    def __repr__(self) -> str:
        return f"Kubernetes({self.api_server!r}, {self.namespace!r})"


def kubernetes(r: VariableReader) -> Kubernetes:
    """Read the variables of the cluster."""
    enabled = r.read("HP_K8S_ENABLED", "false", v.boolean)
    api_server = r.optional("HP_K8S_API_SERVER", v.web_url, "of the cluster we run in") or _own_cluster(r)
    if enabled and not api_server and not r.given("HP_K8S_API_SERVER"):
        r.problem("HP_K8S_API_SERVER", "is not set and we run in no cluster; write such as https://10.0.0.1:6443")
    return Kubernetes(
        enabled=enabled,
        namespace=r.read("HP_K8S_NAMESPACE", "nextcloud-exapps", name),
        api_server=api_server,
        token=r.secret("HP_K8S_BEARER_TOKEN", v.secret),
        token_file=r.read("HP_K8S_BEARER_TOKEN_FILE", f"{ACCOUNT}/token", v.path),
        ca_file=r.read("HP_K8S_CA_FILE", f"{ACCOUNT}/ca.crt", v.path),
        verify=not r.read("HP_K8S_VERIFY_SSL", "true", _not_verified),
        schedule_patience=r.read("HP_K8S_SCHEDULE_PATIENCE", "5s", v.duration("s", zero=0.0, most=1800.0)),
        start_patience=r.read("HP_K8S_START_PATIENCE", "1700s", v.duration("s", most=3600.0)),
        pods=_pods(r),
    )


def _pods(r: VariableReader) -> ExAppPods:
    return ExAppPods(
        labels=r.read("HP_K8S_LABELS", "", label_pairs),
        annotations=r.read("HP_K8S_ANNOTATIONS", "", pairs),
        service_annotations=r.read("HP_K8S_SERVICE_ANNOTATIONS", "", pairs),
        node_selector=r.read("HP_K8S_NODE_SELECTOR", "", label_pairs),
        tolerations=r.read("HP_K8S_TOLERATIONS", "", tolerations),
        pull_secrets=r.read("HP_K8S_PULL_SECRETS", "", names),
        service_account=r.optional("HP_K8S_SERVICE_ACCOUNT", name, "the namespace's default") or "",
        security=r.read("HP_K8S_SECURITY_CONTEXT", "none", v.choice("none", "baseline", "restricted")),
        run_as=r.optional("HP_K8S_RUN_AS", user_and_group, "the image's user"),
        runtime_class=r.optional("HP_K8S_RUNTIME_CLASS", name, "the cluster's default") or "",
        priority_class=r.optional("HP_K8S_PRIORITY_CLASS", name, "the cluster's default") or "",
        gpu_resource=r.optional("HP_K8S_GPU_RESOURCE", resource_name, "nvidia.com/gpu or amd.com/gpu") or "",
        ca_config_map=r.optional("HP_K8S_CA_CONFIGMAP", config_map_key, "not set"),
        probes=r.read("HP_K8S_PROBES", "true", v.boolean),
        storage_class=r.read("HP_K8S_STORAGE_CLASS", "", v.word),
        storage_size=r.read("HP_K8S_DEFAULT_STORAGE_SIZE", "10Gi", quantity),
        access_mode=r.read("HP_K8S_ACCESS_MODE", ACCESS_MODES[0], access_mode),
        host_aliases=r.read("HP_K8S_HOST_ALIASES", "", v.host_aliases),
    )


def _own_cluster(r: VariableReader) -> str:
    """Return the API server of the cluster whose pod we are, as its environment says; "" in no pod."""
    host, port = r.raw("KUBERNETES_SERVICE_HOST"), r.raw("KUBERNETES_SERVICE_PORT") or "443"
    if ":" in host:
        host = f"[{host}]"
    return f"https://{host}:{port}" if host else ""


# Parsers

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_KEY = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_QUANTITY = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[kMGTPE]|[KMGTPE]i)?")


def _not_verified(text: str, note: Note) -> bool:
    """Any case of "false", as elsewhere; nothing else weakens anything."""
    return v.exactly("false")(text.lower(), note)


def name(text: str, note: Note) -> str:
    """Return the name of an object of the cluster."""
    if not _NAME.fullmatch(text):
        raise Fault(f"{shown(text)} is not a name in Kubernetes; use lower-case letters, digits, - and .")
    return text


def names(text: str, note: Note) -> tuple[str, ...]:
    """Return names, separated by commas."""
    return tuple(name(part, note) for part in _parts(text))


def pairs(text: str, note: Note) -> Pairs:
    """`key=value`, with commas between them; a value contains no comma."""
    found = []
    for part in _parts(text):
        key, equals, value = part.partition("=")
        if not equals or not _KEY.fullmatch(key.strip()):
            raise Fault(f"{shown(part)} is not key=value; write such as example.com/team=apps,tier=exapps")
        found.append((key.strip(), value.strip()))
    return tuple(found)


def label_pairs(text: str, note: Note) -> Pairs:
    """Pairs whose values can be those of labels."""
    found = pairs(text, note)
    for key, value in found:
        if not _LABEL_VALUE.fullmatch(value):
            raise Fault(f"{shown(value)} cannot be the value of the label {key}; use at most 63 letters, digits, _ . -")
    return found


def tolerations(text: str, note: Note) -> tuple[Toleration, ...]:
    """Taints as `kubectl taint` writes them, `key[=value][:effect]`, with commas between them."""
    found = []
    for part in _parts(text):
        taint, _, effect = part.partition(":")
        key, equals, value = taint.partition("=")
        if not _KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value) or effect not in ("", *EFFECTS):
            raise Fault(f"{shown(part)} is not key[=value][:effect]; write such as nvidia.com/gpu:NoSchedule")
        found.append(Toleration(key, value if equals else None, effect))
    return tuple(found)


def user_and_group(text: str, note: Note) -> tuple[int, int]:
    """`user[:group]` as numbers; the group of the data, too."""
    match = re.fullmatch(r"([0-9]{1,9})(?::([0-9]{1,9}))?", text)
    if match is None:
        raise Fault(f"{shown(text)} is not user[:group] in numbers; write such as 33:33")
    return int(match[1]), int(match[2] or match[1])


def resource_name(text: str, note: Note) -> str:
    """Return the name of an extended resource."""
    if "/" not in text or not _KEY.fullmatch(text):
        raise Fault(f"{shown(text)} is not the name of a resource; write such as nvidia.com/gpu.shared")
    return text


def config_map_key(text: str, note: Note) -> tuple[str, str]:
    """`name[/key]` of a ConfigMap."""
    config_map, _, key = text.partition("/")
    if key and not re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", key):
        raise Fault(f"{shown(key)} cannot be a key of a ConfigMap; write such as company-cas/ca-bundle.crt")
    return name(config_map, note), key or "ca-bundle.crt"


def quantity(text: str, note: Note) -> str:
    """Return an amount of storage."""
    if not _QUANTITY.fullmatch(text):
        raise Fault(f"{shown(text)} is not an amount of storage; write such as 10Gi")
    return text


def access_mode(text: str, note: Note) -> str:
    """Return how the nodes may use a volume."""
    for mode in ACCESS_MODES:
        if text.lower() == mode.lower():
            return mode
    raise Fault(f"{shown(text)} is not known; write one of: {', '.join(ACCESS_MODES)}")


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
