"""The objects of an ExApp in a cluster, from what AppAPI asks for and what an admin has set (K 5, K 10)."""

from __future__ import annotations

from typing import Any

import pytest

from harp.policy.container import Names, Owner, Refused
from harp.policy.kubernetes_names import ClusterNames, label_value, sanitised
from harp.policy.kubernetes_objects import Amounts, CaFile, ClusterPlan, amounts, claim, deployment, uid_of
from harp.settings import ExAppPods
from tests.settings.reading import settings

OWNER = Owner("mine")
PLAN = ClusterPlan(Names("app-x"), "image:1", ("APP_PORT=23000", "APP_SECRET=s3cret", "EMPTY", "", "A=1", "A=2"))


def pods(**variables: str) -> ExAppPods:
    return settings(**variables).kubernetes.pods


def made(plan: ClusterPlan = PLAN, *, ca: CaFile | None = None, secret: bool = False, **variables: str) -> Any:
    return deployment(plan, OWNER, pods(**variables), "t1", secret=secret, ca=ca)


def pod(plan: ClusterPlan = PLAN, **variables: str) -> Any:
    return made(plan, ca=None, secret=False, **variables)["spec"]["template"]["spec"]


def test_the_deployment_is_that_of_the_existing_harp_and_more() -> None:
    body = made()
    labels = {
        "app": "nc-app-app-x",
        "app.kubernetes.io/name": "nc-app-app-x",
        "app.kubernetes.io/part-of": "nc-app-app-x",
        "app.kubernetes.io/component": "exapp",
    }
    assert body["metadata"]["name"] == "nc-app-app-x"
    assert labels.items() <= body["metadata"]["labels"].items()
    assert body["spec"]["replicas"] == 0
    assert body["spec"]["selector"] == {"matchLabels": {"app": "nc-app-app-x"}}
    spec = body["spec"]["template"]["spec"]
    assert spec["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "nc-app-app-x-data"}}]
    container = spec["containers"][0]
    assert (container["name"], container["image"], container["imagePullPolicy"]) == ("app", "image:1", "IfNotPresent")
    assert container["volumeMounts"] == [{"name": "data", "mountPath": "/nc_app_app-x_data"}]
    assert "resources" not in container
    assert spec["automountServiceAccountToken"] is False


def test_the_environment_is_what_appapi_says_and_the_last_of_one_name_counts() -> None:
    assert pod()["containers"][0]["env"] == [
        {"name": "APP_PORT", "value": "23000"},
        {"name": "APP_SECRET", "value": "s3cret"},
        {"name": "EMPTY", "value": ""},
        {"name": "A", "value": "2"},
    ]


def test_no_value_refers_to_another_variable() -> None:
    plan = ClusterPlan(Names("app-x"), "image:1", ("A=$(APP_SECRET)",))
    assert pod(plan)["containers"][0]["env"] == [{"name": "A", "value": "$$(APP_SECRET)"}]


def test_the_secret_is_referred_to_where_there_is_one() -> None:
    body = made(secret=True)
    assert "s3cret" not in str(body)
    reference = {"secretKeyRef": {"name": "nc-app-app-x", "key": "APP_SECRET"}}
    assert {"name": "APP_SECRET", "valueFrom": reference} in body["spec"]["template"]["spec"]["containers"][0]["env"]


@pytest.mark.parametrize(
    ("memory", "nano_cpus", "cpu", "expected"),
    [
        (1 << 30, 1_500_000_000, None, Amounts("1024Mi", "1500m")),
        (1, 1, None, Amounts("1Mi", "1m")),
        ("2Gi", None, "500m", Amounts("2Gi", "500m")),
        (1073741824.0, 99999999.99999999, None, Amounts("1024Mi", "100m")),
        (0, -1, "", Amounts()),
        (None, None, None, Amounts()),
        ([], {}, 3, Amounts()),
        (True, float("nan"), None, Amounts()),
    ],
)
def test_limits_become_quantities(memory: object, nano_cpus: object, cpu: object, expected: Amounts) -> None:
    assert amounts(memory, nano_cpus, cpu) == expected


def test_limits_are_requests_as_well_and_a_gpu_is_a_limit() -> None:
    plan = ClusterPlan(Names("app-x"), "image:1", device="cuda", amounts=Amounts("1Gi", "500m"))
    both = {"memory": "1Gi", "cpu": "500m"}
    assert pod(plan)["containers"][0]["resources"] == {"limits": {**both, "nvidia.com/gpu": "1"}, "requests": both}
    rocm = ClusterPlan(Names("app-x"), "image:1", device="rocm")
    assert pod(rocm)["containers"][0]["resources"] == {"limits": {"amd.com/gpu": "1"}}
    shared = pod(plan, HP_K8S_GPU_RESOURCE="nvidia.com/gpu.shared")["containers"][0]["resources"]["limits"]
    assert shared["nvidia.com/gpu.shared"] == "1"


def test_pods_get_what_the_admin_has_set() -> None:
    spec = pod(
        HP_K8S_HOST_ALIASES="cloud.example.com:10.0.0.5",
        HP_K8S_NODE_SELECTOR="pool=ai",
        HP_K8S_TOLERATIONS="nvidia.com/gpu:NoSchedule,pool=ai",
        HP_K8S_PULL_SECRETS="registry",
        HP_K8S_RUNTIME_CLASS="gvisor",
        HP_K8S_PRIORITY_CLASS="low",
        HP_K8S_SERVICE_ACCOUNT="exapps",
        HP_K8S_SECURITY_CONTEXT="restricted",
        HP_K8S_RUN_AS="1000:2000",
    )
    assert spec["hostAliases"] == [{"ip": "10.0.0.5", "hostnames": ["cloud.example.com"]}]
    assert spec["nodeSelector"] == {"pool": "ai"}
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "pool", "operator": "Equal", "value": "ai"},
    ]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert (spec["runtimeClassName"], spec["priorityClassName"]) == ("gvisor", "low")
    assert spec["serviceAccountName"] == "exapps"
    assert "automountServiceAccountToken" not in spec
    assert spec["securityContext"] == {
        "seccompProfile": {"type": "RuntimeDefault"},
        "runAsUser": 1000,
        "runAsGroup": 2000,
        "fsGroup": 2000,
    }
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_labels_and_annotations_of_the_admin_never_replace_ours() -> None:
    body = made(HP_K8S_LABELS="team=apps,app=theirs", HP_K8S_ANNOTATIONS="note=x,harp.nextcloud/app=theirs")
    template = body["spec"]["template"]["metadata"]
    for labels in (body["metadata"]["labels"], template["labels"]):
        assert (labels["team"], labels["app"]) == ("apps", "nc-app-app-x")
    assert (template["annotations"]["note"], template["annotations"]["harp.nextcloud/app"]) == ("x", "app-x")


@pytest.mark.parametrize(("value", "sticky"), [("true", "true"), ("1", "true"), ("false", None), ("", None)])
def test_an_exapp_says_by_a_variable_that_it_wants_a_client_at_one_replica(value: str, sticky: str | None) -> None:
    body = made(ClusterPlan(Names("app-x"), "image:1", (f"APP_STICKY_SESSIONS={value}",)))
    assert body["metadata"]["annotations"].get("harp.nextcloud/sticky") == sticky


def test_an_authority_is_mounted_and_named_unless_the_app_names_its_own() -> None:
    plan = ClusterPlan(Names("app-x"), "image:1", ("SSL_CERT_FILE=/own.pem",))
    spec = made(plan, ca=CaFile("company-cas", "all.pem"))["spec"]["template"]["spec"]
    assert {"name": "ca", "configMap": {"name": "company-cas"}} in spec["volumes"]
    variables = {one["name"]: one["value"] for one in spec["containers"][0]["env"]}
    assert variables["SSL_CERT_FILE"] == "/own.pem"
    assert variables["REQUESTS_CA_BUNDLE"] == "/etc/nextcloud-ca/all.pem"


def test_the_claim_has_size_class_and_mode() -> None:
    names = ClusterNames(Names("app-x", role_suffix="web"))
    body: Any = claim(names, OWNER, pods(HP_K8S_STORAGE_CLASS="fast", HP_K8S_DEFAULT_STORAGE_SIZE="5Gi"))
    assert body["metadata"]["name"] == "nc-app-app-x-data"
    assert body["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "5Gi"}},
        "storageClassName": "fast",
    }
    assert "storageClassName" not in str(claim(names, OWNER, pods()))


@pytest.mark.parametrize(
    "plan",
    [
        ClusterPlan(Names("app-x"), "not an image"),
        ClusterPlan(Names("app-x"), "image:1", ("A=\0",)),
        ClusterPlan(Names("app-x"), "image:1", pull_policy="Sometimes"),
        ClusterPlan(Names(""), "image:1"),
    ],
)
def test_what_cannot_be_deployed_is_refused(plan: ClusterPlan) -> None:
    with pytest.raises(Refused):
        plan.checked()


def test_no_repr_shows_the_environment() -> None:
    assert "s3cret" not in repr(PLAN)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nc_app_App.One", "nc-app-app-one"),
        ("--a__b--", "a-b"),
        ("___", "exapp"),
        ("x" * 62 + "-y", "x" * 62),
        ("größe", "gr-e"),
    ],
)
def test_names_are_sanitised_as_the_existing_harp_does(text: str, name: str) -> None:
    assert sanitised(text) == name


def test_what_cannot_be_a_label_becomes_a_hash() -> None:
    assert label_value("mine-1.x") == "mine-1.x"
    for text in ("ends.", "", "x" * 64, "a b"):
        assert len(label_value(text)) == 16


def test_an_instance_in_the_payload_is_part_of_all_names() -> None:
    names = ClusterNames(Names("app-x", "one."))
    assert (names.base, names.claim, names.mount_path) == (
        "nc-app-one-app-x",
        "nc-app-one-app-x-data",
        "/nc_app_one._app-x_data",
    )
    assert names.labels(OWNER)["app.kubernetes.io/instance"] == label_value("one.")


def test_an_answer_without_a_uid_has_none() -> None:
    assert uid_of(b'{"metadata":{"uid":"u"}}') == "u"
    assert (uid_of(b"{}"), uid_of(b"<html>")) == ("", "")
