"""The real node of the tests' cluster runs what it is told: images made here, volumes, Services, logs, and ends."""

from __future__ import annotations

import http.client
from typing import Any

import pytest

from tests.live.kubernetes.api import until
from tests.live.kubernetes.archives import EXAPP
from tests.live.kubernetes.node import Node
from tests.live.kubernetes.room import Room
from tests.live.kubernetes.test_cluster import claim, deployment

pytestmark = pytest.mark.timeout(600)  # the first test starts the node

PORT = 23000


def exapp(name: str, image: str = EXAPP, **environment: str) -> dict[str, Any]:
    """A Deployment of the tests' ExApp, ready as soon as it listens."""
    given = {"APP_HOST": "0.0.0.0", "APP_PORT": str(PORT), "APP_ID": name, "APP_SECRET": "s", **environment}
    return deployment(
        name,
        image,
        imagePullPolicy="Never",
        env=[{"name": key, "value": value} for key, value in given.items()],
        readinessProbe={"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
    )


def service(name: str, kind: str) -> dict[str, Any]:
    spec = {"type": kind, "selector": {"app": name}, "ports": [{"name": "http", "port": PORT}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def heartbeat(host: str, port: int) -> int:
    """The status of the ExApp's heartbeat; 0 without an answer."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", "/heartbeat")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def container_state(room: Room, name: str) -> dict[str, Any]:
    """What the kubelet says of the container: state and what was before it."""
    statuses = [pod["status"].get("containerStatuses", []) for pod in room.list("Pod", f"app={name}")]
    return dict(statuses[0][0]) if statuses and statuses[0] else {}


def test_an_exapp_runs_and_is_reached_at_pod_service_and_node(real: Room, node: Node) -> None:
    real.create(claim("app"))
    real.create(exapp("app"))
    real.create(service("app", "NodePort"))
    until(lambda: real.get("Deployment", "app")["status"].get("readyReplicas") == 1, "ready pod", 180)
    pod = real.list("Pod", "app=app")[0]["status"]
    spec = real.get("Service", "app")["spec"]
    assert heartbeat(pod["podIP"], PORT) == 200
    until(lambda: heartbeat(spec["clusterIP"], PORT) == 200, "answer at the Service's address")
    until(lambda: heartbeat(node.cluster.network.node, spec["ports"][0]["nodePort"]) == 200, "answer at the node")

    real.patch("Deployment", "app", {"spec": {"replicas": 0}})
    until(lambda: not real.list("Pod", "app=app"), "end of the pod")
    real.patch("Deployment", "app", {"spec": {"replicas": 1}})
    until(lambda: heartbeat(spec["clusterIP"], PORT) == 200, "answer after the start")
    real.clear()


def test_a_crash_leaves_its_reason_and_its_last_words(real: Room, node: Node) -> None:
    real.create(claim("broken"))
    real.create(exapp("broken", CRASH="3"))
    state = until(lambda: container_state(real, "broken").get("lastState"), "crash", 180)
    assert (state["terminated"]["exitCode"], state["terminated"]["reason"]) == (3, "Error")
    pod = real.list("Pod", "app=broken")[0]["metadata"]["name"]
    path = f"/api/v1/namespaces/{real.name}/pods/{pod}/log?previous=true"
    assert b"CRASH is set" in until(lambda: real.as_account("wide").call("GET", path), "log").ok(200).body
    assert real.as_account("narrow").call("GET", path).status == 403
    real.clear()


def test_an_image_that_is_not_there_is_said_to_be(real: Room, node: Node) -> None:
    real.create(claim("missing"))
    real.create(exapp("missing", "localhost/harp-test/missing:1"))
    waiting = until(
        lambda: container_state(real, "missing").get("state", {}).get("waiting", {}).get("message"), "reason", 180
    )
    assert "not present with pull policy of Never" in waiting
    real.clear()


def test_an_app_is_not_ready_before_it_listens(real: Room, node: Node) -> None:
    real.create(claim("late"))
    real.create(exapp("late", LISTEN_AFTER="3s"))
    until(lambda: container_state(real, "late").get("state", {}).get("running"), "container", 180)
    assert container_state(real, "late")["ready"] is False
    until(lambda: container_state(real, "late")["ready"], "listener", 180)
    real.clear()


def test_what_an_exapp_writes_outlives_its_pod_and_goes_with_its_claim(real: Room, node: Node) -> None:
    real.create(claim("data"))
    real.create(exapp("data"))
    until(lambda: real.get("Deployment", "data")["status"].get("readyReplicas") == 1, "ready pod", 180)
    volume = real.get("PersistentVolumeClaim", "data-data")["spec"]["volumeName"]
    real.delete("PersistentVolumeClaim", "data-data")
    assert real.exists("PersistentVolumeClaim", "data-data")  # as long as the pod uses it
    real.delete("Deployment", "data", "Foreground")
    until(lambda: not real.exists("PersistentVolumeClaim", "data-data"), "end of the claim", 180)
    assert volume
    real.clear()
