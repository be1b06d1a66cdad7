"""What went wrong on real clusters with the existing implementation (K 11), from row 9: none of it is to happen here.

Row 20 is about addresses: tests/engines/test_kubernetes_lookout.py; rows 16 and 19 about the client and
settings: tests/engines/test_kubernetes_client.py and tests/settings/test_kubernetes.py.
"""

from __future__ import annotations

import asyncio
from copy import deepcopy

import pytest

from harp.policy.kubernetes_names import ClusterNames
from harp.policy.kubernetes_rights import (
    AUTOSCALERS,
    CERTIFICATES,
    CLAIMS,
    DEPLOY,
    NODES,
    SECRETS,
)
from tests.control.kubernetes_world import APP, CLAIM, SECRET, D, world
from tests.control.test_kubernetes import BASIC
from tests.fakes.clock import Clock
from tests.fakes.cluster import FakeCluster
from tests.fakes.waiting import until

pytestmark = pytest.mark.hasty

# --- 9 to 13: the Deployment


async def test_9_pods_that_share_a_volume_of_one_node_neither_overlap_nor_part() -> None:
    async with world(BASIC) as w:
        await w.create(role_suffix="worker")
        spec = w.deployment(f"{D}-worker")["spec"]
        assert spec["strategy"] == {"type": "Recreate"}
        term = spec["template"]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term[0]["topologyKey"] == "kubernetes.io/hostname"


async def test_9_pods_that_share_a_volume_of_many_nodes_are_free() -> None:
    async with world(BASIC, HP_K8S_ACCESS_MODE="ReadWriteMany", HP_K8S_DEFAULT_STORAGE_SIZE="3Gi") as w:
        await w.create(role_suffix="worker")
        spec = w.deployment(f"{D}-worker")["spec"]
        assert "strategy" not in spec
        assert "affinity" not in spec["template"]["spec"]
        claim = w.cluster.get("persistentvolumeclaims", CLAIM)["spec"]
        assert (claim["accessModes"], claim["resources"]["requests"]["storage"]) == (["ReadWriteMany"], "3Gi")


async def test_10_the_data_goes_with_the_last_role_only() -> None:
    async with world(BASIC) as w:
        for role in ("api", "worker"):
            await w.create(role_suffix=role)
        await w.call("remove", role_suffix="api", remove_data=True)
        assert w.cluster.names("persistentvolumeclaims") == [CLAIM]
        await w.call("remove", role_suffix="worker", remove_data=True)
        assert w.cluster.names("persistentvolumeclaims") == []


@pytest.mark.parametrize(("first", "second"), [("a_b", "a-b"), ("x" * 60, "x" * 61), ("a.b", "a-b")])
async def test_11_two_exapps_whose_names_become_the_same_are_kept_apart(first: str, second: str) -> None:
    async with world(BASIC) as w:
        await w.create(name=first)
        for verb in ("exists", "start", "stop", "remove"):
            status, text = await w.call(verb, name=second)
            assert (status, f"belongs to the ExApp {first}" in text) == (409, True)
        assert (await w.create(name=second))[0] == 409
        assert len(w.cluster.names("deployments")) == 1


async def test_11_a_role_and_an_app_whose_names_become_the_same_are_kept_apart() -> None:
    async with world(BASIC) as w:
        await w.create(name="a", role_suffix="b")
        assert (await w.call("remove", name="a_b"))[0] == 409


async def test_11_data_of_another_app_is_refused_where_it_can_be_seen() -> None:
    async with world([DEPLOY, CLAIMS]) as w:
        await w.create(name="a_b")
        await w.call("remove", name="a_b")
        status, text = await w.create(name="a-b")
        assert (status, "belongs to the ExApp a_b" in text) == (409, True)


async def test_what_another_nextcloud_has_made_is_refused_and_what_has_no_owner_adopted() -> None:
    async with world(BASIC, HP_INSTANCE_ID="one") as w:
        await w.deploy()
        async with world(BASIC, HP_K8S_API_SERVER=w.cluster.url, HP_INSTANCE_ID="two") as other:
            status, text = await other.call("remove")
            assert (status, "belongs to another Nextcloud" in text, "HP_INSTANCE_ID=one" in text) == (409, True, True)
        deployment = deepcopy(w.deployment())
        del deployment["metadata"]["labels"]["harp.nextcloud/instance"]
        deployment["metadata"]["annotations"] = {}
        w.cluster.put("deployments", deployment)
        assert await w.call("remove") == (204, "")


async def test_12_start_never_shrinks_what_an_autoscaler_has_grown() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        deployment = deepcopy(w.deployment())
        deployment["spec"]["replicas"] = 4
        w.cluster.put("deployments", deployment)
        await w.call("start")
        assert w.deployment()["spec"]["replicas"] == 4
        await w.call("stop")
        assert w.deployment()["spec"]["replicas"] == 0
        await w.call("start")
        assert w.deployment()["spec"]["replicas"] == 4


async def test_12_an_autoscaler_of_keda_is_paused_while_the_app_is_disabled() -> None:
    async with world([DEPLOY, AUTOSCALERS]) as w:
        await w.deploy()
        for name, target in (("ours", D), ("other", "something-else")):
            w.cluster.put("scaledobjects", {"metadata": {"name": name}, "spec": {"scaleTargetRef": {"name": target}}})
        await w.call("stop")
        paused = {"autoscaling.keda.sh/paused-replicas": "0"}
        assert w.cluster.get("scaledobjects", "ours")["metadata"]["annotations"] == paused
        assert "annotations" not in w.cluster.get("scaledobjects", "other")["metadata"]
        await w.call("start")
        assert w.cluster.get("scaledobjects", "ours")["metadata"]["annotations"] == {}


async def test_13_ready_means_that_it_listens() -> None:
    async with world(BASIC) as w:
        await w.create()
        for probe in ("startupProbe", "readinessProbe"):
            assert w.container()[probe]["tcpSocket"] == {"port": 23000}


async def test_13_a_container_without_probes_has_to_run_for_a_while() -> None:
    clock = Clock()
    async with world(BASIC, clock, HP_K8S_PROBES="false") as w:
        await w.create()
        assert "readinessProbe" not in w.container()
        await w.call("start")
        wait = asyncio.create_task(w.call("wait_for_start"))
        await until(lambda: w.cluster.called("list", "pods") >= 2)
        assert not wait.done()
        clock.move(3)
        assert (await wait)[1]["started"] is True


async def test_13_a_role_need_not_listen() -> None:
    async with world(BASIC) as w:
        await w.create(role_suffix="worker")
        assert "startupProbe" not in w.container(f"{D}-worker")


# --- 14, 15: secrets and certificates


async def test_14_the_secret_of_an_app_is_in_a_secret_where_that_is_allowed() -> None:
    async with world([DEPLOY, SECRETS]) as w:
        await w.deploy()
        assert SECRET not in str(w.deployment())
        secret = w.cluster.get("secrets", D)
        assert secret["stringData"] == {"APP_SECRET": SECRET}
        assert secret["metadata"]["ownerReferences"][0]["uid"] == w.deployment()["metadata"]["uid"]
        await w.call("remove")
        assert (await w.create(environment_variables=["APP_SECRET=another"]))[0] == 201  # the old one is still there
        assert w.cluster.get("secrets", D)["stringData"] == {"APP_SECRET": "another"}


async def test_14_a_secret_that_cannot_be_made_leaves_no_deployment() -> None:
    async with world([DEPLOY, SECRETS]) as w:
        w.cluster.errors["create", "secrets"] = [(403, "quota")]
        status, text = await w.create()
        assert (status, text.startswith("Error creating Secret")) == (503, True)
        assert w.cluster.names("deployments") == []


async def test_15_the_authorities_of_nextcloud_reach_the_app_where_that_is_allowed() -> None:
    async with world([DEPLOY, CERTIFICATES]) as w:
        await w.deploy()
        body = {"system_certs_bundle": "-----BEGIN CERTIFICATE-----\n", "install_frp_certs": False}
        assert (await w.call("install_certificates", **body))[0] == 204
        spec = w.deployment()["spec"]["template"]["spec"]
        config_map = spec["volumes"][1]["configMap"]["name"]
        assert w.cluster.get("configmaps", config_map)["data"] == {"ca-bundle.crt": body["system_certs_bundle"]}
        variables = {variable["name"]: variable.get("value") for variable in w.container()["env"]}
        assert variables["SSL_CERT_FILE"] == "/etc/nextcloud-ca/ca-bundle.crt"
        assert variables["APP_PORT"] == "23000"
        patches = w.cluster.called("patch", "deployments")
        assert (await w.call("install_certificates", **body))[0] == 204
        assert w.cluster.called("patch", "deployments") == patches  # one restart, for the first app alone
        await w.call("remove")
        await w.create()
        assert w.container()["volumeMounts"][1]["name"] == "ca"


async def test_15_without_the_right_certificates_are_answered_and_nothing_is_done() -> None:
    async with world(BASIC) as w:
        await w.deploy()
        assert (await w.call("install_certificates", system_certs_bundle="x"))[0] == 204
        assert len(w.deployment()["spec"]["template"]["spec"]["volumes"]) == 1


# --- 16 to 22


async def test_16_a_cluster_that_does_not_answer_is_503_with_words() -> None:
    async with world(BASIC, HP_K8S_API_SERVER="http://127.0.0.1:1") as w:
        status, text = await w.call("exists")
        assert (status, text.startswith("Error communicating with Kubernetes API")) == (503, True)


async def test_17_info_names_the_rights_that_are_missing() -> None:
    async with world([NODES]) as w:
        info = await w.info()
        assert (info["enabled"], info["reachable"]) == (True, False)
        assert "lacks: get, list, create, patch, delete deployments.apps" in info["error"]
        assert "lacks" in info["api_server"]  # of all this, AppAPI shows its admin this field alone


async def test_17_info_says_which_features_a_role_does_not_allow() -> None:
    async with world(BASIC) as w:
        info = await w.info()
        assert (info["reachable"], info["api_server"]) == (True, w.cluster.url)
        assert "error" not in info
        assert info["missing_rights"]["logs"].startswith("get pods/log: for ")
        w.cluster.token = "another"
        info = await w.info()
        assert (info["reachable"], "HP_K8S_BEARER_TOKEN" in info["error"]) == (False, True)


async def test_18_mounts_are_refused() -> None:
    async with world(BASIC) as w:
        status, text = await w.create(mount_points=[{"source": "/srv", "target": "/srv", "mode": "ro"}])
        assert (status, "mount_points" in text) == (400, True)


async def test_21_what_has_lost_its_app_is_listed() -> None:
    async with world() as w:
        await w.deploy()
        await w.call("expose", port=23000)
        await w.create(name="gone")
        await w.call("remove", name="gone")
        await w.create(name="half")
        await w.call("expose", name="half", port=23000)
        del w.cluster.objects["deployments", "nc-app-half"]
        run = asyncio.create_task(w.harp.lookout.run())
        await w.harp.lookout.known()
        lines = {line.name: line for line in w.harp.status().exapps}
        run.cancel()
        assert lines[D].note == ""
        assert lines[D].address == f"{w.cluster.get('services', D)['spec']['clusterIP']}:23000"
        assert lines["nc-app-gone-data"].note == "a claim without Deployment"
        assert lines["nc-app-half"].note == "a Service without Deployment"


async def test_20_what_a_load_balancer_has_to_know_is_said_in_annotations() -> None:
    async with world(BASIC, HP_K8S_SERVICE_ANNOTATIONS="example.com/class=internal,example.com/size=small") as w:
        await w.create()
        body = {"port": 23000, "expose_type": "loadbalancer", "upstream_host": "lb.example.com"}
        assert (await w.call("expose", **body, service_annotations={"example.com/size": "large"}))[0] == 200
        annotations = w.cluster.get("services", D)["metadata"]["annotations"]
        assert annotations.items() >= {"example.com/class": "internal", "example.com/size": "large"}.items()


async def test_22_a_node_port_that_is_taken_is_named() -> None:
    async with world(BASIC) as w:
        for name in (APP, "second"):
            await w.create(name=name)
            w.nextcloud.known["second"] = w.nextcloud.known[APP]
        body = {"port": 23000, "expose_type": "nodeport", "node_port": 30100, "upstream_host": "node"}
        assert (await w.call("expose", **body))[0] == 200
        status, text = await w.call("expose", name="second", **body)
        assert (status, "node port 30100 is another Service's" in text) == (503, True)


def test_names_are_those_of_the_existing_harp() -> None:
    from harp.policy.container import Names  # noqa: PLC0415

    names = ClusterNames(Names("App.One_Two", "", "API"))
    assert (names.base, names.deployment, names.claim, names.mount_path) == (
        "nc-app-app-one-two",
        "nc-app-app-one-two-api",
        "nc-app-app-one-two-data",
        "/nc_app_App.One_Two_data",
    )


def test_the_fake_cluster_allows_nothing_that_its_role_does_not() -> None:
    assert FakeCluster([]).rules == []
