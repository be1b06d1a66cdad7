"""The chart with several replicas: how their pods differ, find each other, and replace each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from harp.net import certificates
from harp.net.tls_selfcheck import selfcheck
from harp.policy.ports import SERVER_NAME
from tests.live.kubernetes.programs import program
from tests.live.kubernetes.test_chart import ROOT, SEVERAL, SHORTEST, rendered, run


def objects(values: dict[str, Any]) -> dict[str, Any]:
    """What the chart makes of values, by kind and the end of its name."""
    found = [one for one in yaml.safe_load_all(rendered(values)) if one]
    return {f"{one['kind']} {one['metadata']['name'].removeprefix('harp')}".strip(): one for one in found}


def pod_of(values: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = objects(values)["Deployment"]["spec"]["template"]["spec"]
    return pod


def variables(values: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(values)["containers"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def test_each_of_several_pods_has_its_own_name_and_address_in_the_cluster() -> None:
    found = variables(SEVERAL)
    assert found["HP_CLUSTER_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert found["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert found["HP_CLUSTER_ADDRESS"] == "$(POD_IP):8782"
    assert list(found).index("POD_IP") < list(found).index("HP_CLUSTER_ADDRESS"), "it is used there"
    assert variables(SEVERAL | {"listenAddress": "[::]"})["HP_CLUSTER_ADDRESS"] == "[$(POD_IP)]:8782"
    assert not [name for name in variables(SHORTEST) if name.startswith("HP_CLUSTER")]


def test_a_url_with_a_password_is_in_no_variable() -> None:
    assert variables(SEVERAL)["HP_CLUSTER_URL_FILE"] == "/run/secrets/cluster/url"
    assert "HP_CLUSTER_URL" not in variables(SEVERAL)
    assert variables(SEVERAL | {"cluster": {"url": "redis://valkey:6379"}})["HP_CLUSTER_URL"] == "redis://valkey:6379"


def test_several_pods_are_replaced_one_after_the_other_and_spread_over_nodes() -> None:
    made = objects(SEVERAL)
    spec = made["Deployment"]["spec"]
    assert (spec["replicas"], spec["minReadySeconds"]) == (3, 5)
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    terms = pod_of(SEVERAL)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    keys = [term["podAffinityTerm"]["topologyKey"] for term in terms]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert made["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    assert "affinity" not in pod_of(SHORTEST)


def test_a_volume_of_one_pod_is_given_back_before_the_next_one_starts_and_a_shared_one_is_not() -> None:
    one, shared = ({"enabled": True, "accessMode": mode} for mode in ("ReadWriteOnce", "ReadWriteMany"))
    strategies = [
        objects(SHORTEST | {"persistence": case})["Deployment"]["spec"]["strategy"]["type"] for case in (one, shared)
    ]
    assert strategies == ["Recreate", "RollingUpdate"]


def test_a_pod_has_the_time_to_drain_before_it_is_killed() -> None:
    graces = {
        drain: pod_of(SHORTEST | {"drainSeconds": drain})["terminationGracePeriodSeconds"] for drain in (0, 8, 300)
    }
    assert graces == {0: 30, 8: 30, 300: 313}
    assert variables(SHORTEST | {"drainSeconds": 300})["HP_TIMEOUT_DRAIN"] == "300s"


def test_the_name_of_the_headless_service_has_the_address_of_each_pod() -> None:
    service = objects(SEVERAL)["Service -replicas"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["ports"] == [{"name": "tunnels", "port": 8782, "targetPort": "tunnels"}]


def test_pods_reach_each_others_links_where_nobody_else_reaches_tunnels() -> None:
    values = SEVERAL | {"tunnels": {"enabled": False}}
    rules = objects(values)["NetworkPolicy"]["spec"]["ingress"]
    (links,) = [rule for rule in rules if rule["ports"] == [{"port": "tunnels"}]]
    labels = objects(values)["Deployment"]["spec"]["selector"]["matchLabels"]
    assert links["from"] == [{"podSelector": {"matchLabels": labels}}]


# The replicas of docs/kubernetes-install.md


def block(words: str) -> str:
    """The code block of the page with these words."""
    text = (ROOT / "docs/kubernetes-install.md").read_text()
    (found,) = [one for one in re.findall(r"```\w+\n(.*?)```", text, re.DOTALL) if words in one]
    return str(found)


def test_the_authority_of_the_docs_is_one_for_harp(tmp_path: Path) -> None:
    subprocess.run(["sh", "-c", block("openssl req")], cwd=tmp_path, check=True, capture_output=True)
    authority = (tmp_path / "ca.crt").read_bytes()
    for name in ("one", "two"):  # two pods with files of their own
        (tmp_path / name).mkdir()
        for file in ("ca.crt", "ca.key"):
            shutil.copy(tmp_path / file, tmp_path / name)
        certificates.ensure(tmp_path / name, 5000, datetime.now(UTC))
        assert (tmp_path / name / "ca.crt").read_bytes() == authority
    selfcheck(certificates.server_context(tmp_path / "one"), tmp_path / "one", SERVER_NAME)
    for file in ("client.crt", "client.key"):  # a client of one of them is a client of the other
        shutil.copy(tmp_path / "one" / file, tmp_path / "two")
    selfcheck(certificates.server_context(tmp_path / "two"), tmp_path / "two", SERVER_NAME)


def test_the_secrets_of_the_docs_are_those_that_the_chart_wants(tmp_path: Path) -> None:
    for file in ("ca.crt", "ca.key"):
        (tmp_path / file).write_text("x")
    made = {}
    for line in block("secret generic harp-authority").splitlines():
        command = line.replace("kubectl", program("kubectl"), 1) + " --dry-run=client --output=json"
        status, text, error = run("sh", "-c", f"cd {tmp_path} && {command}")
        assert status == 0, error
        secret = json.loads(text)
        made[secret["metadata"]["name"]] = sorted(secret["data"])
    assert made == {"harp-authority": ["ca.crt", "ca.key"], "harp-cluster": ["url"]}
    values = SHORTEST | yaml.safe_load(block("replicas: 3"))
    wanted = {one["secret"]["secretName"] for one in pod_of(values)["volumes"] if "secret" in one}
    assert set(made) <= wanted


def test_the_values_of_the_docs_are_those_that_are_checked_against_the_api() -> None:
    assert yaml.safe_load(block("replicas: 3")) == {key: SEVERAL[key] for key in SEVERAL if key not in SHORTEST}
