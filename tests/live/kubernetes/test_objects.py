"""A real API server takes the objects that HaRP makes, with everything that an admin can set; pods are pretended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.live.kubernetes.deploy import exapp, kubernetes_daemon
from tests.live.kubernetes.room import Room

pytestmark = pytest.mark.timeout(400)

EVERYTHING = {
    "HP_INSTANCE_ID": "ends-in-a-dot.",
    "HP_K8S_LABELS": "example.com/team=apps,tier=exapps",
    "HP_K8S_ANNOTATIONS": "linkerd.io/inject=enabled",
    "HP_K8S_SERVICE_ANNOTATIONS": "service.beta.kubernetes.io/aws-load-balancer-type=nlb",
    "HP_K8S_NODE_SELECTOR": "kubernetes.io/os=linux",
    "HP_K8S_TOLERATIONS": "nvidia.com/gpu:NoSchedule,pool=ai:NoExecute,any",
    "HP_K8S_PULL_SECRETS": "registry",
    "HP_K8S_SERVICE_ACCOUNT": "useless",
    "HP_K8S_SECURITY_CONTEXT": "restricted",
    "HP_K8S_RUN_AS": "1000:2000",
    "HP_K8S_PRIORITY_CLASS": "system-cluster-critical",
    "HP_K8S_CA_CONFIGMAP": "company-cas/all.pem",
    "HP_K8S_HOST_ALIASES": "cloud.example.com:10.0.0.5,v6.example.com:fd00::5",
    "HP_K8S_DEFAULT_STORAGE_SIZE": "1500Mi",
    "HP_K8S_START_PATIENCE": "30s",
}
DEFINITION: dict[str, Any] = {  # of KEDA's autoscalers, as far as HaRP cares
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "names": {"kind": "ScaledObject", "plural": "scaledobjects"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def test_a_real_api_server_takes_everything_an_admin_can_set(pretended: Room, tmp_path: Path) -> None:
    with kubernetes_daemon(tmp_path, pretended, "wide", **EVERYTHING) as daemon:
        app = replace(exapp("everything", roles=("web",)), limits={"memory": 1 << 30, "nanoCPUs": 5e8})
        daemon.nextcloud.apps[app.app_id] = app
        daemon.create(app, "web").ok(201)
        spec = pretended.get("Deployment", "nc-app-everything-web")["spec"]["template"]["spec"]
        assert spec["securityContext"]["fsGroup"] == 2000
        assert spec["priorityClassName"] == "system-cluster-critical"
        assert pretended.get("PersistentVolumeClaim", "nc-app-everything-data")["spec"]["accessModes"] == [
            "ReadWriteOnce"
        ]
        for kind in ("clusterip", "nodeport", "loadbalancer", "clusterip"):  # changed in place, each time
            wish: dict[str, Any] = {"port": 23000, "expose_type": kind, "upstream_host": "10.9.9.9"}
            if kind != "clusterip":
                wish["external_traffic_policy"] = "Local"
            if kind == "loadbalancer":
                wish["load_balancer_ip"] = "192.0.2.9"
            daemon.verb("expose", app, "web", **wish).ok(200)
        uid = pretended.get("Service", "nc-app-everything-web")["metadata"]["uid"]
        daemon.verb("expose", app, "web", port=23001, upstream_host="10.9.9.9").ok(200)
        service = pretended.get("Service", "nc-app-everything-web")
        assert (service["metadata"]["uid"], service["spec"]["ports"][0]["targetPort"]) == (uid, 23001)
        daemon.verb("remove", app, "web", remove_data=True).ok(204)
    pretended.clear()


def test_without_the_right_to_patch_a_service_is_made_anew(pretended: Room, tmp_path: Path) -> None:
    with kubernetes_daemon(tmp_path, pretended, "narrow") as daemon:
        app = exapp("service")
        daemon.nextcloud.apps[app.app_id] = app
        daemon.create(app).ok(201)
        for kind in ("clusterip", "nodeport", "loadbalancer", "clusterip"):
            daemon.verb("expose", app, port=23000, expose_type=kind, upstream_host="10.9.9.9").ok(200)
        assert pretended.get("Service", "nc-app-service")["spec"]["type"] == "ClusterIP"
        daemon.verb("remove", app, remove_data=True).ok(204)
    pretended.clear()


def test_a_gpu_is_found_where_a_node_has_one(pretended: Room, tmp_path: Path) -> None:
    with kubernetes_daemon(tmp_path, pretended, "narrow") as daemon:
        app = exapp("gpu", device="cuda")
        daemon.create(app).ok(201)
        daemon.verb("start", app).ok(204)
        assert daemon.wait(app)["started"] is True
        rocm = exapp("rocm", device="rocm")
        daemon.create(rocm).ok(201)
        daemon.verb("start", rocm).ok(204)
        outcome = daemon.wait(rocm)
        assert (outcome["started"], "amd.com/gpu" in outcome["reason"]) == (False, True)
        for one in (app, rocm):
            daemon.verb("remove", one, remove_data=True).ok(204)
    pretended.clear()


def test_objects_of_the_existing_harp_are_adopted(pretended: Room, tmp_path: Path) -> None:
    with kubernetes_daemon(tmp_path, pretended, "narrow") as daemon:
        app = exapp("adopted")
        daemon.nextcloud.apps[app.app_id] = app
        daemon.create(app).ok(201)
        daemon.verb("expose", app, port=23000).ok(200)
        ours = ("harp.nextcloud/instance", "app.kubernetes.io/managed-by")
        for kind, name in (("Deployment", "nc-app-adopted"), ("PersistentVolumeClaim", "nc-app-adopted-data")):
            labels, annotations = dict.fromkeys(ours), {"harp.nextcloud/app": None, "harp.nextcloud/exposed": None}
            pretended.patch(kind, name, {"metadata": {"labels": labels, "annotations": annotations}})
        daemon.product.stop()
        daemon.product.start()
        assert daemon.exists(app)
        daemon.verb("start", app).ok(204)
        assert daemon.wait(app)["started"] is True
        daemon.verb("remove", app, remove_data=True).ok(204)
        assert pretended.names("Deployment") == set()
    pretended.clear()


def test_an_autoscaler_of_keda_is_paused_and_goes_on(pretended: Room, tmp_path: Path) -> None:
    pretended.cluster.kubectl("apply", "-f", "-", content=json.dumps(DEFINITION))
    pretended.cluster.kubectl("wait", "--for=condition=Established", "crd/scaledobjects.keda.sh", "--timeout=180s")
    with kubernetes_daemon(tmp_path, pretended, "wide") as daemon:
        app = exapp("scaled")
        daemon.create(app).ok(201)
        scaled = {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": {"name": "scaled", "namespace": pretended.name},
            "spec": {"scaleTargetRef": {"name": "nc-app-scaled"}},
        }
        pretended.cluster.kubectl("apply", "-f", "-", content=json.dumps(scaled))

        def paused() -> str:
            path = r"jsonpath={.metadata.annotations.autoscaling\.keda\.sh/paused-replicas}"
            return pretended.cluster.kubectl("-n", pretended.name, "get", "scaledobjects", "scaled", "-o", path)

        daemon.verb("start", app).ok(204)
        assert paused() == ""
        daemon.verb("stop", app).ok(204)
        assert paused() == "0"
        daemon.verb("start", app).ok(204)
        assert paused() == ""
        daemon.verb("remove", app, remove_data=True).ok(204)
    pretended.clear()


def test_replicas_of_an_autoscaler_are_left_alone(pretended: Room, tmp_path: Path) -> None:
    with kubernetes_daemon(tmp_path, pretended, "narrow") as daemon:
        app = exapp("grown")
        daemon.create(app).ok(201)
        daemon.verb("start", app).ok(204)
        pretended.patch("Deployment", app.deployments[0], {"spec": {"replicas": 3}})
        daemon.verb("start", app).ok(204)
        assert pretended.get("Deployment", app.deployments[0])["spec"]["replicas"] == 3
        daemon.verb("stop", app).ok(204)
        daemon.verb("start", app).ok(204)
        assert pretended.get("Deployment", app.deployments[0])["spec"]["replicas"] == 3
        assert daemon.wait(app)["started"] is True
        daemon.verb("remove", app, remove_data=True).ok(204)
    pretended.clear()
