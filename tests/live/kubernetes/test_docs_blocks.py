"""The blocks of docs/kubernetes-install.md that need only an API server; test_chart_installed runs the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.blocks import blocks
from tests.live.kubernetes.cluster import Cluster
from tests.live.kubernetes.programs import BUILT
from tests.live.shell import script

pytestmark = pytest.mark.timeout(180)  # the first test starts the cluster


def test_the_key_is_made_and_handed_to_nextcloud(cluster: Cluster, tmp_path: Path) -> None:
    """In a namespace of another name, because the chart's suite has that one."""
    (made,) = (block for block in blocks("docs/kubernetes-install.md") if block.text.startswith("kubectl create"))
    environment = {"KUBECONFIG": str(cluster.kubeconfig)}
    try:
        script(made.text.replace(" nextcloud", " nextcloud-docs"), tmp_path, BUILT, **environment)
        secret = cluster.api.get("Secret", "harp-key", "nextcloud-docs")
        assert len(secret["data"]["shared-key"]) >= 64
    finally:
        cluster.api.delete("Namespace", "nextcloud-docs")
