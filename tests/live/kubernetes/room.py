"""One namespace of the cluster for one module or one test, with the accounts that HaRP may have in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from harp.policy.kubernetes_rights import FEATURES, rules_for
from tests.live.kubernetes.api import Api, until
from tests.live.kubernetes.cluster import KIND_OF_NODE, PORT, Cluster

Rules = Sequence[dict[str, list[str]]]

# What the existing HaRP asks its operators for (K 9), to the letter. Whoever has it need not change it.
NARROW: Rules = (
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "create", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "create", "delete"]},
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["create", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
)
NODES: Rules = ({"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},)  # of the cluster, for NodePort
# All that HaRP can use, out of the one list of it.
WIDE: Rules = [to_builtins(rule) for rule in rules_for(one for one in FEATURES if not one.cluster)]
ROLES: dict[str, tuple[Rules, Rules]] = {  # account -> rules in the namespace, rules in the cluster
    "narrow": (NARROW, NODES),
    "narrow-without-nodes": (NARROW, ()),
    "wide": (WIDE, NODES),
    "useless": ((), ()),
}
_numbers = itertools.count(1)


class Room:
    """A namespace. Its pods go to the pretended node or to the real one."""

    def __init__(self, cluster: Cluster, name: str, directory: Path) -> None:
        self.cluster, self.api, self.name, self.directory = cluster, cluster.api, name, directory
        self.directory.mkdir()

    # Accounts

    def token(self, account: str) -> str:
        """Return a token of an account, one of `ROLES`; the cluster takes it for an hour."""
        path = f"/api/v1/namespaces/{self.name}/serviceaccounts/{account}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        return str(self.api.call("POST", path, request).ok(201).json()["status"]["token"])

    def token_file(self, account: str) -> Path:
        """Write a fresh token where HaRP may read it."""
        path = self.directory / f"{account}.token"
        unfinished = path.with_suffix(".new")
        unfinished.write_text(self.token(account))
        unfinished.chmod(0o600)
        unfinished.replace(path)
        return path

    def as_account(self, account: str) -> Api:
        """The API with the rights of an account."""
        return Api(self.cluster.network.node, PORT, self.cluster.ca, self.token(account))

    def harp(self, account: str) -> dict[str, str]:
        """HaRP's environment, to deploy into this namespace with the rights of an account."""
        return {
            "HP_K8S_ENABLED": "true",
            "HP_K8S_API_SERVER": self.cluster.url,
            "HP_K8S_NAMESPACE": self.name,
            "HP_K8S_BEARER_TOKEN_FILE": str(self.token_file(account)),
            "HP_K8S_CA_FILE": str(self.cluster.ca),
        }

    def asked(self, account: str) -> list[tuple[str, str]]:
        """Return verb and resource of every request that an account has made."""
        return [(entry.verb, entry.resource) for entry in self.cluster.asked(f"{self.name}:{account}")]

    # Objects

    def get(self, kind: str, name: str) -> Any:
        return self.api.get(kind, name, self.name)

    def exists(self, kind: str, name: str) -> bool:
        return self.api.exists(kind, name, self.name)

    def list(self, kind: str, labels: str = "") -> list[Any]:
        return self.api.list(kind, self.name, labels)

    def names(self, kind: str) -> set[str]:
        """Return the names of all objects of a kind that nobody has asked to delete."""
        metadata = [one["metadata"] for one in self.list(kind)]
        return {str(one["name"]) for one in metadata if "deletionTimestamp" not in one}

    def create(self, body: dict[str, Any]) -> Any:
        return self.api.create(body, self.name)

    def patch(self, kind: str, name: str, body: object, *, part: str = "") -> Any:
        return self.api.patch(kind, name, body, self.name, part=part)

    def delete(self, kind: str, name: str, policy: str = "Background") -> None:
        self.api.delete(kind, name, self.name, policy)

    def give_load_balancer(self, service: str, address: str) -> None:
        """Do what a cloud's controller does: tell a Service its outer address."""
        status = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
        self.patch("Service", service, status, part="/status")

    def clear(self, timeout: float = 60) -> None:
        """Delete all that HaRP may have made, and wait until it is gone."""
        kinds = ("Deployment", "Service", "PersistentVolumeClaim", "Secret")
        for kind in kinds:
            for name in self.names(kind):
                self.delete(kind, name, "Foreground")
        until(lambda: not any(self.list(kind) for kind in (*kinds, "Pod")), f"end of all in {self.name}", timeout)


@contextmanager
def room(cluster: Cluster, kind: str) -> Iterator[Room]:
    """A namespace for the time of the block; its pods go to nodes of this kind."""
    name = f"exapps-{next(_numbers)}"
    annotations = {"scheduler.alpha.kubernetes.io/node-selector": f"{KIND_OF_NODE}={kind}"}
    metadata = {"name": name, "annotations": annotations}
    cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    made = Room(cluster, name, cluster.directory / name)
    for account, (rules, rules_of_cluster) in ROLES.items():
        _make_account(made, account, rules, rules_of_cluster)
    until(lambda: made.exists("ServiceAccount", "default"), "the namespace's own account")
    until(lambda: _may_deploy(made), "the accounts' rights")
    try:
        yield made
    finally:
        cluster.api.delete("Namespace", name)


RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}  # no pod that could be more than a plain user


@contextmanager
def namespaces(cluster: Cluster, **labels: dict[str, str]) -> Iterator[None]:
    """Namespaces with these names, `_` for `-`, and labels; gone after the block, for others who use the same names."""
    names = [name.replace("_", "-") for name in labels]
    for name, given in zip(names, labels.values(), strict=True):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": given}}
        cluster.api.create(body)
    try:
        yield
    finally:
        for name in names:
            cluster.api.delete("Namespace", name)
        until(lambda: not any(cluster.api.exists("Namespace", name) for name in names), f"end of {names}", 60)


def _may_deploy(room: Room) -> bool:
    deployments = f"/apis/apps/v1/namespaces/{room.name}/deployments"
    able = [account for account, (rules, _) in ROLES.items() if rules]
    return all(room.as_account(account).call("GET", deployments).status == 200 for account in able)


def _make_account(room: Room, account: str, rules: Rules, rules_of_cluster: Rules) -> None:
    rbac = "rbac.authorization.k8s.io"
    room.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
    subject = {"kind": "ServiceAccount", "name": account, "namespace": room.name}
    for prefix, given in (("", rules), ("Cluster", rules_of_cluster)):
        name = f"{room.name}-{account}" if prefix else account
        head = {"apiVersion": f"{rbac}/v1", "metadata": {"name": name}}
        reference = {"apiGroup": rbac, "kind": f"{prefix}Role", "name": name}
        role = head | {"kind": f"{prefix}Role", "rules": list(given)}
        binding = head | {"kind": f"{prefix}RoleBinding", "roleRef": reference, "subjects": [subject]}
        for body in (role, binding):
            room.api.create(body, "" if prefix else room.name)
