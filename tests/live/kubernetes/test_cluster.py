"""The cluster of the tests is one: what the other suites take for granted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.kubernetes.api import until
from tests.live.kubernetes.cluster import Cluster, ready
from tests.live.kubernetes.room import Room

pytestmark = pytest.mark.timeout(400)  # the first test starts the cluster


def deployment(name: str, image: str = "localhost/harp-test/none:1", **container: Any) -> dict[str, Any]:
    labels = {"app": name}
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": f"{name}-data"}}
    pod = {"containers": [{"name": "app", "image": image, **container}], "volumes": [claim]}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}, "spec": spec}


def claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": f"{name}-data"}, "spec": spec}


def test_a_deployment_becomes_a_ready_pod_and_goes_with_it(pretended: Room) -> None:
    pretended.create(claim("app"))
    pretended.create(deployment("app"))
    until(lambda: pretended.get("Deployment", "app")["status"].get("readyReplicas") == 1, "ready pod")
    assert pretended.get("PersistentVolumeClaim", "app-data")["status"]["phase"] == "Bound"
    pretended.clear()
    assert pretended.list("Pod") == []


def test_the_scheduler_says_why_a_pod_fits_nowhere(pretended: Room) -> None:
    pretended.create(claim("greedy"))
    pretended.create(deployment("greedy", resources={"limits": {"nvidia.com/gpu": "5"}}))

    def words() -> str:
        pods = pretended.list("Pod", "app=greedy")
        conditions = pods[0]["status"].get("conditions", []) if pods else []
        return "".join(one.get("message", "") for one in conditions if one["type"] == "PodScheduled")

    # While the claim is not bound yet, the scheduler has other words.
    until(lambda: "Insufficient nvidia.com/gpu" in words(), "the scheduler's words")
    assert "containerStatuses" not in pretended.list("Pod", "app=greedy")[0]["status"]
    pretended.clear()


@pytest.mark.parametrize(
    ("account", "method", "resource", "status"),
    [
        ("narrow", "GET", "apis/apps/v1/namespaces/{}/deployments", 200),
        ("narrow", "GET", "api/v1/namespaces/{}/pods", 200),
        ("narrow", "GET", "api/v1/nodes", 200),
        ("narrow", "GET", "api/v1/namespaces/{}/persistentvolumeclaims/x", 403),
        ("narrow", "GET", "api/v1/namespaces/{}/pods/x", 403),
        ("narrow", "GET", "api/v1/namespaces/{}/pods?watch=1&timeoutSeconds=1", 403),
        ("narrow", "GET", "api/v1/namespaces/{}/secrets", 403),
        ("narrow", "GET", "api/v1/namespaces/default/pods", 403),
        ("narrow-without-nodes", "GET", "api/v1/nodes", 403),
        ("wide", "GET", "api/v1/namespaces/{}/persistentvolumeclaims/x", 404),
        ("wide", "GET", "api/v1/namespaces/{}/pods/x/log", 404),
        ("wide", "GET", "api/v1/namespaces/{}/services?watch=1&timeoutSeconds=1", 200),
        ("wide", "GET", "api/v1/namespaces/default/pods", 403),
        ("useless", "GET", "api/v1/namespaces/{}/pods", 403),
        ("useless", "GET", "api", 200),
    ],
)
def test_an_account_may_do_what_its_role_says(
    pretended: Room, account: str, method: str, resource: str, status: int
) -> None:
    path = "/" + resource.format(pretended.name)
    assert pretended.as_account(account).call(method, path).status == status


def test_what_an_account_has_asked_is_known(pretended: Room) -> None:
    api = pretended.as_account("narrow")
    api.list("Pod", pretended.name)
    assert pretended.asked("narrow")[-1] == ("list", "pods")


def test_a_node_with_other_hardware_can_be_added(cluster: Cluster, pretended: Room) -> None:
    cluster.pretend_node("amd", amd_com__gpu="1")
    try:
        assert ready(cluster.api.get("Node", "amd"))
    finally:
        cluster.api.delete("Node", "amd")
