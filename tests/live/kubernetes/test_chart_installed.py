"""The chart, installed with the one command of the docs on a real node, with our own image."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.redis_server import RedisServer
from tests.live.appapi import App, AppApi
from tests.live.daemon import Nextcloud
from tests.live.engine import EngineAnswer
from tests.live.images import harp_archive
from tests.live.kubernetes.api import until
from tests.live.kubernetes.archives import EXAPP, HARP
from tests.live.kubernetes.cluster import Cluster
from tests.live.kubernetes.node import NAME as NODE
from tests.live.kubernetes.node import Node
from tests.live.kubernetes.programs import program
from tests.live.kubernetes.room import RESTRICTED, namespaces
from tests.live.kubernetes.test_chart_replicas import block
from tests.live.processes import free_port
from tests.live.product import KEY
from tests.live.shell import script

pytestmark = pytest.mark.timeout(600)  # the first test makes the image

ROOT = Path(__file__).parents[3]
RELEASE, NAMESPACE = "harp", "nextcloud"


@dataclass(frozen=True, slots=True)
class Installed:
    """A release of the chart."""

    cluster: Cluster
    nextcloud: Nextcloud

    def helm(self, *arguments: str) -> tuple[int, str]:
        """Run helm in the release's namespace: status, and all that it printed."""
        command = [program("helm"), *arguments, f"--namespace={NAMESPACE}", f"--kubeconfig={self.cluster.kubeconfig}"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=400, cwd=ROOT
        )
        return done.returncode, done.stdout

    @property
    def address(self) -> tuple[str, int]:
        """Where HaRP's Service is."""
        spec = self.cluster.api.get("Service", RELEASE, NAMESPACE)["spec"]
        return spec["clusterIP"], spec["ports"][0]["port"]

    def info(self) -> Any:
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request("GET", "/exapps/app_api/info", headers={"harp-shared-key": KEY})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def pods(self) -> list[Any]:
        """Those that are not being deleted."""
        pods = self.cluster.api.list("Pod", NAMESPACE, f"app.kubernetes.io/instance={RELEASE}")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def pod(self) -> Any:
        """The one there is, or any of them."""
        return self.pods()[0]


def command_of_the_docs(nextcloud: str) -> list[str]:
    """The command of docs/kubernetes-install.md, with the reader's own values filled in."""
    text = (ROOT / "docs/kubernetes-install.md").read_text()
    found = re.search(r"^helm install (?:.*\\\n)*.*$", text, re.MULTILINE)
    assert found is not None
    words = found.group().replace("\\\n", " ").split()
    own = {"nextcloud.url=https://cloud.example.com": f"nextcloud.url={nextcloud}"}
    return [own.get(word, word) for word in words[1:]]


@pytest.fixture(scope="module")
def installed(cluster: Cluster, node: Node) -> Iterator[Installed]:
    node.load(harp_archive())
    # Pods go to the real node, in HaRP's namespace as in that of the ExApps, which the chart makes.
    with namespaces(cluster, nextcloud=RESTRICTED), Nextcloud(cluster.network.outside) as nextcloud:
        release = Installed(cluster, nextcloud)
        key = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "harp-key"},
            "stringData": {"shared-key": KEY},
        }
        cluster.api.create(key, NAMESPACE)
        image, _, tag = HARP.rpartition(":")
        ours = [f"--set=image.repository={image}", f"--set-string=image.tag={tag}", "--set=image.pullPolicy=Never"]
        status, text = release.helm(*command_of_the_docs(nextcloud.url), *ours, "--wait", "--timeout=240s")
        try:
            assert status == 0, text + logs(release)
            yield release
        finally:
            release.helm("uninstall", RELEASE, "--wait")
            assert cluster.api.exists("Namespace", "nextcloud-exapps")  # the data of ExApps is in it
            cluster.api.delete("Namespace", "nextcloud-exapps")


def logs(release: Installed) -> str:
    """What the cluster and HaRP say, for a failed test."""
    chosen = ("-n", NAMESPACE, f"--selector=app.kubernetes.io/instance={RELEASE}")
    return release.cluster.kubectl("describe", "pods", *chosen) + release.cluster.kubectl("logs", *chosen)


def test_it_is_ready_and_answers_at_its_service(installed: Installed) -> None:
    info = installed.info()
    assert info["kubernetes"]["enabled"] is True
    deployment = installed.cluster.api.get("Deployment", RELEASE, NAMESPACE)
    assert deployment["status"]["readyReplicas"] == 1


def test_helm_test_passes(installed: Installed) -> None:
    status, text = installed.helm("test", RELEASE, "--logs", "--timeout=240s")
    assert status == 0, text
    assert '"kubernetes"' in text


def test_appapi_deploys_an_exapp_through_it(installed: Installed) -> None:
    app = App("in_cluster", EXAPP, port=23000, direct=True, host="in_cluster")
    installed.nextcloud.apps[app.app_id] = app
    appapi = AppApi(*installed.address, frp=("", 0))

    def ask(verb: str, **more: object) -> EngineAnswer:
        body = {"name": app.app_id, "instance_id": "", **more}
        headers = {"harp-shared-key": KEY}
        return appapi.call("POST", f"/exapps/app_api/k8s/exapp/{verb}", body, headers, 120)

    assert ask("exists").ok(200).json() == {"exists": False}
    created = {"image_id": EXAPP, "environment_variables": appapi.environment(app), "image_pull_policy": "Never"}
    ask("create", **created).ok(201)
    ask("start").ok(204)
    assert ask("wait_for_start").ok(200).json()["started"] is True
    ask("expose", port=app.port, expose_type="clusterip").ok(200)
    appapi.heartbeat(app)
    assert appapi.call("GET", f"/exapps/{app.app_id}/public").ok(200).json()["path"] == "/public"
    pods = installed.cluster.api.list("Pod", "nextcloud-exapps", "app=nc-app-in-cluster")
    assert [pod["spec"]["nodeName"] for pod in pods] == [NODE]
    ask("remove", remove_data=True).ok(204)
    assert ask("exists").ok(200).json() == {"exists": False}


def test_its_pod_is_a_plain_user_that_can_write_nothing_of_the_image(installed: Installed) -> None:
    pod = installed.pod()["metadata"]["name"]
    script = "import os; print(os.getuid()); open('/opt/harp/x', 'w')"
    with pytest.raises(AssertionError, match="Read-only file system"):
        installed.cluster.kubectl("-n", NAMESPACE, "exec", pod, "--", "python3", "-c", script)
    assert installed.cluster.kubectl("-n", NAMESPACE, "exec", pod, "--", "id", "-u").strip() == "65532"


@contextmanager
def requests_without_end(release: Installed) -> Iterator[list[int]]:
    """Ask HaRP again and again while the block runs: the status of each answer, 0 for none."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                release.info()
                statuses.append(200)
            except (OSError, http.client.HTTPException, ValueError):
                statuses.append(0)
            over.wait(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield statuses
    finally:
        over.set()
        asking.join()


def test_an_upgrade_changes_what_it_should_and_no_request_fails(installed: Installed) -> None:
    before = installed.pod()["metadata"]["name"]
    upgrade = (
        "upgrade",
        RELEASE,
        "deploy/helm/harp",
        "--reset-then-reuse-values",
        "--set=logs.level=info,tunnels.enabled=true",
    )
    with requests_without_end(installed) as statuses:
        status, text = installed.helm(*upgrade, "--wait", "--timeout=240s")
        assert status == 0, text
        until(lambda: not installed.cluster.api.exists("Pod", before, NAMESPACE), "end of the old pod", 180)
    assert set(statuses) == {200}
    assert installed.pod()["metadata"]["name"] != before
    environment = {one["name"]: one.get("value") for one in installed.pod()["spec"]["containers"][0]["env"]}
    assert environment["HP_LOG_LEVEL"] == "info"
    tunnels = installed.cluster.api.get("Service", f"{RELEASE}-tunnels", NAMESPACE)["spec"]
    certificate = ssl.get_server_certificate((tunnels["clusterIP"], tunnels["ports"][0]["port"]), timeout=10)
    assert certificate.startswith("-----BEGIN CERTIFICATE-----")
    assert installed.info()["kubernetes"]["enabled"] is True


def volume(path: Path) -> dict[str, Any]:
    """A directory of the node that belongs to root, as a volume whose files the cluster gives to a pod's group."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    spec = {
        "capacity": {"storage": "64Mi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "of-the-node",
        "local": {"path": str(path)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "harp-certs"}, "spec": spec}


def test_with_persistence_a_new_pod_has_authority_and_engine_keys_of_the_one_before(
    installed: Installed, tmp_path: Path
) -> None:
    cluster = installed.cluster
    cluster.api.create(volume(tmp_path))
    persistent = "--set=persistence.enabled=true,persistence.storageClass=of-the-node"
    upgrade = ("upgrade", RELEASE, "deploy/helm/harp", "--reset-then-reuse-values", persistent)
    status, text = installed.helm(*upgrade, "--wait", "--timeout=240s")
    assert status == 0, text + logs(installed)

    def inside(*command: str) -> str:
        return cluster.kubectl("-n", NAMESPACE, "exec", installed.pod()["metadata"]["name"], "--", *command)

    def kept() -> list[str]:
        return [
            inside("cat", f"/certs/frp/{name}") for name in ("ca.crt", "server.crt", "engines.json", "engine-keys.json")
        ]

    inside("harp", "engine", "add", "gpu1", "--address=harp.example.com", "--paste")
    before, known = installed.pod()["metadata"]["name"], kept()
    assert "gpu1" in known[-1]
    cluster.api.delete("Pod", before, NAMESPACE)
    until(lambda: not cluster.api.exists("Pod", before, NAMESPACE), "end of the old pod", 120)
    until(lambda: cluster.api.get("Deployment", RELEASE, NAMESPACE)["status"].get("readyReplicas") == 1, "new pod", 120)
    assert kept() == known
    assert installed.info()["kubernetes"]["enabled"] is True
    status, text = installed.helm(*upgrade[:-1], "--set=persistence.enabled=false", "--wait", "--timeout=240s")
    assert status == 0, text
    assert cluster.api.exists("PersistentVolumeClaim", RELEASE, NAMESPACE)  # it outlives being switched off
    cluster.api.delete("PersistentVolumeClaim", RELEASE, NAMESPACE)
    cluster.api.delete("PersistentVolume", "harp-certs")


@pytest.fixture
def store(installed: Installed, tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis that pods reach."""
    outside = installed.cluster.network.outside
    redis = RedisServer(tmp_path, "--bind", outside, "--protected-mode", "no", port=(port := free_port()))
    yield f"redis://{outside}:{port}"
    redis.end()


def test_three_replicas_are_one_harp_with_one_authority(installed: Installed, store: str, tmp_path: Path) -> None:
    cluster = installed.cluster
    script(block("openssl req"), tmp_path)
    files = {name: (tmp_path / name).read_text() for name in ("ca.crt", "ca.key")}
    for name, content in (("harp-authority", files), ("harp-cluster", {"url": store})):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content}
        cluster.api.create(secret, NAMESPACE)
    (tmp_path / "values.yaml").write_text(block("replicas: 3"))
    upgrade = ("upgrade", RELEASE, "deploy/helm/harp", "--reset-then-reuse-values")
    status, text = installed.helm(*upgrade, f"--values={tmp_path}/values.yaml", "--wait", "--timeout=300s")
    assert status == 0, text + logs(installed)
    pods = [pod["metadata"]["name"] for pod in installed.pods()]
    assert len(pods) == 3

    def inside(pod: str, *command: str) -> str:
        return cluster.kubectl("-n", NAMESPACE, "exec", pod, "--", *command)

    def linked(pod: str) -> list[str]:
        members = json.loads(inside(pod, "harp", "members", "--json"))["members"]
        return sorted(one["name"] for one in members if one["linked"])

    until(lambda: all(linked(pod) == sorted(pods) for pod in pods), "links", 60)
    for pod in pods:
        assert inside(pod, "cat", "/certs/frp/ca.crt") == files["ca.crt"]
    listed = cluster.kubectl("-n", NAMESPACE, "get", "endpoints", f"{RELEASE}-replicas", "--output=json")
    addresses = json.loads(listed)["subsets"][0]["addresses"]
    assert sorted(one["targetRef"]["name"] for one in addresses) == sorted(pods)
    alone = "--set=replicas=1,cluster.existingSecret=,certificates.existingSecret="
    status, text = installed.helm(*upgrade, alone, "--wait", "--timeout=300s")
    assert status == 0, text
    until(lambda: len(installed.pods()) == 1, "one pod", 120)


def test_killing_its_process_makes_the_node_start_it_again(installed: Installed) -> None:
    pod = installed.pod()["metadata"]["name"]
    installed.cluster.kubectl("-n", NAMESPACE, "exec", pod, "--", "python3", "-c", "import os; os.kill(1, 15)")

    def restarted() -> bool:
        status = installed.pod()["status"]["containerStatuses"][0]
        return bool(status["restartCount"] and status["ready"])

    until(restarted, "restart", 180)
