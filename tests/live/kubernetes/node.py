"""A real node for the tests' cluster: containerd, kubelet and kube-proxy, with images made on the spot."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.live.kubernetes.archives import PAUSE, exapp_archive, pause_archive
from tests.live.kubernetes.cluster import KIND_OF_NODE, REAL, START, Cluster, ready
from tests.live.kubernetes.programs import NODE, program, require_programs
from tests.live.peers import require

NAME = "node-1"
PLUGINS = Path("/usr/lib/cni")  # where Debian puts them
CGROUPS = Path("/sys/fs/cgroup")
PACKAGES = "containerd runc containernetworking-plugins nftables conntrack"
CONTAINERD = """\
version = 2
root = "{directory}/containerd"
state = "{directory}/containerd-state"
oom_score = 0
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  disable_apparmor = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


class Node:
    """The real node, named `node-1`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.inside, self.directory = cluster, cluster.inside, cluster.directory
        self._socket = self.directory / "containerd.sock"

    def start(self) -> None:
        """Start it; pods can be run on it when this returns."""
        self._write_configuration()
        containerd = self.inside.start("containerd", "containerd", f"--config={self.directory}/containerd.toml")
        containerd.until(self._socket.exists, "containerd", START)
        self.load(pause_archive())
        self.load(exapp_archive())
        network = self.cluster.network
        self.inside.start(
            "kube-proxy",
            program("kube-proxy"),
            *(
                f"--kubeconfig={self.cluster.kubeconfig}",
                f"--hostname-override={NAME}",
                f"--bind-address={network.node}",
            ),
            *("--proxy-mode=nftables", f"--cluster-cidr={network.pods}", "--conntrack-max-per-core=0", "--v=1"),
        )
        kubelet = self.inside.start(
            "kubelet",
            program("kubelet"),
            *(f"--kubeconfig={self.cluster.kubeconfig}", f"--config={self.directory}/kubelet.json"),
            *(f"--root-dir={self.directory}/kubelet", f"--cert-dir={self.directory}/kubelet-pki"),
            *(f"--hostname-override={NAME}", f"--node-ip={network.node}", f"--node-labels={KIND_OF_NODE}={REAL}"),
            "--v=1",
        )
        kubelet.until(self._is_ready, "ready node", START, pause=0.1)

    def load(self, image: Path) -> None:
        """Give the node an image, out of an archive as `docker save` writes it."""
        self.inside.run(
            *("ctr", f"--address={self._socket}", "--namespace=k8s.io", "images", "import", str(image)), timeout=300
        )

    def has_image(self, reference: str) -> bool:
        """Is there such an image on the node?"""
        names = self.inside.run("ctr", f"--address={self._socket}", "--namespace=k8s.io", "images", "list", "-q")
        return reference in names.split()

    def remove_cgroups(self) -> None:
        """Remove the control groups of the node's containers, which outlive them."""
        names = [
            path.name for path in (self.directory / "containerd-state").glob("io.containerd.runtime.v2.task/k8s.io/*")
        ]
        for parent in (*CGROUPS.glob("k8s.io"), *CGROUPS.glob("*/k8s.io")):
            for path in (*(parent / name for name in names), parent):
                with suppress(OSError):  # another cluster of tests has something in it
                    path.rmdir()

    def _is_ready(self) -> bool:
        nodes = {node["metadata"]["name"]: node for node in self.cluster.api.list("Node")}
        return NAME in nodes and ready(nodes[NAME])

    def _write_configuration(self) -> None:
        toml = CONTAINERD.format(
            directory=self.directory, pause=PAUSE, plugins=PLUGINS, snapshotter=_snapshotter(self.directory)
        )
        (self.directory / "containerd.toml").write_text(toml)
        (self.directory / "kubelet.json").write_text(json.dumps(self._kubelet()))
        (self.directory / "cni").mkdir()
        (self.directory / "cni/10-pods.conflist").write_text(json.dumps(self._cni()))

    def _cni(self) -> dict[str, Any]:
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": self.cluster.network.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": f"{self.directory}/ipam",
        }
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True, "ipam": ipam}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.cluster.network.node,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.cluster.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "failCgroupV1": False,
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,
            "nodeStatusUpdateFrequency": "5s",
            "oomScoreAdj": 0,
            "resolvConf": "",
            "syncFrequency": "10s",
            "volumePluginDir": f"{self.directory}/volume-plugins",
        }


def lacking() -> str:
    """What the kernel of this machine lacks for a node, in words; empty when it lacks nothing.

    Nothing that could be installed: without these no preparation helps, and the suites of the real node are left out.
    """
    filesystems = Path("/proc/filesystems").read_text().split()
    if "cgroup" not in filesystems and "cgroup2" not in filesystems:
        return "no control groups"
    hierarchies = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else list(CGROUPS.glob("*/"))
    missing = {"cpu", "memory", "pids"} - _controllers(hierarchies)
    if missing:
        return f"no control groups for {', '.join(sorted(missing))}"
    for hierarchy in hierarchies:
        if (hierarchy / "cgroup.procs").exists() and not os.access(hierarchy / "cgroup.procs", os.W_OK):
            return f"{hierarchy} cannot be written"
    probe = ["unshare", "--net", "sh", "-c", "ip link add probe0 type bridge && nft add table ip probe"]
    done = subprocess.run(probe, check=False, capture_output=True, text=True)
    return f"no bridges or no nftables: {done.stderr.strip()}" if done.returncode else ""


def _controllers(hierarchies: list[Path]) -> set[str]:
    unified = CGROUPS / "cgroup.controllers"
    return set(unified.read_text().split()) if unified.exists() else {path.name for path in hierarchies}


def _snapshotter(directory: Path) -> str:
    """overlayfs, or plain copies where the directory is itself on an overlay."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        lower, upper, work, merged = (Path(place) / name for name in ("lower", "upper", "work", "merged"))
        for path in (lower, upper, work, merged):
            path.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mount = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
        return "native" if subprocess.run(mount, check=False, capture_output=True).returncode else "overlayfs"


def start_node(cluster: Cluster) -> Node:
    """Start the cluster's real node; it ends with the cluster. Skips, or fails in CI, where a part is missing."""
    require_programs(*NODE)
    require(PACKAGES, "containerd", "ctr", "runc", "nft", "conntrack", str(PLUGINS / "bridge"))
    if missing := lacking():
        pytest.skip(f"THE KERNEL LACKS what a node needs: {missing}")
    node = Node(cluster)
    cluster.inside.afterwards.append(node.remove_cgroups)
    node.start()
    return node
