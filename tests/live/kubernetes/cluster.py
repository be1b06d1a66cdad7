"""A Kubernetes of the tests' own: a real API server with its store and controllers, and KWOK, which pretends a node.

Pods land where their namespace says: on the pretended node, where KWOK calls them running at once and nothing is run;
or on the real node (tests.live.kubernetes.node), where they run.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.live.kubernetes.api import Api, until
from tests.live.kubernetes.enclosure import Enclosure, Inside, enclosure
from tests.live.kubernetes.programs import BUILT, CONTROL_PLANE, program, require_programs

PORT = 6443
ETCD = "http://127.0.0.1:2379"
PRETENDED, REAL = "pretended", "real"
KIND_OF_NODE = "harp-test/node"  # label
FOREIGN = {
    "ScaledObject": ("scaledobjects", "keda.sh", "v1alpha1"),
    "TriggerAuthentication": ("triggerauthentications", "keda.sh", "v1alpha1"),
    "ServiceMonitor": ("servicemonitors", "monitoring.coreos.com", "v1"),
}
START = 90.0  # seconds, on a machine that does other things too
# Who asked for what, service accounts other than the cluster's own only: tests look at what HaRP has asked.
AUDIT = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
- {level: None}
"""
ADMISSION = """\
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodNodeSelector
  configuration:
    podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: harp-test/node=real}
"""


@dataclass(frozen=True, slots=True)
class AskedCluster:
    """One request at the API server, from its audit log."""

    user: str
    verb: str
    resource: str  # such as `pods` or `pods/log`; a path where it is about no resource
    name: str
    status: int
    at: float  # seconds since 1970


class Cluster:
    """A running control plane. `api` may do everything."""

    def __init__(self, inside: Enclosure) -> None:
        self.inside, self.directory, self.network = inside, inside.directory, inside.network
        self.ca = self.directory / "ca.crt"
        self.url = f"https://{self.network.node}:{PORT}"
        self.kubeconfig = self.directory / "admin.conf"
        self._admin = secrets.token_hex(16)
        self._write_keys()
        self._write_configuration()
        self.api = Api(self.network.node, PORT, self.ca, self._admin)
        self.programs: dict[str, Inside] = {}
        self._starts: list[tuple[float, float]] = []  # of the API server: begun, ready

    # Life

    def start(self) -> None:
        """Start everything; the API answers and pods can be made when it returns."""
        self.programs["etcd"] = self.inside.start(
            "etcd",
            program("etcd"),
            *(f"--data-dir={self.directory}/etcd", "--unsafe-no-fsync", "--log-level=warn"),
            *(f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380",
        )
        self.start_api_server()
        controllers = program("kube-controller-manager")
        common = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1", "--v=1")
        self.programs["kube-controller-manager"] = self.inside.start(
            "kube-controller-manager",
            controllers,
            *common,
            f"--service-account-private-key-file={self.directory}/accounts.key",
            f"--root-ca-file={self.ca}",
            "--use-service-account-credentials=true",
            "--enable-hostpath-provisioner=true",
        )
        self.programs["kube-scheduler"] = self.inside.start("kube-scheduler", program("kube-scheduler"), *common)
        self._prepare()
        self._start_kwok()

    def start_api_server(self) -> None:
        """Start the API server, or start it again after `stop_api_server`."""
        begun = time.time()
        process = self.programs["kube-apiserver"] = self.inside.start(
            "kube-apiserver", program("kube-apiserver"), *self._api_server_flags()
        )
        process.until(self.api.answers, "ready API server", START, pause=0.1)
        self._starts.append((begun, time.time()))

    def stop_api_server(self) -> None:
        """Kill the API server: connections to it break, new ones are refused."""
        self.programs["kube-apiserver"].kill()
        until(lambda: not self.api.answers(), "end of the API server")

    # Work

    def kubectl(self, *arguments: str, content: str | None = None) -> str:
        """Run kubectl as the administrator. What it printed."""
        return self.inside.run(
            program("kubectl"),
            f"--kubeconfig={self.kubeconfig}",
            *arguments,
            content=None if content is None else content.encode(),
        )

    def pretend_node(self, name: str, **resources: str) -> None:
        """Make a node on which KWOK pretends to run pods; `resources` beside memory, CPU and pods."""
        has = {"cpu": "32", "memory": "256Gi", "pods": "200", "ephemeral-storage": "1Ti"}
        has |= {key.replace("__", "/").replace("_", "."): value for key, value in resources.items()}
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {KIND_OF_NODE: PRETENDED, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            },
            "status": {"allocatable": has, "capacity": has},
        }
        self.api.create(body)
        until(lambda: ready(self.api.get("Node", name)), f"node {name}", START)

    def define(self, kind: str) -> None:
        """Teach the cluster a kind that others add to Kubernetes, as they describe it: one of `FOREIGN`."""
        plural, group, version = FOREIGN[kind]
        place = f"/apis/{group}/{version}/{plural}"
        if self.api.call("GET", place).status == 404:
            self.kubectl("create", f"--filename={BUILT / f'{group}_{plural}.yaml'}")
        until(lambda: self.api.call("GET", place).status == 200, f"kind {kind}", START)

    def asked(self, user: str = "") -> list[AskedCluster]:
        """Return what service accounts have asked the API server; `user` is such as `<namespace>:<account>`.

        Refusals of an API server that is not ready do not count: it has not read all roles yet.
        """
        log = self.directory / "audit.log"
        lines = log.read_text().splitlines() if log.exists() else []
        entries = [_asked(json.loads(line)) for line in lines if line.endswith("}")]
        return [entry for entry in entries if entry.user.endswith(user) and not self._too_early(entry)]

    def _too_early(self, entry: AskedCluster) -> bool:
        return entry.status == 403 and any(begun <= entry.at <= ready for begun, ready in self._starts)

    # What it is made of

    def _api_server_flags(self) -> list[str]:
        return [
            f"--etcd-servers={ETCD}",
            *(f"--secure-port={PORT}", f"--bind-address={self.network.node}"),
            f"--advertise-address={self.network.node}",
            *(f"--tls-cert-file={self.directory}/server.pem", f"--tls-private-key-file={self.directory}/server.key"),
            f"--client-ca-file={self.ca}",
            f"--kubelet-client-certificate={self.directory}/kubelet-client.pem",
            f"--kubelet-client-key={self.directory}/kubelet-client.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.directory}/accounts.pub",
            f"--service-account-signing-key-file={self.directory}/accounts.key",
            f"--service-cluster-ip-range={self.network.services}",
            f"--token-auth-file={self.directory}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=PodNodeSelector",
            f"--admission-control-config-file={self.directory}/admission.yaml",
            *(f"--audit-policy-file={self.directory}/audit.yaml", f"--audit-log-path={self.directory}/audit.log"),
            *("--audit-log-mode=blocking", "--allow-privileged=true", "--v=1"),
            "--kubelet-preferred-address-types=InternalIP",  # no name server knows the node
        ]

    def _write_keys(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        first_service = f"10.{self.network.number}.128.1"
        server = authority.issue_cert(self.network.node, first_service, "127.0.0.1", *names)
        client = authority.issue_cert(
            "kube-apiserver", common_name="kube-apiserver", organization_name="system:masters"
        )
        for name, pair in (("server", server), ("kubelet-client", client)):
            (self.directory / f"{name}.pem").write_bytes(b"".join(part.bytes() for part in pair.cert_chain_pems))
            pair.private_key_pem.write_to_path(self.directory / f"{name}.key")
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.directory / "accounts.key").write_bytes(private)
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (self.directory / "accounts.pub").write_bytes(public)

    def _write_configuration(self) -> None:
        (self.directory / "tokens.csv").write_text(f"{self._admin},admin,admin,system:masters\n")
        (self.directory / "audit.yaml").write_text(AUDIT)
        (self.directory / "admission.yaml").write_text(ADMISSION)
        write_kubeconfig(self.kubeconfig, self.url, self.ca, self._admin)

    def _prepare(self) -> None:
        self.api.create(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": "host",
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": "kubernetes.io/host-path",
            }
        )
        until(lambda: self.api.exists("ServiceAccount", "default", "default"), "service account", START)

    def _start_kwok(self) -> None:
        self.programs["kwok"] = self.inside.start(
            "kwok",
            program("kwok"),
            *(f"--kubeconfig={self.kubeconfig}", f"--config={BUILT / 'stages.yaml'}"),
            *("--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"),
            *("--server-address=127.0.0.1:10247", f"--cidr={self.network.pretended_pods}"),
        )
        self.pretend_node("pretended", nvidia_com__gpu="4")


def write_kubeconfig(path: Path, url: str, ca: Path, token: str) -> None:
    """Write the configuration with which a program finds the cluster. JSON is YAML."""
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": "bearer", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "bearer"}}],
        "current-context": "tests",
    }
    path.write_text(json.dumps(content))
    path.chmod(0o600)


def ready(thing: Any) -> bool:
    """Has a node or a pod the condition Ready?"""
    conditions = thing.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _asked(event: Any) -> AskedCluster:
    about = event.get("objectRef") or {}
    resource = "/".join(about[key] for key in ("resource", "subresource") if key in about)
    status = event.get("responseStatus", {}).get("code", 0)
    at = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
    return AskedCluster(
        event["user"]["username"], event["verb"], resource or event["requestURI"], about.get("name", ""), status, at
    )


@contextmanager
def private_cluster(directory: Path) -> Iterator[Cluster]:
    """A cluster for the time of the block. Skips, or fails in CI, where none can run."""
    require_programs(*CONTROL_PLANE)
    with enclosure(directory) as inside:
        cluster = Cluster(inside)
        cluster.start()
        yield cluster
