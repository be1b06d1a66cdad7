"""AppAPI's verbs on a cluster: statuses and JSON as AppAPI expects them (K 4)."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from harp.control.api import application
from harp.policy.kubernetes_rights import DEPLOY, NODES
from tests.control.kubernetes_world import (
    APP,
    CLAIM,
    IMAGE,
    SECRET,
    D,
    KubernetesWorld,
    NextcloudOfCluster,
    NoDocker,
    world,
)
from tests.control.test_api import SETTINGS
from tests.fakes.cluster import READY
from tests.fakes.waiting import turn, until

pytestmark = pytest.mark.hasty

BASIC = (DEPLOY, NODES)  # the Role that is documented for the existing HaRP


def pod_status(**changes: Any) -> dict[str, Any]:
    return {**deepcopy(READY), **changes}


def waiting(reason: str, message: str = "", restarts: int = 0, last: dict[str, Any] | None = None) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    container = {"restartCount": restarts, "state": state, "lastState": last or {}}
    return {"phase": "Pending", "containerStatuses": [container]}


# --- exists, create, start, stop


async def test_exists_says_whether_there_is_a_deployment() -> None:
    async with world(BASIC) as w:
        assert await w.call("exists") == (200, {"exists": False})
        await w.create()
        assert await w.call("exists") == (200, {"exists": True})


async def test_create_makes_claim_and_deployment_without_pods() -> None:
    async with world(BASIC) as w:
        assert await w.create() == (201, {"name": D})
        assert w.deployment()["spec"]["replicas"] == 0
        assert w.cluster.names("persistentvolumeclaims") == [CLAIM]
        assert w.container()["image"] == IMAGE
        assert await w.create() == (409, f"Deployment '{D}' already exists.")


async def test_what_the_cluster_says_of_a_refusal_is_in_the_answer() -> None:
    async with world(BASIC) as w:
        w.cluster.errors["create", "deployments"] = [(422, "spec.x: Invalid value")]
        assert await w.create() == (503, f"Error creating deployment '{D}': Status 422: spec.x: Invalid value")
        assert w.cluster.names("persistentvolumeclaims") == []  # nothing is left of a failed create


async def test_a_claim_that_cannot_be_made_is_said() -> None:
    async with world(BASIC) as w:
        w.cluster.errors["create", "persistentvolumeclaims"] = [(403, "exceeded quota")]
        assert await w.create() == (503, f"Failed to create PVC '{CLAIM}': Status 403: exceeded quota")


async def test_start_and_stop_answer_204_whether_or_not_it_ran() -> None:
    async with world(BASIC) as w:
        await w.create()
        for verb, replicas in (("start", 1), ("start", 1), ("stop", 0), ("stop", 0)):
            assert await w.call(verb) == (204, "")
            assert w.deployment()["spec"]["replicas"] == replicas


async def test_start_and_stop_of_nothing_are_404() -> None:
    async with world(BASIC) as w:
        for verb in ("start", "stop"):
            assert await w.call(verb) == (404, f"Deployment '{D}' not found.")


async def test_with_roles_each_has_a_deployment_and_all_have_one_claim() -> None:
    async with world(BASIC) as w:
        await w.create(role_suffix="api")
        await w.create(role_suffix="worker")
        assert w.cluster.names("deployments") == [f"{D}-api", f"{D}-worker"]
        assert w.cluster.names("persistentvolumeclaims") == [CLAIM]


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("create", {"name": "../x", "image_id": "i"}, "name"),
        ("create", {"image_id": ""}, "image_id"),
        ("create", {"image_id": "i", "compute_device": "tpu"}, "compute_device"),
        ("create", {"image_id": "i", "image_pull_policy": "Sometimes"}, "image_pull_policy"),
        ("create", {"image_id": "i", "resource_limits": ["x"]}, "resource_limits"),
        ("expose", {"port": 0}, "port"),
        ("expose", {"port": 23000, "node_port": 80}, "node_port"),
        ("expose", {"port": 23000, "expose_type": "manual"}, "upstream_host"),
        ("expose", {"port": 23000, "expose_type": "magic"}, "expose_type"),
        ("exists", {"role_suffix": "a/b"}, "role_suffix"),
    ],
)
async def test_a_faulty_payload_is_400_and_named(verb: str, body: dict[str, Any], field: str) -> None:
    async with world(BASIC) as w:
        status, text = await w.call(verb, **body)
        assert (status, text.startswith(f"Payload validation error: {field}")) == (400, True), text
        assert w.cluster.calls == []


async def test_what_is_no_json_is_400() -> None:
    async with world(BASIC) as w:
        answer = await w.client.post("/k8s/exapp/exists", data=b"{")
        assert (answer.status, await answer.text()) == (400, "Invalid JSON body")


async def test_without_a_token_the_answer_says_so(tmp_path: Any) -> None:
    async with world(BASIC, HP_K8S_BEARER_TOKEN="", HP_K8S_BEARER_TOKEN_FILE=str(tmp_path / "none")) as w:
        assert await w.call("exists") == (503, "Kubernetes token is not configured.")


async def test_without_kubernetes_every_verb_is_503_but_certificates() -> None:
    app = application(NextcloudOfCluster(), SETTINGS, lambda address, token: None, NoDocker())
    async with TestClient(TestServer(app)) as client:
        answer = await client.post("/k8s/exapp/exists", json={"name": APP})
        assert (answer.status, await answer.text()) == (503, "Kubernetes backend is disabled in HaRP.")
        answer = await client.post("/k8s/exapp/install_certificates", json={"name": APP})
        assert answer.status == 204
        answer = await client.post("/k8s/exapp/install_certificates", json={"name": ""})
        assert answer.status == 400


# --- wait_for_start


async def test_a_ready_pod_has_started() -> None:
    async with world(BASIC) as w:
        await w.create()
        await w.call("start")
        assert await w.call("wait_for_start") == (
            200,
            {"started": True, "status": "running", "health": "ready", "reason": None, "message": None},
        )


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
async def test_an_image_that_is_not_there_is_an_outcome(reason: str) -> None:
    async with world(BASIC) as w:
        w.cluster.set_pods(waiting(reason, "no such image"))
        await w.create()
        await w.call("start")
        assert await w.call("wait_for_start") == (
            200,
            {
                "started": False,
                "status": reason,
                "health": "image_error",
                "reason": reason,
                "message": "no such image",
            },
        )


async def test_a_failed_pod_is_an_outcome() -> None:
    async with world(BASIC) as w:
        w.cluster.set_pods({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"})
        await w.create()
        await w.call("start")
        _, outcome = await w.call("wait_for_start")
        assert (outcome["started"], outcome["status"], outcome["reason"]) == (False, "Failed", "Evicted")


async def test_pods_that_may_not_be_listed_are_503_with_the_clusters_words() -> None:
    async with world(BASIC) as w:
        await w.create()
        await w.call("start")
        w.cluster.errors["list", "pods"] = [(403, "pods is forbidden")]
        assert await w.call("wait_for_start") == (
            503,
            f"Error listing pods for deployment '{D}': Status 403: pods is forbidden",
        )


async def test_the_wait_goes_on_while_the_api_server_is_restarted() -> None:
    async with world(BASIC) as w:
        w.cluster.set_pods(waiting("ContainerCreating"))
        await w.create()
        await w.call("start")
        wait = asyncio.create_task(w.call("wait_for_start"))
        w.cluster.errors["list", "pods"] = [(503, "etcd leader changed")] * 2
        await turn()
        w.cluster.set_pods(READY)
        assert (await wait)[1]["started"] is True


# --- remove


async def test_remove_leaves_the_data_unless_told() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        await w.call("expose", port=23000)
        assert await w.call("remove") == (204, "")
        assert (w.cluster.names("deployments"), w.cluster.names("services")) == ([], [])
        assert w.cluster.names("persistentvolumeclaims") == [CLAIM]
        assert await w.call("remove", remove_data=True) == (204, "")
        assert w.cluster.names("persistentvolumeclaims") == []


async def test_remove_keeps_a_service_of_the_operator() -> None:
    async with world(BASIC) as w:
        await w.create()
        w.cluster.put("services", {"metadata": {"name": D}, "spec": {"type": "ClusterIP", "ports": [{"port": 1}]}})
        assert await w.call("remove") == (204, "")
        assert w.cluster.names("services") == [D]


# --- expose


async def test_expose_by_cluster_ip_leads_to_the_service() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        status, answer = await w.call("expose", port=23000, expose_type="clusterip")
        service = w.cluster.get("services", D)
        assert status == 200
        assert answer == {
            "appId": APP,
            "host": service["spec"]["clusterIP"],
            "port": 23000,
            "exposeType": "clusterip",
            "serviceName": D,
            "namespace": "nextcloud-exapps",
        }
        assert (w.nextcloud.records[APP].host, w.nextcloud.records[APP].port) == (answer["host"], 23000)


async def test_expose_by_node_port_leads_to_a_ready_node() -> None:
    async with world(BASIC) as w:
        for name, address, ready in (("a", "10.0.0.1", "False"), ("b", "10.0.0.2", "True")):
            status = {
                "addresses": [{"type": "InternalIP", "address": address}],
                "conditions": [{"type": "Ready", "status": ready}],
            }
            w.cluster.put("nodes", {"metadata": {"name": name}, "status": status})
        await w.deploy()
        _, answer = await w.call("expose", port=23000, expose_type="nodeport", node_port=30123)
        assert (answer["host"], answer["port"]) == ("10.0.0.2", 30123)


async def test_without_nodes_a_node_port_leads_nowhere() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        assert await w.call("expose", port=23000, expose_type="nodeport") == (
            503,
            "No Kubernetes nodes found (after filtering).",
        )


async def test_a_node_port_with_a_host_of_its_own_needs_no_right_to_nodes() -> None:
    async with world([DEPLOY]) as w:
        await w.deploy()
        _, answer = await w.call("expose", port=23000, expose_type="nodeport", upstream_host="node.example.com")
        assert answer["host"] == "node.example.com"


async def asked_again(world: KubernetesWorld) -> None:
    """Wait until the Service is there and HaRP has seen it without an address."""
    await until(lambda: D in world.cluster.names("services"))
    before = world.cluster.called("get", "services")
    await until(lambda: world.cluster.called("get", "services") > before)


async def test_the_address_of_a_load_balancer_is_waited_for() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        wait = {"wait_interval_seconds": 0.1, "wait_timeout_seconds": 0.6}
        body = {"port": 23000, "expose_type": "loadbalancer", **wait}
        call = asyncio.create_task(w.call("expose", **body))
        await asked_again(w)
        service = deepcopy(w.cluster.get("services", D))
        service["status"] = {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}}
        w.cluster.put("services", service)
        assert (await call)[1]["host"] == "lb.example.com"


async def test_the_address_of_a_load_balancer_is_given_out_once_something_answers_there() -> None:
    address = "127.23.0.7"  # where no other test that runs now listens on port 23000
    async with world(BASIC) as w:
        await w.deploy()
        call = asyncio.create_task(w.call("expose", port=23000, expose_type="loadbalancer", wait_interval_seconds=0.1))
        await asked_again(w)
        service = deepcopy(w.cluster.get("services", D))
        service["status"] = {"loadBalancer": {"ingress": [{"ip": address}]}}
        w.cluster.put("services", service)
        done, _ = await asyncio.wait((call,), timeout=0.5)
        assert not done
        server = await asyncio.start_server(lambda reader, writer: writer.close(), address, 23000)
        assert (await call)[0] == 200
        server.close()


async def test_a_load_balancer_without_an_address_is_said() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        status, text = await w.call("expose", port=23000, expose_type="loadbalancer", wait_timeout_seconds=0)
        assert (status, text.startswith("Timed out waiting for LoadBalancer address")) == (503, True)


async def test_manual_leads_where_it_says_without_a_service() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        _, answer = await w.call("expose", port=23000, expose_type="manual", upstream_host="10.9.9.9")
        assert (answer["host"], answer["port"], answer["serviceName"]) == ("10.9.9.9", 23000, D)
        assert w.cluster.names("services") == []
        assert w.deployment()["metadata"]["annotations"]["appapi.nextcloud.com/upstream-host"] == "10.9.9.9"


async def test_manual_works_without_a_deployment() -> None:
    async with world(BASIC) as w:
        body = {"port": 23000, "expose_type": "manual", "upstream_host": "10.9.9.9", "upstream_port": 80}
        assert (await w.call("expose", **body))[0] == 200
        assert (w.nextcloud.records[APP].host, w.nextcloud.records[APP].port) == ("10.9.9.9", 80)


async def test_manual_cannot_lead_to_an_engine() -> None:
    async with world(BASIC) as w:
        status, text = await w.call("expose", port=24000, expose_type="manual", upstream_host="127.0.0.1")
        assert (status, "engine" in text) == (400, True)


async def test_an_app_that_nextcloud_does_not_know_is_404() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        w.nextcloud.known.clear()
        assert await w.call("expose", port=23000) == (404, f"No ExApp metadata for '{APP}'")


# --- the rest


async def test_a_secret_is_in_no_answer_and_no_repr(capfd: pytest.CaptureFixture[str]) -> None:
    async with world(BASIC) as w:
        w.cluster.errors["create", "deployments"] = [(500, "no")] * 3
        assert SECRET not in str(await w.create())
        assert SECRET not in "".join(capfd.readouterr())
