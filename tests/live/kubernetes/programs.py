"""The cluster's programs, as `make kubernetes` builds them."""

from __future__ import annotations

import os
from pathlib import Path

from tests.live.peers import do_without

BUILT = Path(__file__).parents[3] / ".cache" / "kubernetes"
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kubectl")
NODE = ("kubelet", "kube-proxy")


def program(name: str) -> str:
    """The full path of a program; skips, or fails in CI, where it was not built."""
    path = BUILT / name
    if not os.access(path, os.X_OK):
        do_without(f"{name} not found: make kubernetes builds it")
    return str(path)


def require_programs(*names: str) -> None:
    """Skip, or fail in CI, unless all of them were built."""
    for name in names:
        program(name)
