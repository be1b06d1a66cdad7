"""The cluster's API, spoken to directly, beside HaRP: to prepare, to look, and to clean up."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from tests.live.engine import EngineAnswer

T = TypeVar("T")
PATIENCE = 60.0  # seconds for anything that should take a moment, on a machine that does other things too
JSON = "application/json"
MERGE = "application/merge-patch+json"

# kind -> where objects of this kind are; `{}` is the namespace.
PLACES = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "Event": "/api/v1/namespaces/{}/events",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ScaledObject": "/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
}


class Api:
    """One bearer of a token at the API server."""

    def __init__(self, host: str, port: int, ca: Path, token: str) -> None:
        self.host, self.port, self._token = host, port, token
        self._tls = ssl.create_default_context(cafile=ca)

    def call(self, method: str, path: str, body: object = None, kind: str = JSON, timeout: float = 30) -> EngineAnswer:
        """Make one request."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": JSON, "Content-Type": kind}
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self._tls)
        began = time.monotonic()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return EngineAnswer(answer.status, answer.read(), time.monotonic() - began)
        finally:
            connection.close()

    def answers(self) -> bool:
        """Is the API server there and ready?"""
        try:
            return self.call("GET", "/readyz", timeout=5).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def create(self, body: dict[str, Any], namespace: str = "") -> Any:
        """Create an object. How the cluster has it."""
        return self.call("POST", PLACES[body["kind"]].format(namespace), body).ok(201).json()

    def get(self, kind: str, name: str, namespace: str = "") -> Any:
        """Return an object; it is there."""
        return self.call("GET", place(kind, name, namespace)).ok(200).json()

    def exists(self, kind: str, name: str, namespace: str = "") -> bool:
        """Is there such an object, being deleted or not?"""
        return self.call("GET", place(kind, name, namespace)).ok(200, 404).status == 200

    def list(self, kind: str, namespace: str = "", labels: str = "") -> list[Any]:
        """Return all objects of a kind, or those with these labels."""
        path = PLACES[kind].format(namespace) + (f"?labelSelector={quote(labels)}" if labels else "")
        return list(self.call("GET", path).ok(200).json()["items"])

    def patch(self, kind: str, name: str, body: object, namespace: str = "", *, part: str = "") -> Any:
        """Change an object by a merge patch; `part` is such as `/status`."""
        return self.call("PATCH", place(kind, name, namespace) + part, body, MERGE).ok(200).json()

    def delete(self, kind: str, name: str, namespace: str = "", policy: str = "Background") -> None:
        """Delete an object, if it is there."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}
        self.call("DELETE", place(kind, name, namespace), body).ok(200, 202, 404)


def place(kind: str, name: str, namespace: str = "") -> str:
    """The path of one object."""
    return f"{PLACES[kind].format(namespace)}/{name}"


def until(look: Callable[[], T | None], what: str, timeout: float = PATIENCE) -> T:
    """Look again and again until what is seen counts as true; it is returned."""
    end = time.monotonic() + timeout
    while not (seen := look()):
        assert time.monotonic() < end, f"no {what} in {timeout:g} s"
        time.sleep(0.05)
    return seen
