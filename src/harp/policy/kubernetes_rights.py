"""The rights that HaRP needs in a Kubernetes cluster, and the optional ones (K 9).

This is the only list: roles of charts and manifests are made from it (`roles`), and `harp check`, /info and the backend
compare a cluster's answer with it (`missing`). The FEATURES that are not `optional` are enough for everything AppAPI
does; each other feature is used only if the cluster allows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

APPS = "apps"
CORE = ""


class Right(Struct, frozen=True):
    """Verbs on one kind of object. `subresource` as in "pods/log" is part of `resource`."""

    group: str
    resource: str
    verbs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.verbs)} {self.resource}{f'.{self.group}' if self.group else ''}"


class Feature(Struct, frozen=True):
    """What some rights are for. `cluster`: their objects are in no namespace, so a ClusterRole has to grant them."""

    name: str
    purpose: str
    rights: tuple[Right, ...]
    optional: bool = True
    cluster: bool = False


DEPLOY = Feature(
    "deploy",
    "deploying, starting, exposing and removing ExApps",
    (
        Right(APPS, "deployments", ("get", "list", "create", "patch", "delete")),
        Right(CORE, "services", ("get", "list", "create", "delete")),
        Right(CORE, "persistentvolumeclaims", ("create", "delete")),
        Right(CORE, "pods", ("list",)),
    ),
    optional=False,
)
NODES = Feature(
    "nodes",
    "finding the node's address for daemons that expose ExApps by node port",
    (Right(CORE, "nodes", ("list",)),),
    cluster=True,
)
WATCH = Feature(
    "watch",
    "learning of changed addresses at once, not within 30 s",
    (Right(APPS, "deployments", ("watch",)), Right(CORE, "services", ("watch",))),
)
ENDPOINTS = Feature(
    "endpoints",
    "sending each request to the replica of an ExApp that has the fewest",
    (Right("discovery.k8s.io", "endpointslices", ("list", "watch")),),
)
SERVICES = Feature(
    "services",
    "changing the Service of an ExApp in place, so that it keeps its address",
    (Right(CORE, "services", ("patch",)),),
)
LOGS = Feature("logs", "the last lines of an ExApp that fails to start", (Right(CORE, "pods/log", ("get",)),))
EVENTS = Feature(
    "events", "the cluster's reason why a volume or image is not there", (Right(CORE, "events", ("list",)),)
)
CLAIMS = Feature(
    "claims",
    "checking whose data a volume claim has, and listing claims without an ExApp",
    (Right(CORE, "persistentvolumeclaims", ("get", "list")),),
)
SECRETS = Feature(
    "secrets",
    "keeping APP_SECRET in a Secret, not in the Deployment",
    (Right(CORE, "secrets", ("create", "patch")),),
)
CERTIFICATES = Feature(
    "certificates",
    "giving ExApps the certificate authorities that Nextcloud trusts",
    (Right(CORE, "configmaps", ("get", "create", "patch")),),
)
AUTOSCALERS = Feature(
    "autoscalers",
    "pausing a ScaledObject of KEDA while its ExApp is disabled",
    (Right("keda.sh", "scaledobjects", ("list", "patch")),),
)

FEATURES = (DEPLOY, NODES, WATCH, ENDPOINTS, SERVICES, LOGS, EVENTS, CLAIMS, SECRETS, CERTIFICATES, AUTOSCALERS)


class Rule(Struct, frozen=True, omit_defaults=True):
    """What a cluster allows; "*" is everything. The shape of a rule in Roles and in SelfSubjectRulesReviews."""

    verbs: list[str] = []
    apiGroups: list[str] | None = None  # noqa: N815 - Kubernetes' name
    resources: list[str] | None = None
    resourceNames: list[str] | None = None  # noqa: N815 - Kubernetes' name

    def allows(self, group: str, resource: str, verb: str) -> bool:
        """Return whether this rule alone allows it, for objects of any name."""
        return (
            not self.resourceNames
            and _has(self.verbs, verb)
            and _has(self.apiGroups or (), group)
            and _has(self.resources or (), resource, f"*/{resource.partition('/')[2]}")
        )


def missing(rules: Sequence[Rule], feature: Feature) -> list[Right]:
    """Return the part of a feature's rights that no rule allows."""
    lacking = []
    for right in feature.rights:
        verbs = tuple(
            verb for verb in right.verbs if not any(rule.allows(right.group, right.resource, verb) for rule in rules)
        )
        if verbs:
            lacking.append(Right(right.group, right.resource, verbs))
    return lacking


def rules_for(features: Iterable[Feature]) -> list[Rule]:
    """Return the rules of a Role that allows these features and nothing else, one rule for each kind of object."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for feature in features:
        for right in feature.rights:
            known = verbs.setdefault((right.group, right.resource), [])
            known += [verb for verb in right.verbs if verb not in known]
    return [Rule(wanted, [group], [resource]) for (group, resource), wanted in verbs.items()]


def _has(allowed: Iterable[str], *wanted: str) -> bool:
    return any(word == "*" or word in wanted for word in allowed)
