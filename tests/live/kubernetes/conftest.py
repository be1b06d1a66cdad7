"""Fixtures of the suites on a real Kubernetes: the cluster once per run, a namespace once per module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.kubernetes.cluster import PRETENDED, REAL, Cluster, private_cluster
from tests.live.kubernetes.node import Node, start_node
from tests.live.kubernetes.room import Room, room


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Layer 1: a control plane, and a node that KWOK pretends, with four GPUs."""
    with private_cluster(tmp_path_factory.mktemp("kubernetes")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def pretended(cluster: Cluster) -> Iterator[Room]:
    """A namespace whose pods KWOK pretends to run: ready at once, and nothing listens."""
    with room(cluster, PRETENDED) as made:
        yield made


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Node:
    """Layer 2: a real node of the cluster."""
    return start_node(cluster)


@pytest.fixture(scope="module")
def real(cluster: Cluster, node: Node) -> Iterator[Room]:
    """A namespace whose pods run on the real node."""
    with room(cluster, REAL) as made:
        yield made
