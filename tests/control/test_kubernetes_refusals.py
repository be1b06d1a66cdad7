"""What a cluster refuses, loses or does meanwhile: the answers AppAPI gets then."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from harp.policy.kubernetes_rights import AUTOSCALERS, CERTIFICATES, CLAIMS, DEPLOY, EVENTS, LOGS, NODES, SERVICES
from tests.control.kubernetes_world import CLAIM, D, world
from tests.control.test_kubernetes import BASIC, waiting
from tests.fakes.clock import Clock
from tests.fakes.cluster import READY, TIME
from tests.fakes.waiting import until

pytestmark = pytest.mark.hasty

NO = (422, "no")


@pytest.mark.parametrize(
    ("verb", "refused", "answer"),
    [
        ("exists", ("get", "deployments"), f"Error checking deployment '{D}': Status 422: no"),
        ("start", ("get", "deployments"), f"Error starting deployment '{D}': Status 422: no"),
        ("stop", ("get", "deployments"), f"Error stopping deployment '{D}': Status 422: no"),
        ("start", ("patch", "deployments"), f"Error starting deployment '{D}': Status 422: no"),
        ("remove", ("delete", "deployments"), f"Error removing deployment '{D}': Status 422: no"),
        ("remove", ("delete", "persistentvolumeclaims"), f"Error removing PVC '{CLAIM}': Status 422: no"),
    ],
)
async def test_a_refusal_is_503_with_the_words_of_both(verb: str, refused: tuple[str, str], answer: str) -> None:
    async with world(BASIC) as w:
        await w.create()
        w.cluster.errors[refused] = [NO]
        body = {"remove_data": True} if verb == "remove" else {}
        assert await w.call(verb, **body) == (503, answer)


@pytest.mark.parametrize(
    ("refused", "begin"),
    [
        (("get", "services"), f"Failed to read Service '{D}': Status 422: no"),
        (("create", "services"), f"Failed to create Service '{D}': Status 422: no"),
        (("list", "nodes"), "Failed to list K8s nodes: Status 422: no"),
        (("patch", "services"), f"Failed to create Service '{D}': Status 422: no"),
    ],
)
async def test_a_refusal_of_exposing_is_503(refused: tuple[str, str], begin: str) -> None:
    async with world([DEPLOY, NODES, SERVICES]) as w:
        await w.deploy()
        if refused[0] == "patch":
            await w.call("expose", port=1)
        w.cluster.errors[refused] = [NO]
        assert await w.call("expose", port=23000, expose_type="nodeport") == (503, begin)


async def test_a_deployment_that_is_removed_while_it_is_started_is_404() -> None:
    async with world(BASIC) as w:
        await w.create()
        w.cluster.errors["patch", "deployments"] = [(404, "gone")]
        assert await w.call("start") == (404, f"Deployment '{D}' not found.")


async def test_a_deployment_that_appears_while_it_is_created_is_409() -> None:
    async with world(BASIC) as w:
        w.cluster.errors["create", "deployments"] = [(409, "already exists")]
        assert await w.call("create", image_id="i") == (409, f"Deployment '{D}' already exists.")


async def test_what_is_deleted_by_somebody_else_is_removed_all_the_same() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        w.cluster.errors["delete", "deployments"] = [(404, "gone")]
        del w.cluster.objects["deployments", D]
        w.cluster.put("deployments", {"metadata": {"name": D}, "spec": {}})
        removal = asyncio.create_task(w.call("remove"))
        await until(lambda: w.cluster.called("delete", "deployments") == 1)
        del w.cluster.objects["deployments", D]
        assert await removal == (204, "")


async def test_a_removal_whose_pods_do_not_end_is_answered_and_logged() -> None:
    clock = Clock()
    async with world(BASIC, clock) as w:
        await w.deploy()
        w.cluster.pods_end = False
        removal = asyncio.create_task(w.call("remove"))
        await until(lambda: "deletionTimestamp" in w.deployment()["metadata"])
        before = w.cluster.called("get", "deployments")
        await until(lambda: w.cluster.called("get", "deployments") > before)
        clock.move(61)
        assert await removal == (204, "")


async def test_a_service_that_cannot_be_read_does_not_keep_an_app_from_being_removed() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        w.cluster.errors["get", "services"] = [NO]
        assert await w.call("remove") == (204, "")


async def test_a_claim_that_is_still_being_deleted_is_said() -> None:
    clock = Clock()
    async with world(BASIC, clock) as w:
        w.cluster.put("persistentvolumeclaims", {"metadata": {"name": CLAIM, "deletionTimestamp": TIME}})
        creation = asyncio.create_task(w.create())
        await until(lambda: w.cluster.called("create", "persistentvolumeclaims") == 1)
        clock.move(61)
        status, text = await creation
        assert (status, text.startswith(f"PVC '{CLAIM}' is still being deleted")) == (409, True)


async def test_a_claim_goes_only_when_it_is_this_apps() -> None:
    async with world([DEPLOY, CLAIMS]) as w:
        await w.create()
        assert (await w.call("remove", remove_data=True))[0] == 204
        foreign = {"metadata": {"name": CLAIM, "labels": {"harp.nextcloud/instance": "other"}}}
        w.cluster.put("persistentvolumeclaims", foreign)
        assert (await w.call("remove", remove_data=True))[0] == 409
        assert w.cluster.names("persistentvolumeclaims") == [CLAIM]


async def test_a_service_of_another_app_is_refused() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        await w.call("expose", port=23000)
        theirs = deepcopy(w.cluster.get("services", D))
        theirs["metadata"]["annotations"]["harp.nextcloud/app"] = "app_skeleton_python"
        w.cluster.put("services", theirs)
        status, text = await w.call("expose", port=23000)
        assert (status, "belongs to the ExApp app_skeleton_python" in text) == (409, True)


async def test_a_service_that_is_being_deleted_is_waited_for() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        await w.call("expose", port=23000)
        deleting = deepcopy(w.cluster.get("services", D))
        deleting["metadata"]["deletionTimestamp"] = TIME
        w.cluster.put("services", deleting)
        call = asyncio.create_task(w.call("expose", port=23000))
        before = w.cluster.called("get", "services")
        await until(lambda: w.cluster.called("get", "services") > before)
        w.cluster.end_pods()
        assert (await call)[0] == 200


@pytest.mark.parametrize("answer", [(404, "gone"), (409, "changed")])
async def test_a_service_that_changes_meanwhile_is_looked_at_again(answer: tuple[int, str]) -> None:
    async with world(BASIC) as w:
        await w.deploy()
        await w.call("expose", port=1)
        w.cluster.errors["delete", "services"] = [answer]
        assert (await w.call("expose", port=23000))[0] == 200
        w.cluster.errors["create", "services"] = [(409, "already exists")]
        del w.cluster.objects["services", D]
        assert (await w.call("expose", port=23000))[0] == 200


async def test_a_service_that_is_removed_while_its_address_is_waited_for_is_said() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        body = {"port": 23000, "expose_type": "loadbalancer", "wait_interval_seconds": 0.1}
        call = asyncio.create_task(w.call("expose", **body))
        await until(lambda: w.cluster.called("get", "services") >= 3)
        del w.cluster.objects["services", D]
        status, text = await call
        assert (status, "was removed while HaRP waited for its address" in text) == (503, True)


async def test_manual_needs_no_answer_of_the_cluster() -> None:
    async with world(BASIC, HP_K8S_API_SERVER="http://127.0.0.1:1") as w:
        body = {"port": 23000, "expose_type": "manual", "upstream_host": "10.9.9.9"}
        assert (await w.call("expose", **body))[0] == 200


async def test_an_app_without_a_deployment_can_be_exposed() -> None:
    async with world(BASIC) as w:
        assert (await w.call("expose", port=23000))[0] == 200


async def test_a_start_during_an_outage_that_lasts_is_503() -> None:
    clock = Clock()
    async with world(BASIC, clock) as w:
        w.cluster.set_pods(waiting("ContainerCreating"))
        await w.create()
        await w.call("start")
        wait = asyncio.create_task(w.call("wait_for_start"))
        await until(lambda: w.cluster.called("list", "pods") >= 1)
        w.cluster.token = "another"
        status, text = await wait
        assert (status, "Status 401" in text) == (503, True)


async def test_a_pod_that_is_not_made_yet_is_waited_for() -> None:
    async with world(BASIC) as w:
        await w.create()
        deployment = deepcopy(w.deployment())
        deployment["spec"]["replicas"] = 1
        w.cluster.put("deployments", deployment)
        wait = asyncio.create_task(w.call("wait_for_start"))
        await until(lambda: w.cluster.called("list", "pods") >= 1)
        metadata = {**deployment["spec"]["template"]["metadata"], "name": "p"}
        w.cluster.put("pods", {"metadata": metadata, "status": READY})
        assert (await wait)[1]["started"] is True


@pytest.mark.parametrize("refused", [("get", "pods/log"), ("list", "events")])
async def test_reasons_that_cannot_be_read_are_done_without(refused: tuple[str, str]) -> None:
    clock = Clock()
    async with world([DEPLOY, LOGS, EVENTS], clock, HP_K8S_START_PATIENCE="100s") as w:
        killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        crashed = {**waiting("CrashLoopBackOff", restarts=2, last=killed), "phase": "Running"}
        w.cluster.set_pods(crashed if refused[1] == "pods/log" else waiting("ContainerCreating"))
        w.cluster.errors[refused] = [NO]
        await w.create()
        await w.call("start")
        wait = asyncio.create_task(w.call("wait_for_start"))
        await until(lambda: w.cluster.called("list", "pods") >= 1)
        clock.move(101)
        assert (await wait)[1]["started"] is False


async def test_without_warnings_of_the_cluster_the_wait_says_what_it_waited_for() -> None:
    clock = Clock()
    async with world([DEPLOY, EVENTS], clock, HP_K8S_START_PATIENCE="100s") as w:
        w.cluster.set_pods(waiting("ContainerCreating"))
        await w.create()
        await w.call("start")
        wait = asyncio.create_task(w.call("wait_for_start"))
        await until(lambda: w.cluster.called("list", "pods") >= 2)
        clock.move(101)
        assert "it waits for its image" in (await wait)[1]["reason"]


async def test_an_autoscaler_that_cannot_be_paused_does_not_stop_a_stop() -> None:
    async with world([DEPLOY, AUTOSCALERS]) as w:
        await w.deploy()
        w.cluster.errors["list", "scaledobjects"] = [(404, "no such kind")] * 2
        assert await w.call("stop") == (204, "")


async def test_authorities_are_replaced_when_they_change() -> None:
    async with world([DEPLOY, CERTIFICATES]) as w:
        await w.deploy()
        for bundle in ("one", "two"):
            assert (await w.call("install_certificates", system_certs_bundle=bundle))[0] == 204
        (name,) = w.cluster.names("configmaps")
        assert w.cluster.get("configmaps", name)["data"] == {"ca-bundle.crt": "two"}
        w.cluster.errors["patch", "configmaps"] = [NO]
        assert (await w.call("install_certificates", system_certs_bundle="three"))[0] == 204
        assert (await w.call("install_certificates", name="none", system_certs_bundle="two"))[0] == 204


async def test_the_admins_own_authorities_are_left_alone() -> None:
    async with world([DEPLOY, CERTIFICATES], HP_K8S_CA_CONFIGMAP="company-cas") as w:
        await w.deploy()
        assert (await w.call("install_certificates", system_certs_bundle="x"))[0] == 204
        assert w.cluster.names("configmaps") == []
        assert w.deployment()["spec"]["template"]["spec"]["volumes"][1]["configMap"] == {"name": "company-cas"}


async def test_images_come_from_the_mirror(tmp_path: Path) -> None:
    file = tmp_path / "registries.json"
    file.write_text('{"mirrors": {"ghcr.io": "registry.example.com/ghcr"}}')
    async with world(BASIC, HP_REGISTRIES_FILE=str(file)) as w:
        await w.create()
        assert w.container()["image"] == "registry.example.com/ghcr/nextcloud/app-skeleton-python:1.0"


async def test_info_of_a_cluster_that_is_away_says_so_and_of_one_without_reviews_is_fine() -> None:
    async with world(BASIC) as w:
        w.cluster.errors["create", "selfsubjectrulesreviews"] = [NO]
        info: dict[str, Any] = await w.info()
        assert info["enabled"] is True
    async with world(BASIC, HP_K8S_API_SERVER="http://127.0.0.1:1") as w:
        info = await w.info()
        assert (info["reachable"], info["error"].startswith("Error communicating")) == (False, True)
