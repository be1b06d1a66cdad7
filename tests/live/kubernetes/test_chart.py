"""The Helm chart and the manifests: complete, in agreement with the code, and taken by the API as they are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

import harp
from harp.policy.kubernetes_rights import DEPLOY, FEATURES, rules_for
from harp.settings import examine
from tests.live.kubernetes.cluster import Cluster
from tests.live.kubernetes.programs import program
from tests.live.kubernetes.room import NARROW, RESTRICTED, namespaces
from tests.live.kubernetes.schemas import NEWEST, OLDEST, write_schemas

pytestmark = pytest.mark.timeout(400)  # the first test that needs it starts the cluster

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy/helm/harp"
MANIFESTS = ROOT / "deploy/kubernetes"
IMAGE = "registry.example.com/appapi-harp"
SHORTEST = {
    "image": {"repository": IMAGE},
    "nextcloud": {"url": "https://cloud.example.com"},
    "sharedKey": {"existingSecret": "harp-key"},
}
EVERYTHING = {
    "image": {"repository": IMAGE, "digest": f"sha256:{'0' * 64}", "pullSecrets": ["registry"]},
    "nextcloud": {"url": "https://cloud.example.com"},
    "sharedKey": {"value": "a key"},
    "exapps": {
        "namespace": "apps",
        "storageClass": "fast",
        "storageSize": "20Gi",
        "accessMode": "ReadWriteMany",
        "labels": {"team": "a", "tier": "b"},
        "annotations": {"example.com/a": "b"},
        "serviceAnnotations": {"example.com/c": "d"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": ["nvidia.com/gpu:NoSchedule", "dedicated=ai"],
        "pullSecrets": ["one", "two"],
        "serviceAccount": "exapps",
        "securityContext": "restricted",
        "runAs": "33:33",
        "runtimeClass": "nvidia",
        "priorityClass": "low",
        "gpuResource": "nvidia.com/gpu.shared",
        "caConfigMap": "cas/ca.crt",
        "hostAliases": "cloud.example.com:10.0.0.1",
    },
    "rbac": {"features": {"nodes": True, "autoscalers": True}},
    "serviceAccount": {"name": "gateway", "annotations": {"a": "b"}},
    "service": {"type": "NodePort", "annotations": {"a": "b"}},
    "tunnels": {"enabled": True, "service": {"type": "LoadBalancer", "nodePort": 30782}},
    "persistence": {"enabled": True, "storageClass": "fast"},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "cloud.example.com",
        "tls": [{"hosts": ["cloud.example.com"], "secretName": "tls"}],
    },
    "trustedProxies": ["10.0.0.0/8", "192.0.2.1"],
    "logs": {"level": "info"},
    "env": {"HP_SESSION_LIFETIME": 5, "TZ": "Europe/Berlin"},
    "networkPolicy": {
        "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
        "protectExApps": True,
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podLabels": {"a": "b"},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "priorityClassName": "high",
}
SEVERAL = SHORTEST | {
    "replicas": 3,
    "cluster": {"existingSecret": "harp-cluster"},
    "certificates": {"existingSecret": "harp-authority"},
    "tunnels": {"enabled": True},
}
CASES = pytest.mark.parametrize("values", [SHORTEST, EVERYTHING, SEVERAL], ids=["shortest", "everything", "several"])


def run(*argv: str, content: str = "") -> tuple[int, str, str]:
    done = subprocess.run(argv, input=content, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def rendered(values: dict[str, Any], *options: str) -> str:
    """The chart's objects as YAML."""
    command = (program("helm"), "template", "harp", str(CHART), "--namespace=nextcloud", "--values=-", *options)
    status, text, error = run(*command, content=json.dumps(values))
    assert status == 0, error
    return text


def kustomized(directory: Path) -> str:
    status, text, error = run(program("kubectl"), "kustomize", str(directory))
    assert status == 0, error
    return text


def component(name: str, directory: Path) -> str:
    """The manifests with one of their optional components."""
    paths = {"resources": ["../base"], "components": [f"../{name}"]}
    copy = directory / "kubernetes"
    shutil.copytree(MANIFESTS, copy)
    (copy / "mine").mkdir()
    (copy / "mine/kustomization.yaml").write_text(json.dumps(paths))
    return kustomized(copy / "mine")


@pytest.fixture(scope="module", params=[NEWEST, OLDEST], ids=["newest", "oldest"])
def schemas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The API of the cluster, and of the oldest Kubernetes that the chart allows."""
    program("kubeconform")
    return write_schemas(tmp_path_factory.mktemp("schemas"), request.param)


def test_the_rights_in_chart_and_manifests_are_those_of_the_one_list() -> None:
    assert run(sys.executable, str(ROOT / "scripts/rights.py"), "--check") == (0, "", "")


def test_what_must_be_allowed_is_what_the_existing_harp_asks_for() -> None:
    assert [to_builtins(rule) for rule in rules_for([DEPLOY])] == list(NARROW)


def test_the_chart_can_switch_each_optional_feature() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    switches = schema["properties"]["rbac"]["properties"]["features"]["properties"]
    assert set(switches) == {feature.name for feature in FEATURES if feature.optional}


def test_chart_and_manifests_set_only_variables_that_harp_knows() -> None:
    known = {value.name for value in examine({}).values}
    for path in (CHART / "templates/deployment.yaml", MANIFESTS / "base/harp.yaml"):
        names = set(re.findall(r"\b(?:HP|NC)_[A-Z0-9_]+\b", path.read_text()))
        assert names - known == set(), path


def test_the_chart_can_set_every_variable_of_kubernetes_that_is_not_the_pods_own() -> None:
    text = (CHART / "templates/deployment.yaml").read_text()
    own = {"HP_K8S_API_SERVER", "HP_K8S_CA_FILE", "HP_K8S_VERIFY_SSL"}
    own |= {"HP_K8S_BEARER_TOKEN", "HP_K8S_BEARER_TOKEN_FILE"}
    for_env = {"HP_K8S_PROBES", "HP_K8S_SCHEDULE_PATIENCE", "HP_K8S_START_PATIENCE"}
    wanted = {value.name for value in examine({}).values if value.name.startswith("HP_K8S_")} - own - for_env
    assert {name for name in wanted if name not in text} == set()


@CASES
def test_helm_finds_nothing_to_complain_of(values: dict[str, Any]) -> None:
    status, text, error = run(program("helm"), "lint", "--strict", str(CHART), "--values=-", content=json.dumps(values))
    assert status == 0, text + error


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "/nextcloud/url"),
        ({"nextcloud": {"url": "https://x"}}, "/sharedKey"),
        (SHORTEST | {"exapps": {"namespace": "No_Name"}}, "/exapps/namespace"),
        (SHORTEST | {"exapps": {"acessMode": "ReadWriteOnce"}}, "'acessMode' not allowed"),
        (SHORTEST | {"rbac": {"features": {"everything": True}}}, "'everything' not allowed"),
        (SHORTEST | {"env": {"PATH": "/bin"}}, "invalid propertyName 'PATH'"),
        (SHORTEST | {"ingress": {"enabled": True}}, "set ingress.host"),
        (SHORTEST | {"replicas": 3}, "several replicas need cluster.existingSecret, or cluster.url"),
        (SEVERAL | {"certificates": {}}, "several replicas need one certificate authority"),
        (SEVERAL | {"certificates": {}, "persistence": {"enabled": True}}, "with accessMode ReadWriteMany"),
        (SEVERAL | {"cluster": {"url": "valkey:6379"}}, "/cluster/url"),
        (SHORTEST | {"replicas": 0}, "/replicas"),
        (SHORTEST | {"image": {}}, "set image.repository: HaRP's image, which you build and push yourself"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_with_words(values: dict[str, Any], words: str) -> None:
    command = (program("helm"), "template", "harp", str(CHART), "--values=-")
    status, _, error = run(*command, content=json.dumps(values))
    assert status != 0
    assert words in error


@CASES
def test_the_chart_is_valid(values: dict[str, Any], schemas: str) -> None:
    # ServiceMonitor is Prometheus' own kind, whose description is not Kubernetes'.
    options = ("-strict", "-summary", f"-schema-location={schemas}", "-skip=ServiceMonitor")
    status, text, error = run(program("kubeconform"), *options, content=rendered(values))
    assert status == 0, text + error
    assert "Invalid: 0, Errors: 0" in text


@pytest.mark.parametrize("name", ["base", "example", "minimal", "node-port"])
def test_the_manifests_are_valid(name: str, schemas: str, tmp_path: Path) -> None:
    whole = kustomized(MANIFESTS / name) if name in {"base", "example"} else component(name, tmp_path)
    options = ("-strict", "-summary", f"-schema-location={schemas}")
    status, text, error = run(program("kubeconform"), *options, content=whole)
    assert status == 0, text + error


def test_a_field_that_the_api_does_not_know_is_not_valid(schemas: str) -> None:
    wrong = rendered(SHORTEST).replace("readOnlyRootFilesystem", "readOnlyRootFileSystem")
    status, text, _ = run(program("kubeconform"), "-strict", f"-schema-location={schemas}", content=wrong)
    assert status != 0
    assert "readOnlyRootFileSystem" in text


def applied(cluster: Cluster, manifests: str) -> dict[str, Any]:
    """What the API server makes of them, by kind; nothing is kept."""
    status, text, error = run(
        *(program("kubectl"), f"--kubeconfig={cluster.kubeconfig}", "create", "--dry-run=server", "--validate=strict"),
        *("--output=json", "--filename=-"),
        content=manifests,
    )
    assert status == 0, error
    decoder, objects, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        found, at = decoder.raw_decode(text, at)
        objects += found.get("items", [found])
        at += len(text[at:]) - len(text[at:].lstrip())
    return {one["kind"]: one for one in objects}


@pytest.fixture(scope="module")
def homes(cluster: Cluster) -> Iterator[None]:
    """The namespaces that chart and manifests use."""
    with namespaces(cluster, nextcloud=RESTRICTED, harp=RESTRICTED, nextcloud_exapps={}, apps={}):
        yield


def without_namespaces(manifests: str) -> str:
    """All but the namespaces, which are there."""
    return "\n---\n".join(part for part in manifests.split("\n---\n") if "\nkind: Namespace\n" not in f"\n{part}\n")


@CASES
def test_the_api_takes_the_chart(cluster: Cluster, homes: None, values: dict[str, Any]) -> None:
    cluster.define("ServiceMonitor")
    taken = applied(cluster, without_namespaces(rendered(values)))
    assert {"Deployment", "Service", "Role", "RoleBinding", "PodDisruptionBudget", "NetworkPolicy"} <= set(taken)
    wanted = [one for one in FEATURES if not one.cluster and (values is EVERYTHING or one.name != "autoscalers")]
    assert by_resource(taken["Role"]["rules"]) == by_resource(to_builtins(rules_for(wanted)))
    assert ("ClusterRole" in taken) is (values is EVERYTHING)


def test_the_api_takes_the_manifests_and_their_pod_is_the_charts(cluster: Cluster, homes: None) -> None:
    ours = applied(cluster, without_namespaces(kustomized(MANIFESTS / "example")))
    charts = applied(cluster, without_namespaces(rendered(SHORTEST)))
    pods = [taken["Deployment"]["spec"]["template"]["spec"] for taken in (ours, charts)]
    for key in (
        "securityContext",
        "terminationGracePeriodSeconds",
        "enableServiceLinks",
        "automountServiceAccountToken",
    ):
        assert pods[0][key] == pods[1][key]
    for key in (
        "image",
        "securityContext",
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
        "resources",
        "volumeMounts",
    ):
        assert pods[0]["containers"][0][key] == pods[1]["containers"][0][key], key
    assert [sorted(one) for one in pods[0]["volumes"]] == [sorted(one) for one in pods[1]["volumes"]]
    assert by_resource(ours["Role"]["rules"]) == by_resource(charts["Role"]["rules"])


def test_without_optional_features_the_role_is_what_the_existing_harp_asks_for(cluster: Cluster, homes: None) -> None:
    none = {"rbac": {"features": {feature.name: False for feature in FEATURES if feature.optional}}}
    taken = applied(cluster, without_namespaces(rendered(SHORTEST | none)))
    assert by_resource(taken["Role"]["rules"]) == by_resource(list(NARROW))


def test_keda_takes_the_scaled_object_of_the_docs(cluster: Cluster, homes: None) -> None:
    cluster.define("ScaledObject")
    cluster.define("TriggerAuthentication")
    text = (ROOT / "docs/kubernetes-install.md").read_text()
    example = next(block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "ScaledObject" in block)
    taken = applied(cluster, example)
    assert taken["ScaledObject"]["spec"]["scaleTargetRef"] == {"name": "nc-app-llm2"}
    assert set(taken) == {"Secret", "TriggerAuthentication", "ScaledObject"}


def by_resource(rules: list[dict[str, list[str]]]) -> dict[str, set[str]]:
    return {f"{rule['apiGroups'][0]}/{rule['resources'][0]}": set(rule["verbs"]) for rule in rules}


def test_the_chart_says_which_kubernetes_it_needs_and_has_the_version_of_harp() -> None:
    text = (CHART / "Chart.yaml").read_text()
    assert f'appVersion: "{harp.__version__}"' in text
    assert f"appapi-harp:{harp.__version__}" in (MANIFESTS / "base/harp.yaml").read_text()
