"""HP_K8S_*: the cluster, and what ExApps get there."""

from __future__ import annotations

import pytest

from harp.settings import Toleration
from tests.settings.reading import problem, reading, settings


def test_the_api_server_of_the_own_cluster_is_found() -> None:
    inside = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert settings(**inside).kubernetes.api_server == "https://10.96.0.1:443"
    own = settings(**inside, HP_K8S_API_SERVER="https://k8s.example.com:6443/")
    assert own.kubernetes.api_server == "https://k8s.example.com:6443"


def test_kubernetes_without_any_api_server_is_a_problem() -> None:
    assert problem(HP_K8S_ENABLED="true").startswith("HP_K8S_API_SERVER: ")


def test_a_bearer_token_is_a_secret() -> None:
    result = reading(HP_K8S_BEARER_TOKEN="eyJhbGciOi")
    assert result.settings.kubernetes.token == "eyJhbGciOi"
    assert "eyJhbGciOi" not in repr(result)


def test_host_aliases_are_grouped_by_address() -> None:
    aliases = "cloud.example.com:10.0.0.5, office.example.com:10.0.0.5,v6.example.com:fd00::5"
    assert settings(HP_K8S_HOST_ALIASES=aliases).kubernetes.pods.host_aliases == (
        ("10.0.0.5", ("cloud.example.com", "office.example.com")),
        ("fd00::5", ("v6.example.com",)),
    )
    assert "name:ip" in problem(HP_K8S_HOST_ALIASES="cloud.example.com")


def test_what_pods_get_is_off_until_it_is_wanted() -> None:
    pods = settings().kubernetes.pods
    assert (pods.labels, pods.node_selector, pods.tolerations, pods.pull_secrets) == ((), (), (), ())
    assert (pods.security, pods.run_as, pods.ca_config_map, pods.access_mode) == ("none", None, None, "ReadWriteOnce")
    assert pods.probes


def test_pairs_are_keys_and_values() -> None:
    pods = settings(
        HP_K8S_LABELS="example.com/team=apps, tier=exapps",
        HP_K8S_ANNOTATIONS="linkerd.io/inject=enabled",
        HP_K8S_SERVICE_ANNOTATIONS="service.beta.kubernetes.io/aws-load-balancer-type=nlb",
        HP_K8S_NODE_SELECTOR="pool=gpu",
    ).kubernetes.pods
    assert pods.labels == (("example.com/team", "apps"), ("tier", "exapps"))
    assert pods.annotations == (("linkerd.io/inject", "enabled"),)
    assert pods.service_annotations == (("service.beta.kubernetes.io/aws-load-balancer-type", "nlb"),)
    assert pods.node_selector == (("pool", "gpu"),)


def test_tolerations_are_taints_as_kubectl_writes_them() -> None:
    pods = settings(HP_K8S_TOLERATIONS="nvidia.com/gpu:NoSchedule,pool=ai:NoExecute,any").kubernetes.pods
    assert pods.tolerations == (
        Toleration("nvidia.com/gpu", None, "NoSchedule"),
        Toleration("pool", "ai", "NoExecute"),
        Toleration("any", None, ""),
    )


def test_other_values_of_pods() -> None:
    pods = settings(
        HP_K8S_PULL_SECRETS="one,two",
        HP_K8S_RUN_AS="33",
        HP_K8S_SECURITY_CONTEXT="restricted",
        HP_K8S_CA_CONFIGMAP="company-cas/all.pem",
        HP_K8S_GPU_RESOURCE="nvidia.com/gpu.shared",
        HP_K8S_ACCESS_MODE="readwritemany",
        HP_K8S_RUNTIME_CLASS="gvisor",
        HP_K8S_SERVICE_ACCOUNT="exapps",
    ).kubernetes.pods
    assert (pods.pull_secrets, pods.run_as, pods.security) == (("one", "two"), (33, 33), "restricted")
    assert (pods.ca_config_map, pods.access_mode) == (("company-cas", "all.pem"), "ReadWriteMany")
    assert (pods.gpu_resource, pods.runtime_class, pods.service_account) == (
        "nvidia.com/gpu.shared",
        "gvisor",
        "exapps",
    )


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HP_K8S_NAMESPACE", "Next Cloud"),
        ("HP_K8S_LABELS", "team"),
        ("HP_K8S_LABELS", "team=a b"),
        ("HP_K8S_NODE_SELECTOR", "=x"),
        ("HP_K8S_TOLERATIONS", "gpu:Sometimes"),
        ("HP_K8S_RUN_AS", "www-data"),
        ("HP_K8S_SECURITY_CONTEXT", "strict"),
        ("HP_K8S_CA_CONFIGMAP", "a/b c"),
        ("HP_K8S_GPU_RESOURCE", "gpu"),
        ("HP_K8S_DEFAULT_STORAGE_SIZE", "10 GB"),
        ("HP_K8S_ACCESS_MODE", "rw"),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_here(variable: str, text: str) -> None:
    assert problem(**{variable: text}).startswith(f"{variable}: ")


def test_19_addresses_of_ipv6_are_understood() -> None:
    own = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert settings(**own).kubernetes.api_server == "https://[fd00::1]:6443"
    aliases = settings(HP_K8S_HOST_ALIASES="cloud.example.com:fd00::5").kubernetes.pods.host_aliases
    assert aliases == (("fd00::5", ("cloud.example.com",)),)


@pytest.mark.parametrize("text", ["false", "False", "FALSE"])
def test_the_clusters_certificate_is_trusted_unless_that_is_switched_off(text: str) -> None:
    assert not settings(HP_K8S_VERIFY_SSL=text).kubernetes.verify
    assert settings(HP_K8S_VERIFY_SSL="no").kubernetes.verify
