"""What went wrong on real clusters with the existing implementation, row by row (K 11): none of it is to happen here.

Rows 7, 8 and 20 are about addresses: tests/engines/test_kubernetes_lookout.py; rows 16 and 19 about the client and
settings: tests/engines/test_kubernetes_client.py and tests/settings/test_kubernetes.py.
"""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import Any

import pytest

from harp.policy.kubernetes_rights import (
    CLAIMS,
    DEPLOY,
    EVENTS,
    LOGS,
    NODES,
    SERVICES,
)
from tests.control.kubernetes_world import APP, CLAIM, D, world
from tests.control.test_kubernetes import BASIC, pod_status, waiting
from tests.fakes.clock import Clock
from tests.fakes.cluster import READY, TIME
from tests.fakes.waiting import until

pytestmark = pytest.mark.hasty

SCHEDULER = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
PENDING = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": SCHEDULER}],
}
CRASHED = {"terminated": {"exitCode": 3, "reason": "Error", "message": "starting\nno database at db:5432"}}
NOT_READY = pod_status(
    conditions=[{"type": "Ready", "status": "False", "message": "containers with unready status: [app]"}]
)


# --- 1: a wait that says why, in time


async def test_1_a_pod_that_no_node_takes_fails_with_the_schedulers_words() -> None:
    async with world(BASIC) as w:
        w.cluster.set_pods(PENDING)
        await w.create()
        await w.call("start")
        _, outcome = await w.call("wait_for_start")
        assert outcome["started"] is False
        assert outcome["reason"] == f"Unschedulable: {SCHEDULER}"


async def test_1_a_crash_says_exit_code_and_last_line_without_the_right_to_logs() -> None:
    async with world(BASIC) as w:
        w.cluster.set_pods({**waiting("CrashLoopBackOff", restarts=2, last=CRASHED), "phase": "Running"})
        await w.create()
        await w.call("start")
        _, outcome = await w.call("wait_for_start")
        assert (outcome["started"], outcome["status"]) == (False, "Running")
        assert outcome["reason"] == "CrashLoopBackOff: exit code 3: no database at db:5432"
        assert w.container()["terminationMessagePolicy"] == "FallbackToLogsOnError"


async def test_1_a_crash_for_memory_says_so() -> None:
    async with world(BASIC) as w:
        killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        w.cluster.set_pods({**waiting("CrashLoopBackOff", restarts=2, last=killed), "phase": "Running"})
        await w.create()
        await w.call("start")
        _, outcome = await w.call("wait_for_start")
        assert outcome["reason"] == "CrashLoopBackOff: exit code 137, OOMKilled"


async def test_1_with_the_right_to_logs_a_silent_crash_shows_its_log() -> None:
    async with world([DEPLOY, LOGS]) as w:
        killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        w.cluster.set_pods({**waiting("CrashLoopBackOff", restarts=2, last=killed), "phase": "Running"})
        await w.create()
        await w.call("start")
        w.cluster.logs[w.cluster.names("pods")[0]] = "loading a large model\n"
        _, outcome = await w.call("wait_for_start")
        assert outcome["reason"].endswith("OOMKilled: loading a large model")


async def test_1_a_pod_that_runs_but_never_listens_fails_in_time() -> None:
    clock = Clock()
    async with world(BASIC, clock) as w:
        w.cluster.set_pods(NOT_READY)
        await w.create()
        await w.call("start")
        wait = asyncio.create_task(w.call("wait_for_start"))
        await until(lambda: w.cluster.called("list", "pods") >= 2)
        clock.move(601)
        _, outcome = await wait
        assert (outcome["started"], outcome["health"]) == (False, "timeout")
        assert "it runs, but is not ready" in outcome["reason"]


async def test_1_a_pod_whose_volume_does_not_come_fails_with_the_clusters_warning() -> None:
    clock = Clock()
    async with world([DEPLOY, EVENTS], clock, HP_K8S_START_PATIENCE="100s") as w:
        w.cluster.set_pods(waiting("ContainerCreating"))
        warning = {"metadata": {"name": "e"}, "type": "Warning", "message": "Unable to attach volume"}
        w.cluster.put("events", warning)
        await w.create()
        await w.call("start")
        wait = asyncio.create_task(w.call("wait_for_start"))
        await until(lambda: w.cluster.called("list", "pods") >= 2)
        clock.move(101)
        _, outcome = await wait
        assert outcome["reason"].endswith("Unable to attach volume")


async def test_1_a_quota_that_lets_no_pod_be_made_is_said() -> None:
    async with world(BASIC) as w:
        await w.create()
        failure = {"type": "ReplicaFailure", "status": "True", "message": 'pods "x" is forbidden: exceeded quota'}
        deployment = deepcopy(w.deployment())
        deployment["spec"]["replicas"] = 1
        w.cluster.put("deployments", {**deployment, "status": {"conditions": [failure]}})
        _, outcome = await w.call("wait_for_start")
        assert outcome["reason"] == 'no pod is created: pods "x" is forbidden: exceeded quota'


async def test_1_a_deployment_that_is_gone_or_was_not_started_is_not_waited_for() -> None:
    async with world(BASIC) as w:
        assert (await w.call("wait_for_start"))[1]["status"] == "not_found"
        await w.create()
        assert "was not started" in (await w.call("wait_for_start"))[1]["reason"]


# --- 2: old pods


async def test_2_an_old_pod_that_ends_is_not_taken_for_the_new_one() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        old = w.cluster.names("pods")[0]
        w.cluster.pods_end = False
        deployment = w.cluster.objects.pop(("deployments", D))  # as in a removal that did not wait
        w.cluster.put("pods", {**w.cluster.get("pods", old), "metadata": {**w.cluster.get("pods", old)["metadata"]}})
        assert deployment
        await w.create()
        w.cluster.set_pods(PENDING)
        w.cluster.put("pods", {**w.cluster.get("pods", old), "status": READY})
        deleting = deepcopy(w.cluster.get("pods", old))
        deleting["metadata"]["deletionTimestamp"] = TIME
        w.cluster.put("pods", deleting)
        await w.call("start")
        _, outcome = await w.call("wait_for_start")
        assert outcome["started"] is False


async def test_2_a_pod_of_an_earlier_deployment_is_not_taken_for_the_new_one_either() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        del w.cluster.objects["deployments", D]
        old = w.cluster.objects.pop(("pods", w.cluster.names("pods")[0]))
        old["metadata"]["name"] = "zzz"  # as good as the new one: of the same second, and last in the list
        w.cluster.pod_status = PENDING
        await w.create()
        await w.call("start")
        w.cluster.put("pods", old)  # it stays for a moment, not yet marked
        _, outcome = await w.call("wait_for_start")
        assert outcome["started"] is False


async def test_2_a_pod_that_ends_after_stop_is_not_taken_for_the_one_that_start_makes() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        w.cluster.pods_end = False
        assert (await w.call("stop"))[0] == 204  # its pod takes its time, and is ready meanwhile
        ending = w.cluster.objects.pop(("pods", w.cluster.names("pods")[0]))
        ending["metadata"]["name"] = "zzz"
        w.cluster.put("pods", ending)
        assert "deletionTimestamp" in ending["metadata"]
        w.cluster.pod_status = PENDING
        await w.call("start")
        _, outcome = await w.call("wait_for_start")
        assert outcome["started"] is False


# --- 3, 4: removal and what follows at once


async def test_3_remove_waits_until_the_pods_are_gone() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        w.cluster.pods_end = False
        removal = asyncio.create_task(w.call("remove"))
        await until(lambda: "deletionTimestamp" in w.deployment()["metadata"])
        before = w.cluster.called("get", "deployments")
        await until(lambda: w.cluster.called("get", "deployments") >= before + 3)  # it looks again and again
        assert not removal.done()
        w.cluster.end_pods()
        assert await removal == (204, "")
        assert w.cluster.names("pods") == []


async def test_3_create_waits_for_a_deployment_that_is_being_deleted() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        w.cluster.pods_end = False
        deleting = deepcopy(w.deployment())
        deleting["metadata"]["deletionTimestamp"] = TIME
        w.cluster.put("deployments", deleting)
        before = w.cluster.called("get", "deployments")
        creation = asyncio.create_task(w.create())
        await until(lambda: w.cluster.called("get", "deployments") >= before + 3)
        w.cluster.end_pods()
        assert (await creation)[0] == 201
        assert "deletionTimestamp" not in w.deployment()["metadata"]


async def test_3_what_does_not_end_is_refused_with_words() -> None:
    clock = Clock()
    async with world(BASIC, clock) as w:
        await w.deploy()
        deleting = deepcopy(w.deployment())
        deleting["metadata"]["deletionTimestamp"] = TIME
        w.cluster.put("deployments", deleting)
        before = w.cluster.called("get", "deployments")
        creation = asyncio.create_task(w.create())
        await until(lambda: w.cluster.called("get", "deployments") >= before + 3)
        clock.move(61)
        status, text = await creation
        assert (status, "is still being deleted" in text) == (409, True)


@pytest.mark.parametrize("features", [BASIC, (DEPLOY, CLAIMS)])
async def test_4_create_right_after_remove_with_data_gets_a_new_claim(features: Any) -> None:
    async with world(features) as w:
        await w.deploy()
        old = w.cluster.get("persistentvolumeclaims", CLAIM)["metadata"]["uid"]
        w.cluster.pods_end = False
        for resource, name in (("deployments", D), ("persistentvolumeclaims", CLAIM)):
            deleting = deepcopy(w.cluster.get(resource, name))
            deleting["metadata"]["deletionTimestamp"] = TIME
            w.cluster.put(resource, deleting)
        del w.cluster.objects["deployments", D]
        creation = asyncio.create_task(w.create())
        await until(lambda: w.cluster.called("create", "persistentvolumeclaims") >= 3)
        w.cluster.end_pods()
        assert (await creation)[0] == 201
        assert w.cluster.get("persistentvolumeclaims", CLAIM)["metadata"]["uid"] != old


async def test_4_a_claim_that_vanishes_under_a_waiting_pod_is_made_again() -> None:
    async with world(BASIC) as w:
        await w.create()
        del w.cluster.objects["persistentvolumeclaims", CLAIM]
        gone = deepcopy(PENDING)
        gone["conditions"][0]["message"] = f'persistentvolumeclaim "{CLAIM}" not found'  # type: ignore[index]
        w.cluster.set_pods(gone)
        await w.call("start")
        wait = asyncio.create_task(w.call("wait_for_start"))
        await until(lambda: w.cluster.names("persistentvolumeclaims") == [CLAIM])
        w.cluster.set_pods(READY)
        assert (await wait)[1]["started"] is True


# --- 5, 6: Services


@pytest.mark.parametrize("features", [BASIC, (DEPLOY, NODES, SERVICES)])
async def test_5_a_service_of_ours_is_brought_up_to_date(features: Any) -> None:
    async with world(features) as w:
        await w.deploy()
        await w.call("expose", port=23000)
        before = w.cluster.get("services", D)["metadata"]["uid"]
        status, answer = await w.call("expose", port=23001, expose_type="nodeport", upstream_host="node")
        service = w.cluster.get("services", D)
        assert (status, service["spec"]["type"], service["spec"]["ports"][0]["targetPort"]) == (200, "NodePort", 23001)
        assert answer["port"] == service["spec"]["ports"][0]["nodePort"]
        assert (service["metadata"]["uid"] == before) == (SERVICES in features)  # changed in place where allowed
        await w.call("expose", port=23001, expose_type="clusterip")
        assert w.cluster.get("services", D)["spec"]["type"] == "ClusterIP"


async def test_5_a_service_that_is_right_is_left_alone() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        await w.call("expose", port=23000)
        await w.call("expose", port=23000)
        assert w.cluster.called("create", "services") == 1
        assert w.cluster.called("delete", "services") == 0


async def test_5_a_foreign_service_is_refused() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        foreign = {"metadata": {"name": D}, "spec": {"type": "ClusterIP", "ports": [{"port": 80}]}}
        w.cluster.put("services", foreign)
        status, text = await w.call("expose", port=23000)
        assert (status, "was not made by HaRP" in text) == (409, True)
        assert w.cluster.get("services", D)["spec"]["ports"] == [{"port": 80}]


async def test_6_how_it_was_exposed_is_remembered_in_the_cluster() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        await w.call("expose", port=23000, expose_type="nodeport", upstream_host="10.1.2.3")
        async with world(BASIC, HP_K8S_API_SERVER=w.cluster.url) as other:  # HaRP is restarted
            run = asyncio.create_task(other.harp.lookout.run())
            await other.harp.lookout.known()
            placed = other.harp.lookout.placed(w.nextcloud.known[APP])
            run.cancel()
        assert placed.host == "10.1.2.3"
